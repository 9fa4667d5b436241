"""A manager with a published SIF and a CVMFS double, for the benchmarks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cache_manager import client
from tests.contract.doubles import sif
from tests.pool.processes import poll

CHECKOUT: Final = Path(__file__).resolve().parents[2]
NAME: Final = "htc/rocky:9"
REPOSITORY: Final = "singularity.opensciencegrid.org"


@dataclass(frozen=True, slots=True)
class Site:
    """A running manager."""

    directory: Path
    socket: str
    manager: subprocess.Popen[bytes]

    def resident_kb(self) -> int:
        """Return the manager's resident memory."""
        return self._status_kb("VmRSS")

    def peak_kb(self) -> int:
        """Return the most that it has had so far."""
        return self._status_kb("VmHWM")

    @property
    def cache(self) -> Path:
        """The cache's root."""
        return self.directory / "image_cache"

    def _status_kb(self, name: str) -> int:
        for line in Path(f"/proc/{self.manager.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise RuntimeError(f"the manager has no {name}")


@contextmanager
def site(knobs: str = "") -> Iterator[Site]:
    """Run a manager that has one SIF to give, or what the configuration lines say; it ends with the context.

    The container runtime is one that starts everything at once: what it takes is not measured here.
    """
    with tempfile.TemporaryDirectory(prefix="image-cache-bench-") as name:
        directory = Path(name)
        _publish(directory / "tree" / os.uname().machine / "htc__rocky__9")
        runtime = directory / "apptainer"
        runtime.write_text('#!/bin/sh\n[ "$2" = exec ] && exit 37\nexit 0\n', encoding="ascii")
        runtime.chmod(0o755)
        config = directory / "condor_config"
        config.write_text(
            f"LOCAL_DIR = {directory}\nLOG = {directory}\nIMAGE_CACHE_SIF_SOURCES = file://{directory}/tree\n"
            f"IMAGE_CACHE_MIN_FREE_BYTES = 1 MB\nIMAGE_CACHE_CVMFS_BASE = {directory}/cvmfs\n"
            f"IMAGE_CACHE_RUNTIME = {runtime}\n{knobs}"
        )
        environment = {**os.environ, "CONDOR_CONFIG": str(config)}
        argv = [sys.executable, "-m", "cache_manager", "serve"]
        manager = subprocess.Popen(argv, cwd=CHECKOUT, env=environment)
        try:
            path = str(directory / "image_cache" / "socket")
            poll(lambda: Path(path).exists(), "the manager's socket")
            poll(lambda: client.ask(path, "status"), "the manager's answer")
            yield Site(directory, path, manager)
        finally:
            manager.terminate()
            manager.wait(10)


def job_ad(attributes: int = 150) -> bytes:
    """Return a job ad as the starter prints it, with an image and `attributes` lines."""
    lines = [
        "ClusterId = 12",
        "ProcId = 0",
        "JobUniverse = 5",
        'Owner = "joe"',
        f'SingularityImage = "/cvmfs/{REPOSITORY}/{NAME}"',
        'Requirements = (TARGET.Arch == "X86_64") && (TARGET.OpSys == "LINUX") && (TARGET.Memory >= 1)',
        "RequestDisk = DiskUsage",
        "RequestMemory = ifthenelse(MemoryUsage =!= undefined,MemoryUsage,(ImageSize + 1023) / 1024)",
    ]
    lines += [f'Attribute{number} = "a value of ordinary length {number}"' for number in range(attributes - len(lines))]
    return ("\n".join(lines) + "\n").encode()


def _publish(directory: Path) -> None:
    """Write a file that is a SIF by its header."""
    directory.mkdir(parents=True)
    (directory / "20260101T000000Z.sif").write_bytes(sif("bench", 1 << 20))
    (directory / "latest.txt").write_text("20260101T000000Z.sif\n")
