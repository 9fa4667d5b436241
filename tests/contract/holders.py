"""Starters: processes that run the hook as HTCondor's do, and go on as long as their job."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.contract.block import Answer
from tests.contract.harness import HOOKS, Site
from tests.contract.processes import PATIENCE_S
from tests.pool.processes import descendants, poll

_STARTER: Final = (
    '[ -n "$STATED" ] && export CONDOR_STARTER_PID=$$; "$@" <"$AD" >"$OUT.part"; mv "$OUT.part" "$OUT"; read line'
)
"""A job's life: the hook, and then until its standard input ends."""


@dataclass
class Starter:
    """A process that holds leases for one job."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.process.pid

    def answer(self) -> Answer:
        """Return the answer of its hook."""
        poll(self.output.exists, f"the answer to starter {self.pid}", PATIENCE_S)
        return Answer.of(self.output.read_bytes(), b"", 0, 0.0)

    def end(self) -> None:
        """Have its job end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        self.process.kill()
        self.process.wait(PATIENCE_S)
        if self.process.stdin is not None:
            self.process.stdin.close()


def start(site: Site, ad: str, *, stated: bool = True, args: Sequence[str] = ()) -> Starter:
    """Start a starter, whose hook asks for what `ad` names. Not `stated`: the hook is not told its pid."""
    directory = site.directory / f"starter{len(os.listdir(site.directory))}"  # noqa: PTH208 - a number, no paths
    directory.mkdir()
    (directory / "ad").write_text(ad, encoding="utf-8")
    hook = [str(HOOKS / "prepare-job"), "--python", sys.executable, "--socket", str(site.socket), "--deadline", "20"]
    environment = {"AD": str(directory / "ad"), "OUT": str(directory / "out"), "STATED": "yes" if stated else ""}
    process = site.popen(
        ["/bin/sh", "-c", _STARTER, "starter", *hook, *args],
        cwd=directory,
        env=site.env | environment,
        stdin=subprocess.PIPE,
        blocked_signals=True,
    )
    return Starter(process, directory / "out")


def family(starter: Starter) -> tuple[int, int]:
    """Return the pids of the launcher and of the interpreter below a starter."""

    def found() -> list[int]:
        below = descendants(starter.pid)
        return below if len(below) == 2 else []

    launcher, interpreter = poll(found, "the hook's processes", PATIENCE_S)
    return launcher, interpreter
