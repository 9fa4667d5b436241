"""Layers and images for tests, put together entry by entry."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

MTIME = 1_700_000_000

_TYPES = {
    "dir": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}


@dataclass(frozen=True)
class Entry:
    """A member of a layer. `kind` is `file`, or one of those above; `body` is a file's bytes or a link's target."""

    name: str
    kind: str = "file"
    body: bytes | str = b""
    mode: int | None = None
    xattrs: Mapping[str, str] = field(default_factory=dict)


def tar(entries: Iterable[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a layer, uncompressed."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
        for one in entries:
            body = one.body.encode("utf-8", "surrogateescape") if isinstance(one.body, str) else one.body
            info = tarfile.TarInfo(one.name)
            info.mtime = MTIME
            info.mode = one.mode if one.mode is not None else 0o644 if one.kind == "file" else 0o755
            info.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in one.xattrs.items()}
            if one.kind == "file":
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
                continue
            info.type = _TYPES[one.kind]
            info.linkname = body.decode("utf-8", "surrogateescape")
            archive.addfile(info)
    return raw.getvalue()


def layer(*entries: Entry) -> bytes:
    """Return a layer, compressed with gzip."""
    return gzip.compress(tar(entries), 1, mtime=0)


def config(arch: str = "amd64", created: str = "2024-01-02T03:04:05Z", **values: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Return an image's configuration; the keywords are those of its `config` part."""
    return json.dumps({"architecture": arch, "os": "linux", "created": created, "config": values}).encode()
