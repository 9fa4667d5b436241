"""Doubles of a data federation: its discovery, its director, and servers of objects that do what they are told.

They say what Pelican's director and caches say on the wire. They stand for what cannot be had in a test; real XRootD
servers stand behind the same director in the pool's tests.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import ThreadingMixIn, UnixStreamServer
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qsl, urlsplit

DISCOVERY: Final = "/.well-known/pelican-configuration"
DIRECTOR: Final = "/api/v1.0/director/"
JSON: Final = {"Content-Type": "application/json"}
WAIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Said:
    """An answer of a server."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    double: Double


class _UnixServer(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128
    double: Double


class Double:
    """An HTTP server on loopback, or on a socket at `place`, that takes down what it is asked."""

    name = "pelican/7.20.0"

    def __init__(self, place: str = "") -> None:
        self.asked: list[Asked] = []
        self.first: list[Said] = []
        """What is said before anything else, once each."""
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._place = place
        self._server = _UnixServer(place, _Handler) if place else _Server(("127.0.0.1", 0), _Handler)
        self._server.double = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        address = self._server.server_address
        return f"http://127.0.0.1:{address[1]}" if isinstance(address, tuple) else f"unix://{self._place}"

    def count(self, method: str, end: str = "") -> int:
        """Return how often it was asked so, for paths that end so."""
        return sum(one.method == method and one.path.endswith(end) for one in self.asked)

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """Take a request down and answer it."""
        parts = urlsplit(handler.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        asked = Asked(handler.command, parts.path, query, dict(handler.headers.items()))
        with self._lock:
            self.asked.append(asked)
            first = self.first.pop(0) if self.first else None
        handler.close_connection = True
        try:
            if first is None:
                self.answer(asked, handler)
            else:
                send(handler, first, self.name)
        except ConnectionError:
            return

    def answer(self, asked: Asked, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        raise NotImplementedError


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server | _UnixServer

    def do_GET(self) -> None:
        """Answer."""
        self.server.double.take(self)

    def do_HEAD(self) -> None:
        """Answer."""
        self.server.double.take(self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def send(handler: BaseHTTPRequestHandler, said: Said, name: str) -> None:
    """Send an answer whole."""
    handler.send_response_only(said.status)
    for key, value in ({"Server": name} | dict(said.headers) | {"Connection": "close"}).items():
        handler.send_header(key, value)
    if "Content-Length" not in said.headers:
        handler.send_header("Content-Length", str(len(said.body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(said.body)


def _failed(status: int, why: str) -> Said:
    return Said(status, JSON, json.dumps({"status": "error", "msg": why}).encode())


@dataclass
class Namespace:
    """A part of the federation: its caches in order, its origin, whether it wants a token."""

    prefix: str
    caches: list[str] = field(default_factory=list)
    origin: str = ""
    needs_token: bool = False
    direct: bool = True


class FederationDouble(Double):
    """Stands for a federation: discovery and director on one port."""

    def __init__(self, *namespaces: Namespace) -> None:
        super().__init__()
        self.namespaces = list(namespaces)
        self.discovery: Said | None = None
        """What discovery says instead of where the director is."""

    def answer(self, asked: Asked, handler: BaseHTTPRequestHandler) -> None:
        """Answer as discovery or as director."""
        send(handler, self.said(asked), self.name)

    def said(self, asked: Asked) -> Said:
        """Return what is said to a request."""
        if asked.path == DISCOVERY:
            known = {"director_endpoint": self.url, "jwks_uri": f"{self.url}/jwks"}
            return self.discovery or Said(200, JSON, json.dumps(known).encode())
        kind, _, path = asked.path.removeprefix(DIRECTOR).partition("/")
        if not asked.path.startswith(DIRECTOR) or kind not in {"object", "origin"}:
            return _failed(404, "no such endpoint")
        return self.led(f"/{path}", asked, from_origin=kind == "origin" or "directread" in asked.query)

    def led(self, path: str, asked: Asked, *, from_origin: bool) -> Said:
        """Return where an object is, as the director says it."""
        named = [one for one in self.namespaces if path.startswith(f"{one.prefix}/")]
        if not named:
            return _failed(404, f"no namespace found for path {path}")
        namespace = max(named, key=lambda one: len(one.prefix))
        if from_origin and not (namespace.direct and namespace.origin):
            return _failed(405, "no origin allows direct reads")
        servers = [namespace.origin] if from_origin else namespace.caches
        if not servers:
            return _failed(404, f"no source found for path {path}")
        urls = [f"{server}{path}" for server in servers]
        depth = namespace.prefix.count("/")
        links = [f'<{url}>; rel="duplicate"; pri={n}; depth={depth}' for n, url in enumerate(urls, 1)]
        token = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        headers = {
            "Link": ", ".join(reversed(links)),  # the order is in `pri`
            "Location": urls[0] + (f"?authz={token}" if token else ""),
            "X-Pelican-Authorization": "issuer=https://issuer.example",
            "X-Pelican-Namespace": f"namespace={namespace.prefix}, require-token={str(namespace.needs_token).lower()}",
            "X-Pelican-Token-Generation": "issuer=https://issuer.example, max-scope-depth=3, strategy=OAuth2",
        }
        return Said(307, headers)


@dataclass
class Faults:
    """What is wrong with a server of objects. `status` is said to everything; `silent` says nothing.

    `cut` ends a connection after so many bytes of a body, the first so many times (`times`); `trailer` is what it says
    of a transfer in the end; `etag` is another one for each request.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    silent: bool = False
    cut: int | None = None
    times: int = 10**6
    trailer: str = "200: OK"
    etag: bool = False
    other_bytes: bool = False
    status_after: int = 0
    """What is said to everything once a body was cut."""


class ObjectsDouble(Double):
    """Stands for a Pelican cache or origin: objects by path, with ETag, Range and trailer; perhaps for tokens alone."""

    name = "XrootD/v5.8"

    def __init__(
        self, objects: Mapping[str, bytes] | None = None, tokens: frozenset[str] | None = None, place: str = ""
    ) -> None:
        super().__init__(place)
        self.objects = dict(objects or {})
        self.tokens = tokens
        self.faults = Faults()

    def answer(self, asked: Asked, handler: BaseHTTPRequestHandler) -> None:
        """Answer as a server of objects."""
        if self.faults.silent:
            self.over.wait(WAIT_S)
            return
        refused = self._refused(asked)
        if refused:
            send(handler, Said(refused, self.faults.headers), self.name)
            return
        body = self.objects[asked.path]
        tag = f"{self.url}{sha256(body).hexdigest()[:16]}{len(self.asked) if self.faults.etag else ''}"
        headers = {"ETag": f'"{sha256(tag.encode()).hexdigest()[:12]}"', "Accept-Ranges": "bytes", "Age": "0"}
        if self.faults.other_bytes:
            body = bytes(reversed(body))
        first = _offset(asked, headers["ETag"])
        if asked.method == "GET" and "xrootd" in self.name.lower():
            del headers["ETag"]  # it is said to HEAD alone
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        if asked.method == "HEAD":
            send(handler, Said(200, headers | {"Content-Length": str(len(body))}), self.name)
        else:
            self._deliver(handler, headers, body[first:], status=206 if first else 200)

    def _refused(self, asked: Asked) -> int:
        if self.faults.status:
            return self.faults.status
        token = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens is not None and token not in self.tokens:
            return 403 if token else 401
        return 0 if asked.path in self.objects else 404

    def _deliver(self, handler: BaseHTTPRequestHandler, headers: dict[str, str], body: bytes, status: int) -> None:
        """Send a body, in chunks and with a trailer where that is asked for, perhaps not to its end."""
        in_chunks = handler.headers.get("X-Transfer-Status") == "true" and "trailers" in handler.headers.get("TE", "")
        handler.send_response_only(status)
        framing = {"Transfer-Encoding": "chunked", "Trailer": "X-Transfer-Status"} if in_chunks else {}
        for key, value in ({"Server": self.name} | headers | framing).items():
            handler.send_header(key, value)
        if not in_chunks:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        faults = self.faults
        cut = faults.cut if faults.times > 0 else None
        faults.times -= 1
        part = body if cut is None else body[:cut]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if in_chunks and part else part)
        if cut is not None:
            faults.status = faults.status_after
        if in_chunks and cut is None:
            handler.wfile.write(f"0\r\nX-Transfer-Status: {faults.trailer}\r\n\r\n".encode())


def _offset(asked: Asked, etag: str) -> int:
    """Return where the wanted rest of an object begins."""
    words = asked.headers.get("Range", "")
    if not words.startswith("bytes=") or asked.headers.get("If-Range", etag) != etag:
        return 0
    text = words.removeprefix("bytes=").removesuffix("-")
    return int(text) if text.isdigit() else 0
