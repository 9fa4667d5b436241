"""Somebody on the manager's socket who is not the manager."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

SILENT: Final = b"silent"
"""Reads the request, and says nothing as long as the hook waits."""

AT_ONCE: Final = b"at once"
"""Closes without having read."""

AGAIN: Final = b"again"
"""After a reply: says it again to whatever the hook answers."""


def listener(path: Path) -> socket.socket:
    """Return a socket that listens; the path may be longer than the kernel takes."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        server.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
    server.listen(64)
    return server


class FakeManager:
    """Answers every request with the same bytes and closes. `then` SILENT keeps the connection open instead."""

    def __init__(self, path: Path, reply: bytes, then: bytes = b"") -> None:
        self.path = path
        self.asked = 0
        self._reply = reply
        self._then = then
        self._server = listener(path)
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.asked += 1
            self._open.append(connection)
            with suppress(OSError):
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        if self._then == AT_ONCE:
            connection.close()
            return
        self._read(connection)
        connection.sendall(self._reply)
        if self._then == SILENT:
            return
        while self._then == AGAIN and connection.recv(65536):
            connection.sendall(self._reply)
        connection.close()

    def _read(self, connection: socket.socket) -> None:
        """Read a request. Raises ConnectionError when the hook goes away before its end."""
        data = b""
        while b"\n" not in data:
            data += _received(connection)
        header, _, body = data.partition(b"\n")
        length = int(header.split()[1])
        while len(body) < length:
            body += _received(connection)


def _received(connection: socket.socket) -> bytes:
    part = connection.recv(65536)
    if not part:
        raise ConnectionError("the hook is gone")
    return part
