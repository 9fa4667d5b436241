"""The smallest images: what is put together byte by byte is what the formats say."""

from __future__ import annotations

import platform
import struct
import subprocess
from pathlib import Path

import pytest

from cache_manager import probe, sif

ARCHITECTURES = ["x86_64", "aarch64"]


def test_the_program_ends_as_nothing_else_does(tmp_path: Path) -> None:
    """On this machine, without an interpreter or a library."""
    path = tmp_path / probe.PROGRAM
    path.write_bytes(probe.program(platform.machine()))
    path.chmod(0o755)
    assert subprocess.run([path], check=False, env={}).returncode == probe.STATUS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_sif_is_whole_and_for_its_architecture(architecture: str) -> None:
    """And its only partition is the file system with all its files."""
    data = probe.sif(architecture)
    header = sif.parse_header(data, len(data))
    assert (header.architecture, header.end_bytes) == (architecture, len(data))
    place = sif.table_of(data)
    root = sif.root_squashfs(data[place.offset : place.offset + place.size_bytes])
    assert root is not None
    assert data[root.offset : root.offset + root.size_bytes] == probe.squashfs(architecture)
    counts = sif.squashfs_counts(data[root.offset :])
    assert counts is not None
    assert counts[0] == len(probe.DIRECTORIES) + 2
    assert counts[1] <= root.size_bytes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_file_system_holds_the_program_and_the_directories(architecture: str) -> None:
    """Read back as the kernel's description says."""
    data = probe.squashfs(architecture)
    inode_at, listing_at = struct.unpack_from("<QQ", data, 64)
    (root,) = struct.unpack_from("<Q", data, 32)
    kind, _, _, _, _, _, start, _, size = struct.unpack_from("<HHHHIIIIH", data, inode_at + 2 + root)
    assert (kind, start) == (1, 0)
    at, end = listing_at + 2 + 12, listing_at + 2 + size - 3
    (count,) = struct.unpack_from("<I", data, listing_at + 2)
    found = {}
    while at < end:
        offset, _, kind, length = struct.unpack_from("<HhHH", data, at)
        found[data[at + 8 : at + 9 + length].decode()] = (kind, offset)
        at += 9 + length
    assert len(found) == count + 1
    assert sorted(found) == sorted((*probe.DIRECTORIES, probe.PROGRAM))
    assert {name for name, (kind, _) in found.items() if kind == 2} == {probe.PROGRAM}
    file_at = inode_at + 2 + found[probe.PROGRAM][1]
    (mode,) = struct.unpack_from("<H", data, file_at + 2)
    body_at, _, _, length = struct.unpack_from("<IIII", data, file_at + 16)
    assert (mode, data[body_at : body_at + length]) == (0o755, probe.program(architecture))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda one: one, "no descriptors"),
        (lambda one: one + probe.sif("x86_64")[128:713] * 2, "two file systems"),
        (lambda one: one + probe.sif("x86_64")[128:700], "half a descriptor"),
        (lambda one: one + bytes(585), "an unused one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_any_other_sif_is_left_to_the_runtime(change: object, why: str) -> None:
    """An overlay, or a second file system, is more than unsquashfs would see."""
    assert callable(change), why
    assert sif.root_squashfs(change(b"")) is None


def test_what_is_no_squashfs_has_no_counts() -> None:
    """Too short, or something else."""
    assert sif.squashfs_counts(b"") is None
    assert sif.squashfs_counts(b"hsqs") is None
    assert sif.squashfs_counts(bytes(96)) is None


def test_there_is_no_probe_for_what_nobody_assembled() -> None:
    """Such an execution point is believed, as before."""
    assert not probe.is_known("riscv64")
    assert all(probe.is_known(one) for one in ARCHITECTURES)
