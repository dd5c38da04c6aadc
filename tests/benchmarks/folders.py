"""Small folders in the exact layout of each benchmark, with generated audio."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import soundfile

from tests.sounds import lively

RATE = 16000
CHOICES = ["a cat", "a dog"]


def sound(path: Path, seconds: float = 5.0) -> None:
    """Write a recording; its kind is that of the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, lively(seconds, RATE), RATE, format=path.suffix[1:].upper())


def write_json(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(rows), ensure_ascii=False), encoding="utf-8")


def write_jsonl(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def mmau(folder: Path, rows: int = 3, split: str = "test-mini") -> list[dict[str, Any]]:
    made = []
    for i in range(rows):
        sound(folder / f"{split}-audios" / f"id{i}.wav")
        made.append(
            {
                "id": f"id{i}",
                "audio_id": f"./{split}-audios/id{i}.wav",
                "question": "What is it?",
                "choices": [*CHOICES, "a car", "a bell", "rain"][: 2 + i],
                "answer": CHOICES[i % 2],
                "dataset": "made",
                "task": ("sound", "music", "speech")[i % 3],
                "split": split,
                "category": "Reasoning",
                "sub-category": "Acoustic Source Inference",
                "difficulty": ("easy", "hard")[i % 2],
            }
        )
    write_json(folder / f"mmau-{split}.json", made)
    return made


def mmar(folder: Path, rows: int = 3) -> list[dict[str, Any]]:
    made = []
    for i in range(rows):
        sound(folder / "audio" / f"{i}.wav")
        made.append(
            {
                "id": f"clip{i}",
                "audio_path": f"./audio/{i}.wav",
                "question": "What is it?",
                "choices": CHOICES,
                "answer": CHOICES[i % 2],
                "modality": ("sound", "mix-sound-speech")[i % 2],
                "category": "Signal Layer",
                "sub-category": "Acoustic Quality Analysis",
                "language": None,
                "source": "made",
                "url": "",
                "timestamp": "",
                "thinking": "",
                "cue": [],
                "rubric": [],
            }
        )
    write_jsonl(folder / "MMAR-meta.jsonl", made)
    return made


def mmau_pro(folder: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    for name in ("a", "b", "c"):
        sound(folder / "data" / f"{name}.wav")
    common = {
        "task_identifier": None,
        "kwargs": None,
        "length_type": "short",
        "perceptual_skills": ["timbre"],
    }
    made = [
        common
        | {"id": "1", "audio_path": ["data/a.wav"], "question": "What is it?", "choices": CHOICES, "answer": "a dog",
           "category": "sound"},
        common
        | {"id": "2", "audio_path": ["data/b.wav"], "question": "Say what happens.", "choices": None,
           "answer": "a dog barks", "category": "open"},
        common
        | {"id": "3", "audio_path": ["data/c.wav"], "question": "Without commas, what is it?", "choices": None,
           "answer": None, "category": "instruction following", "task_identifier": "No Commas",
           "kwargs": {"N": None}},
        common
        | {"id": "4", "audio_path": ["data/a.wav", "data/b.wav"], "question": "Which is louder?", "choices": CHOICES,
           "answer": "a dog", "category": "multi"},
    ]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(made), folder / "test.parquet")
    return made


def mmsu(folder: Path) -> list[dict[str, Any]]:
    made = []
    for i in range(3):
        sound(folder / "audio" / f"{i}.wav")
        made.append(
            {
                "id": f"task_{i}",
                "task_name": "accent",
                "audio_path": f"audio/{i}.wav",
                "question": "What is it?",
                "choice_a": "a cat",
                "choice_b": "a dog",
                "choice_c": "a car",
                "choice_d": "a bell",
                "answer_gt": "a dog",
                "category": "Perception",
                "sub-category": "Phonology",
                "sub-sub-category": "Accent",
                "linguistics_sub_discipline": "Phonetics",
            }
        )
    write_jsonl(folder / "question" / "mmsu.jsonl", made)
    return made


def air_bench_foundation(folder: Path) -> list[dict[str, Any]]:
    sound(folder / "Audio_Grounding_AudioGrounding" / "1.flac")
    sound(folder / "Sound_AQA_clothoaqa" / "2.wav")
    common = {"question": "What is it?", "answer_gt": "a dog", "choice_a": "a cat", "choice_b": "a dog"}
    made = [
        common
        | {"path": "1.wav", "task_name": "Audio_Grounding", "dataset_name": "AudioGrounding", "uniq_id": 1,
           "choice_c": "a car", "choice_d": "a bell"},
        common | {"path": "2.wav", "task_name": "Sound_AQA", "dataset_name": "clothoaqa", "uniq_id": 2},
    ]  # fmt: skip
    write_json(folder / "Foundation_meta.json", made)
    return made


def air_bench_chat(folder: Path) -> list[dict[str, Any]]:
    made = []
    for i in range(2):
        sound(folder / "sound_QA_clotho" / f"{i}.wav")
        made.append(
            {
                "meta_info": "A dog barks twice.",
                "question": "What is it?",
                "answer_gt": "a dog",
                "path": f"{i}.wav",
                "task_name": "sound_QA",
                "dataset_name": "clotho",
                "uniq_id": i,
            }
        )
    write_json(folder / "Chat_meta.json", made)
    return made


def lat_bench(folder: Path) -> list[dict[str, Any]]:
    made = []
    for i in range(2):
        sound(folder / "audio" / f"{i}.wav", 12.0)
        said = [
            {"role": "user", "content": "<audio>When does the dog bark? Answer as [MM:SS-MM:SS]."},
            {"role": "assistant", "content": f"[00:0{2 + i}-00:06]"},
        ]
        made.append({"messages": said, "audios": [f"/elsewhere/audio/{i}.wav"]})
    write_jsonl(folder / "LAT-Bench-TAG.jsonl", made)
    return made


def voice_giraffe(folder: Path) -> list[dict[str, Any]]:
    made = []
    for i in range(2):
        sound(folder / "audios" / f"video{i}.wav")
        made.append(
            {
                "question": "What is it?\nA: a cat\nB: a dog\nC: a car\nD: a bell",
                "answer": "B",
                "audio": f"/data/youtube_long/video{i}.wav",
                "qa_type": ("SC", "TL")[i],
                "qa_level": "Single-Hop",
                "language_type": "英文",
            }
        )
    write_jsonl(folder / "benchmark" / "benchmark_1500.jsonl", made)
    return made


def echobench(folder: Path) -> list[dict[str, Any]]:
    sound(folder / "audio" / "1.wav", 12.0)
    made = [
        {"id": "1", "audio": "audio/1.wav", "question": "What is it?", "choices": CHOICES, "answer": "a dog",
         "gold_spans": [[2.0, 6.0]], "family": "order", "difficulty": "detail", "duration": 12.0},
    ]  # fmt: skip
    write_jsonl(folder / "core.jsonl", made)
    return made


FOLDERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "mmau": mmau,
    "mmau-pro": mmau_pro,
    "mmar": mmar,
    "mmsu": mmsu,
    "air-bench-foundation": air_bench_foundation,
    "air-bench-chat": air_bench_chat,
    "lat-bench": lat_bench,
    "voice-giraffe": voice_giraffe,
    "echobench": echobench,
}
"""Makes the folder of a benchmark, and returns its rows."""
