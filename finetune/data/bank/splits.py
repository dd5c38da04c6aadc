"""Which split a source belongs to.

Invariant: all clips of one source, and all sources of one group, lie in one split. Three questions are asked
of a model trained on the bank, and each has its split: new recordings of known packages (``test``), a
package never heard (``unseen_package``) and a voice never heard (``unseen_voice``). Everything is decided by
hashes of names, so the same packages always give the same splits, and a package that is added moves few of
the others' files.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

SPLITS = ("train", "val", "test", "unseen_package", "unseen_voice")
UNSEEN_PACKAGE = "scratch"
TEST_SHARE, VAL_SHARE = 0.2, 0.1
SMALL_CLASS = 8
"""Classes with fewer sources than this give at most one source to test and none to validation."""

VOICE_SPLITS = {"slt": "unseen_voice", "en-gb-x-rp+f4": "val", "rms": "test", "en-gb-scotland+f3": "test"}


@dataclass(frozen=True)
class Candidate:
    """One source of a class that is to be split."""

    source: str
    """The original recording."""
    group: str
    """Sources of one group stay together."""
    package: str
    """Where it comes from."""
    preferred: bool = False
    """Whether it is wanted in the test split (its licence allows showing it in examples)."""


def voice_split(voice: str) -> str:
    """The split of everything a voice says."""
    return VOICE_SPLITS.get(voice, "train")


def split_class(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Assigns the sources of one class to splits.

    About 70/10/20 by source. Classes of eight or more have at least two in test. Preferred sources go to
    test first, but fill at most half of a large quota, so that test does not become one package. Never more
    than half of the class is in test.
    """
    splits: dict[str, str] = {}
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.package == UNSEEN_PACKAGE:
            splits[candidate.source] = "unseen_package"
        else:
            groups[candidate.group].append(candidate)
    total = sum(len(members) for members in groups.values())
    large = total >= SMALL_CLASS
    test_quota = max(2, round(TEST_SHARE * total)) if large else int(total >= 4)
    val_quota = max(1, round(VAL_SHARE * total)) if large else 0

    order = sorted(groups, key=_hash)
    preferred = [name for name in order if any(member.preferred for member in groups[name])]
    test = _fill(preferred, groups, max(2, test_quota // 2) if large else test_quota, total // 2)
    others = [name for name in order if name not in preferred] + [
        name for name in preferred if name not in test
    ]
    taken = sum(len(groups[name]) for name in test)
    test += _fill(
        [name for name in others if name not in test], groups, test_quota - taken, total // 2 - taken
    )
    val = _fill([name for name in reversed(order) if name not in test], groups, val_quota, total // 4)
    for name, members in groups.items():
        split = "test" if name in test else "val" if name in val else "train"
        splits.update((member.source, split) for member in members)
    return splits


def _fill(names: list[str], groups: dict[str, list[Candidate]], quota: int, limit: int) -> list[str]:
    """Takes groups in order until the quota of sources is reached, skipping groups that pass the limit."""
    taken: list[str] = []
    count = 0
    for name in names:
        if count >= quota:
            break
        if count + len(groups[name]) <= limit:
            taken.append(name)
            count += len(groups[name])
    return taken


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
