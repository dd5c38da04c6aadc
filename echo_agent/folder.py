"""One folder of recordings, and nothing outside of it: what a caller may name who is not the owner of the files.

A model that calls a tool, or a client over a network, names files in words. What it names is looked for in the folder
alone: a path that leads out of it (``..``, a path from the root, a link) names nothing.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from echo_agent.errors import RecordingError
from echo_agent.paths import as_on_disk, walk_files

NAMED = 10
"""Most files that an error names."""
HIDDEN = "."
"""How the names of files begin that are no recordings."""


class Folder:
    """A folder whose files may be asked about."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a folder; raises RecordingError where there is none."""
        try:
            self.root = Path(path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise RecordingError(f"there is no folder {path}") from error
        if not self.root.is_dir():
            raise RecordingError(f"{path} is no folder: name one that holds recordings")

    def find(self, name: str) -> Path:
        """The file that is called ``name`` in the folder, with all links followed.

        Raises:
            RecordingError: There is none, or it lies outside; the message is fit for whoever gave the name.
        """
        found: Path | None
        try:
            found = as_on_disk(self.root / name).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # not there, no name at all, or a loop of links
            found = None
        if found is None or not (found.is_relative_to(self.root) and found.is_file()):
            raise RecordingError(f"there is no recording {name!r} in the folder: {self._instead(name)}")
        return found

    def name(self, path: Path) -> str:
        """The name of a file of the folder, by which it can be found, with ``/`` between its parts."""
        return path.relative_to(self.root).as_posix()

    def names(self) -> list[str]:
        """The names of all files, sorted; hidden ones are left out, and those that links outside lead to."""
        found = (path for path in walk_files(self.root) if path.resolve().is_relative_to(self.root))
        names = (self.name(path) for path in found)
        return sorted(name for name in names if not any(p.startswith(HIDDEN) for p in name.split("/")))

    def told(self, error: Exception) -> str:
        """What an error says, without where the folder is."""
        return str(error).replace(f"{self.root}{os.sep}", "").replace(str(self.root), "the folder")

    def _instead(self, name: str) -> str:
        """What there is in place of a name that there is not."""
        names = self.names()
        if not names:
            return "it holds no files"
        near = get_close_matches(name, names, n=3, cutoff=0.5) or names[:NAMED]
        more = f", and {len(names) - len(near)} more" if len(names) > len(near) else ""
        return f"there is {', '.join(near)}{more}"
