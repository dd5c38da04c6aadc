"""echo-small: frozen ears (Whisper-tiny.en, YAMNet) in front of SmolLM2, which speaks plain English.

Importing it makes it known to transformers' Auto classes (:mod:`echo_agent.small.auto`).
"""

from echo_agent.small.auto import register

register()
