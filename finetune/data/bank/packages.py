"""The Debian packages that the sound bank is made of: their names, licences, fetching, and the files inside.

No recording is shipped with echo-agent. `fetch` downloads the packages with the machine's own package
manager and unpacks them, without installing anything, into one folder each; `sound_files` then walks a
folder and the game archives in it. Packages that are set aside for held-out evaluation must never be seen in
training, so every entry point refuses to work in a folder that contains one of them.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.archives import read_archive
from echo_agent.finetune.data.bank.labels import label_of
from echo_agent.locks import locked_folder

RESERVED = frozenset({"tuxpaint-stamps-default", "supertux-data", "hedgewars-data", "unknown-horizons"})
CC0 = "CC0-1.0"

_AUDIO = (".wav", ".ogg", ".oga", ".flac", ".mp3")
_ARCHIVES = (".rcc", ".ocg", ".cat")


@dataclass(frozen=True)
class Package:
    """One Debian package with sounds."""

    name: str
    """Debian's name, also the name of the folder it is unpacked into."""
    licence: str
    """The licence of its sounds in a word; where single files differ, `licence_of` knows more."""


PACKAGES = (
    Package("asterisk-core-sounds-en-wav", "CC-BY-SA-3.0"),
    Package("bucklespring-data", "GPL-2+"),
    Package("fluid-soundfont-gm", "MIT"),
    Package("gcompris-qt-data", "per file (CC-BY-SA, CC-BY, public domain, GPL-3+)"),
    Package("hydrogen-data", "GPL-2+"),
    Package("hydrogen-drumkits", "per kit (GPL-2, GPL-2+, CC-BY, CC-BY-SA, CC0)"),
    Package("lincity-ng-data", "GPL-2+"),
    Package("lmms-common", "GPL-2+"),
    Package("minetest-data", "CC-BY-SA-3.0 or CC-BY-3.0"),
    Package("openclonk-data", "CC-BY-3.0 with exceptions"),
    Package("openttd-opensfx", "per file (CC-BY-3.0, CC-BY-SA-3.0, CC0)"),
    Package("scratch", "CC-BY-SA-3.0"),
    Package("searchandrescue-data", "GPL"),
    Package("sonic-pi-samples", "CC0-1.0 by its README, not listed by Debian"),
    Package("sound-theme-freedesktop", "CC-BY-SA"),
    Package("wesnoth-1.16-data", "GPL-2+"),
    Package("widelands-data", "GPL-2+"),
)


@dataclass(frozen=True)
class SoundFile:
    """One encoded recording of a package, with what its path says about it."""

    package: str
    """Name of the package."""
    path: str
    """Path below the package's folder; for a member of an archive, archive and member."""
    label: str
    """What it is a recording of."""
    licence: str
    """The licence of this file."""
    data: bytes
    """The encoded file."""

    @property
    def source(self) -> str:
        """Name of the original recording, unique over all packages."""
        return f"{self.package}:{self.path}"


def refuse_reserved(folder: Path) -> None:
    """Raises `DataError` if a package set aside for evaluation lies in the folder, unpacked or not."""
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = entry.name.split("_")[0]
        if name in RESERVED:
            raise DataError(
                f"{entry} belongs to {name}, which is reserved for held-out evaluation: remove it first"
            )


def fetch(folder: Path, packages: tuple[Package, ...] = PACKAGES) -> None:
    """Downloads and unpacks the packages not in the folder yet (needs apt-get, dpkg-deb, a network)."""
    with locked_folder(folder):
        refuse_reserved(folder)
        for package in packages:
            if package.name in RESERVED:
                raise DataError(f"{package.name} is reserved for held-out evaluation")
            if not (folder / package.name).is_dir():
                _fetch_one(folder, package.name)


def _fetch_one(folder: Path, name: str) -> None:
    """Download and unpack one package."""
    if not _archive_of(folder, name):
        _run(["apt-get", "download", name], folder)
    archive = _archive_of(folder, name)
    if archive is None:
        raise DataError(f"apt-get left no archive of {name} in {folder}")
    unfinished = folder / f"{name}.unpacking"
    _run(["dpkg-deb", "-x", str(archive.resolve()), str(unfinished.resolve())], folder)
    unfinished.rename(folder / name)


def _run(command: list[str], folder: Path) -> None:
    """Run a program of Debian's; what keeps it from its work becomes one line."""
    try:
        subprocess.run(command, cwd=folder, check=True)
    except FileNotFoundError:
        raise DataError(f"there is no {command[0]}: the sound packages need Debian or Ubuntu") from None
    except subprocess.CalledProcessError as error:
        raise DataError(f"`{' '.join(command)}` failed with exit code {error.returncode}") from None


def _archive_of(folder: Path, name: str) -> Path | None:
    return next(iter(sorted(folder.glob(f"{name}_*.deb"))), None)


def sound_files(folder: Path, package: Package) -> Iterator[SoundFile]:
    """Yields the labelled recordings of one unpacked package, sorted by path; others are skipped unread."""
    root = folder / package.name
    listed = _debian_cc0(root) if package.name == "sonic-pi-samples" else frozenset()
    for file in sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
        path, suffix = file.relative_to(root).as_posix(), file.suffix.lower()
        if suffix in _AUDIO:
            label = label_of(package.name, path)
            if label:
                yield SoundFile(
                    package.name, path, label, licence_of(package, path, listed), file.read_bytes()
                )
        elif suffix in _ARCHIVES:
            for member, data in read_archive(suffix, file.read_bytes()):
                inner = f"{path}/{member}"
                label = label_of(package.name, inner)
                if label and (suffix == ".cat" or inner.lower().endswith(_AUDIO)):
                    yield SoundFile(package.name, inner, label, licence_of(package, inner, listed), data)


def licence_of(package: Package, path: str, listed_cc0: frozenset[str] = frozenset()) -> str:
    """The licence of one file, as exactly as the package itself states it."""
    if package.name == "openttd-opensfx":  # the catalogue states author and licence in each description
        found = re.search(r"License: (.*?)(\.$|\. )", path)
        return _SHORT.get(found.group(1), found.group(1)) if found else package.licence
    if path.rpartition("/")[2] in listed_cc0:
        return CC0
    for kit, licence in _KIT_LICENCES.items() if package.name == "hydrogen-drumkits" else ():
        if f"/{kit}" in path:
            return licence
    return package.licence


_SHORT = {
    "Creative Commons Zero 1.0": CC0,
    "Creative Commons Attribution 3.0 Unported": "CC-BY-3.0",
    "Creative Commons Attribution-Share Alike 3.0 Unported": "CC-BY-SA-3.0",
}
_KIT_LICENCES = {
    "Audiophob/": CC0,
    "circAfrique": "CC-BY-SA-3.0",
    "rumpf_kit": "CC-BY-3.0",
    "ColomboAcousticDrumkit/": "GPL-2+ with composition exception",
}


def _debian_cc0(root: Path) -> frozenset[str]:
    """The samples that Debian's copyright file itself puts under CC0, by file name."""
    text = "\n".join(path.read_text() for path in sorted(root.glob("usr/share/doc/*/copyright")))
    names: set[str] = set()
    for paragraph in text.split("\n\n"):
        files = re.search(r"^Files:(.*?)(?=^\S|\Z)", paragraph, re.MULTILINE | re.DOTALL)
        if files and re.search(r"^License: *CC0\b", paragraph, re.MULTILINE):
            names.update(name.rpartition("/")[2] for name in files.group(1).split() if "/samples/" in name)
    return frozenset(names)
