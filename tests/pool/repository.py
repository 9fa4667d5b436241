"""A mounted CVMFS repository that misbehaves as it is told, and a manager and hooks that look at it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.pool.harness import poll
from tests.pool.origin import CvmfsTree
from tests.pool.processes import descendants, environment_of, make_directory
from tests.pool.world import CVMFS_REPOSITORY, SANDBOXES, World, image_name

NAME: Final = Path(CVMFS_REPOSITORY).name
HOOK: Final = "/src/hooks/prepare-job"


class Mount:
    """The repository, with htc/rocky:9 in it, mounted below `base` and not below /cvmfs; a context manager."""

    def __init__(self, world: World) -> None:
        self.directory = make_directory(Path(tempfile.mkdtemp(prefix="cvmfs-", dir=world.directory)), "joe")
        self.base = self.directory / "cvmfs"
        self.top = self.base / NAME
        self.tree = CvmfsTree(self.directory / "tree")
        self.tree.publish("htc/rocky:9", SANDBOXES / "rocky9")
        self._faults = self.directory / "faults"
        self.server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.top.mkdir(parents=True)
        self.behave()
        library = next(Path("/usr/lib").glob("*/libfuse3.so.4"))
        places = [str(place) for place in (self.tree.root, self.top, self._faults)]
        argv = ["python3", "-m", "tests.pool.cvmfs_fuse", *places]
        environment = environment_of(None, {"FUSE_LIBRARY_PATH": str(library)})
        self.server = subprocess.Popen(argv, cwd="/src", env=environment)
        poll(lambda: os.path.ismount(self.top), "the mount")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.behave()
        subprocess.run(["umount", "-l", self.top], check=False, capture_output=True)
        self.kill()

    def behave(self, **faults: Any) -> None:  # noqa: ANN401 - as cvmfs_fuse takes them
        """Behave from now on, except for these faults."""
        fresh = self._faults.with_name("faults.new")
        fresh.write_text(json.dumps(faults))
        fresh.rename(self._faults)

    def kill(self) -> None:
        """Kill the client; its mount stays."""
        if self.server is not None:
            self.server.kill()
            self.server.wait()


@dataclass
class Manager:
    """A manager of joe's that looks at a mount; a context manager."""

    mount: Mount
    sources: str = ""
    process: subprocess.Popen[bytes] | None = None
    hooks: list[subprocess.Popen[str]] = field(default_factory=list)

    def __enter__(self) -> Self:
        knobs = {
            "LOCAL_DIR": self.directory,
            "LOG": self.directory,
            "LIBEXEC": "/usr/libexec/condor",
            "IMAGE_CACHE_CVMFS_BASE": self.mount.base,
            "IMAGE_CACHE_MIN_FREE_BYTES": "1 MB",
            "IMAGE_CACHE_SIF_SOURCES": self.sources,
        }
        self.config.write_text("".join(f"{name} = {value}\n" for name, value in knobs.items()))
        with (self.directory / "log").open("wb") as log:
            environment = environment_of("joe", {"CONDOR_CONFIG": str(self.config)})
            argv = ["condor_image_cache", "serve", "--stderr"]
            self.process = subprocess.Popen(argv, env=environment, stderr=log, cwd="/", user="joe", group="joe")
        poll(self.socket.exists, "the manager's socket")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mount.behave()
        for hook in self.hooks:
            hook.kill()
            hook.communicate()
        if self.process is not None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
            self.process.kill()

    @property
    def directory(self) -> Path:
        """Where it keeps its things."""
        return self.mount.directory

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.directory / "condor_config"

    @property
    def socket(self) -> Path:
        """Its socket."""
        return self.directory / "image_cache" / "socket"

    def log(self) -> str:
        """Return what it said."""
        return (self.directory / "log").read_text()

    def children_in_d_state(self) -> list[int]:
        """Return its children that no signal ends."""
        if self.process is None:
            return []
        return [pid for pid in descendants(self.process.pid) if state(pid) == "D"]

    def start_hook(self, image: str, *args: str, text: str = "") -> subprocess.Popen[str]:
        """Start the hook for a job that names an image (quoted); `text` is further lines of its ad."""
        ad = f"ClusterId = 1\nProcId = 0\nJobUniverse = 5\nSingularityImage = {image}\n{text}"
        given = self.directory / f"ad{len(self.hooks)}"
        given.write_text(ad)
        argv = [HOOK, "--socket", str(self.socket), "--owner", "joe", "--deadline", "60", *args]
        with given.open("rb") as stdin:
            hook = subprocess.Popen(argv, cwd=self.directory, stdin=stdin, stdout=subprocess.PIPE, text=True)
        self.hooks.append(hook)
        return hook

    def ask(self, image: str, *args: str) -> dict[str, str]:
        """Run the hook for a job that names an image (quoted) and return its answer."""
        return answer_of(self.start_hook(image, *args))

    def status(self, name: str) -> int:
        """Return the hook status for a published image."""
        return int(self.ask(image_name(name))["HookStatusCode"])


def answer_of(hook: subprocess.Popen[str], timeout: float = 40) -> dict[str, str]:
    """Return what a hook printed, once it has ended."""
    said = hook.communicate(timeout=timeout)[0]
    lines = (line.partition(" = ") for line in said.splitlines())
    return {key: value.strip('"') for key, _, value in lines}


def state(pid: int) -> str:
    """Return the state of a process, as the kernel abbreviates it; empty if there is none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def d_states() -> Sequence[int]:
    """Return all processes here that no signal ends."""
    pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if state(pid) == "D"]


def publish_revision(world: World, number: int) -> str:
    """Have a Stratum 1 publish a revision of the repository, and return its URL."""
    place = world.directory / "www" / "cvmfs" / NAME
    place.mkdir(parents=True, exist_ok=True)
    lines = [f"C{'0' * 40}", "B1024", "D240", f"S{number}", f"N{NAME}", "T1750000000", "--", "0" * 40, "signature"]
    fresh = place / ".new"
    fresh.write_text("\n".join(lines) + "\n")
    fresh.rename(place / ".cvmfspublished")
    return f"{world.origin.url}/cvmfs/{NAME}"


def retire_revisions(world: World) -> None:
    """Have the Stratum 1 publish nothing any more."""
    shutil.rmtree(world.directory / "www" / "cvmfs", ignore_errors=True)
