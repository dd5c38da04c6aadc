"""LangChain's standard tests of chat models, run over a ChatLALM: with audio, streaming, usage and model override on.

What is off is what its profile says that it cannot do.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Literal, cast

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests, chat_models
from langchain_tests.unit_tests import ChatModelUnitTests

from echo_agent.audio.recording import Recording, wav_bytes
from echo_agent.chat import ChatLALM
from echo_agent.engine import TorchEngine
from echo_agent.messages import audio_block
from echo_agent.stores import RecordingStore
from tests.scripted import ASK_ONCE, scripted_family
from tests.tiny import sounds

Details = Literal[
    "audio_input", "audio_output", "reasoning_output", "cache_read_input", "cache_creation_input"
]


class Ours:
    """What both suites are told about the model."""

    engine: TorchEngine

    @property
    def chat_model_class(self) -> type[ChatLALM]:
        return ChatLALM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"engine": self.engine}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": 100, "stop": []}  # it has no server to wait for, and no key

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def supports_audio_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return self.engine.family.name

    @property
    def supported_usage_metadata_details(self) -> dict[Literal["invoke", "stream"], list[Details]]:
        return {way: ["audio_input", "cache_read_input"] for way in ("invoke", "stream")}


@pytest.fixture(autouse=True, scope="module")
def engine() -> Iterator[None]:
    with TorchEngine(scripted_family(ASK_ONCE), RecordingStore()) as engine:
        Ours.engine = engine
        yield


class TestUnit(Ours, ChatModelUnitTests):
    def test_what_is_off_is_what_the_profile_says(self, model: Any) -> None:
        profile = model.profile
        assert profile["tool_calling"] == self.has_tool_calling
        assert profile["structured_output"] == self.has_structured_output
        assert profile["audio_inputs"] == self.supports_audio_inputs
        assert profile["image_inputs"] == self.supports_image_inputs


class TestIntegration(Ours, ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _sound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The suite's own recording is downloaded; this one is made here."""
        data = base64.b64encode(wav_bytes(sounds(4.0), 16000)).decode()
        monkeypatch.setattr(chat_models, "_get_base64_from_url", lambda url: data)

    def _heard(self, seed: int, *, stream: bool) -> AIMessage:
        ref = self.engine.recordings.add(Recording.from_array(sounds(4.0, seed=seed), 16000))
        question = [HumanMessage([audio_block(ref), {"type": "text", "text": "What barks?"}])]
        model = ChatLALM(self.engine)
        if not stream:
            return model.invoke(question)
        chunks = list(model.stream(question))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return cast("AIMessage", whole)

    def invoke_with_audio_input(self, *, stream: bool = False) -> AIMessage:
        message = self._heard(seed=1 + stream, stream=stream)
        assert message.usage_metadata is not None
        assert message.usage_metadata.get("input_token_details", {}).get("audio", 0) > 0
        return message

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        self._heard(seed=3, stream=stream)
        message = self._heard(seed=3, stream=stream)
        assert message.usage_metadata is not None
        assert message.usage_metadata.get("input_token_details", {}).get("cache_read", 0) > 0
        return message
