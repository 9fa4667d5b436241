"""Connections to web servers that can be ended from outside: a server may drip headers, each byte in time, for days."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import threading
import time
from contextlib import suppress
from http.client import HTTPResponse, parse_headers
from types import TracebackType
from typing import Any, Final, Self

from requests import PreparedRequest, RequestException, Response, Timeout
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from requests.sessions import Session
from requests.utils import get_auth_from_url
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from cache_manager.text import printable

_here = threading.local()
_WORD: Final = re.compile(r"\S+")
_OF_URLS: Final = frozenset("/?@=")

_METADATA: Final = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "fd00:ec2::254")))
"""Where clouds tell a machine its secrets; the usual 169.254.169.254 is link-local."""


def is_near(host: str) -> bool:
    """Whether an address (or a name that says so itself) is this machine's own or its link's.

    What answers there answers this machine alone: a remote server has no business to send us to it.
    """
    address = _address(host)
    if address is None:
        return _says_localhost(host)
    return address.is_loopback or address.is_link_local or address.is_unspecified or address in _METADATA


def is_loopback(host: str) -> bool:
    """Whether a host, as it is named, is this machine itself: what is sent there crosses no network."""
    address = _address(host)
    return _says_localhost(host) if address is None else address.is_loopback


def _says_localhost(host: str) -> bool:
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host is named by; None for a name."""
    name = host.rstrip(".").lower()
    try:
        if ":" in name:
            six = ipaddress.IPv6Address(name.partition("%")[0])
            return six.ipv4_mapped or six
        return ipaddress.IPv4Address(socket.inet_aton(name))  # 127.1 and 2130706433 are addresses too
    except (OSError, ValueError):
        return None


class Watch:
    """Ends the connections that this thread uses within, unless it is allowed more time. Then `ended` is true.

    And refuses, before a byte is sent, those that a redirect makes from elsewhere to what is near (see `is_near`). The
    address is that of the connection: a name that resolves to something else each time does not help. Of what a proxy
    connects to only the name is known.
    """

    def __init__(self) -> None:
        self.ended = False
        self.answer: _Response | None = None
        """The last one."""
        self.trailers: dict[str, str] = {}
        """What the answer had after its last chunk, by names in lower case."""
        self._began_near = False
        self._redirected = False
        self._deadline = time.monotonic() + threading.TIMEOUT_MAX
        self._looks_at = 0.0
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
            if self._deadline < self._looks_at:  # else it sees when it looks: waking it for each piece would cost
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

    def begin(self, host: str, *, near: bool = False) -> None:
        """Say where the first question goes; `near` if that is known to be near, whatever its name says."""
        self._began_near = near or is_near(host)

    @property
    def began_near(self) -> bool:
        """Whether the first question went to what is near."""
        return self._began_near

    def led(self, host: str, *, near: bool) -> None:
        """Say where the first question goes if another server told us to. Raises OSError if it may not go there.

        `near` is whether that one answers this machine alone.
        """
        self._began_near = near
        self.redirect(host)

    @property
    def is_near(self) -> bool:
        """Whether what was asked first answers this machine alone."""
        return self._began_near

    def redirect(self, host: str) -> None:
        """Say where the next question goes. Raises OSError if it may not go there."""
        self._redirected = True
        self._refuse_near(host)

    def _refuse_near(self, host: str) -> None:
        if is_near(host) and not self._began_near:
            raise OSError(errno.EACCES, f"{host} is this machine's own or its link's, which is not followed")

    def see(self, connection: socket.socket, *, by_proxy: bool) -> None:
        """Take a connection that is new or used again: a duplicate, as TLS takes the socket away. Raises OSError."""
        if not by_proxy:
            host = str(connection.getpeername()[0])
            if self._redirected:
                self._refuse_near(host)
            else:
                self._began_near |= is_near(host)
        self._sockets.append(socket.socket(fileno=os.dup(connection.fileno())))  # TLS sockets know no dup()
        if self.ended:
            self._end()

    def _run(self) -> None:
        with self._allowed:
            while not self._over and (left_s := self._deadline - time.monotonic()) > 0:
                self._looks_at = self._deadline
                self._allowed.wait(left_s)
            if not self._over:
                self._end()

    def _end(self) -> None:
        self.ended = True
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def watched(connection: socket.socket, *, by_proxy: bool) -> socket.socket:
    """Show a new connection to the Watch of this thread, if it has one. Raises OSError."""
    watch: Watch | None = getattr(_here, "watch", None)
    if watch is not None:
        try:
            watch.see(connection, by_proxy=by_proxy)
        except OSError:
            connection.close()
            raise
    return connection


class _Response(HTTPResponse):
    """Reads into memory that is there already, and keeps the trailers of a chunked body."""

    _took = False

    def begin(self) -> None:
        super().begin()
        watch: Watch | None = getattr(_here, "watch", None)
        if watch is not None:
            watch.answer = self

    def take(self, view: memoryview) -> int:
        """Read what has come, at least one byte but at the end, of a body that has no chunks. Raises OSError."""
        if not self._took:  # what came with the headers: readinto1 would wait for more than that
            self._took = True
            data = self.read1(len(view))
            view[: len(data)] = data
            return len(data)
        if self.fp is None or self.length == 0:
            return 0
        count = self.fp.readinto1(view[: self.length])
        if self.length is not None:
            self.length -= count
        return count

    def _read_and_discard_trailer(self) -> None:
        found = parse_headers(self.fp)
        watch: Watch | None = getattr(_here, "watch", None)
        if watch is not None:
            watch.trailers.update({name.lower(): value for name, value in found.items()})


class WatchedConnection(HTTPConnection):
    """A connection that a Watch sees."""

    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return watched(super()._new_conn(), by_proxy=self.proxy is not None)

    def request(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - those of urllib3
        """Send a request."""
        if self.sock is not None:  # kept from an earlier question
            watched(self.sock, by_proxy=self.proxy is not None)
        super().request(*args, **options)


class _SecureConnection(HTTPSConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return watched(super()._new_conn(), by_proxy=self.proxy is not None)

    def request(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - those of urllib3
        if self.sock is not None:
            watched(self.sock, by_proxy=self.proxy is not None)
        super().request(*args, **options)


class _Pool(HTTPConnectionPool):
    ConnectionCls = WatchedConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS: Final = {"http": _Pool, "https": _SecurePool}


class _Adapter(HTTPAdapter):
    """Makes connections that a Watch sees; all but those to a SOCKS proxy."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - those of requests
        super().init_poolmanager(*args, **options)
        _with_our_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:  # noqa: ANN401 - those of requests
        return _with_our_pools(super().proxy_manager_for(proxy, **options))


def _with_our_pools(manager: PoolManager) -> PoolManager:
    if type(manager) in {PoolManager, ProxyManager}:
        manager.pool_classes_by_scheme = _POOLS
    return manager


class _OwnPassword(AuthBase):
    """Sends the user and password of the URL, and no other.

    requests would look into the ~/.netrc of the manager's user: what only that user may have is not for jobs.
    """

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        user, password = get_auth_from_url(r.url or "")
        return HTTPBasicAuth(user, password)(r) if user or password else r


class _Session(Session):
    """Leaves redirects to others: requests would read the body of each, however long it is."""

    def get_redirect_target(self, resp: Response) -> None:  # noqa: ARG002 - the base class's name
        return None


def session() -> Session:
    """Return a session whose connections a Watch sees, and which follows no redirect."""
    made = _Session()
    made.auth = _OwnPassword()
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter())
    return made


def cause(error: BaseException) -> str:
    """Return what the operating system or the peer said, out of the layers that HTTP libraries put around it."""
    seen: set[int] = set()
    stack: list[object] = [error]
    while stack:
        one = stack.pop(0)
        if id(one) in seen or not isinstance(one, BaseException):
            continue
        seen.add(id(one))
        if isinstance(one, OSError) and one.strerror and not isinstance(one, RequestException):
            return one.strerror
        stack += [getattr(one, "reason", None), one.__cause__, one.__context__, *one.args]
    if isinstance(error, Timeout):
        return "no answer in time"
    # whatever looks like a part of a URL may be secret
    return printable(_WORD.sub(lambda word: word[0] if _OF_URLS.isdisjoint(word[0]) else "...", str(error)), 200)


def through_proxy(response: Response) -> bool:
    """Whether a proxy may have answered in the server's place: its refusal says nothing about the image.

    Through TLS a site's proxy cannot speak: a Via is there of the server's own making.
    """
    marks = {"X-Squid-Error", "Proxy-Status", "Proxy-Authenticate"}
    if not response.url.startswith("https:"):
        marks.add("Via")
    return any(name in response.headers for name in marks)
