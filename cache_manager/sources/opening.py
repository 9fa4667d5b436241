"""Opening what a URL names: at a server, or a file of this machine as a server would give it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from cache_manager.outcome import Absent, Unwell
from cache_manager.sources import exchange
from cache_manager.sources.base import SourceError
from cache_manager.sources.exchange import CHUNK, Ask, Body, Patience
from cache_manager.status import HookStatus
from cache_manager.text import printable
from cache_manager.web import cause


@contextmanager
def opened(ask: Ask, patience: Patience) -> Iterator[Body]:
    """Give what an http(s) or file URL names. Raises SourceError. A file comes whole, whatever part is asked for."""
    url = ask.route.url
    with _opened_file(url) if url.startswith("file:") else exchange.opened(ask, patience) as body:
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


def _pieces(descriptor: int, path: str) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(CHUNK))
    while True:
        try:
            count = os.readv(descriptor, [buffer])
        except OSError as error:
            raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, f"{path}: {error.strerror}")) from None
        if not count:
            return
        yield buffer[:count]
