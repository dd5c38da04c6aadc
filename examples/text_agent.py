"""A text agent that delegates listening: it cannot hear, and asks a model that can.

    OPENAI_API_KEY=... python examples/text_agent.py openai:gpt-5-mini examples "In 04.flac, is a beep heard?"

Any chat model that calls tools will do, named as LangChain names it. It needs ``pip install "echo-agent[langchain]"``
and the provider's package.
"""

from __future__ import annotations

import argparse

from langchain.agents import create_agent
from langchain_core.messages import ToolMessage

from echo_agent import EchoAgent

PROMPT = (
    "You answer questions about recordings. You cannot hear: use the tool ask_recording, one plain question at a time, "
    "and say where in the recording the answer was heard."
)


def main() -> None:
    """Ask, and print what was delegated and what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="of the text agent, such as openai:gpt-5-mini")
    parser.add_argument("folder", help="of the recordings that may be asked about")
    parser.add_argument("question")
    parser.add_argument("--ear", default="echo-nano", help="the model that listens")
    args = parser.parse_args()
    with EchoAgent.from_pretrained(args.ear) as agent:
        writer = create_agent(args.model, [agent.as_tool(args.folder, max_relistens=4)], system_prompt=PROMPT)
        done = writer.invoke({"messages": [("user", args.question)]})
    for message in done["messages"]:
        if isinstance(message, ToolMessage):
            print(f"[{message.name}] {' '.join(message.text.split())}")
    print(done["messages"][-1].text)


if __name__ == "__main__":
    main()
