"""The writer: what a model writes becomes a sample only if it holds; the rest goes back, and is then reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.llm.completions import Completions
from echo_agent.finetune.data.llm.usage import Price, Usage
from echo_agent.finetune.data.llm.writer import Composition, WriterSettings, write_questions
from echo_agent.finetune.data.questions.checks import check_samples
from echo_agent.finetune.data.records import Record
from echo_agent.finetune.data.stages import read_rows
from tests.finetune.data.llm.chats import COMPLETION, PROMPT, ScriptedChat, make_records, question, written


def write(
    texts: list[str], folder: Path, records: list[Record] | None = None, questions: int = 1, **options: Any
) -> tuple[Composition, ScriptedChat]:
    chat = ScriptedChat(texts=texts, told=[])
    made = write_questions(
        records or make_records(),
        folder,
        Completions(chat, "scripted", folder / "calls"),
        WriterSettings(questions=questions),
        **{"workers": 1} | options,
    )
    return made, chat


def test_what_holds_becomes_samples(tmp_path: Path) -> None:
    record = make_records()[0]
    thought = "After <seg>5, 7</seg> comes <seg>10, 14</seg> an engine: a car."
    spans = [{"start": 10, "end": 20.04}]
    after = question("What is heard after the bell?", answer="A CAR.", spans=spans, reasoning=thought)
    made, chat = write([written(question(), after)], tmp_path, questions=2)
    first, second = made.samples
    assert not made.skipped and not made.short
    assert (first.id, first.record, first.composer, first.use) == ("clip 0-w1", "clip 0", "scripted", "sft")
    assert first.phrasing.startswith("compose@") and first.licence == "CC0-1.0" and first.listens
    assert second.answer == "a car" and second.gold_spans == ((10.0, 20.0),)
    assert {*first.choices} == {"a bell", "a car", "a horn", "a drum"}
    assert check_samples(made.samples, {record.id: record}).kept == list(made.samples)
    assert "5 to 7: bell" in chat.told[0][1].text and "Write 2 questions" in chat.told[0][0].text


def test_the_right_choice_stands_in_all_places(tmp_path: Path) -> None:
    made, _ = write([written(question())], tmp_path, make_records(60), workers=4)
    places = [sample.choices.index("a bell") for sample in made.samples if sample.choices]
    assert len(places) == 60 and all(5 <= places.count(place) <= 28 for place in range(4))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"choices": ["a bell", "a car"]}, "4 choices are needed"),
        ({"choices": ["a bell", "a car", "A bell.", "a drum"]}, "are the same"),
        ({"answer": "a gong"}, "none of the choices"),
        ({"answer": "B"}, "none of the choices"),
        ({"question": " "}, "question is empty"),
        ({"question": "When is a bell heard?"}, "question names its answer"),
        ({"spans": []}, "no span"),
        ({"spans": [{"start": 7, "end": 5}]}, "ends before it begins"),
        ({"spans": [{"start": 19, "end": 22}]}, "outside of the recording"),
        ({"spans": [{"start": -1, "end": 6}]}, "gold_spans"),
        ({"spans": [{"start": 15.5, "end": 18}]}, "no event"),
        ({"reasoning": ""}, "no reasoning"),
        ({"reasoning": "It rings."}, "names no part"),
        ({"reasoning": "Early on <seg>0, 3</seg> a dog, so a bell."}, "nowhere where the answer"),
        ({"reasoning": "It is <seg>five, seven</seg> here."}, "cannot be read"),
        ({"reasoning": "So it is <seg>5, 7"}, "not closed"),
        ({"reasoning": "It must be a bell: <seg>5, 7</seg> yes."}, "before the first part is named"),
        ({"reasoning": "Listen <seg>5, 7</seg>. <answer>a bell</answer>"}, "holds the tag <answer>"),
        ({"reasoning": "Listen <seg>5, 7</seg> then <seg>30, 40</seg>."}, "outside of the recording"),
    ],
)
def test_what_does_not_hold_goes_back_with_the_reason(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    made, chat = write([written(question(**changes)), written(question())], tmp_path)
    assert len(made.samples) == 1 and len(chat.told) == 2
    assert reason in chat.told[1][-1].text
    assert made.usage == Usage(2, 0, 2 * PROMPT, 2 * COMPLETION)


def test_naming_all_choices_before_listening_gives_nothing_away(tmp_path: Path) -> None:
    thought = "A bell, a car, a horn or a drum? I listen <seg>5, 7</seg>: struck metal, so a bell."
    made, chat = write([written(question(reasoning=thought))], tmp_path)
    assert len(made.samples) == len(chat.told) == 1


def test_what_holds_is_kept_and_only_the_rest_written_again(tmp_path: Path) -> None:
    good, other = question(), question("Which sound comes second?")
    made, chat = write([written(good, question(answer="no")), written(good, other)], tmp_path, questions=2)
    assert [sample.question for sample in made.samples] == [good["question"], other["question"]]
    assert "Write 1 more" in chat.told[1][-1].text and not made.short


def test_a_model_that_never_mends_is_reported(tmp_path: Path) -> None:
    made, chat = write(["nonsense"], tmp_path, make_records(2))
    assert made.samples == () and set(made.skipped) == {"clip 0", "clip 1"}
    assert "no JSON object" in made.skipped["clip 0"] and len(chat.told) == 6
    assert "2 records skipped (first: clip 0: there is no JSON" in made.report()
    made, _ = write([written(question())], tmp_path / "short", questions=3)
    assert len(made.samples) == 1 and "Write 2 more" in made.short["clip 0"]


def test_running_again_asks_nothing(tmp_path: Path) -> None:
    made, first = write([written(question())], tmp_path, make_records(3))
    again, chat = write(["nonsense"], tmp_path, make_records(3))
    assert again == made and not chat.told
    (tmp_path / "written.parquet").unlink()
    again, chat = write(["nonsense"], tmp_path, make_records(3))
    assert again == made and not chat.told and len(first.told) == 3


def test_other_records_or_notes_are_other_work(tmp_path: Path) -> None:
    write([written(question())], tmp_path, make_records(2))
    for options in ({"records": make_records(3)}, {"notes": {"clip 0": {"heard": "rain"}}}, {"questions": 2}):
        with pytest.raises(DataError, match="other settings"):
            write(["nonsense"], tmp_path, **{"records": make_records(2)} | options)


def test_notes_and_prompts_reach_the_model_and_cost_is_stored(tmp_path: Path) -> None:
    (tmp_path / "compose.txt").write_text("Write $questions, {please}.")
    made, chat = write(
        [written(question())], tmp_path, notes={"clip 0": {"heard": "${rain} {and} wind"}}, prompts=tmp_path
    )
    assert chat.told[0][0].text == "Write 1, {please}." and "${rain} {and} wind" in chat.told[0][1].text
    (row,) = read_rows(tmp_path / "written.parquet")
    assert (row["calls"], row["prompt_tokens"], row["completion_tokens"]) == (1, PROMPT, COMPLETION)
    assert "cost 0.0001" in made.report(Price(0.2, 3))


def test_splits(tmp_path: Path) -> None:
    made, _ = write([written(question())], tmp_path, split=lambda record: "test")
    assert [(sample.split, sample.use) for sample in made.samples] == [("test", "")]


def test_a_record_of_which_nothing_is_known_but_captions(tmp_path: Path) -> None:
    record = Record(id="bare", audio="a.wav", duration=20, captions=("A dog, then a bell.",))
    made, chat = write([written(question())], tmp_path, [record])
    assert len(made.samples) == 1 and "Caption: A dog, then a bell." in chat.told[0][1].text
