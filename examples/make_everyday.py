"""Makes the everyday recordings in this folder; their questions, written by hand, stand in ``everyday.jsonl``.

    python examples/make_everyday.py BANK DEBS [OUT]

BANK is a sound bank of `echo-agent finetune data bank --free DEBS BANK`; of it only clips are taken that no model here
was trained on (split ``test``) and whose licence allows it (CC0, and one of CC-BY). Instruments, waves, applause and a
helicopter are played on the FluidR3 sound font (MIT), which needs ``pip install --no-deps tinysoundfont==0.3.7``; the
voice is flite's ``rms``. Writes ``everyday/NAME.ogg``, and the credits beside them.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from echo_agent.finetune.data.bank.clips import to_mono_16k
from echo_agent.finetune.data.bank.instruments import RATE as FONT_RATE
from echo_agent.finetune.data.bank.instruments import synthesiser, taken
from echo_agent.finetune.data.bank.reader import Clip, read_clips

RATE = 16_000
Wave = np.ndarray

MESSAGE = (
    "Hello, this is Martin from the bicycle shop. Your bike is ready and you can pick it up today. "
    "If you have any questions, please call us back at five five five, zero one nine four. "
    "We are open until six. Goodbye."
)
MEETING = (
    "Good morning everyone. The budget meeting has been moved to Thursday at half past two. "
    "It takes place in room twelve. Please bring your reports."
)
TALK = """\
Good evening, and welcome to our talk about honey bees. My name is Helen Carter, and I have kept bees for twenty years.
Tonight I want to tell you how a colony lives through the year.
In spring the queen begins to lay her eggs. On a good day she lays two thousand of them.
The eggs are small and white, and after three days they become larvae.
The workers feed them with a kind of milk, and later with honey and pollen.
After three weeks a young bee leaves her cell, and her first task is to clean it.
Then she becomes a nurse, then a builder, and at last she flies out to find food.
A bee flies up to three miles from the hive, but most of them stay within one mile.
When she has found a field of flowers, she comes home and dances.
The dance tells the others in which direction the flowers are, and how far away.
This was discovered by a scientist in Austria, who watched bees in a hive made of glass.
Many people did not believe him at first, but later he was given a famous prize.
In summer a strong colony has about fifty thousand bees.
If it becomes too crowded, the old queen leaves with half of the workers. We call this a swarm.
A swarm looks dangerous, but the bees are full of honey and hardly ever sting.
If you see one, do not spray it with water. Call a beekeeper, who will take it away for nothing.
My first swarm hung in the apple tree of the post office, and I caught it with a cardboard box.
In autumn the workers throw the drones out of the hive, since they only eat and do no work.
The bees that are born in autumn live much longer than those of summer.
In winter the colony forms a ball around the queen, and the bees keep her warm by shivering.
They do not sleep. They eat the honey that they have stored, about forty pounds of it.
That is why I never take all of the honey, and why I feed them with sugar before the first frost.
What can you do for bees at home? Plant lavender and clover, and do not cut the grass too often.
Put a bowl of water in the garden with some stones in it, so that the bees do not drown.
And please do not use poison on your flowers, least of all in the morning, when bees are flying.
Next month we shall visit my hives together. We meet on Saturday the ninth, at ten o'clock, at the old mill.
Wear light clothes, since bees do not like dark colours, and bring gloves if you have some.
The visit costs five dollars, and children come for free. Afterwards there is bread with honey for everybody.
Now I have a question for you. How many of you have been stung by a bee? I see many hands.
If it happens, take the sting out at once, and put something cold on the place.
Thank you for coming, and now I am glad to answer your questions."""
GAME = "Well done! You have won. Play again?"


class Studio:
    """Where sounds come from: clips of the bank, the sound font, and a voice."""

    def __init__(self, bank: Path, debs: Path) -> None:
        """Open both."""
        self._clips = [c for c in read_clips(bank, ["test"]) if c.licence in ("CC0-1.0", "CC-BY-3.0")]
        self._synth, self._font = synthesiser(debs)
        self.used: set[tuple[str, str]] = set()

    def clip(self, label: str, number: int = 0) -> Wave:
        """The samples of one clip of a label."""
        found: Sequence[Clip] = [clip for clip in self._clips if clip.label == label]
        self.used.add((found[number].source, found[number].licence))
        return found[number].samples

    def play(self, program: int, notes: Sequence[tuple[int, float]], strength: int = 100) -> Wave:
        """Notes one after the other on a General MIDI program: pitch and seconds of each."""
        self._synth.program_select(0, self._font, 0, program)
        parts: list[Wave] = []
        for pitch, seconds in notes:
            self._synth.noteon(0, pitch, strength)
            parts.append(taken(self._synth, seconds))
            self._synth.noteoff(0, pitch)
        parts.append(taken(self._synth, 0.6))
        self._synth.sounds_off()
        taken(self._synth, 0.2)
        return to_mono_16k(np.concatenate(parts), FONT_RATE)


def say(text: str, slower: float = 1.0) -> Wave:
    """A text as flite's voice rms speaks it, or so many times slower."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        subprocess.run(
            ["flite", "-voice", "rms", "--setf", f"duration_stretch={slower}", "-t", text, "-o", str(path)],
            check=True,
        )
        samples, rate = soundfile.read(path, dtype="float32")
    return to_mono_16k(samples[:, None], rate)


def beep(pitch: float, seconds: float) -> Wave:
    """A beep as clocks and ovens give it."""
    times = np.arange(round(seconds * RATE)) / RATE
    edge = np.clip(np.minimum(times, seconds - times) / 0.005, 0.0, 1.0)
    return (edge * np.sign(np.sin(2 * np.pi * pitch * times)) * 0.5).astype(np.float32)


def mixed(seconds: float, sounds: Sequence[tuple[float, float, Wave]], hiss_db: float = -62.0) -> Wave:
    """Sounds (second, level of the peak in dB, samples) over a little hiss."""
    rng = np.random.default_rng(1)
    wave = (rng.standard_normal(round(seconds * RATE)) * 10 ** (hiss_db / 20)).astype(np.float32)
    for start, level, samples in sounds:
        first = round(start * RATE)
        part = samples[: len(wave) - first]
        wave[first : first + len(part)] += part * (10 ** (level / 20) / max(1e-6, np.abs(samples).max()))
    return wave


def recordings(studio: Studio) -> dict[str, Wave]:
    """All eleven, by name."""
    beeps = np.concatenate([np.concatenate([beep(2000, 0.25), np.zeros(4000, np.float32)]) for _ in range(3)])
    alarm = np.concatenate([np.concatenate([beep(880, 0.3), np.zeros(3200, np.float32)]) for _ in range(12)])
    tune = [(60, 0.5), (62, 0.5), (64, 0.5), (65, 0.5), (67, 1.0), (64, 0.5), (60, 1.0)]
    bubbling = np.concatenate([studio.clip("bubbles")] * 6)
    talk = say(" ".join(TALK.split("\n")), slower=1.7)
    wanted = {
        "kitchen": (26, [(2, -12, bubbling), (10, -8, beeps), (18, -8, studio.play(124, [(72, 2.5)]))]),
        "street": (
            40,
            [
                (4, -10, studio.clip("bell", 0)),
                (14, -8, studio.clip("airplane", 0)),
                (24, -8, say("Excuse me, where is the station?")),
                (33, -10, studio.clip("bell", 0)),
            ],
        ),
        "farm": (
            36,
            [
                (3, -12, studio.clip("bird", 0)),
                (10, -6, studio.clip("saw", 0)),
                (19, -12, studio.clip("bird", 1)),
                (27, -8, studio.clip("airplane", 1)),
            ],
        ),
        "message": (22, [(0.6, -6, say(MESSAGE))]),
        "meeting": (16, [(0.3, -14, beep(660, 0.4)), (1.2, -6, say(MEETING))]),
        "talk": (len(talk) / RATE + 2, [(1, -6, talk)]),
        "music": (
            38,
            [
                (2, -8, studio.play(0, tune)),
                (10, -8, studio.play(56, tune)),
                (20, -8, np.concatenate([studio.clip("drum", 0), np.zeros(9000, np.float32)] * 4)),
                (28, -8, studio.play(40, tune)),
            ],
        ),
        "alarm": (24, [(5, -6, alarm), (16, -8, say("Turn it off, please."))]),
        "walk": (
            48,
            [
                (4, -12, studio.clip("bird", 0)),
                (13, -12, studio.clip("bird", 1)),
                (22, -14, studio.play(122, [(60, 9.0)])),
                (38, -8, studio.play(125, [(60, 5.0)])),
            ],
        ),
        "game": (
            30,
            [
                (3, -10, studio.play(114, [(60, 0.6), (64, 0.6), (67, 0.6)])),
                (11, -8, studio.clip("cymbal", 1)),
                (18, -8, studio.play(126, [(60, 4.0)])),
                (24.5, -6, say(GAME)),
            ],
        ),
        "room": (20, []),
    }
    made = {name: mixed(seconds, sounds) for name, (seconds, sounds) in wanted.items() if name != "room"}
    return made | {"room": mixed(20, [], hiss_db=-72.0)}


def main() -> None:
    """Mix, write, give credit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bank", type=Path)
    parser.add_argument("debs", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent / "everyday")
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True)
    studio = Studio(options.bank, options.debs)
    for name, wave in recordings(studio).items():
        with soundfile.SoundFile(options.out / f"{name}.ogg", "w", RATE, 1, "VORBIS", format="OGG") as file:
            for first in range(0, len(wave), RATE):  # libsndfile dies of a long recording in one piece
                file.write(wave[first : first + RATE])
        print(f"{name}: {len(wave) / RATE:.1f} s")
    lines = [f"| {source} | {licence} |" for source, licence in sorted(studio.used)]
    text = (
        "# What the everyday recordings are made of\n\nMixed by `make_everyday.py` from generated beeps and hiss, "
        "flite's voice `rms` (BSD-like), the FluidR3 GM sound font (MIT), and:\n\n| source | licence |\n|---|---|\n"
    )
    (options.out / "CREDITS.md").write_text(text + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
