"""Things that look like images, publication trees and CVMFS repositories."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

REPOSITORY: Final = "singularity.opensciencegrid.org"
ARCH: Final = os.uname().machine
VERSION: Final = "20260101T000000Z.sif"
HTML: Final = b"<!DOCTYPE html><html><body>Please log in to this airport's network</body></html>\n"

_CODES: Final = {"x86_64": b"02", "aarch64": b"04"}
_HEADER: Final = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR: Final = struct.Struct("<i?IIIqqqqqqq128s384s")
_GROUP: Final = 0xF0000001
TABLE_AT: Final = _HEADER.size
OBJECTS: Final = ((0x4001, 1883, 64), (0x4006, 1947, 101), (0x4004, 2048, 0))
"""What a SIF of `sif` has: type, offset, size of a definition file, JSON, and a file system up to the end."""


def sif(seed: str = "", size: int = 4096, *, arch: str = ARCH, end: int = 0) -> bytes:
    """Return a SIF of `size` bytes with a table of three objects; `end` is where its last one is said to end."""
    data = hashlib.sha256(seed.encode()).digest()
    end = end or size
    objects = [(kind, at, length or end - at) for kind, at, length in OBJECTS]
    table = b"".join(descriptor(number, *one) for number, one in enumerate(objects, 1))
    front = (sif_header(len(objects), end, arch) + table).ljust(OBJECTS[2][1], b"\n") + superblock(end - OBJECTS[2][1])
    return front + (data * (size // 32 + 1))[: size - len(front)]


def superblock(size: int) -> bytes:
    """Return the beginning of a squashfs of `size` bytes."""
    return struct.pack("<4sIIIIHHHHHHQQ", b"hsqs", 1, 0, 4096, 0, 1, 12, 0, 1, 4, 0, 0, size)


def sif_header(count: int, end: int, arch: str = ARCH, table_at: int = TABLE_AT) -> bytes:
    """Return the header of a SIF with so many objects, the data of which end there."""
    table_bytes = count * _DESCRIPTOR.size
    data_at = table_at + table_bytes
    launch, code = b"#!/usr/bin/env run-singularity\n", _CODES[arch]
    numbers = (0, 0, 0, count, table_at, table_bytes, data_at, end - data_at)
    return _HEADER.pack(launch, b"SIF_MAGIC", b"01", code, b"", *numbers)


def descriptor(number: int, kind: int, at: int, length: int) -> bytes:
    """Return one row of a SIF's table; a file system is a squashfs."""
    extra = struct.pack("<ii3s", 1, 2, _CODES[ARCH]) if kind == 0x4004 else b""
    return _DESCRIPTOR.pack(kind, 1, number, _GROUP, 0, at, length, length, 0, 0, 0, 0, b"", extra)


def truncated_sif() -> bytes:
    """Return a SIF of which the second half is missing."""
    return sif(end=8192)


def other_arch() -> str:
    """Return an architecture that this machine is not."""
    return next(arch for arch in _CODES if arch != ARCH)


def digest(body: bytes) -> str:
    """Return the sha256 of an image."""
    return hashlib.sha256(body).hexdigest()


def tree(
    image: str, body: bytes, *, version: str = VERSION, manifest: bool = True, **instead: object
) -> dict[str, bytes]:
    """Return the files of a publication tree with one image. `instead` replaces values of its manifest."""
    file_name = image if ":" in image.rpartition("/")[2] else f"{image}:latest"
    directory = f"{ARCH}/{file_name.replace('/', '__').replace(':', '__')}"
    files = {f"{directory}/latest.txt": f"{version}\n".encode(), f"{directory}/{version}": body}
    if manifest:
        record = {"name": image, "sha256": digest(body), "size": len(body)} | instead
        files[f"{directory}/{version.removesuffix('.sif')}.json"] = json.dumps(record).encode()
    return files


def write(directory: Path, files: dict[str, bytes]) -> None:
    """Write files below a directory."""
    for name, body in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


@dataclass(frozen=True)
class Cvmfs:
    """A CVMFS repository as its directory looks: names are links to absolute paths below /cvmfs."""

    base: Path
    repository: str = REPOSITORY
    top: Path = field(init=False)

    def __post_init__(self) -> None:
        """Mount it."""
        object.__setattr__(self, "top", self.base / self.repository)
        self.top.mkdir(parents=True)

    def publish(self, name: str) -> Path:
        """Publish an image directory and return its real path."""
        number = hashlib.sha256(name.encode()).hexdigest()
        real = self.top / ".images" / number[:2] / number[2:]
        (real / ".singularity.d").mkdir(parents=True)
        self.link(name, f"/cvmfs/{self.repository}/.images/{number[:2]}/{number[2:]}")
        return real

    def link(self, name: str, target: str) -> None:
        """Make a name a link."""
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def job_ad(*lines: str) -> str:
    """Return a job ad as the starter prints it, with `lines` in it."""
    return "\n".join(
        (
            "ClusterId = 12",
            'Cmd = "/usr/bin/true"',
            "JobUniverse = 5",
            'Owner = "joe"',
            "ProcId = 3",
            'Requirements = (TARGET.Arch == "X86_64") && (TARGET.Memory >= RequestMemory)',
            *lines,
            "",
        )
    )


def image_ad(image: str) -> str:
    """Return the ad of a job that names an image."""
    return job_ad(f'SingularityImage = "{image}"')


def cvmfs_ad(name: str, repository: str = REPOSITORY) -> str:
    """Return the ad of a job that names an image of a CVMFS repository."""
    return image_ad(f"/cvmfs/{repository}/{name}")
