"""Verdicts: what a model thinks of a sample decides its use, and what it does not say decides nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.llm.completions import Completions
from echo_agent.finetune.data.llm.judge import Review, apply_verdicts, asked_samples, review
from echo_agent.finetune.data.llm.usage import Usage
from echo_agent.finetune.data.llm.writer import WriterSettings, write_questions
from echo_agent.finetune.data.records import Asked, Record, Sample
from tests.finetune.data.llm.chats import COMPLETION, PROMPT, ScriptedChat, make_records, question, written


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    chat = Completions(ScriptedChat(texts=[written(question())], told=[]), "writer", tmp_path / "calls")
    return list(write_questions(make_records(3), tmp_path, chat, WriterSettings(questions=1)).samples)


def both(asked: bool, reasoned: bool) -> str:
    return json.dumps(
        {
            "question_reason": "as to the question",
            "question_valid": asked,
            "reasoning_reason": "as to the thought",
            "reasoning_valid": reasoned,
        }
    )


def judged(
    texts: list[str], samples: list[Sample], records: list[Record], folder: Path, **options: Any
) -> tuple[Review, ScriptedChat]:
    chat = ScriptedChat(texts=texts, told=[])
    completions = Completions(chat, "judge", folder / "calls")
    by_id = {record.id: record for record in records}
    return review(samples, by_id, folder, completions, **{"workers": 1} | options), chat


def test_verdicts_decide_the_use(samples: list[Sample], tmp_path: Path) -> None:
    said = [both(True, True), both(True, False), both(False, True)]
    found, chat = judged(said, samples, make_records(3), tmp_path)
    first, second = found.kept
    assert first == samples[0] and first.use == "sft"
    assert second == samples[1].model_copy(update={"use": "rl", "reasoning": ""})
    assert found.dropped == ((samples[2], "as to the question"),) and not found.unjudged
    assert found.usage == Usage(3, 0, 3 * PROMPT, 3 * COMPLETION)
    assert "2 kept (1 sft, 1 rl)" in found.report() and "1 dropped (first: clip 2-w1" in found.report()
    assert "5 to 7: bell" in chat.told[0][1].text and "<seg>4, 8</seg>" in chat.told[0][1].text


def test_what_cannot_be_read_is_not_kept(samples: list[Sample], tmp_path: Path) -> None:
    maybe = both(True, True).replace("true", '"maybe"', 1)
    found, chat = judged([maybe], samples[:1], make_records(), tmp_path)
    assert not found.kept and not found.dropped
    assert found.unjudged[0][0] == samples[0] and "question_valid" in found.unjudged[0][1]
    assert len(chat.told) == 3 and "question_valid" in chat.told[1][-1].text
    assert "1 not judged" in found.report()


def test_tests_have_no_use(samples: list[Sample], tmp_path: Path) -> None:
    test = samples[0].model_copy(update={"split": "test", "use": ""})
    found, _ = judged([both(True, True)], [test], make_records(), tmp_path)
    assert found.kept == (test,)


def test_running_again_asks_nothing(samples: list[Sample], tmp_path: Path) -> None:
    found, _ = judged([both(True, True)], samples, make_records(3), tmp_path)
    again, chat = judged(["nonsense"], samples, make_records(3), tmp_path)
    assert again == found and not chat.told
    assert apply_verdicts(samples, tmp_path / "verdicts.parquet") == found
    with pytest.raises(DataError, match="other samples"):
        apply_verdicts(samples[:2], tmp_path / "verdicts.parquet")
    with pytest.raises(DataError, match="other settings"):
        judged(["nonsense"], samples[:2], make_records(3), tmp_path)


def test_a_sample_without_its_record(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such record"):
        judged(["nonsense"], samples, make_records(2), tmp_path)


def test_questions_of_a_corpus_are_put_one_question(tmp_path: Path) -> None:
    asked = (
        Asked(question="What makes the sound?", choices=("a dog", "a bell"), answer="a dog"),
        Asked(question="What colour is the car?", choices=("red", "blue"), answer="red"),
        Asked(question="What is it?", choices=("a dog", "a bell"), answer="a horn"),
        Asked(question="How often does it bark?", answer="twice"),
    )
    record = Record(id="v", audio="v.wav", duration=10, corpus="avqa", asked=asked)
    samples, skipped = asked_samples([record])
    assert [sample.id for sample in samples] == ["v-a1", "v-a2", "v-a4"]
    assert skipped[0][0] == "v" and "none of the choices" in skipped[0][1]
    said = [json.dumps({"reason": f"reason {n}", "valid": n != 1}) for n in range(3)]
    found, chat = judged(said, samples, [record], tmp_path)
    assert [(sample.id, sample.use) for sample in found.kept] == [("v-a1", "rl"), ("v-a4", "rl")]
    assert found.dropped == ((samples[1], "reason 1"),)
    assert "reasoning" not in chat.told[0][1].text and '"twice"' in chat.told[2][1].text
