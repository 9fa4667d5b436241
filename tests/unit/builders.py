"""Values for tests: each builder has defaults for all that a test does not speak of."""

from __future__ import annotations

import hashlib
import platform
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

from cache_manager.entry import CacheEntry
from cache_manager.jobad import JobRequest, Machine
from cache_manager.lease import Holder, Lease
from cache_manager.reference import ImageReference
from cache_manager.settings import Settings

CHECKOUT: Final = Path(__file__).parents[2]
REPOSITORY: Final = "singularity.opensciencegrid.org"
BOOT: Final = "11111111-2222-3333-4444-555555555555"

_SIF_HEADER: Final = struct.Struct("<32s10s3s3s16s8q")
_SIF_DESCRIPTOR: Final = struct.Struct("<i?IIIqqqqqqq128s384s")
_SIF_ARCHITECTURES: Final = {"x86_64": b"02", "aarch64": b"04", "ppc64le": b"06", "s390x": b"11", "riscv64": b"12"}


def knobs(**values: str) -> Settings:
    """Return settings from knobs without their prefix: `knobs(MAX_BYTES="1 GB")`."""
    known = {f"IMAGE_CACHE_{name}": value for name, value in values.items()}
    return Settings.from_knobs({"IMAGE_CACHE_DIR": "/cache", "LOG": "/log", "LOCAL_DIR": "/local"} | known)


def key_of(name: str, kind: str = "sif") -> str:
    """Return an entry's key for a word."""
    return f"{hashlib.sha256(name.encode()).hexdigest()}.{kind}"


def entry(  # noqa: PLR0913 - what eviction looks at
    name: str = "htc/rocky:9",
    *,
    size: int = 1000,
    disk: int | None = None,
    inodes: int = 3,
    created_at: float = 100.0,
    used_at: float = 200.0,
) -> CacheEntry:
    """Return an entry of the cache; its key follows from the name."""
    return CacheEntry(
        key=key_of(name),
        name=name,
        origin=f"https://origin.example/{name}.sif",
        size_bytes=size,
        disk_bytes=size if disk is None else disk,
        inodes=inodes,
        created_at=created_at,
        architecture="x86_64",
        last_used_at=used_at,
    )


def lease(pid: int = 4711, ticks: int = 99, keys: tuple[str, ...] = (), boot_id: str = BOOT) -> Lease:
    """Return a lease."""
    return Lease(Holder(pid, ticks), frozenset(keys), boot_id, "ep1.example", 1000.0, "12.0")


def request(text: str = "", machine: Machine | None = None, leave: str = "") -> JobRequest:
    """Return what a job asks for; no text means no image."""
    image = ImageReference.parse(text) if text else None
    return JobRequest(
        image=image, named_by="ContainerImage" if image else "", leave=leave, machine=machine or Machine()
    )


def sif_header(  # noqa: PLR0913 - the fields of the format
    architecture: bytes = b"02",
    *,
    magic: bytes = b"SIF_MAGIC\x00",
    total: int = 1,
    table_at: int = 128,
    table_bytes: int = 585,
    data_at: int = 713,
    data_bytes: int = 100,
) -> bytes:
    """Return the first 128 bytes of a SIF whose data end at `data_at + data_bytes`."""
    launch = b"#!/usr/bin/env run-singularity\n\x00"
    numbers = (0, 0, 0, total, table_at, table_bytes, data_at, data_bytes)
    return _SIF_HEADER.pack(launch, magic, b"01\x00", architecture + b"\x00", b"\x00" * 16, *numbers)


def sif_object(kind: int = 0x4004, at: int = 713, size: int = 100, *, number: int = 1, form: int = 1) -> bytes:
    """Return a descriptor: of a squashfs if nothing else is said."""
    extra = struct.pack("<ii", form, 2)
    return _SIF_DESCRIPTOR.pack(kind, 1, number, 0, 0, at, size, size, 0, 0, 0, 0, b"object", extra)


def squashfs(size: int = 804, packed: int = 0, version: int = 4) -> bytes:
    """Return `size` bytes that begin as a squashfs, which says that it takes `packed` of them: all if 0."""
    numbers = (1, 0, 4096, 0, 1, 12, 0, 1, version, 0, 0, packed or size)
    return struct.pack("<4sIIIIHHHHHHQQ", b"hsqs", *numbers).ljust(size, b"x")


def sif_file(data: bytes = b"", architecture: str = "") -> bytes:
    """Return a whole SIF for an architecture, this machine's if none is given, of a small squashfs if not of `data`."""
    data = data or squashfs()
    code = _SIF_ARCHITECTURES[architecture or platform.machine()]
    return sif_header(code, data_bytes=len(data)) + sif_object(size=len(data)) + data


def in_child(code: str, argument: str = "", limit_s: int = 2) -> subprocess.CompletedProcess[str]:
    """Run Python code as a process that may die, with two seconds of processor time and no more, if nothing is said."""
    limited = f"import resource, sys\nresource.setrlimit(resource.RLIMIT_CPU, ({limit_s}, {limit_s}))\n{code}\n"
    return subprocess.run(
        [sys.executable, "-c", limited, argument], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
