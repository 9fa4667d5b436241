"""Unpacking, with a runtime that is a script: what it leaves, and what it may take."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from cache_manager import acl, probe
from cache_manager.runtime import Runtime
from cache_manager.staging import Staging
from cache_manager.status import HookStatus, StatusError
from cache_manager.unpacker import Unpacker, tidy
from tests.unit.builders import knobs, sif_file

BUILDS = """\
[ "$2" = build ] || exit 37
mkdir -p "$4/bin" && echo "$5" >"$4/from" && env >"$4/environment"
"""
SIF = sif_file(b"no squashfs" * 1000)


class Reservation:
    """Grants so many bytes and files."""

    def __init__(self, size_bytes: int = 10**9, files: int = 10**6) -> None:
        self.most = size_bytes, files
        self.asked: list[tuple[int, int]] = []

    def grow(self, size_bytes: int, files: int = 3) -> None:
        """Grant it, or not."""
        self.asked.append((size_bytes, files))
        if size_bytes > self.most[0] or files > self.most[1]:
            raise StatusError(HookStatus.CACHE_FULL, f"no room for {size_bytes} bytes, {files} files")


def unpack(tmp_path: Path, script: str, room: Reservation | None = None, sif: bytes = SIF) -> Path:
    """Have a script unpack a SIF, and return the staging directory."""
    room = room or Reservation()
    path = tmp_path / "apptainer"
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    directory = tmp_path / "staging"
    directory.mkdir()
    staging = Staging(directory, room.grow)
    staging.write(sif)
    staging.finish()
    Unpacker(Runtime(lambda: str(path), "", str(tmp_path)), knobs).unpack(staging, "htc/rocky:9", room.grow)
    return directory


def test_the_directory_takes_the_place_of_the_sif(tmp_path: Path) -> None:
    """Nothing else is left: what the runtime kept for itself lay there too, and is gone."""
    staging = unpack(tmp_path, f"{BUILDS}\nmkdir -p $HOME/cache/0 && chmod 0 $HOME/cache/0 && echo x >$TMPDIR/x")
    assert [path.name for path in staging.iterdir()] == ["image"]
    image = staging / "image"
    assert sorted(path.name for path in image.iterdir()) == ["bin", "environment", "from"]
    assert (image / "from").read_text() == f"{staging}/image\n"
    seen = dict(line.partition("=")[::2] for line in (image / "environment").read_text().splitlines())
    kept = ("HOME", "TMPDIR", "APPTAINER_CACHEDIR", "APPTAINER_TMPDIR", "SINGULARITY_CACHEDIR", "SINGULARITY_TMPDIR")
    assert {seen[name] for name in kept} == {f"{staging}/work"}
    assert not any(name.startswith(("CONDOR", "_CONDOR")) for name in seen)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'FATAL: bad superblock' >&2; exit 255", "apptainer: FATAL: bad superblock"),
        ("exit 255", "exit status 255"),
        ("exit 0", "exit status 0"),
        ('ln -s / "$4"', "exit status 0"),
        ('echo x >"$4"', "exit status 0"),
    ],
    ids=["says why", "silent", "makes nothing", "makes a link", "makes a file"],
)
def test_a_runtime_that_makes_no_directory_has_failed(tmp_path: Path, script: str, words: str) -> None:
    """The image's name and the runtime's last words are told."""
    with pytest.raises(StatusError) as caught:
        unpack(tmp_path, script)
    assert caught.value.status is HookStatus.IMAGE_UNPACK_FAILED
    assert caught.value.message.startswith("htc/rocky:9: could not be unpacked here: ")
    assert words in caught.value.message


GROWS = """\
mkdir "$4"
i=0
while [ $i -lt 100 ]; do
  i=$((i + 1)); head -c 1000000 /dev/zero >"$4/$i"; sleep 0.05
done
"""
MANY = """\
mkdir "$4"
i=0
while [ $i -lt 5000 ]; do i=$((i + 1)); : >"$4/$i"; [ $((i % 50)) -gt 0 ] || sleep 0.05; done
"""


@pytest.mark.parametrize(
    ("script", "room", "most"),
    [(GROWS, Reservation(20_000_000), 60), (MANY, Reservation(10**9, 500), 3000)],
    ids=["bytes", "files"],
)
def test_who_outgrows_what_is_reserved_is_ended(tmp_path: Path, script: str, room: Reservation, most: int) -> None:
    """Long before it is done; and it wrote nothing after that."""
    with pytest.raises(StatusError, match="no room"):
        unpack(tmp_path, script, room)
    unpacked = tmp_path / "staging" / "unpacked"
    count = len(list(unpacked.iterdir()))
    assert 0 < count < most
    assert len(room.asked) > 2


def test_room_is_reserved_ahead_of_what_is_written(tmp_path: Path) -> None:
    """And never less than before."""
    room = Reservation()
    unpack(tmp_path, GROWS.replace("-lt 100", "-lt 20"), room)
    sizes = [size for size, _ in room.asked]
    assert sizes == sorted(sizes)
    assert sizes[-1] >= 20_000_000


def test_the_first_reservation_knows_the_file_system(tmp_path: Path) -> None:
    """Its superblock says how many files there are, and how large it is packed."""
    room = Reservation(files=10)
    with pytest.raises(StatusError, match="no room"):
        unpack(tmp_path, BUILDS, room, probe.sif("x86_64"))
    assert room.asked[-1][1] >= len(probe.DIRECTORIES) + 2


def test_nothing_stays_attached_to_files(tmp_path: Path) -> None:
    """Users' own attributes, and lists that let others write or read what comes later."""
    top = tmp_path / "image"
    (top / "directory").mkdir(parents=True)
    (top / "file").touch()
    (top / "closed").touch()
    (top / "link").symlink_to("file")
    lets_write = [
        (0x01, 7, 2**32 - 1),
        (0x02, 7, 1000),
        (0x04, 7, 2**32 - 1),
        (0x10, 7, 2**32 - 1),
        (0x20, 7, 2**32 - 1),
    ]
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in lets_write)
    for path in (top, top / "directory", top / "file", top / "closed"):
        os.setxattr(path, acl.ATTRIBUTE, listed)
    os.setxattr(top / "directory", acl.INHERITED, listed)
    for path in (top / "file", top / "closed", top / "directory"):
        os.setxattr(path, "user.note", b"x")
    (top / "closed").chmod(0)
    tidy(top)
    for path in (top, *top.rglob("*")):
        assert [name for name in os.listxattr(path) if not name.startswith("security.")] == [], path
        assert stat.S_IMODE(path.stat().st_mode) in {0o755, 0o644}


def test_modes_are_made_right(tmp_path: Path) -> None:
    """Everybody reads, only we write, nothing is set-uid, links are left, what they lead to is not touched."""
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    outside.chmod(0o600)
    top = tmp_path / "image"
    modes = {"file": 0o600, "program": 0o700, "setuid": 0o4755, "open": 0o666, "none": 0o000, "group": 0o2070}
    (top / "closed" / "deep").mkdir(parents=True)
    (top / "sticky").mkdir()
    for name, mode in modes.items():
        (top / "closed" / "deep" / name).touch()
        (top / "closed" / "deep" / name).chmod(mode)
    (top / "link").symlink_to(outside)
    (top / "up").symlink_to("..")
    os.mkfifo(top / "fifo", 0o600)
    (top / "closed" / "deep").chmod(0o000)
    (top / "closed").chmod(0o300)
    (top / "sticky").chmod(0o7777)
    top.chmod(0o000)
    tidy(top)
    found = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in top.rglob("*") if not path.is_symlink()}
    assert found == {
        "closed": 0o755,
        "deep": 0o755,
        "sticky": 0o755,
        "fifo": 0o644,
        "file": 0o644,
        "program": 0o755,
        "setuid": 0o755,
        "open": 0o644,
        "none": 0o644,
        "group": 0o755,
    }
    assert stat.S_IMODE(top.stat().st_mode) == 0o755
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert (top / "link").is_symlink()
