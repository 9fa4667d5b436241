"""Images made to break out while they are unpacked: the limits hold, nothing lands outside, the next job is served."""

from __future__ import annotations

import json
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from cache_manager.unpacker import tidy
from tests.pool.hostile_images import PLACE, USERS, emptied, squashfs, unpacked
from tests.pool.processes import run_as


def zeros(top: Path) -> bytes:
    """Return a file of 4 GB of zeros, which is a hole."""
    (top / "zeros").touch()
    os.truncate(top / "zeros", 4 * 10**9)
    return squashfs(top)


def copies(top: Path) -> bytes:
    """Return 200 files of 10 MB which lie in the image once, and are no holes."""
    for number in range(200):
        (top / str(number)).touch()
        os.truncate(top / str(number), 10**7)
    return squashfs(top, "-no-sparse")


def closed_copies(top: Path) -> bytes:
    """Return the same in directories that nobody may look into."""
    for number in range(200):
        (top / str(number)).mkdir()
        (top / str(number) / "x").touch()
        os.truncate(top / str(number) / "x", 10**7)
        (top / str(number)).chmod(0)
    return squashfs(top, "-no-sparse")


TOO_MUCH: Final = (copies, closed_copies)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("make", TOO_MUCH)
def test_what_becomes_larger_than_the_cache_is_ended(user: str | None, make: Callable[[Path], bytes]) -> None:
    """The SIF has some kilobytes, and would take 2 GB."""
    with emptied(PLACE / "source") as top:
        data = make(top)
    assert len(data) < 10**6
    found = unpacked(user, data)
    assert found.first["status"] == 320, found.report
    assert found.is_contained()


@pytest.mark.parametrize("user", USERS)
def test_holes_take_no_room(user: str | None) -> None:
    """They stay holes: an image that says it has 4 GB of zeros has nothing."""
    with emptied(PLACE / "source") as top:
        data = zeros(top)
    found = unpacked(user, data)
    assert found.first["status"] in {0, 320}, found.report
    assert found.is_contained()


def many_files(count: int) -> bytes:
    """Return a squashfs of so many empty files, without making them."""
    out = PLACE / "made.squashfs"
    out.unlink(missing_ok=True)
    argv = ["mksquashfs", "-", str(out), "-tar", "-noappend", "-no-progress", "-quiet"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        for number in range(count):
            process.stdin.write(tar_header(f"d{number // 1000}/f{number}"))
        process.stdin.write(bytes(1024))
        process.stdin.close()
        assert process.wait() == 0
    return out.read_bytes()


def tar_header(name: str) -> bytes:
    """Return the header of an empty file."""
    front = struct.pack(
        "100s8s8s8s12s12s", name.encode(), b"0000644\0", b"0000000\0", b"0000000\0", b"0" * 11, b"0" * 11
    )
    rest = b"0" + bytes(100) + b"ustar\x0000" + bytes(247)
    checksum = sum(front) + 8 * 32 + sum(rest)
    return (front + b"%06o\0 " % checksum + rest).ljust(512, b"\0")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("says", ["the truth", "one", "four billion"])
def test_a_million_files_are_refused_whatever_the_superblock_says(user: str | None, says: str) -> None:
    """Where files are limited: before, if it is said, else while they are made."""
    data = MILLION.get() if says == "the truth" else with_inodes(MILLION.get(), {"one": 1}.get(says, 2**32 - 1))
    found = unpacked(user, data, files=20_000)
    assert found.first["status"] in {320, 450}, found.report
    assert found.is_contained()


class _Million:
    """Made once: it takes half a minute."""

    def __init__(self) -> None:
        self._data = b""

    def get(self) -> bytes:
        """Return the image."""
        self._data = self._data or many_files(1_000_000)
        return self._data


MILLION: Final = _Million()


def with_inodes(data: bytes, count: int) -> bytes:
    """Return a squashfs that says it has so many files."""
    return data[:4] + struct.pack("<I", count) + data[8:]


LIES: Final = (
    ("no block size", 12, b"\0\0\0\0"),
    ("a huge block size", 12, b"\xff\xff\xff\x7f"),
    ("a root beyond the end", 32, b"\xff" * 8),
    ("its end in the middle", 40, struct.pack("<Q", 100)),
    ("its ids nowhere", 48, b"\xff" * 7 + b"\x7f"),
    ("its inodes nowhere", 64, b"\xff" * 7 + b"\x7f"),
    ("its inodes at the beginning", 64, bytes(8)),
    ("an unknown compression", 20, b"\x63\0"),
    ("four billion fragments", 16, b"\xff" * 4),
    ("sixty thousand ids", 26, b"\xff" * 2),
)


@pytest.mark.parametrize(("name", "at", "what"), LIES, ids=[row[0] for row in LIES])
def test_a_superblock_that_lies_costs_its_job_alone(name: str, at: int, what: bytes) -> None:
    """It cannot be unpacked, within time and memory."""
    del name
    with emptied(PLACE / "source") as top:
        (top / "file").write_bytes(os.urandom(300_000))
        data = squashfs(top)
    found = unpacked("joe", data[:at] + what + data[at + len(what) :])
    assert found.first["status"] in {0, 320, 450, 510}, found.report
    assert found.is_contained()


EVERYBODY: Final = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, 7, uid)
    for tag, uid in ((1, 2**32 - 1), (2, 1000), (4, 2**32 - 1), (16, 2**32 - 1), (32, 2**32 - 1))
)
"""A list that lets joe, and everybody, do everything."""

CAPABILITIES: Final = struct.pack("<IIIII", 0x02000001, 2**32 - 1, 0, 2**8 - 1, 0)
"""All that there are, effective at once."""


def attach(path: Path) -> None:
    """Attach to a file or directory whatever can be attached."""
    os.setxattr(path, "trusted.overlay.opaque", b"y")
    os.setxattr(path, "user.note", b"x")
    os.setxattr(path, "system.posix_acl_access", EVERYBODY)
    if path.is_dir():
        os.setxattr(path, "system.posix_acl_default", EVERYBODY)
    else:
        os.setxattr(path, "security.capability", CAPABILITIES)


def attached(top: Path) -> dict[str, list[str]]:
    """Return what is attached to anything in a tree."""
    found = {str(path): os.listxattr(path, follow_symlinks=False) for path in (top, *top.rglob("*"))}
    return {path: names for path, names in found.items() if names}


@pytest.mark.parametrize("user", USERS)
def test_no_capability_list_or_other_attribute_comes_with_an_image(user: str | None) -> None:
    """A program with capabilities would be root's to whoever runs it outside of a container."""
    with emptied(PLACE / "source") as top:
        (top / "bin").mkdir()
        (top / "bin" / "su").write_text("x")
        attach(top / "bin" / "su")
        attach(top / "bin")
        assert len(attached(top)) == 2
        data = squashfs(top, "-xattrs")
    found = unpacked(user, data)
    assert found.first["status"] == 0, found.report
    assert found.is_contained()
    assert (found.image / "bin" / "su").exists()
    assert attached(found.image.parent) == {}


def test_what_a_container_runtime_attached_is_taken_away() -> None:
    """It keeps what it may keep: as root all of it."""
    with emptied(PLACE / "source") as top:
        (top / "su").write_text("x")
        (top / "directory").mkdir()
        for path in (top / "su", top / "directory"):
            attach(path)
        tidy(top)
        assert attached(top) == {}


def strange_tree(top: Path) -> tuple[str, ...]:
    """Make everything that an image may hold and we do not want, and return the pseudo files."""
    (top / "bin").mkdir()
    (top / "bin" / "su").write_text("x")
    (top / "bin" / "su").chmod(0o6777)
    os.link(top / "bin" / "su", top / "bin" / "hard-link")
    for name in ("entry.json", "image", "work", "unpacked"):
        (top / name).symlink_to(f"../../../../beside/{name}")
    (top / "absolute").symlink_to("/etc/passwd")
    (top / "up").symlink_to("../" * 40 + "etc")
    (top / "loop").symlink_to("loop")
    os.mkfifo(top / "fifo", 0o666)
    (top / "open").mkdir()
    (top / "open").chmod(0o1777)
    (top / "closed").mkdir()
    (top / "closed" / "inside").write_text("x")
    (top / "closed" / "inside").chmod(0)
    (top / "closed").chmod(0)
    (top / "new\nline").write_text("x")
    (top / "-rf").write_text("x")
    Path(os.fsdecode(bytes(top) + b"/not\xffutf8")).write_text("x")
    (top / ("n" * 255)).write_text("x")
    os.chown(top / "bin", 12345, 12345)
    attach(top / "bin" / "su")
    attach(top / "open")
    return ("null c 666 0 0 1 3", "disk b 666 0 0 8 0")


@pytest.mark.parametrize("user", USERS)
def test_what_is_unpacked_is_ours_and_harmless(user: str | None) -> None:
    """No devices, no set-uid bits, nothing that others may write to; links are not followed."""
    with emptied(PLACE / "source") as top:
        pseudo = strange_tree(top)
        data = squashfs(top, pseudo=pseudo)
    found = unpacked(user, data)
    assert found.first["status"] == 0, found.report
    assert found.is_contained()
    owner = found.root.stat().st_uid
    everything = list(found.image.rglob("*"))
    assert {"su", "hard-link", "fifo", "inside", "absolute", "new\nline", "-rf", "n" * 255} <= {
        one.name for one in everything
    }
    assert not {"null", "disk"} & {one.name for one in everything}
    for path in (found.image, *everything):
        one = path.lstat()
        assert one.st_uid == owner, path
        if not stat.S_ISLNK(one.st_mode):
            assert stat.S_IMODE(one.st_mode) in {0o755, 0o644}, path
    assert (found.image / "entry.json").is_symlink()
    assert json.loads((found.image.parent / "entry.json").read_text())["key"] == found.first["key"]


@pytest.mark.parametrize("user", USERS)
def test_directories_a_thousand_deep_come_and_go(user: str | None) -> None:
    """As deep as a path can be: what was unpacked can be removed again."""
    with emptied(PLACE / "source") as top:
        here = os.open(".", os.O_RDONLY)
        os.chdir(top)
        for _ in range(1900):
            os.mkdir("d")  # noqa: PTH102 - the whole path would be too long
            os.chdir("d")
        os.fchdir(here)
        os.close(here)
        data = squashfs(top)
    found = unpacked(user, data)
    assert found.first["status"] in {0, 450}, found.report
    assert found.is_contained()
    if found.first["key"]:
        script = (
            "import sys; from pathlib import PurePosixPath; from cache_manager.layout import CacheLayout;"
            " from cache_manager.store import Store; store = Store(CacheLayout(PurePosixPath(sys.argv[1])));"
            " store.remove(store.evict(sys.argv[2]))"
        )
        run_as(user, [sys.executable, "-c", script, str(found.root), found.first["key"]], cwd=Path("/src"))
        assert os.listdir(found.root / "trash") == []  # noqa: PTH208 - names
