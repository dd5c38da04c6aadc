"""echo-small: frozen ears (Whisper-tiny.en, YAMNet) in front of SmolLM2, which speaks plain English."""
