"""A cache that unpacks a hostile image and then an ordinary one, and what it left: for the tests of both users."""

from __future__ import annotations

import json
import platform
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cache_manager import probe
from tests.pool.processes import make_directory, run_as

PLACE: Final = Path("/pool/hostile")
CAP_BYTES: Final = 60_000_000
MISSED_BYTES: Final = 900_000_000
"""What may be written between two looks at what an image takes: into memory here, and on a machine that tests other
things too (60 MB were seen on an idle one, 460 MB on a busy one). The images below would take 2 GB."""

USERS: Final = (None, "joe")


@dataclass
class Outcome:
    """What became of a hostile image, and of the ordinary one after it."""

    root: Path
    report: dict[str, Any]
    cap_bytes: int = CAP_BYTES
    before: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def first(self) -> dict[str, Any]:
        """The hostile image."""
        found: dict[str, Any] = self.report["images"][0]
        return found

    @property
    def image(self) -> Path:
        """Where its directory lies."""
        return self.root / "entries" / str(self.first["key"]) / "image"

    def is_contained(self) -> bool:
        """Whether nothing is left of it beside its entry, the ordinary one was served, and nothing changed outside."""
        assert self.report["images"][-1]["status"] == 0, self.report
        assert self.report["staging"] == self.report["trash"] == [], self.report
        assert self.report["used_bytes"] <= self.cap_bytes
        assert self.report["most_bytes"] <= self.cap_bytes + MISSED_BYTES, self.report
        assert outside() == self.before
        return True


def outside() -> dict[str, tuple[int, ...]]:
    """Return what lies where an image might want to write, with its mode, size and time."""
    found: dict[str, tuple[int, ...]] = {}
    for top in (Path("/etc"), Path("/tmp"), Path("/root"), PLACE / "beside"):  # noqa: S108 - looked at only
        for path in (top, *top.rglob("*")):
            one = path.lstat()
            if not stat.S_ISDIR(one.st_mode):
                found[str(path)] = (one.st_mode, one.st_uid, one.st_size, one.st_mtime_ns)
    return found


def squashfs(directory: Path, *options: str, pseudo: tuple[str, ...] = ()) -> bytes:
    """Return a squashfs of a directory, with pseudo files."""
    out = PLACE / "made.squashfs"
    out.unlink(missing_ok=True)
    words = [word for one in pseudo for word in ("-p", one)]
    argv = ["mksquashfs", str(directory), str(out), "-noappend", "-no-progress", "-quiet", *options, *words]
    subprocess.run(argv, check=True, capture_output=True)
    return out.read_bytes()


@contextmanager
def few_inodes(count: int) -> Iterator[None]:
    """Have caches lie on a file system that has room for so many files."""
    PLACE.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=755,nr_inodes={count}", "few", PLACE], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", PLACE], check=True)


@contextmanager
def emptied(directory: Path) -> Iterator[Path]:
    """Give an empty directory."""
    subprocess.run(["rm", "-rf", str(directory)], check=True)
    directory.mkdir(parents=True)
    yield directory
    subprocess.run(["rm", "-rf", str(directory)], check=True)


def unpacked(user: str | None, data: bytes, *, files: int = 0, cap_bytes: int = CAP_BYTES) -> Outcome:
    """Have a cache of a user fetch a hostile image and then an ordinary one; `files` limits those, if it is not 0."""
    root = PLACE / f"cache-{user or 'root'}"
    subprocess.run(["rm", "-rf", str(root)], check=True)
    make_directory(root, user)
    make_directory(PLACE / "beside", user)
    for name, body in (("hostile", data), ("good", probe.squashfs(platform.machine()))):
        (PLACE / f"{name}.sif").write_bytes(probe.wrapped(body, platform.machine()))
    before = outside()
    sifs = [str(PLACE / f"{name}.sif") for name in ("hostile", "good")]
    argv = [sys.executable, "-m", "tests.pool.unpacking", str(root), str(cap_bytes), str(files), *sifs]
    done = run_as(user, argv, cwd=Path("/src"), timeout=200)
    return Outcome(root, json.loads(done.stdout), cap_bytes, before)
