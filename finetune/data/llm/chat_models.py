"""Chat models: made by name, and what their errors mean.

Every provider raises errors of its own. Three things are told apart by their HTTP status, or by LangChain's classes
where there is none: the same request may succeed later, this one request is refused, or none would be answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from echo_agent.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


def load_chat_model(name: str, **settings: Any) -> BaseChatModel:
    """A chat model by name, such as ``openai:gpt-5``, ``anthropic:...`` or ``ollama:...``.

    Args:
        name: ``provider:model``.
        **settings: Of the model: ``temperature``, ``base_url`` (a server that speaks the provider's protocol),
            ``api_key``, ``timeout`` (seconds; 120). Retries are counted here, so the model's own are off.

    Raises:
        MissingExtraError: langchain, or the provider's package, is not installed.
        ModelError: There is no such provider, or the model cannot be made as named.
    """
    provider, colon, model = name.partition(":")
    if not (provider and colon and model):
        raise ModelError(f"{name!r} names no chat model: write provider:model, such as openai:gpt-5")
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise MissingExtraError("chat models need: pip install langchain") from error
    try:
        options: dict[str, Any] = {"timeout": 120, "max_retries": 0, **settings}
        made = init_chat_model(model, model_provider=provider, **options)
    except ImportError as error:
        raise MissingExtraError(f"{name}: {error}") from error
    except Exception as error:  # what a provider raises has no common base: no key, no such option, ...
        raise ModelError(f"the chat model {name} cannot be made: {line(error)}") from error
    return made


def status(error: BaseException) -> int | None:
    """The HTTP status that an error stands for."""
    code = getattr(error, "status_code", None)
    if code is None:
        code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


def passing(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    from langchain_core import exceptions

    code = status(error)
    if code is not None:
        return code in (408, 425, 429) or code >= 500
    if isinstance(error, exceptions.ModelError):
        return error.is_retryable
    return isinstance(error, TimeoutError | ConnectionError)


def retry_after(error: BaseException) -> float | None:
    """Seconds that the server asks to wait."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    value = headers.get("retry-after") if headers is not None else None
    try:
        seconds = float(value) if value is not None else None
    except ValueError:  # a date: our own pace will do
        return None
    return seconds if seconds is not None and 0 <= seconds < float("inf") else None


def line(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
