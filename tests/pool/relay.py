"""A network that breaks: passes connections on to a server, and cuts those that bring much, a few times."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

BLOCK: Final = 1 << 16


class Relay:
    """Listens on loopback for the server at `port`; the first `cuts` connections end after `after` bytes of answers."""

    def __init__(self, port: int, cuts: int, after: int) -> None:
        self._port = port
        self._after = after
        self._left = cuts
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def cuts_left(self) -> int:
        """How many connections will still be cut."""
        return self._left

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._questions, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answers, args=(client, server), daemon=True).start()

    def _questions(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(BLOCK):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        passed = 0
        with client, server:
            with suppress(OSError):
                while data := server.recv(BLOCK):
                    client.sendall(data)
                    passed += len(data)
                    if passed > self._after and self._take_cut():
                        break
            for one in (client, server):  # closing alone ends nothing while the other thread reads
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _take_cut(self) -> bool:
        with self._lock:
            if not self._left:
                return False
            self._left -= 1
            return True
