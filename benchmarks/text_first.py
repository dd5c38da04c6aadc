"""The first gate of echo-small: questions by another hand, answered from a true timeline written as text.

What the language model cannot answer when it is told what is heard, no ear will mend. Recordings are simulated with a
seed that training never uses; wordings and names of sounds are those of the second author, and so are the 60 talks
with their questions in ``benchmarks/data/talk-by-another-author.yaml``. Greedy decoding; an answer is right when it is
one of the accepted spellings, or the right choice; what cannot be read is wrong.

    python benchmarks/text_first.py MODEL --out benchmarks/results/text-first.json

MODEL is the folder ``model`` of a run of ``echo_agent.finetune.small.text_first``. ``--hand train`` asks in the
wordings of training, on the same new recordings: the difference is what the wordings cost. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echo_agent.answers import extract_answer, match_choice, normalise
from echo_agent.finetune.data.natural.asking import Asked, ask
from echo_agent.finetune.data.natural.kinds import MAKERS
from echo_agent.finetune.data.natural.sounds import Hand
from echo_agent.finetune.data.natural.talk import Line
from echo_agent.finetune.data.natural.timelines import as_text, simulate, talk_text
from echo_agent.finetune.small.packing import first_text, question_part

SEED = 987_654
"""First number of the seeds of test recordings; training's is the seed of its run, 0."""


TALKS = Path(__file__).parent / "data" / "talk-by-another-author.yaml"


@dataclass(frozen=True)
class Item:
    """A question with its recording."""

    timeline: str
    asked: Asked


def items(per_kind: int, hand: Hand) -> list[Item]:
    """``per_kind`` questions of every kind, each about a recording of its own."""
    found: list[Item] = []
    for k, kind in enumerate(MAKERS):
        number = 0
        for i in range(50 * per_kind):
            rng = np.random.default_rng([SEED, k, i])
            record = simulate(rng)
            asked = ask(record, kind, hand, rng)
            if asked is not None:
                found.append(Item(as_text(record), asked))
                number += 1
            if number == per_kind:
                break
    return found


def talk_items() -> list[Item]:
    """The second author's talks and questions."""
    import yaml

    found: list[Item] = []
    for talk in yaml.safe_load(TALKS.read_text("utf-8")):
        lines = [Line(line["speaker"], line["text"]) for line in talk["lines"]]
        for one in talk["questions"]:
            choices = tuple(one["choices"]) if one["choices"] else None
            accepted = (one["answer"], *one["accepted"])
            asked = Asked(f"speech/{one['kind']}", one["question"], choices, one["answer"], accepted, "")
            found.append(Item(talk_text(lines), asked))
    return found


def replies(model: Any, tokenizer: Any, asked: Sequence[Item], size: int) -> list[str]:
    """What the model writes to each question, ``size`` at a time, those of like length together."""
    import torch

    texts = [first_text(item.timeline) + question_part(item.asked) for item in asked]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    written = [""] * len(texts)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        inputs = tokenizer(
            [texts[i] for i in part], return_tensors="pt", padding=True, add_special_tokens=False
        )
        with torch.inference_mode():
            out = model.generate(
                **inputs.to(model.device),
                max_new_tokens=96,
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
            )
        for i, ids in zip(part, out[:, inputs["input_ids"].shape[1] :], strict=True):
            written[i] = tokenizer.decode(ids, skip_special_tokens=False)
        print(f"{min(start + size, len(order))} of {len(order)}", file=sys.stderr, flush=True)
    return written


def right(asked: Asked, reply: str) -> bool:
    """Whether a reply answers the question."""
    answer = extract_answer(reply)
    if asked.choices:
        found = match_choice(answer, asked.choices)
        return found is not None and asked.choices[found] == asked.answer
    return answer is not None and normalise(answer) in {normalise(text) for text in asked.accepted}


def percent(marks: Sequence[bool]) -> float | None:
    """Share of right answers; None where nothing was asked."""
    return round(100 * float(np.mean(marks)), 1) if marks else None


def main() -> None:
    """Ask, score, write."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--hand", choices=("train", "test"), default="test")
    parser.add_argument("--per-kind", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--show", action="store_true", help="print the wrong replies")
    args = parser.parse_args()
    tokenizer: Any = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).to(device).eval()
    asked = items(args.per_kind, args.hand)
    if args.hand == "test":
        asked += talk_items()
    written = replies(model, tokenizer, asked, args.batch)
    marks = [right(item.asked, reply) for item, reply in zip(asked, written, strict=True)]
    by_kind: dict[str, list[bool]] = {}
    for item, mark in zip(asked, marks, strict=True):
        by_kind.setdefault(item.asked.kind, []).append(mark)
    speech = [item.asked.kind.startswith("speech/") for item in asked]
    result = {
        "hand": args.hand,
        "questions": len(marks),
        "right": percent(marks),
        "sounds": percent([mark for mark, is_speech in zip(marks, speech, strict=True) if not is_speech]),
        "speech": percent([mark for mark, is_speech in zip(marks, speech, strict=True) if is_speech]),
        "by_kind": {kind: round(100 * float(np.mean(of))) for kind, of in by_kind.items()},
    }
    if args.show:
        for item, reply, mark in zip(asked, written, marks, strict=True):
            if not mark:
                shown = {"kind": item.asked.kind, "timeline": item.timeline, "question": item.asked.question}
                shown |= {"choices": item.asked.choices, "right": item.asked.answer, "reply": reply}
                print(json.dumps(shown), file=sys.stderr)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
