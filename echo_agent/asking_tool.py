"""Listening as a tool: question and name of a recording in, answer with the spans that were heard out.

For agents that cannot hear. The model that calls it names files of one folder and no others
(:mod:`echo_agent.folder`). A run inside is no part of the graph around it (:mod:`echo_agent.isolation`). What cannot be
asked or heard is told to the caller as the tool's answer, for a model can do better with it than with an exception.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from echo_agent.errors import EchoAgentError
from echo_agent.folder import Folder
from echo_agent.results import EchoResult

NAME = "ask_recording"
DESCRIPTION = (
    "Ask a question about a recording, such as what is heard, said or played in it, when, and how often. A model "
    "listens to the recording, again where it needs to, and answers."
)


class AskRecordingArgs(BaseModel):
    """Arguments of the tool."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        min_length=1, description="Name of the recording, as a path in the folder of recordings."
    )
    question: str = Field(min_length=1, description="The question, in one sentence.")
    choices: list[str] | None = Field(
        default=None, description="What the answer is chosen from, at least two; leave out to ask openly."
    )
    max_relistens: int | None = Field(
        default=None, ge=0, description="How often the model may listen again; leave out for its default."
    )

    @property
    def options(self) -> dict[str, Any]:
        """What :meth:`EchoAgent.ask` takes besides the recording."""
        given: dict[str, Any] = {"question": self.question, "choices": self.choices}
        return given if self.max_relistens is None else given | {"max_relistens": self.max_relistens}


def asking_tool(
    ask: Callable[..., EchoResult],
    aask: Callable[..., Awaitable[EchoResult]],
    folder: str | os.PathLike[str],
    options: Mapping[str, Any],
) -> BaseTool:
    """The tool ``ask_recording`` of an agent, of whose ways to ask these are the two: see ``EchoAgent.as_tool``."""
    files = Folder(folder)

    def answer(**arguments: Any) -> tuple[str, dict[str, Any]]:
        args = AskRecordingArgs(**arguments)
        try:
            return _answered(ask(files.find(args.path), **{**options, **args.options}))
        except EchoAgentError as error:
            raise ToolException(files.told(error)) from error

    async def aanswer(**arguments: Any) -> tuple[str, dict[str, Any]]:
        args = AskRecordingArgs(**arguments)
        try:
            path = await asyncio.to_thread(files.find, args.path)
            return _answered(await aask(path, **{**options, **args.options}))
        except EchoAgentError as error:
            raise ToolException(files.told(error)) from error

    return StructuredTool.from_function(
        func=answer,
        coroutine=aanswer,
        name=NAME,
        description=DESCRIPTION,
        args_schema=AskRecordingArgs,
        response_format="content_and_artifact",
        handle_tool_error=True,
        handle_validation_error=refused,
    )


def refused(error: Any) -> str:
    """What a model is told about arguments that cannot be used."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def in_words(result: EchoResult) -> str:
    """A result as a model reads it: the answer, where it was heard again, and what speaks against it."""
    said = f"{result.outcome.capitalize()}." if result.answer is None else f"Answer: {result.answer}"
    spans = [f"{record.start:g} to {record.end:g} s" for record in result.relistens]
    once = [] if result.status == "not_understood" else ["Heard once."]
    heard = [f"Listened again to {', '.join(spans)}."] if spans else once
    notes = [f"Note: {note}." for note in result.notes]
    return "\n".join([said, *heard, *notes])


def _answered(result: EchoResult) -> tuple[str, dict[str, Any]]:
    return in_words(result), result.model_dump(mode="json")
