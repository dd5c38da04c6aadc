"""What can go wrong, as one tree, so that a caller can catch all of it or one kind of it.

    EchoAgentError
    ├── RecordingError            a recording cannot be opened, read or heard
    │   └── RecordingTooLongError it is longer than the model can hear
    ├── ModelError                a model cannot be named, found or loaded
    │   └── ServerError           a model's server cannot be reached, refuses, or gives what it should not
    ├── QuestionError             a question, its choices or an option is unusable
    ├── ContextError              the context cannot be run as it stands
    │   └── PlaceholderError      placeholders and audio features do not agree
    ├── DataError                 a data or configuration file is malformed
    ├── MissingExtraError         a feature needs a package that is not installed
    └── InterruptedWorkError      Ctrl-C, and what was kept of the work

Every message says what was wrong, which file or argument it was, and what to do about it. It is one line, or one for
each argument: a line break in a name is written out, so that no name looks like a line of ours. Mistakes of the
*policy* (a span out of range, a call that cannot be parsed) are not errors: the tool answers them with an observation.
"""

from echo_agent.terminal import printable

_BYTES = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
"""How Python holds the bytes of a file name that are no UTF-8."""
LONGEST = 4000
"""Characters of a line; what is quoted in it may be a file of megabytes."""


def _short(line: str) -> str:
    """The line, its middle left out where it is too long: what is wrong stands at an end."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


class EchoAgentError(RuntimeError):
    """The base of every error that echo-agent raises on purpose.

    It is a RuntimeError for those who know no classes of ours: a server of LangGraph tells its clients what such an
    error says, and its retries leave it alone, for asked again in the same way it would come again.
    """

    def __str__(self) -> str:
        r"""The message in plain characters, for names in it may hold anything; bytes that are no UTF-8 as ``\xe9``."""
        return "\n".join(_short(printable(f"{line}".translate(_BYTES))) for line in self.args)


class RecordingError(EchoAgentError):
    """A recording cannot be opened, read or heard."""


class RecordingTooLongError(RecordingError):
    """A recording is longer than the model can hear; refused before anything is encoded."""


class ModelError(EchoAgentError):
    """A model cannot be named, found or loaded."""


class ServerError(ModelError):
    """The server of a model cannot be reached, refuses a request, or gives back what it should not."""


class QuestionError(EchoAgentError):
    """A question, its choices or an option of a run is unusable."""


class ContextError(EchoAgentError):
    """The context of a run cannot be run as it stands (too long, or not one the family can render)."""


class PlaceholderError(ContextError):
    """The number of audio placeholders in the context differs from the number of audio features."""


class DataError(EchoAgentError):
    """A data or configuration file is malformed; the message names the file and the row."""


class MissingExtraError(EchoAgentError):
    """A feature needs a package that is not installed; the message is the install line."""


class InterruptedWorkError(EchoAgentError):
    """Ctrl-C, where there is more to say: what is kept, and how to resume."""
