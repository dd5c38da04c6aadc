"""Files as the disk spells their names: letters with accents in one piece or in two, links, and loops of links.

A Mac writes ``é`` as two characters (decomposed, NFD), most others as one (composed, NFC). A name that was written on
one and is looked for on the other names the same file all the same.
"""

from __future__ import annotations

import os
from pathlib import Path
from unicodedata import normalize


def composed(name: str) -> str:
    """A name with each accent in one piece with its letter (NFC), for comparison."""
    return normalize("NFC", name)


def as_on_disk(path: Path) -> Path:
    r"""The path of the file that is meant, as the disk spells it; the path itself where there is none, or several.

    A file that is called just so comes first. Else each part may be spelled with its accents composed or decomposed,
    and backslashes may stand for slashes (``clips\a.wav``).
    """
    if "\0" in str(path) or os.path.lexists(path):
        return path
    for meant in dict.fromkeys((path, Path(str(path).replace("\\", "/")))):
        found = _spelled(meant)
        if found is not None:
            return found
    return path


def _spelled(path: Path) -> Path | None:
    """The one path that differs from this one in nothing but how accents are written."""
    if os.path.lexists(path):
        return path
    if path.parent == path:
        return None
    folder = _spelled(path.parent)
    if folder is None:
        return None
    try:
        names = [name for name in os.listdir(folder) if composed(name) == composed(path.name)]
    except OSError:
        return None
    return folder / names[0] if len(names) == 1 else None


def walk_files(folder: Path) -> list[Path]:
    """Every file below a folder, through links to folders and files too, sorted.

    Each folder is listed once, however many links lead to it: first under its own path, else under that of a link. So a
    loop of links ends. Links that lead nowhere are left out, and so are folders that may not be read.
    """
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    queue = [folder]
    linked: list[Path] = []
    while queue or linked:
        here = queue.pop(0) if queue else linked.pop(0)
        try:
            found = here.stat()
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        for entry in entries:
            path = here / entry.name
            try:
                if entry.is_dir():
                    (linked if entry.is_symlink() else queue).append(path)
                elif entry.is_file():
                    files.append(path)
            except OSError:  # a link that leads back to itself
                continue
    return sorted(files)
