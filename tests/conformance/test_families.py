"""Every family of the package passes the conformance tests on a tiny random model of its architecture."""

from __future__ import annotations

from echo_agent.conformance import FamilyTests
from echo_agent.families.architectures import FAMILIES, LAT_AUDIO
from echo_agent.families.base import Family
from tests.tiny import ALL_KINDS, tiny_family


class Tiny(FamilyTests):
    """A tiny model of one kind."""

    kind: str

    @classmethod
    def make(cls) -> Family:
        return tiny_family(cls.kind)


class TestEchoNano(Tiny):
    kind = "echo-nano"


class TestEchoSmall(Tiny):
    kind = "echo-small"


class TestQwen2Audio(Tiny):
    kind = "qwen2-audio"


class TestQwen25Omni(Tiny):
    kind = "qwen2.5-omni"


class TestQwen3Omni(Tiny):
    kind = "qwen3-omni"


class TestLatAudio(Tiny):
    kind = "lat-audio"


class TestAudioFlamingo3(Tiny):
    kind = "audio-flamingo-3"


class TestMusicFlamingo(Tiny):
    kind = "music-flamingo"


class TestGraniteSpeech(Tiny):
    kind = "granite-speech"


class TestPhi4Multimodal(Tiny):
    kind = "phi4-multimodal"


class TestVoxtral(Tiny):
    kind = "voxtral"


class TestGemma4(Tiny):
    kind = "gemma4"


class TestGemma4Unified(Tiny):
    kind = "gemma4-unified"


def test_all_families_are_tested() -> None:
    tested = {each.kind for each in Tiny.__subclasses__()}
    assert tested == set(ALL_KINDS) == {*FAMILIES.values(), LAT_AUDIO}
