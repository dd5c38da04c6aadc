"""A user's script is clean under a strict type checker: the blocks of the pages on Python are such scripts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import ROOT, blocks

PAGES = ("README.md", "docs/python.md", "docs/tutorial.md")
STRICT = {
    "typeCheckingMode": "strict",
    "pythonVersion": "3.11",
    # LangGraph's own types are not complete: a Command without its parameter is in the signature of every graph.
    "reportUnknownMemberType": False,
    "reportUnknownVariableType": False,
    "reportMissingTypeStubs": False,
}

FOLLOW_UP = """
from langchain_core.messages import HumanMessage
from langgraph.graph import StateGraph
from echo_agent import Budget, ChatLALM, EchoAgent, ListeningContext, Recording, build_listening_graph, initial_state
from echo_agent.graphs import ListeningInput, ListeningState

agent = EchoAgent.from_pretrained()
chat = ChatLALM(agent.engine, temperature=0.5, max_tokens=20, stop=["x"])
print(chat.invoke("Hello").text, chat.get_num_tokens("Hello"))
ref = agent.recordings.add(Recording.open("examples/01.flac"))
context = ListeningContext(chat, agent.recordings, Budget(max_relistens=2))
ear = build_listening_graph()
done = ear.invoke(initial_state("What?", [ref]), context=context)
again = ear.invoke({"messages": [HumanMessage("And then?")]}, context=context)
print(done["answer"], again["answer"])


def speak(state: ListeningState) -> dict[str, str]:
    return {"said": f"{state['answer']} after {state['spent']['tokens']} tokens: {state['messages'][-1].text}"}


larger = StateGraph(ListeningState, ListeningContext, input_schema=ListeningInput).add_node("mouth", speak).compile()
larger.invoke(initial_state("What?", [ref]), context=context)
"""


@pytest.mark.slow
def test_scripts_of_users_are_clean(tmp_path: Path) -> None:
    package = tmp_path / "echo_agent"
    package.mkdir()
    for entry in [
        *(ROOT / "echo_agent").iterdir(),
        *(ROOT / name for name in ("tools", "graphs", "finetune")),
    ]:
        (package / entry.name).symlink_to(entry)
    scripts = {"follow_up.py": FOLLOW_UP}
    for page in PAGES:
        code = [block.code for block in blocks(ROOT / page) if block.kind == "python"]
        scripts[page.replace("/", "_").replace(".md", ".py")] = "\n\n".join(code)
    for name, code in scripts.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(STRICT | {"include": list(scripts)}))
    command = [
        sys.executable,
        "-m",
        "pyright",
        "--outputjson",
        "--pythonpath",
        sys.executable,
        "-p",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    report = json.loads(done.stdout)
    found = [
        f"{Path(fault['file']).name}:{fault['range']['start']['line'] + 1}: {fault['message'].splitlines()[0]}"
        for fault in report["generalDiagnostics"]
    ]
    assert report["summary"]["filesAnalyzed"] == len(scripts) and not found, "\n".join(found)
