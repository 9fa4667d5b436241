"""One exchange with an HTTP server: where redirects lead, what the answer means, and the bytes as they come in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import requests
from urllib3.exceptions import DecodeError, HTTPError, ProtocolError, ReadTimeoutError

from cache_manager import __version__
from cache_manager.outcome import Absent, Denied, Unwell
from cache_manager.redirects import CODES, MAX_REDIRECTS, RedirectError, host_of, next_url
from cache_manager.retry_after import retry_after_s
from cache_manager.sources.base import SourceError
from cache_manager.status import HookStatus
from cache_manager.text import printable, without_secrets
from cache_manager.web import Watch, cause, session, through_proxy

CHUNK: Final = 256 * 1024
CONNECT_S: Final = 10.0
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": f"htcondor-image-cache/{__version__}"}
_OK: Final = 200
_DENIED: Final = frozenset({401, 403})
_GONE: Final = frozenset({404, 410})
_THROTTLED: Final = 429
_AS_IT_IS: Final = frozenset({"", "identity"})
_DECODED: Final = frozenset({"gzip", "x-gzip", "deflate"})
"""Encodings that a server may use although nobody asked for them."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a transfer may take: size / `min_rate_bytes` plus `stall_s`; `stall_s` without a byte ends it too."""

    min_rate_bytes: int
    stall_s: float

    @property
    def connect_s(self) -> float:
        """How long a server may take to accept a connection."""
        return min(CONNECT_S, self.stall_s)

    def budget_s(self, size_bytes: int | None) -> float:
        """Return the time for a transfer; the size of an unknown one is taken as it comes in."""
        return self.stall_s + (size_bytes or 0) / max(1, self.min_rate_bytes)


@dataclass(frozen=True, slots=True)
class Body:
    """What a server sends: its headers, the size that it promises (None if it does not), and the bytes.

    `end_is_told` says whether a cut connection can be told from the end.
    """

    headers: Mapping[str, str]
    size_bytes: int | None
    end_is_told: bool
    pieces: Iterator[bytes]


def shown(url: str) -> str:
    """Return a URL for messages, logs and records: without user, password, query (which may be signed), fragment."""
    return printable(without_secrets(url), 300)


def length_of(headers: Mapping[str, str]) -> int | None:
    """Return the length that a server promises; None for one that cannot be meant."""
    text = headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None  # noqa: PLR2004 - 63 bits


@contextmanager
def opened(url: str, patience: Patience, method: str) -> Iterator[Body]:
    """Ask for an http(s) URL and give what comes. Raises SourceError."""
    with session() as one, Watch() as watch, _Exchange(url, method, patience, one, watch).answer() as response:
        yield _body(url, response, patience, watch)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One question, asked wherever redirects lead. Everything raises SourceError."""

    url: str
    method: str
    patience: Patience
    session: requests.Session
    watch: Watch

    @contextmanager
    def answer(self) -> Iterator[requests.Response]:
        """Give the answer, if it is a good one."""
        seen: set[tuple[str, str]] = set()
        at = self.url
        self.watch.begin(host_of(at))
        while True:
            with self._ask(at) as response:
                location = response.headers.get("Location")
                if response.status_code not in CODES or location is None:
                    _refuse_status(response, f"{shown(self.url)}: {self._by_way_of(at)}")
                    yield response
                    return
                try:
                    leads_to = next_url(at, location)
                    self.watch.redirect(host_of(leads_to))
                except RedirectError as error:
                    raise unreachable(self.url, f"{self._by_way_of(at)}{error}") from None
                except OSError as error:
                    why = f"redirects to {shown(leads_to)}: {error.strerror}"
                    raise unreachable(self.url, f"{self._by_way_of(at)}{why}") from None
            at = leads_to
            state = (at, repr(sorted(self.session.cookies.items())))  # some lead back once they have set a cookie
            if state in seen or len(seen) == MAX_REDIRECTS:
                what = "a redirect loop" if state in seen else "too many redirects"
                raise unreachable(self.url, f"{what} ({len(seen)} redirects, the last to {shown(at)})")
            seen.add(state)

    def _ask(self, at: str) -> requests.Response:
        """Send one request to where redirects led."""
        patience = self.patience
        limit_s = patience.connect_s + patience.stall_s
        self.watch.allow(limit_s)
        try:
            return self.session.request(
                self.method,
                at,
                allow_redirects=False,
                stream=True,
                timeout=(patience.connect_s, patience.stall_s),
                headers=_HEADERS,
            )
        except (requests.RequestException, HTTPError, ValueError) as error:
            why = cause(error)
            if isinstance(error, requests.Timeout):
                limit_s = patience.connect_s if isinstance(error, requests.ConnectTimeout) else patience.stall_s
            if isinstance(error, requests.Timeout) or self.watch.ended:
                why = f"no answer in {limit_s:g} s"
            down = at == self.url and not self.watch.ended and _is_host_down(error)
            what = f"{shown(self.url)}: {self._by_way_of(at)}{why}"
            raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, what, everything=down)) from None

    def _by_way_of(self, at: str) -> str:
        return "" if at == self.url else f"redirected to {shown(at)}: "


def _is_host_down(error: Exception) -> bool:
    """Whether it is the host that cannot be reached, which concerns all that it has.

    Anything after the connection may be this object's trouble.
    """
    answered = error.args and isinstance(error.args[0], ProtocolError)
    return isinstance(error, requests.ConnectionError) and not answered


def _body(url: str, response: requests.Response, patience: Patience, watch: Watch) -> Body:
    """Return what a server sends. Raises SourceError for an encoding that nobody can undo."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _AS_IT_IS | _DECODED:
        raise unreachable(url, f"comes with Content-Encoding {printable(encoding, 40)!r}, which nobody asked for")
    said = length_of(response.headers)
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    size = said if encoding in _AS_IT_IS and not chunked else None
    pieces = _received(shown(url), response, size, patience, watch)
    return Body(response.headers, size, chunked or said is not None, pieces)


def _received(
    name: str, response: requests.Response, size_bytes: int | None, patience: Patience, watch: Watch
) -> Iterator[bytes]:
    """Yield the bytes as they come in: whoever waits for a full block waits too long for a server that drips."""
    came = 0

    def read() -> bytes:
        of = f"{came} of {size_bytes} bytes" if size_bytes is not None else f"{came} bytes"
        stalled = Unwell(HookStatus.SOURCE_TOO_SLOW, f"{name}: no byte for {patience.stall_s:g} s after {of}")
        watch.allow(2 * patience.stall_s)  # against what is between the bytes and drips: lines of chunks
        try:
            piece: bytes = response.raw.read1(CHUNK, decode_content=True)
        except (HTTPError, OSError, ValueError) as error:
            if watch.ended or isinstance(error, (ReadTimeoutError, TimeoutError)):
                raise SourceError(stalled) from None
            raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, f"{name}: {_broken(error)} ({of})")) from None
        if watch.ended:  # and not the server
            raise SourceError(stalled)
        watch.allow(threading.TIMEOUT_MAX)  # what the disk takes is not the server's time
        return piece

    while piece := read():
        came += len(piece)
        yield piece


def _broken(error: Exception) -> str:
    if isinstance(error, DecodeError):
        return "its Content-Encoding cannot be undone"
    why = cause(error)
    return "ended early" if "IncompleteRead" in why else why


def unreachable(url: str, why: str) -> SourceError:
    """Return the failure of a source that does not deliver."""
    return SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, f"{shown(url)}: {why}"))


def _refuse_status(response: requests.Response, name: str) -> None:
    code = response.status_code
    if code == _OK:
        return
    what = f"{name}HTTP {code} {printable(response.reason or '', 40)}".rstrip()
    relayed = through_proxy(response)
    if code in _GONE:
        raise SourceError(Absent(what, relayed=relayed))
    if code in _DENIED and not relayed:
        raise SourceError(Denied(what))
    said = response.headers.get("Retry-After", "")
    wait_s = retry_after_s(said, time.time())
    if code == _THROTTLED or said:
        what += f" (Retry-After: {_wait_words(said, wait_s)})"
    status = HookStatus.SOURCE_THROTTLED if code == _THROTTLED else HookStatus.SOURCE_UNREACHABLE
    raise SourceError(Unwell(status, what, retry_after_s=wait_s))


def _wait_words(said: str, wait_s: float | None) -> str:
    if not said:
        return "not said"
    words = printable(said, 40)
    return f"{words}, which is no time" if wait_s is None else f"{words}, that is {wait_s:.0f} s"
