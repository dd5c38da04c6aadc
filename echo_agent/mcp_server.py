"""Recordings of one folder behind the Model Context Protocol: ``ask_recording`` and ``relisten`` for any MCP client.

A result is text, the same as structured content, and a link to the sound; it never holds audio. A link is a resource
of the server, ``recording:///NAME?start=...&end=...``: a client that can hear may read it and gets that stretch as wav.
Each re-listen of a run is a progress notification. What is outside of the folder, or cannot be asked or heard, is an
error of the tool. The model is loaded beside the conversation's beginning, since clients do not wait long for that.

Times are seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, Self
from urllib.parse import quote, urlencode

from pydantic import BaseModel, Field

from echo_agent.asking_tool import DESCRIPTION as ASK
from echo_agent.asking_tool import in_words
from echo_agent.audio.recording import AudioRef, Recording, wav_bytes
from echo_agent.errors import EchoAgentError, MissingExtraError
from echo_agent.folder import Folder
from echo_agent.results import EchoResult
from echo_agent.tools.relisten import DEFAULT_LIMITS, DESCRIPTION, Reply, check_call

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context
    from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError
    from mcp.types import CallToolResult, ResourceLink, TextContent, ToolAnnotations
except ImportError as error:
    raise MissingExtraError('the MCP server needs: pip install "echo-agent[mcp]"') from error

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent

RATE = 16_000
"""Samples per second of a crop that a client reads, in Hz."""
LIMITS = replace(DEFAULT_LIMITS, longest_crop=60.0)
"""What a stretch is held to that a client asks for: one link brings a minute of sound at most."""
LINK = "recording:///{+path}{?start,end,speed,low_hz,high_hz,gain_db}"
OPTIONS = ("speed", "low_hz", "high_hz", "gain_db")
READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
ABOUT = (
    "Questions about recordings in one folder, answered by a model that listens, and listens again where it needs to. "
    "A path is the name of a file in the folder; a name that is not there is answered with names that are."
)


class Stretch(BaseModel):
    """What a call of ``relisten`` comes to."""

    heard: bool
    """Whether there is anything to hear."""
    start: float | None = None
    end: float | None = None
    seconds: float = 0.0
    """How long it sounds, at the speed that was asked for."""
    observation: str = ""
    """What was mended, or why nothing can be heard."""


Path = Annotated[str, Field(description="Name of the recording: a path in the folder.")]


class RecordingServer:
    """Answers MCP clients about the recordings of a folder; a context manager that lets go of the model at its end."""

    def __init__(self, folder: Folder, load: Callable[[], EchoAgent], *, max_relistens: int = 8) -> None:
        """Make a server, and begin to load its model.

        Args:
            folder: What may be asked about.
            load: Makes the agent, in a thread; it is closed in the end. Where it raises an EchoAgentError, every
                question is answered with it.
            max_relistens: How often a run may listen again where a call does not say.
        """
        self._folder, self._max_relistens = folder, max_relistens
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="echo-agent-load")
        self._agent = self._loader.submit(load)
        self.mcp: MCPServer[Any] = MCPServer(
            "echo-agent", version=version("echo-agent"), instructions=ABOUT, log_level="WARNING"
        )
        """The server, to be run over a transport."""
        self.mcp.tool(description=ASK, annotations=READS)(self.ask_recording)
        self.mcp.tool(description=DESCRIPTION, annotations=READS)(self.relisten)
        self.mcp.resource(LINK, name="recording", mime_type="audio/wav")(self.sound)

    def close(self) -> None:
        """Let go of the model; runs that have not ended fail."""
        self._loader.shutdown()
        if not self._agent.cancelled() and self._agent.exception() is None:
            self._agent.result().close()

    def __enter__(self) -> Self:
        """The server itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    async def ask_recording(
        self,
        path: Path,
        question: Annotated[str, Field(description="The question, in one sentence.")],
        ctx: Context[Any, Any],
        choices: Annotated[
            list[str] | None, Field(description="What the answer is chosen from, at least two.")
        ] = None,
        max_relistens: Annotated[
            int | None, Field(ge=0, description="How often the model may listen again.")
        ] = None,
    ) -> Annotated[CallToolResult, EchoResult]:
        """Ask about a recording."""
        most = self._max_relistens if max_relistens is None else max_relistens
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        run = asyncio.create_task(self._run(path, question, choices, most, events))
        run.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                if event["type"] == "relisten":
                    await ctx.report_progress(event["index"], most, _progress(event))
            result = await run
        except EchoAgentError as error:
            raise ToolError(self._folder.told(error)) from error
        finally:
            run.cancel()  # of a client that wants it no more
        file = await asyncio.to_thread(self._folder.find, path)
        link = self._link(self._folder.name(file))
        return CallToolResult(
            content=[TextContent(text=in_words(result)), link],
            structured_content=result.model_dump(mode="json"),
        )

    async def _run(
        self,
        path: str,
        question: str,
        choices: list[str] | None,
        max_relistens: int,
        events: asyncio.Queue[dict[str, Any] | None],
    ) -> EchoResult:
        """One run; its events go into the queue."""
        file = await asyncio.to_thread(self._folder.find, path)
        agent = await asyncio.shield(asyncio.wrap_future(self._agent))
        asked: dict[str, Any] = {
            "choices": choices,
            "max_relistens": max_relistens,
            "on_event": events.put_nowait,
        }
        return await agent.aask(file, question, **asked)

    async def relisten(
        self,
        path: Path,
        start: Annotated[float, Field(description="Start of the span in seconds.")],
        end: Annotated[float, Field(description="End of the span in seconds.")],
        speed: Annotated[float, Field(description="0.25 to 2; the pitch is kept.")] = 1.0,
        low_hz: Annotated[float | None, Field(description="Leave out what is below, in Hz.")] = None,
        high_hz: Annotated[float | None, Field(description="Leave out what is above, in Hz.")] = None,
        gain_db: Annotated[float, Field(description="Louder or quieter, -40 to 40 dB.")] = 0.0,
    ) -> Annotated[CallToolResult, Stretch]:
        """Listen again to a part of a recording."""
        asked = {"start": start, "end": end, "speed": speed, "low_hz": low_hz, "high_hz": high_hz}
        try:
            name, whole = await asyncio.to_thread(self._whole, path)
        except EchoAgentError as error:
            raise ToolError(self._folder.told(error)) from error
        heard = check_call({**asked, "gain_db": gain_db}, [whole], LIMITS)
        reply, ref = Reply.to(heard), heard.ref
        if ref is None:
            raise ToolError(reply.content)
        told = Stretch(
            heard=True, start=ref.start, end=ref.end, seconds=ref.seconds, observation=reply.observation
        )
        return CallToolResult(
            content=[TextContent(text=reply.content), self._link(name, ref)],
            structured_content=told.model_dump(mode="json"),
        )

    async def sound(
        self,
        path: str,
        start: float = 0.0,
        end: float | None = None,
        speed: float = 1.0,
        low_hz: float | None = None,
        high_hz: float | None = None,
        gain_db: float = 0.0,
    ) -> bytes:
        """What a link refers to, as wav: mono, at most a minute of it."""
        try:
            return await asyncio.to_thread(
                self._wav, path, start, end, speed=speed, low_hz=low_hz, high_hz=high_hz, gain_db=gain_db
            )
        except EchoAgentError as error:
            raise ResourceNotFoundError(self._folder.told(error)) from error

    def _wav(self, path: str, start: float, end: float | None, **options: float | None) -> bytes:
        recording = Recording.open(self._folder.find(path))
        whole = recording.ref()
        asked = {"start": start, "end": whole.duration if end is None else end, **options}
        heard = check_call(asked, [whole], LIMITS)
        if heard.ref is None:
            raise ResourceNotFoundError(heard.observation)
        return wav_bytes(recording.crop(heard.ref, RATE), RATE)

    def _whole(self, path: str) -> tuple[str, AudioRef]:
        """The name of a recording, and the reference to the whole of it."""
        file = self._folder.find(path)
        return self._folder.name(file), Recording.open(file).ref()

    def _link(self, name: str, ref: AudioRef | None = None) -> ResourceLink:
        """A link to a recording, or to a stretch of it."""
        asked: dict[str, str] = {}
        if ref is not None:
            options = {key: getattr(ref.transform, key) for key in OPTIONS}
            given = {key: value for key, value in options.items() if value not in (None, 0.0)}
            asked = {key: f"{value:g}" for key, value in given.items() if (key, value) != ("speed", 1.0)}
            asked = {"start": f"{round(ref.start, 3):.10g}", "end": f"{round(ref.end, 3):.10g}", **asked}
        uri = f"recording:///{quote(name)}{'?' if asked else ''}{urlencode(asked)}"
        return ResourceLink(uri=uri, name=name, mime_type="audio/wav")


def _progress(event: dict[str, Any]) -> str:
    """A re-listen in words."""
    if event["start"] is None:
        return event["observation"]
    return f"listened again to {event['start']:g} to {event['end']:g} s"
