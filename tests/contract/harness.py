"""A real manager with a configuration of its own, and the hook run as HTCondor runs it."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket as sockets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from cache_manager import client
from tests.contract.block import Answer
from tests.contract.doubles import Cvmfs
from tests.contract.processes import PATIENCE_S, Hook, end, feed, signal_mask, status_mask, wait_for_end
from tests.pool.processes import descendants, kill, poll

CHECKOUT: Final = Path(__file__).resolve().parents[2]
HOOKS: Final = CHECKOUT / "hooks"
NO_FEDERATION: Final = "http://127.0.0.1:1"
"""A test asks no server of the world's."""


@dataclass
class Site:
    """An execution point: its directory, knobs, CVMFS double, manager and hooks.

    A context manager: whatever it started ends with it.
    """

    directory: Path
    knobs: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    blocked_signals: bool = False
    below: Sequence[str] = ()
    """A command that runs the manager's command."""
    manager: subprocess.Popen[bytes] | None = None
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _files: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        """Make the directories; nothing runs yet."""
        self.root = Path(self.knobs.get("IMAGE_CACHE_DIR", self.directory / "image_cache"))
        self.socket = Path(self.knobs.get("IMAGE_CACHE_SOCKET", self.root / "socket"))
        self.config = self.directory / "condor_config"
        self.log = self.directory / "manager.log"
        self.scratch = self.directory / "execute" / "dir_1" / "scratch"
        self.scratch.mkdir(parents=True)
        self.cvmfs = Cvmfs(self.directory / "cvmfs")
        self.configure()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._started)
        self._files.close()

    def configure(self, extra: str = "", **knobs: str) -> None:
        """Write the configuration; `knobs` go on top of the site's own, `extra` at the end."""
        defaults = {
            "LOCAL_DIR": str(self.directory),
            "LOG": str(self.directory),
            "EXECUTE": str(self.directory / "execute"),
            "IMAGE_CACHE_CVMFS_BASE": str(self.cvmfs.base),
            "IMAGE_CACHE_MIN_FREE_BYTES": "0",
            "IMAGE_CACHE_FEDERATION": NO_FEDERATION,
        }
        lines = [f"{name} = {value}\n" for name, value in (defaults | dict(self.knobs) | knobs).items()]
        self.config.write_text("".join(lines) + extra, encoding="utf-8")

    @property
    def env(self) -> dict[str, str]:
        """The environment of our processes."""
        clean = {"PATH": os.environ["PATH"], "CONDOR_CONFIG": str(self.config), "LC_ALL": "C.UTF-8"}
        return clean | dict(self.environment)

    def popen(  # noqa: PLR0913 - a process has that many sides
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        blocked_signals: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start a process that ends with the site, as the leader of a session."""
        with signal_mask(blocked=blocked_signals):
            process = subprocess.Popen(
                [str(word) for word in argv],
                cwd=cwd or CHECKOUT,
                env=self.env if env is None else env,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def launch(self) -> subprocess.Popen[bytes]:
        """Start a manager, and do not wait for it."""
        with self.log.open("ab") as log:
            argv = [*self.below, sys.executable, "-m", "cache_manager", "serve", "--stderr"]
            return self.popen(argv, stdout=log, stderr=log, blocked_signals=self.blocked_signals)

    def start(self) -> Self:
        """Start the manager, and wait until it answers."""
        manager = self.manager = self.launch()

        def answers() -> bool:
            assert manager.poll() is None, f"the manager ended: {self.log_text()}"
            try:
                return bool(self.ask("status")["pid"] == manager.pid)
            except client.ManagerDown:
                return False

        poll(answers, "the manager's answer", PATIENCE_S, interval=0.01)
        return self

    @property
    def pid(self) -> int:
        """The manager's pid."""
        assert self.manager is not None
        return self.manager.pid

    def tell(self, number: signal.Signals) -> None:
        """Send the manager a signal."""
        os.kill(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Have the manager end by a signal, and return its exit status."""
        assert self.manager is not None
        self.manager.send_signal(number)
        return wait_for_end(self.manager)

    def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the manager by a signal and start another."""
        self.stop(number)
        self.start()

    def reconfigure(self, extra: str = "", **knobs: str) -> None:
        """Write another configuration, have the manager read it (condor_reconfig), and wait until it has."""
        self.configure(extra, **knobs)
        seen = self.log_text().count("configuration ")
        self.tell(signal.SIGHUP)
        self.wait_for(lambda: self.log_text().count("configuration ") > seen, "the configuration being read")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something is so."""
        poll(lambda: bool(condition()), what, PATIENCE_S, interval=0.01)

    def clock(self) -> float:
        """Return the time, as the manager's records have it."""
        return time.time()

    def ask(self, verb: str) -> dict[str, Any]:
        """Ask the manager as the admin commands do."""
        answer: dict[str, Any] = json.loads(client.ask(str(self.socket), verb))
        return answer

    def prepare(self, ad: str) -> bytes:
        """Return the block for a job, asked as the hook asks, by this process."""
        return client.ask(str(self.socket), "prepare", ad.encode(), job=len(ad.encode()), left=20)

    def connect(self, connection: sockets.socket) -> None:
        """Connect to the manager."""
        connection.connect(str(self.socket))

    def reports(self, ad: str) -> str:
        """Return all that the manager tells anybody who asks on its socket; `ad` is explained."""
        asked = [client.ask(str(self.socket), verb) for verb in ("status", "list", "advertise")]
        return b"".join([*asked, client.ask(str(self.socket), "explain", ad.encode())]).decode()

    def log_text(self) -> str:
        """Return what the manager said."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory of the cache root."""
        return sorted(path.name for path in (self.root / directory).iterdir())

    def all_text(self) -> str:
        """Return everything that the manager wrote: its log, and the names and contents below the root."""
        parts = [self.log_text()]
        for path in sorted(self.root.rglob("*")):
            parts.append(str(path))
            if path.is_file():
                parts.append(path.read_bytes().decode("latin-1"))
        return "\n".join(parts)

    def children(self) -> list[int]:
        """Return the pids of the manager's children."""
        return descendants(self.pid)

    def kill_child(self, pid: int) -> None:
        """Kill a child of the manager, and wait until it is gone."""
        assert pid in self.children()
        kill([pid])
        self.wait_for(lambda: pid not in self.children(), "the end of the child")

    def descriptors(self) -> int:
        """Return how many files the manager has open, by its own word: nobody may look into it."""
        return int(self.ask("status")["descriptors"])

    def manager_blocks(self, number: signal.Signals) -> bool:
        """Whether the manager does not get a signal."""
        return bool(status_mask(self.pid, "SigBlk") >> (number - 1) & 1)

    def limit_memory(self, size: int) -> None:
        """Let the manager have no more address space than that."""
        resource.prlimit(self.pid, resource.RLIMIT_AS, (size, size))

    def command(self, *words: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run an admin command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "cache_manager", *map(str, words)],
            cwd=CHECKOUT,
            env=self.env,
            input=text,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def _file(self) -> IO[bytes]:
        return self._files.enter_context(tempfile.TemporaryFile(dir=self.directory))

    def start_hook(  # noqa: PLR0913 - HTCondor gives a hook that much
        self,
        ad: str | bytes,
        *args: str,
        machine_ad: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        launcher: bool = True,
        blocked_signals: bool = True,
        hooks: Path = HOOKS,
        python: str = sys.executable,
        socket: str | Path | None = None,
        ends: bool = True,
    ) -> Hook:
        """Start the hook as HTCondor does: ad on stdin, in the job's directory, with nearly all signals blocked."""
        cwd = cwd or self.scratch
        if machine_ad is not None:
            raw = machine_ad.encode() if isinstance(machine_ad, str) else machine_ad
            (cwd / ".machine.ad").write_bytes(raw)
        environment = self.env | {
            "BATCH_SYSTEM": "HTCondor",
            "CONDOR_STARTER_PID": str(os.getpid()),
            "_CONDOR_SLOT": "slot1_1",
            "_CONDOR_SCRATCH_DIR": str(cwd),
            "_CONDOR_MACHINE_AD": str(cwd / ".machine.ad"),
        }
        script: list[str | Path] = [hooks / "prepare-job", "--python", python]
        if not launcher:
            script = [python, "-IS", hooks / "prepare_job.py"]
        stdout, stderr = self._file(), self._file()
        process = self.popen(
            [*script, "--socket", socket or self.socket, "--deadline", f"{PATIENCE_S:.0f}", *args],
            cwd=cwd,
            env=environment | dict(env or {}),
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            blocked_signals=blocked_signals,
        )
        if ends:
            feed(process, ad.encode() if isinstance(ad, str) else ad)
        return Hook(process, stdout, stderr)

    def run_hook(self, ad: str | bytes, *args: str, **options: Any) -> Answer:  # noqa: ANN401 - those of start_hook
        """Run the hook to its end."""
        return self.start_hook(ad, *args, **options).finish()
