"""Samples as an HTML page: a picture of each, its recording to play, its text to select.

The page stands on its own: nothing in it comes from any network, and the only other files that it needs are the
recordings, unless these are put into it too. Gold spans and calls are buttons that play their stretch. Every text of a
sample is escaped.
"""

from __future__ import annotations

import base64
import html
import mimetypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from urllib.parse import quote

from echo_agent.answers import match_choice
from echo_agent.audio.picture import INK, PAGE, SOFT
from echo_agent.audio.player import PLAYER
from echo_agent.dialects import InlineDialect
from echo_agent.disk import write_whole
from echo_agent.errors import DataError
from echo_agent.finetune.data.records import Record, Sample
from echo_agent.finetune.data.show.inspection import (
    ASKED,
    GOLD,
    KINDS,
    draw_strip,
    drawing,
    events_of,
    kind_of,
)


def write_page(
    samples: Sequence[Sample],
    records: Mapping[str, Record],
    audio_root: Path,
    path: Path,
    *,
    title: str = "Samples",
    embed: bool = False,
) -> Path:
    """Write samples as one HTML page; returns its path.

    Args:
        samples: As many as a browser can show.
        records: What is known of the recordings, by id; the events of one that is missing are not drawn.
        audio_root: Folder that the paths of the samples' audio are relative to.
        path: File to write.
        title: Of the page.
        embed: Put the recordings into the page; else it plays the files from where they are, by relative paths.

    Raises:
        DataError: There are no samples, or the page cannot be written.
        RecordingError: A recording cannot be read.
    """
    if not samples:
        raise DataError(f"{path}: there are no samples to show")
    with drawing(path):
        rows = [
            _row(
                sample,
                draw_strip(sample, records.get(sample.record), audio_root),
                _audio_source(audio_root / sample.audio, path, embed),
            )
            for sample in samples
        ]
        text = _PAGE.substitute(
            title=html.escape(title), legend=_legend(samples, records), rows="\n".join(rows),
            gold=GOLD, asked=ASKED, page=PAGE, ink=INK, soft=SOFT, player=PLAYER,
        )  # fmt: skip
        write_whole(path, text.encode())
    return path


def _row(sample: Sample, picture: bytes, audio: str) -> str:
    """One sample as HTML; every text from outside is escaped."""
    if sample.choices is None:
        choices = "".join(f'<li class="right">{html.escape(text)}</li>' for text in sample.right)
    else:
        right = match_choice(sample.answer, sample.choices)
        marks = [' class="right"' if i == right else "" for i in range(len(sample.choices))]
        choices = "".join(
            f"<li{mark}>{html.escape(choice)}</li>"
            for mark, choice in zip(marks, sample.choices, strict=True)
        )
    gold = " ".join(_button(f"{start:g} – {end:g} s", start, end, "gold") for start, end in sample.gold_spans)
    image = base64.b64encode(picture).decode()
    return (
        f'<section id="{html.escape(sample.id)}">\n<h2>{html.escape(sample.question)}</h2>\n<ul>{choices}</ul>\n'
        f'<img alt="waveform and events" src="data:image/png;base64,{image}">\n'
        f'<p><audio controls preload="none" src="{html.escape(audio)}"></audio> {gold}</p>\n'
        f"<blockquote>{_thought(sample)}</blockquote>\n<small>{html.escape(kind_of(sample))}</small>\n</section>"
    )


def _thought(sample: Sample) -> str:
    """The reasoning, its calls as buttons that play what they ask for."""
    text, rest = "", sample.reasoning
    for call in InlineDialect().parse(sample.reasoning).calls:
        before, _, rest = rest.partition(call.text)
        start, end = call.arguments["start"], call.arguments["end"]
        text += html.escape(before) + _button(call.text, start, end, "asked")
    return text + html.escape(rest)


def _button(text: str, start: float, end: float, kind: str) -> str:
    return f'<button class="{kind}" data-start="{start}" data-end="{end}">{html.escape(text)}</button>'


def _audio_source(audio: Path, page: Path, embed: bool) -> str:
    """Where the page finds a recording: its data, or its path from the page."""
    if not embed:
        return quote(Path(os.path.relpath(audio.resolve(), page.resolve().parent)).as_posix())
    kind = mimetypes.guess_type(audio.name)[0] or "audio/flac"
    return f"data:{kind};base64,{base64.b64encode(audio.read_bytes()).decode()}"


def _legend(samples: Sequence[Sample], records: Mapping[str, Record]) -> str:
    """The colours of what is shown."""
    shown = {event.kind for sample in samples for event in events_of(records.get(sample.record))}
    colours = {kind: colour for kind, colour in KINDS.items() if kind in shown}
    colours |= {"gold span": GOLD, "asked for": ASKED}
    return "".join(f'<i style="--c:{colour}">{name}</i>' for name, colour in colours.items())


_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; background: $page; color: $ink;
  font: 16px/1.5 system-ui, sans-serif; }
section { border-top: 1px solid #0002; padding: 1rem 0 1.5rem; }
h2 { font-size: 1.2rem; margin: .3rem 0; }
ul { list-style: none; padding: 0; margin: 0 0 .6rem; display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; }
li::before { content: "○ "; }
li.right { font-weight: 600; }
li.right::before { content: "● "; color: $gold; }
img { width: 100%; }
audio { vertical-align: middle; height: 2rem; }
blockquote { margin: .6rem 0; }
small, header { color: $soft; }
header i { font-style: normal; margin-right: 1.2rem; }
header i::before { content: "■ "; color: var(--c); }
button { font: inherit; font-size: .9em; border: 1px solid; border-radius: .3rem; background: none; cursor: pointer;
  padding: 0 .4rem; user-select: text; }
button.gold { color: $gold; }
button.asked { color: $asked; }
</style>
<h1>$title</h1>
<header>$legend</header>
$rows
<script>$player</script>
</html>
""")
