"""A web server on loopback that says what a test wants, also what no server should say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cache_manager.sources.base import Known, nothing_promised
from cache_manager.sources.sums import Sum


@dataclass(frozen=True)
class Reply:
    """What is said to a request.

    `cut` sends only so many bytes of the body and closes; `stalls` sends them and then nothing until the test ends.
    `length` is the Content-Length that is said: the body's if None, none at all if empty.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: str | None = None
    cut: int | None = None
    stalls: bool = False


NOT_FOUND = Reply(b"not here", 404)


class Origin:
    """The server: replies by path, and by `METHOD path` where a method is treated differently."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.asked: list[str] = []
        self.passwords: list[str] = []
        """The Authorization of each request; empty for none."""
        self.ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def base(self) -> str:
        """The URL of the server, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """End the server and all that it left hanging."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        origin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_HEAD(self) -> None:
                self._answer()

            def _answer(self) -> None:
                asked = f"{self.command} {self.path}"
                origin.asked.append(asked)
                origin.passwords.append(self.headers.get("Authorization", ""))
                reply = origin.replies.get(asked) or origin.replies.get(self.path) or NOT_FOUND
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                length = str(len(reply.body)) if reply.length is None else reply.length
                if length:
                    self.send_header("Content-Length", length)
                self.send_header("Connection", "close")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(reply.body[: reply.cut])
                self.wfile.flush()
                if reply.stalls:
                    origin.ended.wait()
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


class MemorySink:
    """Takes an image into memory."""

    def __init__(self) -> None:
        self.data = b""
        self.end_is_told = True
        self.expected: list[int | None] = []
        self.known = Known()
        self.came_from: set[str] = set()
        self.wrong_from: set[str] = set()
        self.promised: Callable[[], Sum | None] = nothing_promised
        self.directory = Path("/nowhere")

    @property
    def size_bytes(self) -> int:
        """How much came."""
        return len(self.data)

    @size_bytes.setter
    def size_bytes(self, _: int) -> None:
        raise AttributeError

    def expect(self, size_bytes: int | None) -> None:
        """Take the size."""
        self.expected.append(size_bytes)

    def note(self, known: Known) -> None:
        """Take what is known."""
        self.known = known

    def write(self, data: bytes | memoryview) -> None:
        """Take bytes."""
        self.data += data

    def reserve(self, total_bytes: int) -> None:
        """Have all the room that there is."""

    def adopt(self, path: Path) -> None:
        """Take a file."""
        self.data = path.read_bytes()

    def restart(self) -> None:
        """Forget what came."""
        self.data = b""
        self.known = Known()
        self.came_from.clear()
        self.promised = nothing_promised
