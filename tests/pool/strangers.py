"""Users who trust each other in nothing, and what they ask and see of an execution point that root started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.pool.harness import Pool, run_as
from tests.pool.processes import descendants

MANAGER: Final = 990
"""The uid of the manager's user; joe is 1000, amy 1001."""

ASK: Final = """
import sys
from cache_manager import client
ad = sys.stdin.read().encode()
print(client.ask(sys.argv[1], sys.argv[2], ad, job=len(ad), left=20).decode())
"""


def root_of(pool: Pool) -> Path:
    """Return the root of a pool's cache."""
    return pool.directory / "image_cache"


def ask(pool: Pool, verb: str, ad: str, user: str | None) -> str:
    """Ask the manager as a process of this user that is in no job."""
    argv = ["/opt/venv/bin/python3", "-c", ASK, str(root_of(pool) / "socket"), verb]
    return run_as(user, argv, env=pool.environment | {"PYTHONPATH": "/src"}, text_input=ad, check=False).stdout


def listed(pool: Pool, user: str | None) -> list[dict[str, Any]]:
    """Return what `list` says to a user."""
    said = run_as(user, ["condor_image_cache", "list", "--json"], env=pool.environment).stdout
    rows: list[dict[str, Any]] = json.loads(said)
    return rows


def tree(top: Path) -> dict[str, tuple[int, int, int, int]]:
    """Return every name below a directory, with mode, owner, size and number of names."""
    found = {}
    for path in [top, *top.rglob("*")]:
        one = path.lstat()
        found[str(path)] = (one.st_mode, one.st_uid, one.st_size, one.st_nlink)
    return found


def as_joe(script: str) -> None:
    """Run a script as joe."""
    run_as("joe", ["/bin/sh", "-euc", script])


def starters(pool: Pool) -> list[int]:
    """Return the starters of a pool."""
    names = ((pid, Path(f"/proc/{pid}/comm")) for pid in descendants(pool.master_pid))
    return [pid for pid, path in names if path.exists() and path.read_text() == "condor_starter\n"]
