"""Pack a tree into a SIF: mksquashfs writes straight into the image file, behind what we put before it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cache_manager import sifwriter
from cache_manager.sifwriter import Kind, Part
from cache_manager.text import printable

_ALIGNMENT: Final = 4096
_BLOCK_BYTES: Final = 2**20
_POLL_S: Final = 0.2
_SAID_BYTES: Final = 4096


class PackError(RuntimeError):
    """The tree cannot be packed here; the text says why."""


@dataclass(frozen=True, slots=True)
class Packing:
    """For which architecture, and how: the algorithm and its level (None: the default) as mksquashfs names them."""

    arch: str
    compression: str = "zstd"
    level: int | None = 3
    memory_bytes: int = 256 * 2**20
    created_at: int = 0


@dataclass(frozen=True, slots=True)
class Packed:
    """What became of it; `sha256` is hexadecimal."""

    sha256: str
    size_bytes: int


def tool_version() -> str:
    """Return what mksquashfs says of itself, empty if it does not run here."""
    try:
        done = subprocess.run(["mksquashfs", "-version"], capture_output=True, text=True, check=False)  # noqa: S607
    except OSError:
        return ""
    words = done.stdout.split()
    return words[2] if len(words) > 2 else ""  # noqa: PLR2004 - "mksquashfs version 4.7"


def pack(
    tree: Path,
    target: Path,
    described: Sequence[tuple[Kind, str, bytes]],
    packing: Packing,
    check: Callable[[], None] = lambda: None,
) -> Packed:
    """Make the SIF `target` of a tree; `described` are the objects before the file system, with their names.

    Raises PackError, OSError, KeyError for an unknown architecture, and what `check` raises, which is called while it
    goes on. A file that is there afterwards is whole.
    """
    parts, at = [], sifwriter.DATA_AT
    for kind, name, body in described:
        parts.append(Part(kind, name, at, len(body)))
        at += len(body)
    at = -(-at // _ALIGNMENT) * _ALIGNMENT
    try:
        target.touch()
        _squash(tree, target, at, packing, check)
        parts.append(Part(Kind.FILE_SYSTEM, "", at, target.stat().st_size - at))
        identity = hashlib.sha256(b"".join(body for _, _, body in described)).digest()[:16]
        with target.open("r+b") as file:
            file.write(sifwriter.front(parts, packing.arch, identity, packing.created_at))
            for _, _, body in described:
                file.write(body)
        with target.open("rb") as file:
            digest = _digest(file.fileno(), check)
        return Packed(digest, target.stat().st_size)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _squash(tree: Path, target: Path, offset: int, packing: Packing, check: Callable[[], None]) -> None:
    program = shutil.which("mksquashfs", path=f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin")
    if program is None:
        raise PackError("mksquashfs is not installed (squashfs-tools)")
    level = [] if packing.level is None else ["-Xcompression-level", str(packing.level)]
    argv = [
        *(program, str(tree), str(target), "-offset", str(offset), "-noappend", "-quiet", "-no-progress"),
        "-exit-on-error",  # or a file that cannot be read becomes an empty one
        *("-comp", packing.compression, *level, "-mem", f"{max(64, packing.memory_bytes >> 20)}M"),
        *("-all-root", "-mkfs-time", str(packing.created_at)),
    ]
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"},
    )
    try:
        said = _watch(child, check)
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    if child.returncode:
        raise PackError(f"mksquashfs failed ({child.returncode}): {printable(said.strip(), 300)}")


def _watch(child: subprocess.Popen[bytes], check: Callable[[], None]) -> str:
    """Wait for its end, and return the end of what it said."""
    said = b""
    while True:
        try:
            out, _ = child.communicate(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            check()
            continue
        said = (said + out)[-_SAID_BYTES:]
        return said.decode(errors="replace")


def _digest(fd: int, check: Callable[[], None]) -> str:
    summed = hashlib.sha256()
    while block := os.read(fd, _BLOCK_BYTES):
        check()
        summed.update(block)
    return summed.hexdigest()
