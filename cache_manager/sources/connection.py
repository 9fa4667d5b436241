"""Connections that can be ended from outside: a server may drip headers, each byte in time, for days."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from requests import Response
from requests.adapters import HTTPAdapter
from requests.sessions import Session
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

_here = threading.local()


class Watch:
    """Ends the connections that this thread opens within, unless it is allowed more time. Then `ended` is true."""

    def __init__(self) -> None:
        self.ended = False
        self._deadline = time.monotonic() + threading.TIMEOUT_MAX
        self._allowed = threading.Condition()
        self._over = False
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        _here.watch = self
        self._thread.start()
        return self

    def allow(self, limit_s: float) -> None:
        """Give the connections so much time from now."""
        with self._allowed:
            self._deadline = time.monotonic() + min(limit_s, threading.TIMEOUT_MAX)
            self._allowed.notify()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _here.watch = None
        with self._allowed:
            self._over = True
            self._allowed.notify()
        self._thread.join()
        for one in self._sockets:
            one.close()

    def see(self, connection: socket.socket) -> None:
        """Take a new connection: its duplicate, because TLS takes the socket itself away."""
        self._sockets.append(connection.dup())
        if self.ended:
            self._end()

    def _run(self) -> None:
        with self._allowed:
            while not self._over and (left_s := self._deadline - time.monotonic()) > 0:
                self._allowed.wait(left_s)
            if not self._over:
                self._end()

    def _end(self) -> None:
        self.ended = True
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _seen(connection: socket.socket) -> socket.socket:
    watch: Watch | None = getattr(_here, "watch", None)
    if watch is not None:
        watch.see(connection)
    return connection


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _seen(super()._new_conn())


class _SecureConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _seen(super()._new_conn())


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS: Final = {"http": _Pool, "https": _SecurePool}


class _Adapter(HTTPAdapter):
    """Makes connections that a Watch sees; all but those to a SOCKS proxy."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - those of requests
        super().init_poolmanager(*args, **options)
        _watched(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:  # noqa: ANN401 - those of requests
        return _watched(super().proxy_manager_for(proxy, **options))


def _watched(manager: PoolManager) -> PoolManager:
    if type(manager) in {PoolManager, ProxyManager}:
        manager.pool_classes_by_scheme = _POOLS
    return manager


class _Session(Session):
    """Leaves redirects to others: requests would read the body of each, however long it is."""

    def get_redirect_target(self, resp: Response) -> None:  # noqa: ARG002 - the base class's name
        return None


def session() -> Session:
    """Return a session whose connections a Watch sees, and which follows no redirect."""
    made = _Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter())
    return made
