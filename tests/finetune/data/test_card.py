"""Cards: counted from the data, readable by machines, and safe whatever a text holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.image import imread

from echo_agent.finetune.data.card import About, place_of, write_card
from echo_agent.finetune.data.records import Event, Record, Sample

ABOUT = About(
    name="Bells", description="Questions about bells.", command="echo-agent finetune data build", seed=3
)
FILES = {
    "train": ["data/train.parquet"],
    "core": ["data/core-00000-of-00002.parquet", "data/core-00001-of-00002.parquet"],
}


def sample(name: str, split: Any = "train", **fields: Any) -> Sample:
    fields = {
        "choices": ("a bell", "a dog"),
        "answer": "a bell",
        "category": "order",
        "duration": 30.0,
    } | fields
    return Sample(id=name, audio=f"{name}.flac", question="What rings?", record=name, split=split, **fields)


def card(folder: Path, splits: dict[str, list[Sample]], about: About = ABOUT, **fields: Any) -> str:
    records = [
        Record(id=s.record, audio=s.audio, duration=30.0, licence="CC0-1.0; MIT", corpus="scenes",
               events=(Event("bell", "sound", 1.0, 2.0, sources=(f"pack{i % 2}:bell.wav",)),))
        for i, s in enumerate(s for rows in splits.values() for s in rows)
    ]  # fmt: skip
    unasked = Record(id="unasked", audio="u.flac", duration=1.0, licence="GPL")
    files = {name: FILES.get(name, [f"data/{name}.parquet"]) for name in splits}
    return write_card(folder, splits, [*records, unasked], about, files, **fields).read_text(encoding="utf-8")


@pytest.fixture
def splits() -> dict[str, list[Sample]]:
    listening = "It rings <seg>1, 2</seg> once."
    return {
        "train": [
            sample("t1", use="sft", reasoning=listening, gold_spans=((1.0, 2.0),)),
            sample("t2", use="sft", reasoning="It rings.", answer="a dog"),
            sample("t3", use="rl", category="count", difficulty="detail", choices=None, answer="3"),
        ],
        "core": [sample("c1", "test")],
    }


def header(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))


def test_the_header_names_every_file_of_every_split(tmp_path: Path, splits: dict[str, list[Sample]]) -> None:
    found = header(card(tmp_path, splits, ABOUT.model_copy(update={"licence": "cc0-1.0"})))
    assert found["configs"] == [
        {"config_name": "default", "data_files": [{"split": n, "path": paths} for n, paths in FILES.items()]}
    ]
    assert found["license"] == "cc0-1.0" and found["size_categories"] == ["n<1K"]


def test_a_name_cannot_break_the_header(tmp_path: Path, splits: dict[str, list[Sample]]) -> None:
    name = 'Bells: "loud" # and\n---\nconfigs: []'
    found = header(card(tmp_path, splits, ABOUT.model_copy(update={"name": name})))
    assert found["pretty_name"] == 'Bells: "loud" # and --- configs: []' and len(found["configs"]) == 1


def test_what_it_says_is_counted(tmp_path: Path, splits: dict[str, list[Sample]]) -> None:
    text = card(tmp_path, splits)
    assert "| train | 3 | 3 | 0.0 | 30 – 30 – 30 | 2 | 1 | 2 | 1 | 50 % |" in text
    assert "| order | 2 | 1 | 0 % | 0 % | 50 % |" in text and "| count | 1 | 0 | 100 % | 100 % | – |" in text
    assert "| 2 | 3 | 67 % | 33 % |" in text
    assert (
        "4 recordings." in text and "| CC0-1.0 | 4 |" in text and "| MIT | 4 |" in text and "GPL" not in text
    )
    assert "| pack0 | 2 |" in text and "| pack1 | 2 |" in text


def test_an_example_listens_where_one_does_and_marks_what_is_right(
    tmp_path: Path, splits: dict[str, list[Sample]]
) -> None:
    text = card(tmp_path, {**splits, "train": splits["train"][::-1]})
    assert "**a bell** · a dog" in text and "> It rings &lt;seg&gt;1, 2&lt;/seg&gt; once." in text
    assert place_of(splits["train"][1]) == 1 and place_of(splits["train"][2]) is None


def test_texts_are_no_markup(tmp_path: Path) -> None:
    evil = sample(
        "e", category="a|b", reasoning="<script>x</script>\n# head", choices=("<b>", "c|d"), answer="c|d"
    )
    text = card(tmp_path, {"train": [evil]}, ABOUT.model_copy(update={"caveats": ("Beware\n<i>.",)}))
    assert "<script" not in text and "<b>" not in text and "<i>" not in text and "\n# head" not in text
    assert "| a\\|b | 1 |" in text and "- Beware &lt;i&gt;." in text


@pytest.mark.parametrize(
    "fields",
    [
        {"duration": None},
        {"choices": None, "answer": "3"},
        {"category": "$x_$"},
        {"gold_spans": ((0.0, 0.001), (1.0, 30.0))},
        {"duration": 20_000.0},
    ],
)
def test_pictures_are_drawn_of_any_samples(tmp_path: Path, fields: dict[str, Any]) -> None:
    text = card(tmp_path, {"train": [sample("t1", **fields)]})
    pictures = sorted(path.name for path in (tmp_path / "card").iterdir())
    assert pictures == ["answers.png", "categories.png", "durations.png", "spans.png"]
    for name in pictures:
        assert imread(tmp_path / "card" / name).shape[1] == 1170
        assert f"(card/{name})" in text or (name == "answers.png" and "choices" in fields)


def test_the_same_data_gives_the_same_card_and_pictures(
    tmp_path: Path, splits: dict[str, list[Sample]]
) -> None:
    for place in ("a", "b"):
        card(tmp_path / place, splits)
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
