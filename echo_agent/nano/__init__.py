"""echo-nano: the embedded large audio language model in small, for a CPU.

Encoder (Whisper-tiny.en, frozen), adapter (sound branch, pooling, projector) and a small Llama decoder with its own
vocabulary; a ``PreTrainedModel`` with its processor, treated like every other family. Importing it makes it known to
transformers' Auto classes (:mod:`echo_agent.nano.auto`).
"""

from echo_agent.nano.auto import register

register()
