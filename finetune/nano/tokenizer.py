"""Learns echo-nano's vocabulary from the questions and the reasoning that it is taught.

Run once; the result ships with the package::

    python -m echo_agent.finetune.nano.tokenizer echo_agent/nano/weights
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from echo_agent.finetune.data.records import Event
from echo_agent.finetune.data.vocabulary import DIGITS, WORDS
from echo_agent.finetune.nano.questions import CATEGORIES, SOUNDS, ask
from echo_agent.finetune.nano.reasoning import transcript
from echo_agent.nano.processing import prompt_text, train_tokenizer

PLAIN = (
    "yes", "no", "nothing", "silence", "listen again to what was said", "how many seconds", "who is speaking here",
    "the recording has a sound at the start and at the end", "what do you hear in this recording", "which instrument",
)  # fmt: skip
"""A little English beyond the templates, so that other questions are not split into single letters."""


def symbolic_events(rng: np.random.Generator) -> list[Event]:
    """An event list without audio, of the kinds that scenes have."""
    events, clock = [], 0.0
    for _ in range(int(rng.integers(4, 16))):
        clock += rng.uniform(0.5, 6.0)
        label = SOUNDS[int(rng.integers(len(SOUNDS)))]
        draw = rng.random()
        if draw < 0.2:
            said = tuple(DIGITS[int(i)] for i in rng.integers(len(DIGITS), size=3))
            events.append(Event("voice", "digits", clock, clock + 2, said))
        elif draw < 0.4:
            said = tuple(WORDS[int(i)] for i in rng.permutation(len(WORDS))[:3])
            events.append(Event("voice", "words", clock, clock + 2, said))
        elif draw < 0.5:
            events.append(Event(label, "burst", clock, clock + 2, (), int(rng.integers(2, 7))))
        else:
            events.append(Event(label, "sound", clock, clock + 1))
        clock += 2
    return events


def corpus(seed: int = 0, scenes: int = 3000) -> Iterator[str]:
    """Texts to learn the vocabulary from."""
    rng = np.random.default_rng(seed)
    for text in PLAIN:
        yield from [text] * 20
    for _ in range(scenes):
        events = symbolic_events(rng)
        yield transcript(events)
        for category in CATEGORIES:
            question = ask(events, rng, category)
            if question is not None:
                yield prompt_text(question.text, question.choices, 60.0)
                yield f" {question.heard}"
                yield question.answer


def main(folder: Path) -> None:
    """Train and write ``tokenizer.json``."""
    tokenizer = train_tokenizer(corpus())
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
