"""What can go wrong, as one tree, so that a caller can catch all of it or one kind of it.

    EchoAgentError
    ├── RecordingError            a recording cannot be opened, read or heard
    │   └── RecordingTooLongError it is longer than the model can hear
    ├── ModelError                a model cannot be named, found or loaded
    ├── QuestionError             a question, its choices or an option is unusable
    ├── ContextError              the context cannot be run as it stands
    │   └── PlaceholderError      placeholders and audio features do not agree
    ├── DataError                 a data or configuration file is malformed
    └── MissingExtraError         a feature needs a package that is not installed

Every message says what was wrong, which file or argument it was, and what to do about it. Mistakes of the *policy*
(a span out of range, a call that cannot be parsed) are not errors: the tool answers them with an observation.
"""


class EchoAgentError(Exception):
    """The base of every error that echo-agent raises on purpose."""


class RecordingError(EchoAgentError):
    """A recording cannot be opened, read or heard."""


class RecordingTooLongError(RecordingError):
    """A recording is longer than the model can hear; refused before anything is encoded."""


class ModelError(EchoAgentError):
    """A model cannot be named, found or loaded."""


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
