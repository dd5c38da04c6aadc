"""A picture as a file: what its suffix says is what is written."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import TYPE_CHECKING

from echo_agent.disk import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf", ".html")
"""Suffixes of the files that can be written."""

_DATES = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""The same picture is the same file, whenever it is drawn."""


def save_picture(figure: Figure, path: Path, title: str, colour: str) -> None:
    """Write a figure to a file of one of the kinds in :data:`PICTURES`, whole or not at all.

    Args:
        figure: The picture.
        path: The file; an HTML page holds the picture in itself.
        title: What it shows, in one line.
        colour: Of the page.

    Raises:
        ValueError: The suffix is none of them.
        DataError: The file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in PICTURES:
        raise ValueError(f"{path}: a picture ends in {', '.join(PICTURES)}")
    kind = "png" if suffix == ".html" else suffix[1:]
    data = io.BytesIO()
    figure.savefig(data, format=kind, dpi=160, facecolor=colour, metadata=_DATES.get(suffix))
    drawn = data.getvalue()
    write_whole(path, _page(drawn, title, colour) if suffix == ".html" else drawn)


def _page(png: bytes, title: str, colour: str) -> bytes:
    """A page with one picture in it."""
    name = html.escape(title)
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{name}</title>
<style>body {{ margin: 0; background: {colour} }} img {{ display: block; margin: auto; max-width: 100% }}</style>
<img alt="{name}" src="{source}">
</html>
""".encode()
