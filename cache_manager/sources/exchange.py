"""One exchange with an HTTP server: where redirects lead, what the answer means, and the bytes as they come in."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import requests
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from cache_manager import __version__
from cache_manager.outcome import Unwell
from cache_manager.redirects import CODES, MAX_REDIRECTS, RedirectError, goes_along, host_of, next_url
from cache_manager.sources import unix_socket
from cache_manager.sources.base import Route, SourceError
from cache_manager.sources.refusals import broken, refuse, shown, unreachable
from cache_manager.status import HookStatus
from cache_manager.text import printable
from cache_manager.web import Watch, cause, session

CHUNK: Final = 1 << 20
CONNECT_S: Final = 10.0
OK: Final = 200
PARTIAL: Final = 206
UNSATISFIABLE: Final = 416
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": f"htcondor-image-cache/{__version__}"}
_TRAILER: Final = {"X-Transfer-Status": "true", "TE": "trailers"}
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
class Ask:
    """A question to a server: for an object, or for what of it follows after `offset` bytes.

    `validator` is the strong ETag of the object of which those are: of another, all is sent. `headers` go to every
    server that a redirect leads to; those of the route do not.
    """

    route: Route
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    offset: int = 0
    validator: str = ""

    @property
    def good(self) -> frozenset[int]:
        """The status codes that answer it."""
        return frozenset({OK, PARTIAL, UNSATISFIABLE} if self.offset else {OK})

    def headers_at(self, url: str) -> dict[str, str]:
        """Return what is sent to where redirects led."""
        found = _HEADERS | dict(self.headers)
        if self.route.trailer and self.method == "GET":
            found |= _TRAILER
        if self.offset:
            found["Range"] = f"bytes={self.offset}-"
            if self.validator:
                found["If-Range"] = self.validator
        return found | dict(self.route.headers) if goes_along(self.route.url, url) else found


@dataclass(frozen=True, slots=True)
class Body:
    """What a server sends: its status and headers, the size that it promises of this (None if it does not), the bytes.

    Each piece is there until the next is asked for. `end_is_told` says whether a cut connection can be told from the
    end; `as_it_is` whether these are the object's own bytes, and not undone from an encoding. `trailers` are there when
    the bytes are over.
    """

    headers: Mapping[str, str]
    size_bytes: int | None
    end_is_told: bool
    pieces: Iterator[memoryview]
    status: int = OK
    as_it_is: bool = True
    trailers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_chunked(self) -> bool:
        """Whether its end is told by the last chunk, after which trailers may follow."""
        return _is_chunked(self.headers)


def length_of(headers: Mapping[str, str]) -> int | None:
    """Return the length that a server promises; None for one that cannot be meant."""
    text = headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None  # noqa: PLR2004 - 63 bits


def _is_chunked(headers: Mapping[str, str]) -> bool:
    return "chunked" in headers.get("Transfer-Encoding", "").lower()


def _session(url: str) -> requests.Session:
    made = session()
    if url.startswith(unix_socket.SCHEME):
        unix_socket.mount(made)
    return made


@contextmanager
def opened(ask: Ask, patience: Patience) -> Iterator[Body]:
    """Ask an http(s) server and give what comes. Raises SourceError."""
    with _session(ask.route.url) as one, Watch() as watch, _Exchange(ask, patience, one, watch).answer() as response:
        yield _body(ask, response, patience, watch)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One question, asked wherever redirects lead. Everything raises SourceError."""

    ask: Ask
    patience: Patience
    session: requests.Session
    watch: Watch

    @property
    def url(self) -> str:
        """The URL that was asked for."""
        return self.ask.route.url

    @contextmanager
    def answer(self) -> Iterator[requests.Response]:
        """Give the answer, if it is a good one."""
        seen: set[tuple[str, str]] = set()
        at = self.url
        self._begin()
        while True:
            with self._send(at) as response:
                location = response.headers.get("Location")
                if response.status_code not in CODES or location is None:
                    if response.status_code not in self.ask.good:
                        refuse(response, f"{shown(self.url)}: {self._by_way_of(at)}")
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

    def _begin(self) -> None:
        """Have what is near to this machine alone reached only by who may lead there."""
        host, near = host_of(self.url), self.ask.route.near
        if near is None:
            self.watch.begin(host)
            return
        try:
            self.watch.led(host, near=near)
        except OSError as error:
            raise unreachable(self.url, error.strerror or "is not asked") from None

    def _send(self, at: str) -> requests.Response:
        """Send one request to where redirects led."""
        patience = self.patience
        limit_s = patience.connect_s + patience.stall_s
        self.watch.allow(limit_s)
        try:
            return self.session.request(
                self.ask.method,
                at,
                allow_redirects=False,
                stream=True,
                timeout=(patience.connect_s, patience.stall_s),
                headers=self.ask.headers_at(at),
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


def _body(ask: Ask, response: requests.Response, patience: Patience, watch: Watch) -> Body:
    """Return what a server sends. Raises SourceError for an encoding that nobody can undo."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    as_it_is = encoding in _AS_IT_IS
    if not as_it_is and encoding not in _DECODED:
        raise unreachable(ask.route.url, f"comes with Content-Encoding {printable(encoding, 40)!r}, unasked for")
    said, chunked = length_of(response.headers), _is_chunked(response.headers)
    size = said if as_it_is and not chunked else None
    before = ask.offset if response.status_code == PARTIAL else 0
    stream = _Stream(shown(ask.route.url), response, patience, watch, as_it_is=as_it_is)
    return Body(
        response.headers,
        size,
        chunked or said is not None,
        stream.pieces(before, None if size is None else before + size),
        response.status_code,
        as_it_is=as_it_is,
        trailers=watch.trailers,
    )


@dataclass(frozen=True, slots=True)
class _Stream:
    """The bytes of one answer."""

    name: str
    response: requests.Response
    patience: Patience
    watch: Watch
    as_it_is: bool

    def pieces(self, before: int, of_bytes: int | None) -> Iterator[memoryview]:
        """Yield the bytes as they come in: whoever waits for a full block waits too long for a server that drips."""
        came = before
        buffer = memoryview(bytearray(CHUNK))
        while piece := self._read(buffer, came, of_bytes, begun=came > before):
            came += len(piece)
            yield piece

    def _read(self, buffer: memoryview, came: int, of_bytes: int | None, *, begun: bool) -> memoryview:
        of = f"{came} of {of_bytes} bytes" if of_bytes is not None else f"{came} bytes"
        self.watch.allow(2 * self.patience.stall_s)  # against what is between the bytes and drips: lines of chunks
        try:
            piece = self._received(buffer)
        except (HTTPError, OSError, ValueError) as error:
            if self.watch.ended or isinstance(error, (ReadTimeoutError, TimeoutError)):
                raise self._stalled(of, begun=begun) from None
            what = f"{self.name}: {broken(error)} ({of})"
            raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, what)) from None
        if self.watch.ended:  # and not the server
            raise self._stalled(of, begun=begun)
        if not piece and of_bytes is not None and came < of_bytes:
            raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, f"{self.name}: ended early ({of})"))
        self.watch.allow(threading.TIMEOUT_MAX)  # what the disk takes is not the server's time
        return piece

    def _received(self, buffer: memoryview) -> memoryview:
        answer = self.watch.answer
        if answer is None or answer.chunked or not self.as_it_is:
            return memoryview(self.response.raw.read1(CHUNK, decode_content=not self.as_it_is))
        return buffer[: answer.take(buffer)]

    def _stalled(self, of: str, *, begun: bool) -> SourceError:
        what = "no byte" if begun else "slow start: answered, and no byte"
        why = f"{self.name}: {what} for {self.patience.stall_s:g} s after {of}"
        return SourceError(Unwell(HookStatus.SOURCE_TOO_SLOW, why))
