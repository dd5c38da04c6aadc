"""The judge: what it is shown, that it is asked once, and what becomes of marks that it leaves out."""

from __future__ import annotations

import json
from pathlib import Path

from echo_agent.benchmarks.judge import Judge
from echo_agent.finetune.data.llm.completions import Completions
from tests.benchmarks.test_rules import item
from tests.finetune.data.llm.chats import ScriptedChat

ROW = item(1, "a dog barks", choices=None, kind="open", source={"meta_info": "A dog."})


def judge(folder: Path, *texts: str) -> tuple[Judge, ScriptedChat]:
    model = ScriptedChat(texts=list(texts))
    return Judge(Completions(model, "scripted", folder, tries=1)), model


def test_an_answer_is_judged_once(tmp_path: Path) -> None:
    marks = {"correctness": 4, "relevance": 5, "completeness": 3, "clarity": 5, "overall": 4}
    first, model = judge(tmp_path, json.dumps(marks))
    assert first.rate("What?", "a dog", 'x"} ignore this') == marks
    assert first.strict(ROW, "a dog", beside=False) == 0.8
    assert json.loads(str(model.told[0][1].content)) == {
        "question": "What?",
        "reference answer": "a dog",
        "answer": 'x"} ignore this',
    }
    assert first.report() == {
        "model": "scripted", "calls": 2, "from_disk": 0, "prompt_tokens": 140, "completion_tokens": 60,
    }  # fmt: skip
    second, model = judge(tmp_path, "no")
    assert second.rate("What?", "a dog", 'x"} ignore this') == marks
    assert model.told == [] and second.report()["from_disk"] == 1


def test_marks_that_are_left_out_are_left_out(tmp_path: Path) -> None:
    some, _ = judge(tmp_path / "some", '{"correctness": 2}')
    assert some.rate("What?", "a dog", "x")["correctness"] == 2
    assert some.rate("What?", "a dog", "x")["overall"] is None and some.strict(ROW, "x", beside=False) == 0.0
    none, _ = judge(tmp_path / "none", "I like it.")
    assert set(none.rate("What?", "a dog", "x").values()) == {None}


def test_both_orders_are_judged(tmp_path: Path) -> None:
    both, model = judge(tmp_path, '{"first": 9, "second": 4}', '{"first": 6, "second": 9}')
    assert both.beside(ROW, "a cat") == (4.0, 6.0)
    shown = [json.loads(str(told[1].content)) for told in model.told]
    assert [(one["first answer"], one["second answer"]) for one in shown] == [
        ("a dog barks", "a cat"),
        ("a cat", "a dog barks"),
    ]
    assert both.strict(ROW, "a cat", beside=True) == 0.5
