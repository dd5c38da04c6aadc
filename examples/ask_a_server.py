"""Ask a server of ``echo-agent serve`` with OpenAI's client, and watch where the model listens again.

    python examples/ask_a_server.py [ADDRESS] [RECORDING] [QUESTION]

Needs ``pip install openai``. Where the server has a key, the environment variable ``ECHO_AGENT_KEY`` holds it.
"""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

from openai import OpenAI


def main(
    address: str = "http://localhost:8000/v1",
    path: str = str(Path(__file__).with_name("everyday") / "talk.ogg"),
    question: str = "What is the speaker's name?",
) -> None:
    """Ask, and print what comes as it comes."""
    client = OpenAI(base_url=address, api_key=os.environ.get("ECHO_AGENT_KEY", "none"))
    (model, *_) = client.models.list()
    sound = base64.b64encode(Path(path).read_bytes()).decode()
    stream = client.chat.completions.create(
        model=model.id,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "input_audio", "input_audio": {"data": sound, "format": "ogg"}},
                    {"type": "text", "text": question},
                ],
            }
        ],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        for choice in chunk.choices:
            for heard in getattr(choice.delta, "annotations", None) or ():
                span = heard["audio_span"]
                print(f"listens again to {span['start']:g} to {span['end']:g} s")
            if choice.delta.content:
                print(f"answer: {choice.delta.content}")
        if chunk.usage:
            print(f"{chunk.usage.prompt_tokens} tokens given, {chunk.usage.completion_tokens} written")


if __name__ == "__main__":
    main(*sys.argv[1:])
