"""Reading http(s) and file URLs, with every failure as one of the answers of a source."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import requests
from urllib3.exceptions import HTTPError

from cache_manager import __version__
from cache_manager.outcome import Absent, Denied, Unwell
from cache_manager.sources.base import Sink, SourceError
from cache_manager.status import HookStatus
from cache_manager.text import human_bytes, printable, without_secrets

SMALL_BYTES: Final = 64 * 1024
"""More is no latest.txt and no manifest."""

CONNECT_S: Final = 10.0
START_UP_S: Final = 30.0
_URL_PART: Final = re.compile(r"\S*[/?@=]\S*")
_CHUNK: Final = 256 * 1024
_OK: Final = 200
_DENIED: Final = frozenset({401, 403})
_GONE: Final = frozenset({404, 410})
_THROTTLED: Final = 429


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a transfer may take: size / `min_rate_bytes` plus start-up; `stall_s` without a byte ends it."""

    min_rate_bytes: int
    stall_s: float

    def budget_s(self, size_bytes: int | None) -> float:
        """Return the time for a transfer; the size of an unknown one is taken as it comes in."""
        return START_UP_S + (size_bytes or 0) / max(1, self.min_rate_bytes)


def shown(url: str) -> str:
    """Return a URL for messages, logs and records: without user, password, query (which may be signed), fragment."""
    return printable(without_secrets(url), 300)


def _length(headers: Mapping[str, str]) -> int | None:
    """Return the length that a server promises; None for one that cannot be meant."""
    text = headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None  # noqa: PLR2004 - 63 bits


def read_small(url: str, patience: Patience) -> bytes:
    """Return the body of a small object. Raises SourceError."""
    parts: list[bytes] = []
    with _opened(url, patience) as (_, chunks):
        for chunk in chunks:
            parts.append(chunk)
            if sum(map(len, parts)) > SMALL_BYTES:
                raise SourceError(
                    Unwell(
                        HookStatus.SOURCE_UNREACHABLE,
                        f"{shown(url)}: larger than {SMALL_BYTES} bytes, so no index",
                    )
                )
    return b"".join(parts)


def transfer(url: str, sink: Sink, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
    """Write an object to the sink. Raises SourceError, and the sink's StatusError."""
    began = clock()
    with _opened(url, patience) as (headers, chunks):
        size = _length(headers)
        sink.expect(size)
        for chunk in chunks:
            sink.write(chunk)
            spent = clock() - began
            if spent > patience.budget_s(size or sink.size_bytes):
                rate = f"{human_bytes(sink.size_bytes / spent)}/s"
                raise SourceError(
                    Unwell(
                        HookStatus.SOURCE_TOO_SLOW,
                        f"{shown(url)}: too slow ({human_bytes(sink.size_bytes)} in {spent:.0f} s, {rate})",
                    )
                )
        if size is not None and sink.size_bytes != size:
            raise SourceError(
                Unwell(
                    HookStatus.SOURCE_UNREACHABLE,
                    f"{shown(url)}: ended early ({sink.size_bytes} of {size} bytes)",
                )
            )


@dataclass(frozen=True, slots=True)
class Head:
    """What a server says of an object: what tells one version from the next (empty if nothing does), its size."""

    version: str
    size_bytes: int | None


def head(url: str, patience: Patience) -> Head:
    """Ask for an object without its body. Raises SourceError."""
    with _opened(url, patience, "HEAD") as (headers, _):
        etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
        version = etag or (f"{modified} {headers.get('Content-Length', '')}" if modified else "")
        return Head(version, _length(headers))


@contextmanager
def _opened(url: str, patience: Patience, method: str = "GET") -> Iterator[tuple[Mapping[str, str], Iterator[bytes]]]:
    if url.startswith("file:"):
        with _opened_file(url) as opened:
            yield opened
        return
    try:
        with requests.request(
            method,
            url,
            allow_redirects=True,
            stream=True,
            timeout=(CONNECT_S, patience.stall_s),
            headers={"Accept-Encoding": "identity", "User-Agent": f"htcondor-image-cache/{__version__}"},
        ) as response:
            _refuse_status(url, response)
            yield response.headers, response.iter_content(_CHUNK)
    except (requests.RequestException, HTTPError, ValueError) as error:  # ValueError: a redirect to what is no URL
        why = f"{shown(url)}: {cause(error)}"
        raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, why, everything=_is_host_down(error, url))) from None


def _is_host_down(error: Exception, url: str) -> bool:
    """Whether it is the URL's own host that cannot be reached, which concerns all that it has.

    Not one that this object alone redirects to; and anything after the connection may be this object's trouble.
    """
    request = getattr(error, "request", None)
    asked = getattr(request, "url", None) or url
    hosts = [one.partition("://")[2].partition("/")[0] for one in (asked, url)]
    return isinstance(error, requests.ConnectionError) and hosts[0].rpartition("@")[2] == hosts[1].rpartition("@")[2]


def _refuse_status(url: str, response: requests.Response) -> None:
    code = response.status_code
    if code == _OK:
        return
    what = f"{shown(url)}: HTTP {code} {printable(response.reason or '', 40)}".rstrip()
    if code in _GONE:
        raise SourceError(Absent(what))
    if code in _DENIED and not _through_proxy(response):
        raise SourceError(Denied(what))
    if code == _THROTTLED:
        wait = printable(response.headers.get("Retry-After", ""), 40)
        raise SourceError(Unwell(HookStatus.SOURCE_THROTTLED, f"{what} (Retry-After: {wait or 'not said'})"))
    raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, what))


def _through_proxy(response: requests.Response) -> bool:
    """Whether a proxy may have answered in the server's place: its refusal says nothing about the image."""
    return any(name in response.headers for name in ("Via", "X-Squid-Error", "Proxy-Status", "Proxy-Authenticate"))


@contextmanager
def _opened_file(url: str) -> Iterator[tuple[Mapping[str, str], Iterator[bytes]]]:
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
        yield {"Content-Length": str(found.st_size)}, _pieces(descriptor, path)
    finally:
        os.close(descriptor)


def _pieces(descriptor: int, path: str) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(descriptor, _CHUNK)
        except OSError as error:
            raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, f"{path}: {error.strerror}")) from None
        if not piece:
            return
        yield piece


def cause(error: BaseException) -> str:
    """Return what the operating system or the peer said, out of the layers that HTTP libraries put around it."""
    seen: set[int] = set()
    stack: list[object] = [error]
    while stack:
        one = stack.pop(0)
        if id(one) in seen or not isinstance(one, BaseException):
            continue
        seen.add(id(one))
        if isinstance(one, OSError) and one.strerror and not isinstance(one, requests.RequestException):
            return one.strerror
        stack += [getattr(one, "reason", None), one.__cause__, one.__context__, *one.args]
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    # whatever looks like a part of a URL may be secret
    return printable(_URL_PART.sub("...", str(error)), 200)
