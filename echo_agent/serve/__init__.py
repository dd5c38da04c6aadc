"""Serving: the agent behind an HTTP interface that clients of OpenAI's chat completions speak."""
