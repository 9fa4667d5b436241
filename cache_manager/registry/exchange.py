"""One question to a registry's server: TLS, where redirects lead, and the bytes as they come in."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Final
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from cache_manager import __version__
from cache_manager.redirects import CODES, RedirectError, next_url
from cache_manager.registry.failure import Kind, RegistryError
from cache_manager.text import printable, without_secrets
from cache_manager.web import Watch, cause, is_loopback, session, through_proxy

MAX_REDIRECTS: Final = 5
CHUNK: Final = 256 * 1024
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": f"htcondor-image-cache/{__version__}"}


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a server may take: to accept a connection, and between two bytes of what it says."""

    connect_s: float = 10.0
    stall_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. `secret` is the Authorization, for the server of `url` alone; `about` is for messages.

    `sent_by` is the host that told us to ask here: nobody else's server sends us to what is this machine's own.
    """

    method: str
    url: str
    about: str
    headers: Mapping[str, str]
    secret: str = ""
    sent_by: str = ""

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"Question({self.method} {without_secrets(self.url)})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came: also refusals. `pieces` raises RegistryError; `relayed` says that a proxy may have answered."""

    status: int
    reason: str
    headers: Mapping[str, str]
    url: str
    relayed: bool
    pieces: Iterator[bytes]

    def read(self, limit_bytes: int, about: str) -> bytes:
        """Return the whole body. Raises RegistryError if it is larger."""
        parts: list[bytes] = []
        came = 0
        for piece in self.pieces:
            parts.append(piece)
            came += len(piece)
            if came > limit_bytes:
                raise RegistryError(Kind.WRONG, f"{about}: an answer of more than {limit_bytes} bytes")
        return b"".join(parts)


class Servers:
    """Asks servers, over connections that are kept; from any number of threads at once.

    `plain_http` are hosts (with their port, if it is named) that are asked without TLS. On this machine itself a server
    without it is found out.
    """

    def __init__(self, waits: Waits, plain_http: frozenset[str]) -> None:
        self._waits = waits
        self._schemes: dict[str, str] = dict.fromkeys(plain_http, "http")
        self._near: set[str] = set()
        self._session = session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # they may be one user's session

    def close(self) -> None:
        """End the connections that are kept."""
        self._session.close()

    def top(self, host: str) -> str:
        """Return the URL of a registry, without a slash at its end. Raises RegistryError if it cannot be reached."""
        known = self._schemes.get(host)
        if known is None and is_loopback(urlsplit(f"//{host}").hostname or ""):
            known = self._schemes[host] = "https" if self._speaks_tls(host) else "http"
        return f"{known or 'https'}://{host}"

    def _speaks_tls(self, host: str) -> bool:
        url, waits = f"https://{host}/v2/", self._waits
        try:
            with Watch() as watch:
                watch.allow(waits.connect_s + waits.stall_s)
                self._send("GET", url, {}, watch).close()
        except requests.exceptions.SSLError as error:
            return "CERTIFICATE_VERIFY_FAILED" in str(error)
        except requests.RequestException as error:
            raise _unreachable(host, cause(error), everything=True) from None
        return True

    @contextmanager
    def ask(self, question: Question) -> Iterator[Answer]:
        """Give the answer, wherever redirects lead. Raises RegistryError."""
        with Watch() as watch:
            host = urlsplit(question.url).hostname or ""
            first = question.sent_by or host
            watch.begin(first, near=first in self._near)
            if question.sent_by:
                self._follow(question, question.url, watch)
            with self._redirected(question, watch) as response:
                if watch.began_near and not question.sent_by:
                    self._near.add(host)
                pieces = _received(response, watch, self._waits.stall_s, question.about)
                relayed = through_proxy(response)
                url, headers = response.url, response.headers
                yield Answer(response.status_code, response.reason or "", headers, url, relayed, pieces)
                if question.method == "HEAD" or _is_short(response):
                    for _ in pieces:  # what is left: the connection is of use only at the end of an answer
                        pass

    @contextmanager
    def _redirected(self, question: Question, watch: Watch) -> Iterator[requests.Response]:
        at, secret = question.url, question.secret
        for _ in range(MAX_REDIRECTS + 1):
            with self._asked(question, at, secret, watch) as response:
                location = response.headers.get("Location")
                if response.status_code not in CODES or location is None:
                    yield response
                    return
                try:
                    leads_to = next_url(at, location)
                except RedirectError as error:
                    raise _unreachable(question.about, str(error)) from None
            self._follow(question, leads_to, watch)
            if _server(leads_to) != _server(at):
                secret = ""
            at = leads_to
        raise _unreachable(question.about, f"more than {MAX_REDIRECTS} redirects")

    def _follow(self, question: Question, url: str, watch: Watch) -> None:
        """Take note of where we are sent. Raises RegistryError if nobody may send us there."""
        shown = printable(without_secrets(url), 200)
        there = urlsplit(url)
        if there.scheme != "https" and urlsplit(question.url).scheme == "https":
            raise _unreachable(question.about, f"leads from https to {shown}, which is not followed")
        try:
            watch.redirect(there.hostname or "")
        except OSError as error:
            raise _unreachable(question.about, f"leads to {shown}: {error.strerror}") from None

    def _asked(self, question: Question, at: str, secret: str, watch: Watch) -> requests.Response:
        waits = self._waits
        headers = {**question.headers, **({"Authorization": secret} if secret else {})}
        elsewhere = "" if at == question.url else f"redirected to {printable(without_secrets(at), 200)}: "
        server = elsewhere or f"{urlsplit(at).netloc}: "
        for attempt in (1, 2):
            watch.allow(waits.connect_s + waits.stall_s)
            try:
                return self._send(question.method, at, headers, watch)
            except requests.RequestException as error:
                if attempt == 1 and _was_kept_too_long(error):
                    continue
                slow = isinstance(error, requests.Timeout) or watch.ended
                limit_s = waits.connect_s if isinstance(error, requests.ConnectTimeout) else waits.stall_s
                why = f"no answer in {limit_s:g} s" if slow else cause(error)
                down = isinstance(error, requests.ConnectionError) and not elsewhere and not watch.ended
                raise _unreachable(question.about, f"{server}{why}", everything=down) from None
            except (HTTPError, ValueError) as error:
                raise _unreachable(question.about, f"{server}{cause(error)}") from None
        raise _unreachable(question.about, f"{server}the connection is closed again and again")

    def _send(self, method: str, url: str, headers: Mapping[str, str], watch: Watch) -> requests.Response:
        waits = self._waits
        watch.allow(waits.connect_s + waits.stall_s)
        return self._session.request(
            method,
            url,
            allow_redirects=False,
            stream=True,
            timeout=(waits.connect_s, waits.stall_s),
            headers={**_HEADERS, **headers},
        )


def _was_kept_too_long(error: requests.RequestException) -> bool:
    """Whether a connection had been closed while nobody used it."""
    text = str(error)
    return isinstance(error, requests.ConnectionError) and ("RemoteDisconnected" in text or "ConnectionReset" in text)


def _is_short(response: requests.Response) -> bool:
    length = response.headers.get("Content-Length", "")
    return length.isascii() and length.isdigit() and len(length) < 6  # noqa: PLR2004 - 99,999 bytes


def _server(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, f"{parts.hostname}:{port}"


def _received(response: requests.Response, watch: Watch, stall_s: float, about: str) -> Iterator[bytes]:
    """Yield the bytes as they come in. Raises RegistryError."""
    came = 0
    while True:
        watch.allow(2 * stall_s)  # against what drips between the bytes
        try:
            piece: bytes = response.raw.read1(CHUNK, decode_content=True)
        except (HTTPError, OSError, ValueError) as error:
            stalled = watch.ended or isinstance(error, (ReadTimeoutError, TimeoutError))
            broken = "ended early" if "IncompleteRead" in str(error) else cause(error)
            why = f"no byte for {stall_s:g} s" if stalled else broken
            raise _unreachable(about, f"{why} (after {came} bytes)") from None
        if watch.ended:
            raise _unreachable(about, f"no byte for {stall_s:g} s (after {came} bytes)")
        watch.allow(threading.TIMEOUT_MAX)  # what is done with the bytes is not the server's time
        if not piece:
            return
        came += len(piece)
        yield piece


def _unreachable(about: str, why: str, *, everything: bool = False) -> RegistryError:
    return RegistryError(Kind.UNREACHABLE, f"{about}: {why}", everything=everything)
