"""Completions: structured replies of a chat model, each paid for once, checked, retried and counted.

A reply is asked for by a schema, read from whatever the model writes, and held to a check; where it fails, the model
is told why and tries again. Every call is kept on disk under a hash of all that it depends on (model, settings, schema,
and the messages, which hold the prompt and the record), so running again asks nothing that was answered, a kill
included.

A server that is busy, slow or broken is asked again after a while, as it wishes (``Retry-After``) or ever more slowly.
A request that it refuses is a problem of that request. A key, a model or a program that is wrong is wrong for all: then
the work stops, and so it does when nothing has come back several times in a row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from echo_agent.disk import GO_ON, write_whole
from echo_agent.errors import ModelError
from echo_agent.finetune.data.corpora.sourced import reasons
from echo_agent.finetune.data.llm.chat_models import line, passing, retry_after, status
from echo_agent.finetune.data.llm.prompts import load_prompt
from echo_agent.finetune.data.llm.usage import Price, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage
    from tenacity import RetryCallState

T = TypeVar("T", bound=BaseModel)

PATIENCE = 5
"""Requests in a row that end without a reply before the work stops."""
SHOWN = 8000
"""Most characters of a reply that the model is shown again when it is told what was wrong."""
OBJECTS = 50
"""Most places of a text at which a JSON object is looked for."""


@dataclass(frozen=True)
class Reply(Generic[T]):
    """What came of asking."""

    value: T | None
    """None where no reply could be used."""
    problem: str
    """Why; empty where there is a value."""
    usage: Usage


@dataclass(frozen=True)
class _Answer:
    """One call: what the model wrote, or why there is nothing."""

    text: str
    usage: Usage
    refused: str = ""


class Completions:
    """Structured replies of one chat model; any number of threads may ask at once."""

    def __init__(
        self,
        model: BaseChatModel,
        name: str,
        cache: Path,
        *,
        settings: Mapping[str, Any] | None = None,
        structured: bool = True,
        tries: int = 3,
        attempts: int = 6,
        longest_wait: float = 60.0,
    ) -> None:
        """Make ready to ask; nothing is sent.

        Args:
            model: Any LangChain chat model.
            name: What it is called in what it makes.
            cache: Folder that every call is kept in.
            settings: What replies depend on besides (temperature, server), as JSON; no keys.
            structured: Ask by the model's own means for structured output, where it has them; False for servers that
                refuse that. What is written is read in the same way.
            tries: How often the model may write before it is given up on a request.
            attempts: How often a request is sent while the server is busy, slow or broken.
            longest_wait: Most seconds between two of them.
        """
        self.model = model
        self.name = name
        self.cache = cache
        self.settings = {**(settings or {}), "model": name, "structured": structured}
        """What its replies depend on."""
        self.spent = Usage()
        """What was asked by this object, and not taken from the disk."""
        self.cached = 0
        """Calls that were taken from the disk."""
        self._structured = structured
        self._tries, self._attempts, self._longest_wait = tries, attempts, longest_wait
        self._retry = load_prompt("retry", ("reason",))
        self._lock = Lock()
        self._failures = 0

    def ask(
        self, system: str, user: str, schema: type[T], check: Callable[[T], str] | None = None
    ) -> Reply[T]:
        """Ask until a reply fits the schema and passes the check.

        Args:
            system: Instructions.
            user: What they are about.
            schema: Form of the reply.
            check: Says what is wrong with a reply, for the model to mend it; empty where nothing is. It is called for
                every try, in order, and must depend on nothing else.

        Raises:
            ModelError: The key, the model or the program is wrong, or the server cannot be reached any more.
            DataError: The cache cannot be written.
        """
        from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

        messages: list[BaseMessage] = [SystemMessage(system), HumanMessage(user)]
        usage, problem = Usage(), ""
        for _ in range(self._tries):
            answer = self._call(messages, schema)
            usage += answer.usage
            if answer.refused:
                return Reply(None, answer.refused, usage)
            value, problem = read_reply(answer.text, schema)
            if value is not None:
                problem = check(value) if check else ""
                if not problem:
                    return Reply(value, "", usage)
            shown = answer.text.strip()[:SHOWN] or "(nothing)"
            messages += [AIMessage(shown), HumanMessage(self._retry.fill(reason=problem))]
        return Reply(None, problem, usage)

    def report(self, usage: Usage, price: Price | None = None) -> str:
        """What a stage has cost, and how much of that in this run."""
        return f"{self.name}: {usage.report(price)}; {self.spent.calls} of the calls made now, {self.cached} from disk"

    # --- one call -----------------------------------------------------------------------------------------------

    def _call(self, messages: list[BaseMessage], schema: type[BaseModel]) -> _Answer:
        """One reply, from the disk or from the model."""
        form = schema.model_json_schema()
        said = [[message.type, message.text] for message in messages]
        key = hashlib.sha256(json.dumps([self.settings, form, said], sort_keys=True).encode()).hexdigest()
        path = self.cache / key[:2] / f"{key}.json"
        answer = _kept(path)
        if answer is not None:
            with self._lock:
                self.cached += 1
            return answer
        answer = self._live(messages, form)
        if not answer.refused:
            _keep(path, answer)
        with self._lock:
            self.spent += answer.usage
        return answer

    def _live(self, messages: list[BaseMessage], form: dict[str, Any]) -> _Answer:
        """Ask the model, again while that may help."""
        from tenacity import Retrying, retry_if_exception, stop_after_attempt

        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=self._wait,
            retry=retry_if_exception(passing),
            reraise=True,
        )
        sent = 0

        def send() -> _Answer:
            nonlocal sent
            sent += 1
            return self._send(messages, form)

        try:
            answer = retrying(send)
        except Exception as error:  # what a provider raises has no common base
            return self._failed(error, Usage(retries=sent - 1))
        with self._lock:
            self._failures = 0
        return _Answer(answer.text, answer.usage + Usage(retries=sent - 1))

    def _send(self, messages: list[BaseMessage], form: dict[str, Any]) -> _Answer:
        """One request."""
        asked: Any = None
        if self._structured:
            try:  # by a JSON schema: with a class, some raise for a bad reply, whose text and cost are then lost
                asked = self.model.with_structured_output(form, include_raw=True)
            except NotImplementedError:
                pass
        try:
            given: Any = (asked or self.model).invoke(messages)
        except Exception as error:
            cut = _cut_off(error)
            if cut is None:
                raise
            return cut
        raw, parsed = (given["raw"], given["parsed"]) if asked else (given, None)
        text = json.dumps(parsed) if isinstance(parsed, dict) else raw.text
        told = raw.usage_metadata
        usage = Usage(1, 0, told["input_tokens"], told["output_tokens"]) if told else Usage(1, uncounted=1)
        return _Answer(text, usage)

    def _failed(self, error: Exception, usage: Usage) -> _Answer:
        """What to make of a request that brought nothing; raises ModelError where no other one would."""
        if not (passing(error) or status(error) in (400, 409, 413, 422)):
            raise ModelError(
                f"{self.name} cannot be asked: {line(error)}; what was answered is kept, "
                "mend it and run the same command again"
            ) from error
        with self._lock:
            self._failures += 1
            several = self._failures >= PATIENCE
        if several:
            raise ModelError(
                f"{self.name} gave no reply to {PATIENCE} requests in a row, the last time: {line(error)}; "
                "what was answered is kept, run the same command again later"
            ) from error
        kind = "no reply" if passing(error) else "the server refused the request"
        return _Answer("", usage, refused=f"{kind}: {line(error)}")

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt: what the server asks for, or longer each time."""
        from tenacity import wait_random_exponential

        error = state.outcome.exception() if state.outcome else None
        asked = retry_after(error) if error else None
        backoff = wait_random_exponential(multiplier=0.5, max=self._longest_wait)(state)
        return min(self._longest_wait, backoff if asked is None else asked)


def read_reply(text: str, schema: type[T]) -> tuple[T | None, str]:
    """The first JSON object of a text that fits a schema; None with the reason where none does."""
    problem = "there is no JSON object in it"
    for data in _objects(text):
        try:
            return schema.model_validate(data), ""
        except ValidationError as error:
            problem = f"it does not have the form that was asked for: {reasons(error)}"
    return None, problem


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """JSON objects in a text, whatever stands around them."""
    decoder, place = json.JSONDecoder(), text.find("{")
    for _ in range(OBJECTS):
        if place < 0:
            return
        try:
            data, place = decoder.raw_decode(text, place)
            yield data
        except (ValueError, RecursionError):
            place += 1
        place = text.find("{", place)


def _kept(path: Path) -> _Answer | None:
    """A call that was made before; None where there is none, or its file is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return _Answer(str(data["text"]), Usage.of(data))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(path: Path, answer: _Answer) -> None:
    """Write a call whole or not at all; raises DataError where the disk is full."""
    write_whole(path, json.dumps({"text": answer.text, **asdict(answer.usage)}).encode(), GO_ON)


def _cut_off(error: Exception) -> _Answer | None:
    """A reply that an integration raises about, since it was cut off: it was written and paid for nevertheless."""
    completion = getattr(error, "completion", None)
    if completion is None:
        return None
    usage = completion.usage
    told = Usage(1, 0, usage.prompt_tokens, usage.completion_tokens) if usage else Usage(1, uncounted=1)
    return _Answer(completion.choices[0].message.content or "", told)
