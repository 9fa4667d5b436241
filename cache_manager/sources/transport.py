"""Reading http(s) and file URLs, with every failure as one of the answers of a source."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from cache_manager.outcome import Absent, Unwell
from cache_manager.sources.base import Sink, SourceError
from cache_manager.sources.exchange import CHUNK, Body, Patience, length_of, opened, shown, unreachable
from cache_manager.status import HookStatus
from cache_manager.text import human_bytes, printable
from cache_manager.web import cause

__all__ = ["Head", "Patience", "accepts", "head", "read_small", "shown", "transfer"]

SMALL_BYTES: Final = 64 * 1024
"""More is no latest.txt and no manifest."""


def read_small(url: str, patience: Patience, clock: Callable[[], float] = time.monotonic) -> bytes:
    """Return the body of a small object. Raises SourceError."""
    parts: list[bytes] = []
    came = 0
    began = clock()
    with _opened(url, patience) as body:
        for piece in body.pieces:
            parts.append(piece)
            came += len(piece)
            if came > SMALL_BYTES:
                raise unreachable(url, f"larger than {SMALL_BYTES} bytes, so no index")
            _keep_to_budget(url, came, clock() - began, patience.budget_s(came))
    return b"".join(parts)


def transfer(url: str, sink: Sink, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
    """Write an object to the sink. Raises SourceError, and the sink's StatusError."""
    began = clock()
    with _opened(url, patience) as body:
        sink.end_is_told = body.end_is_told
        sink.expect(body.size_bytes)
        for piece in body.pieces:
            sink.write(piece)
            # what is larger than it was said to be has no more time for that
            size = sink.size_bytes if body.size_bytes is None else body.size_bytes
            _keep_to_budget(url, sink.size_bytes, clock() - began, patience.budget_s(size))
        if body.size_bytes is not None and sink.size_bytes != body.size_bytes:
            raise unreachable(url, f"ended early ({sink.size_bytes} of {body.size_bytes} bytes)")


def _keep_to_budget(url: str, came_bytes: int, spent_s: float, budget_s: float) -> None:
    if spent_s > budget_s:
        rate = f"{human_bytes(came_bytes / spent_s)}/s"
        what = f"too slow ({human_bytes(came_bytes)} in {spent_s:.0f} s, {rate}; its time was {budget_s:.0f} s)"
        raise SourceError(Unwell(HookStatus.SOURCE_TOO_SLOW, f"{shown(url)}: {what}"))


def accepts(url: str, patience: Patience) -> None:
    """Ask for an object, and take nothing of it. Raises SourceError if it is not delivered."""
    with _opened(url, patience):
        return


@dataclass(frozen=True, slots=True)
class Head:
    """What a server says of an object: what tells one version from the next (empty if nothing does), its size."""

    version: str
    size_bytes: int | None


def head(url: str, patience: Patience) -> Head:
    """Ask for an object without its body. Raises SourceError."""
    with _opened(url, patience, "HEAD") as body:
        headers = body.headers
        etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
        version = etag or (f"{modified} {headers.get('Content-Length', '')}" if modified else "")
        return Head(version, length_of(headers))


@contextmanager
def _opened(url: str, patience: Patience, method: str = "GET") -> Iterator[Body]:
    if url.startswith("file:"):
        with _opened_file(url) as body:
            yield body
    else:
        with opened(url, patience, method) as body:
            yield body


@contextmanager
def _opened_file(url: str) -> Iterator[Body]:
    path = unquote(url.partition("://")[2].partition("?")[0])
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SourceError(Absent(f"{path}: no such file")) from None
    except (OSError, ValueError) as error:
        raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, f"{printable(path)}: {cause(error)}")) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, f"{path}: no regular file"))
        headers = {"Content-Length": str(found.st_size)}
        yield Body(headers, found.st_size, end_is_told=True, pieces=_pieces(descriptor, path))
    finally:
        os.close(descriptor)


def _pieces(descriptor: int, path: str) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(descriptor, CHUNK)
        except OSError as error:
            raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, f"{path}: {error.strerror}")) from None
        if not piece:
            return
        yield piece
