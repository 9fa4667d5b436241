"""Archives of an image, as `docker save` and its like write them: a tar of layers with an index. Pure.

Headers are read here, and not by tarfile: that one reads as much into memory as a header of a hostile archive says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from cache_manager.registry import manifest as manifests
from cache_manager.text import printable

Read = Callable[[int, int], bytes]
"""Returns the bytes at a place, so many at most."""

BLOCK: Final = 512
MAX_MEMBERS: Final = 10_000
MAX_JSON_BYTES: Final = manifests.MAX_BYTES
_MAX_EXTENSION_BYTES: Final = 64 * 1024
_MAGIC: Final = b"ustar"
_EXTENDED: Final = frozenset({b"x", b"g"})
_BASE_256: Final = 0x80


class ArchiveError(ValueError):
    """An archive that is none of one image; the text says why."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A whole archive. `transport` is what the runtime calls its kind, `architecture` as `uname -m` says (or empty)."""

    transport: str
    architecture: str


def is_archive(head: bytes) -> bool:
    """Whether a file begins as a tar does."""
    return len(head) >= BLOCK and head[257:262] == _MAGIC and _sum_is_right(head[:BLOCK])


def look(read: Read, size_bytes: int) -> Archive:
    """Return what kind of an archive this is. Raises ArchiveError, also for what is cut short."""
    members = {name: (at, size) for name, at, size in _members(read, size_bytes)}

    def loaded(name: str) -> Any:  # noqa: ANN401 - JSON
        at, size = members.get(name.removeprefix("./"), (0, -1))
        if size < 0:
            raise ArchiveError(f"has no {printable(name, 100)!r}")
        if size > MAX_JSON_BYTES:
            raise ArchiveError(f"{printable(name, 100)!r} has {size} bytes")
        try:
            return json.loads(read(at, size))
        except (ValueError, RecursionError):
            raise ArchiveError(f"{printable(name, 100)!r} is no JSON") from None

    try:
        if "manifest.json" in members:
            return Archive("docker-archive", _docker(loaded))
        if "oci-layout" in members:
            return Archive("oci-archive", _oci(loaded))
    except (LookupError, TypeError, AttributeError):
        raise ArchiveError("its index is none") from None
    raise ArchiveError(f"a tar of {len(members)} files, and no image: neither manifest.json nor oci-layout is in it")


def _docker(loaded: Callable[[str], Any]) -> str:
    listed = loaded("manifest.json")
    if len(listed) != 1:
        raise ArchiveError(f"holds {len(listed)} images, and one is wanted")
    return _architecture(loaded(str(listed[0]["Config"])))


def _oci(loaded: Callable[[str], Any]) -> str:
    listed = loaded("index.json")["manifests"]
    if len(listed) != 1:
        raise ArchiveError(f"holds {len(listed)} images, and one is wanted")
    manifest = loaded(_blob(listed[0]["digest"]))
    if "manifests" in manifest:
        raise ArchiveError("holds an index of images, and one is wanted")
    return _architecture(loaded(_blob(manifest["config"]["digest"])))


def _blob(digest: object) -> str:
    algorithm, _, value = str(digest).partition(":")
    return f"blobs/{algorithm}/{value}"


def _architecture(config: Any) -> str:  # noqa: ANN401 - JSON
    return manifests.machine_of(str(config.get("architecture", "")))


def _members(read: Read, size_bytes: int) -> Iterator[tuple[str, int, int]]:
    """Yield the files of a tar: name, place, size. Raises ArchiveError."""
    at, told_bytes = 0, -1
    for _ in range(MAX_MEMBERS):
        head = read(at, BLOCK)
        if not head.strip(b"\0"):
            if len(head) < BLOCK:
                raise ArchiveError(f"ends early ({size_bytes} bytes)")
            return
        if not is_archive(head):
            raise ArchiveError(f"is damaged, or ends early (at byte {at} of {size_bytes})")
        size = _number(head[124:136])
        kind, inside = head[156:157], at + BLOCK
        if kind not in _EXTENDED and told_bytes >= 0:
            size, told_bytes = told_bytes, -1
        if inside + size > size_bytes:
            raise ArchiveError(f"ends early ({size_bytes} bytes, a file of {size} begins at {inside})")
        if kind == b"x" and size <= _MAX_EXTENSION_BYTES:
            told_bytes = _told_size(read(inside, size))
        elif kind in {b"0", b"\0"}:
            yield _name(head), inside, size
        at = inside + -(-size // BLOCK) * BLOCK
    raise ArchiveError(f"has more than {MAX_MEMBERS} files")


def _name(head: bytes) -> str:
    prefix = head[345:500].split(b"\0")[0] if head[257:265] == b"ustar\x0000" else b""
    name = head[:100].split(b"\0")[0]
    return (prefix + b"/" * bool(prefix) + name).decode("utf-8", "replace").removeprefix("./")


def _sum_is_right(head: bytes) -> bool:
    counted = sum(head) - sum(head[148:156]) + 8 * ord(" ")
    try:
        return _number(head[148:156]) == counted
    except ArchiveError:
        return False


def _number(field: bytes) -> int:
    """Return a number of a header: octal, or for large ones the bytes themselves."""
    if field[0] == _BASE_256:
        value = int.from_bytes(field[1:])
        if value < manifests.MAX_SIZE:
            return value
    text = field.strip(b"\0 ")
    if text and not text.isdigit():
        raise ArchiveError("is damaged: a number is none")
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise ArchiveError("is damaged: a number is none") from None


def _told_size(records: bytes) -> int:
    """Return the size that an extended header tells of the file after it; -1 if it does not."""
    for record in records.split(b"\n"):
        _, _, pair = record.partition(b" ")
        key, _, value = pair.partition(b"=")
        if key == b"size" and value.isdigit() and len(value) < 19:  # noqa: PLR2004 - 63 bits
            return int(value)
    return -1
