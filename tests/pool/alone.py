"""A manager of joe's without a pool, on a root and in namespaces that a test prepares; starters and hooks beside it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cache_manager import client
from tests.contract.doubles import job_ad
from tests.pool.processes import end, environment_of, make_directory, poll

HOOK: Final = "/src/hooks/prepare-job"

_STARTER: Final = """\
mkdir -p "dir_$$/scratch" && chown "$USER" "dir_$$/scratch" && cd "dir_$$/scratch" || exit 1
export CONDOR_STARTER_PID="${STATED:-$$}"
setpriv --reuid="$USER" --regid="$USER" --clear-groups "$@" <"$AD" >"$OUT.part"
mv "$OUT.part" "$OUT"
read line
"""
"""A job's life as a root EP's starter sees it: the hook runs as the user, and then the job until input ends."""


def write_runtime(directory: Path) -> Path:
    """Write a runtime that starts everything: the images of these tests are images by their header alone."""
    runtime = directory / "runtime"
    runtime.write_text('#!/bin/sh\ncase " $* " in *" exec "*) exit 37 ;; esac\n')
    runtime.chmod(0o755)
    return runtime


@dataclass
class Starter:
    """A starter and its job."""

    process: subprocess.Popen[bytes]
    output: Path
    execute: Path

    @property
    def directory(self) -> Path:
        """Its job's directory."""
        return self.execute / f"dir_{self.process.pid}"

    def answer(self) -> dict[str, str]:
        """Return what its hook printed."""
        poll(self.output.exists, "the hook's answer", 40)
        lines = (line.partition(" = ") for line in self.output.read_text().splitlines())
        return {key: value.strip('"') for key, _, value in lines}

    @property
    def status(self) -> int:
        """The hook status."""
        return int(self.answer()["HookStatusCode"])

    @property
    def message(self) -> str:
        """The hook's message."""
        return self.answer().get("HookStatusMessage", "")

    def kill(self) -> None:
        """Kill it as `kill -9` does; its directory stays."""
        self.process.kill()
        self.process.wait()


@dataclass
class Alone:
    """The manager; a context manager. `below` is a command of root's that runs the manager's command."""

    knobs: dict[str, str] = field(default_factory=dict)
    below: Sequence[str] = ()
    user: str = "joe"
    process: subprocess.Popen[bytes] | None = None
    starters: list[Starter] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make its directories and its configuration."""
        base = make_directory(Path("/pool/alone"), None)
        self.directory = make_directory(Path(tempfile.mkdtemp(dir=base)), self.user)
        self.execute = make_directory(self.directory / "execute", None)
        self.root = Path(self.knobs.get("IMAGE_CACHE_DIR", self.directory / "image_cache"))
        self.socket = Path(self.knobs.get("IMAGE_CACHE_SOCKET", self.root / "socket"))
        self.config = self.directory / "condor_config"
        knobs = {
            "LOCAL_DIR": self.directory,
            "LOG": self.directory,
            "EXECUTE": self.execute,
            "IMAGE_CACHE_RUNTIME": write_runtime(self.directory),
            "IMAGE_CACHE_CVMFS_BASE": self.directory / "cvmfs",
            "IMAGE_CACHE_MIN_FREE_BYTES": "0",
            "IMAGE_CACHE_MIN_AGE": "0",
            **self.knobs,
        }
        self.config.write_text("".join(f"{name} = {value}\n" for name, value in knobs.items()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for starter in self.starters:
            end(starter.process, 0, ask=None)
            if starter.process.stdin:
                starter.process.stdin.close()
        self.stop()

    def start(self) -> None:
        """Start the manager, and wait until it answers."""
        drop = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.below, *drop, "condor_image_cache", "serve", "--stderr"],
                env=environment_of(self.user, {"CONDOR_CONFIG": str(self.config)}),
                stderr=log,
                cwd="/",
            )
        poll(self.answers, "the manager's answer")

    def answers(self) -> bool:
        """Whether the manager answers."""
        with suppress(client.ManagerDown):
            return bool(self.ask("status"))
        return False

    def stop(self) -> None:
        """Kill the manager, as `kill -9` does."""
        if self.process is not None:
            end(self.process, 0, ask=None)

    def ask(self, verb: str) -> dict[str, Any]:
        """Ask the manager as the admin commands do."""
        found: dict[str, Any] = json.loads(client.ask(str(self.socket), verb))
        return found

    def advertised(self) -> dict[str, str]:
        """Return the slot attributes."""
        lines = (line.partition(" = ") for line in client.ask(str(self.socket), "advertise").decode().splitlines())
        return {key: value.strip('"') for key, _, value in lines}

    def log(self) -> str:
        """Return what the manager said."""
        return (self.directory / "log").read_text()

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory of the root."""
        return sorted(path.name for path in (self.root / directory).iterdir())

    def start_job(self, image: str, *, stated: str = "", owner: str = "amy", below: Sequence[str] = ()) -> Starter:
        """Start a starter whose job names an image. `stated` is the pid that the hook states, if it is not its own.

        `below` is a command that runs the starter's command.
        """
        output = self.directory / f"out{len(self.starters)}"
        given = output.with_suffix(".ad")
        given.write_text(job_ad(f'SingularityImage = "{image}"').replace("joe", owner))
        extra = {"AD": str(given), "OUT": str(output), "STATED": stated, "USER": owner}
        hook = [HOOK, "--socket", str(self.socket), "--owner", self.user, "--deadline", "30"]
        shell = self.directory / "condor_starter"  # the manager serves what is below a process of this name
        if not shell.exists():
            shell.symlink_to("/bin/sh")
        process = subprocess.Popen(
            [*below, shell, "-c", _STARTER, "starter", *hook],
            cwd=self.execute,
            env=environment_of(None, extra),
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.starters.append(Starter(process, output, self.execute))
        return self.starters[-1]

    def status(self, image: str, owner: str = "amy") -> tuple[int, str]:
        """Return the status and the message for a job that names an image; its starter has ended then."""
        starter = self.start_job(image, owner=owner)
        found = starter.status, starter.message
        starter.kill()
        return found
