# ruff: noqa: PTH118, PTH208
# pathlib takes longer to import than all that is done here
"""A job's credential, which the manager asks the transfer plug-in for as it asks the hook: read as the job's user."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

LARGEST = 64 * 1024
MOST_NAMES = 20
USUAL = "scitokens"
"""The service that is meant where none is named, if the job has more than one."""


def frame(body: bytes, environment: Mapping[str, str]) -> bytes:
    """Return the first of these services' credentials that the job has. None named: its only one, or the usual."""
    directory = environment.get("_CONDOR_CREDS") or ".condor_creds"
    there = services(directory)
    names = body.decode("utf-8", "surrogateescape").split("\n") if body else _meant(there)
    for name in names:
        if not is_plain(name):
            return _found("unwell", there, why="a name that is none")
        try:
            return _found("file", there, name, read(os.path.join(directory, f"{name}.use")))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            return _found("denied", there, name, why=error.strerror or "error")
        except OSError as error:
            return _found("unwell", there, name, why=error.strerror or str(error))
    return _found("absent", there)


def _meant(there: list[str]) -> list[str]:
    if USUAL in there:
        return [USUAL]
    return there if len(there) == 1 else []


def services(directory: str) -> list[str]:
    """Return what the job has credentials for."""
    try:
        found = sorted(name.removesuffix(".use") for name in os.listdir(directory) if name.endswith(".use"))
    except OSError:
        return []
    return [name for name in found if is_plain(name)]


def is_plain(name: str) -> bool:
    """Whether a name may stand in a path: no slash, and none begins with a dot."""
    plain = name.isascii() and all(c.isalnum() or c in "._+@-" for c in name)
    return plain and 0 < len(name) <= 128 and not name.startswith(".")  # noqa: PLR2004 - no service has a longer one


def read(path: str) -> bytes:
    """Return a regular file, that is no link. Raises OSError."""
    # O_NONBLOCK: a FIFO must not stop the plug-in
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("is no regular file")
        data = os.read(descriptor, LARGEST + 1)
    finally:
        os.close(descriptor)
    if len(data) > LARGEST:
        raise OSError(f"is larger than {LARGEST} bytes")
    return data


def _found(kind: str, there: list[str], name: str = "", data: bytes = b"", why: str = "") -> bytes:
    said = {"kind": kind, "name": name, "names": ",".join(there[:MOST_NAMES]), "error": why}
    keys = "".join(f" {key}={quoted(value.encode('utf-8', 'surrogateescape'))}" for key, value in said.items())
    return f"IMGC/1 {len(data)}{keys}\n".encode() + data


def quoted(raw: bytes) -> str:
    """Return bytes as a value for the header: everything that is not plain is percent-encoded."""
    return "".join(chr(c) if 42 < c < 127 and c not in b"%=" else f"%{c:02X}" for c in raw)  # noqa: PLR2004 - ASCII
