"""Which lines of a file a change touches, as git tells."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

LIMIT_S: Final = 60.0
_HUNK = re.compile(rb"^@@ -[0-9,]+ \+([0-9]+)(?:,([0-9]+))? @@", re.MULTILINE)


class GitError(Exception):
    """git does not tell; the text says why, in its words."""


def changed_lines(file: Path, base: str) -> frozenset[int]:
    """Return the lines (the first is 1) that are new or different since the branch left `base`. Raises GitError.

    What `base` itself changed since is not the branch's. Where the history is too short to tell where it left, `base`
    as it is now is compared.
    """
    where, name = file.resolve().parent, file.resolve().name
    commit = _git(where, "rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}").strip().decode()
    with suppress(GitError):
        commit = _git(where, "merge-base", commit, "HEAD").split()[0].decode()
    plain = ("--no-ext-diff", "--no-textconv", "--text", "--no-color", "--unified=0", "--inter-hunk-context=0")
    # attributes and settings are the change's too: none of them may hide a line
    said = _git(where, "diff", *plain, commit, "--", f":(literal){name}")
    hunks = [(int(first), int(count or b"1")) for first, count in _HUNK.findall(said)]
    return frozenset(line for first, count in hunks for line in range(first, first + count))


def _git(where: Path, *words: str) -> bytes:
    environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(where), *words],  # noqa: S607 - the one on PATH, as everybody's
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise GitError("git is not installed, and --base needs it") from None
    except subprocess.TimeoutExpired:
        raise GitError(f"git {words[0]}: no answer in {LIMIT_S:.0f} s") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise GitError(f"git {words[0]}: {said or f'exit status {done.returncode}'}")
    return done.stdout
