"""A real PostgreSQL for a test: a cluster of its own in a temporary folder, reached by a socket, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOMES = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)] + sorted(
    Path("/usr/lib/postgresql").glob("*/bin"), reverse=True
)


def programs() -> Path | None:
    """The folder that PostgreSQL's own programs are in; None where they are not installed."""
    linked = next((home / "initdb" for home in HOMES if (home / "initdb").is_file()), None)
    return None if linked is None else linked.resolve().parent


@contextmanager
def postgres() -> Iterator[str]:
    """A server that is empty; the words to connect to it."""
    home = programs()
    assert home is not None, "check programs() first"
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # the path of a socket has to be short
    as_other = _as_other(folder)

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*as_other, str(home / program), *arguments], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    data, log = str(folder / "data"), str(folder / "log")
    try:
        run("initdb", "-D", data, "-U", "tests", "-A", "trust", "--no-sync", "-E", "UTF8", "--no-locale")
        options = f"-c listen_addresses='' -k {folder} -c fsync=off"
        run("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
        try:
            yield f"host={folder} user=tests dbname=postgres"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_other(folder: Path) -> list[str]:
    """What begins a command for somebody who is not root, to whom the folder is given: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return []
    try:
        other = pwd.getpwnam("postgres")
    except KeyError:
        other = pwd.getpwnam("nobody")
    os.chown(folder, other.pw_uid, other.pw_gid)
    return ["setpriv", f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups"]
