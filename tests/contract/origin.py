"""An HTTP server of this test, which does what it is told: answers, lies, waits, cuts off; and counts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

WAIT_S: Final = 30.0


@dataclass
class Reply:
    """What is said to a request. A `status` of 0 closes the connection without an answer.

    `head` is the status for HEAD, if it differs from `status`, `head_length` the length.
    `length` is the Content-Length (None: the true one; negative: none is said, and the body comes in chunks);
    `gate` is waited for before the last byte; `cut` ends the connection after so many bytes.
    """

    body: bytes = b""
    status: int = 200
    head: int = 0
    head_length: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    gate: threading.Event | None = None
    cut: int | None = None


Route = Reply | list[Reply]


class Origin:
    """Serves `routes` on loopback, or another address of this machine.

    A path's reply, or replies that are given one after another (the last stays).
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.routes: dict[str, Route] = {}
        self.requests: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._server = _Server((host, 0), _Handler)
        self._server.origin = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for route in self.routes.values():
            for reply in route if isinstance(route, list) else [route]:
                if reply.gate:
                    reply.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        """The port that the kernel chose."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The URL of its top, without a slash at its end."""
        return f"http://{self._server.server_address[0]!s}:{self.port}"

    def serve(self, files: Mapping[str, bytes], top: str = "/v2") -> None:
        """Serve the files of a tree."""
        self.routes |= {f"{top}/{name}": Reply(body) for name, body in files.items()}

    def count(self, end: str, method: str = "GET") -> int:
        """Return how many requests there were for paths that end so."""
        return sum(one == method and path.partition("?")[0].endswith(end) for one, path in self.requests)

    def reply(self, method: str, path: str) -> Reply:
        """Take down a request and return what is said to it."""
        with self._lock:
            self.requests.append((method, path))
            route = self.routes.get(path) or self.routes.get(path.partition("?")[0])
            if route is None:
                return Reply(b"not here\n", 404)
            if isinstance(route, Reply):
                return route
            return route.pop(0) if len(route) > 1 and method == "GET" else route[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    origin: Origin


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Answer."""
        self._answer(self.server.origin.reply("GET", self.path), with_body=True)

    def do_HEAD(self) -> None:
        """Answer without a body."""
        reply = self.server.origin.reply("HEAD", self.path)
        if reply.head_length is not None:
            reply = replace(reply, length=reply.head_length)
        self._answer(replace(reply, status=reply.head or reply.status), with_body=False)

    def _answer(self, reply: Reply, *, with_body: bool) -> None:
        self.close_connection = True
        if not reply.status:
            return
        self.send_response(reply.status)
        chunked = reply.length is not None and reply.length < 0
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif "Content-Length" not in reply.headers:
            self.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        try:
            self.end_headers()
            if with_body:
                self._send(reply, chunked=chunked)
        except ConnectionError:
            return

    def _send(self, reply: Reply, *, chunked: bool) -> None:
        body = reply.body if reply.cut is None else reply.body[: reply.cut]
        first = body if reply.gate is None else body[:-1]
        self._write(first, chunked=chunked)
        if reply.gate is not None:
            reply.gate.wait(WAIT_S)
            self._write(body[-1:], chunked=chunked)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _write(self, data: bytes, *, chunked: bool) -> None:
        if data:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""
