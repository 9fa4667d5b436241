"""A server that says what no HTTP library would say: bytes as they are, in drips, without an end, with a reset."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Final, Self

WAIT_S: Final = 30.0


class End(Enum):
    """How a connection goes on when all is said. Without one it is closed."""

    RESET = "reset"
    STALL = "nothing more is said until the client goes"


@dataclass(frozen=True)
class Drip:
    """Bytes that come one by one."""

    data: bytes
    every_s: float = 0.2


@dataclass(frozen=True)
class Forever:
    """Bytes that are said again and again, until the client goes."""

    data: bytes


Step = bytes | Drip | Forever | End
Script = tuple[Step, ...]


def answer(
    status: str = "200 OK", body: bytes = b"", headers: Mapping[str, str] | None = None, length: str | None = None
) -> bytes:
    """Return an answer; `length` is the Content-Length (None: the true one; empty: none)."""
    said = str(len(body)) if length is None else length
    lines = {"Content-Length": said} if said else {}
    head = "".join(f"{name}: {value}\r\n" for name, value in (lines | dict(headers or {})).items())
    return f"HTTP/1.1 {status}\r\n{head}Connection: close\r\n\r\n".encode("latin-1") + body


class RawServer:
    """Plays `routes`: what is said to any request for a path. It notes the requests, and how much it sent for each."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.routes: dict[str, Script | list[Script]] = {}
        self.heard: list[tuple[str, str, str]] = []
        self.sent: Counter[str] = Counter()
        self._over = threading.Event()
        self._listener = socket.create_server((host, 0), backlog=64)
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_S)

    @property
    def address(self) -> str:
        """The host and port."""
        host, port = self._listener.getsockname()[:2]
        return f"{host}:{port}"

    @property
    def url(self) -> str:
        """The URL of its top, without a slash at its end."""
        return f"http://{self.address}"

    def serve(self, files: Mapping[str, bytes], top: str = "/v2") -> None:
        """Serve the files of a tree."""
        self.routes |= {f"{top}/{name}": (answer(body=body),) for name, body in files.items()}

    def requests(self, path: str, method: str = "GET") -> list[str]:
        """Return the headers of each request for a path."""
        return [head for one, asked, head in self.heard if (one, asked) == (method, path)]

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(WAIT_S)
                head = b""
                while b"\r\n\r\n" not in head and (part := connection.recv(65536)):
                    head += part
                method, path, *_ = [*head.decode("latin-1").partition("\r\n")[0].split(" "), "", ""]
                self.heard.append((method, path, head.decode("latin-1")))
                for step in self._script(path, method):
                    self._play(connection, path, step)
            except OSError:
                return

    def _script(self, path: str, method: str) -> Script:
        script = self.routes.get(path, (answer("404 Not Found"),))
        if isinstance(script, list):
            return script.pop(0) if len(script) > 1 and method == "GET" else script[0]
        return script

    def _play(self, connection: socket.socket, path: str, step: Step) -> None:
        if isinstance(step, bytes):
            connection.sendall(step)
            self.sent[path] += len(step)
        elif isinstance(step, Drip):
            for byte in step.data:
                connection.sendall(bytes([byte]))
                self._over.wait(step.every_s)
        elif isinstance(step, Forever):
            while not self._over.is_set():
                self._play(connection, path, step.data)
        elif step is End.RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        else:
            self._stall(connection)

    def _stall(self, connection: socket.socket) -> None:
        connection.settimeout(0.1)
        while not self._over.is_set():
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue
