"""HTTP over a Unix socket of this machine, as a local Pelican cache speaks it. Only a knob names such a URL."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from requests import PreparedRequest, Session
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool

from cache_manager.web import WatchedConnection, watched

SCHEME: Final = "http+unix://"


def url_at(place: str, path: str) -> str:
    """Return the URL of a path at a socket, which is named unix:///place."""
    return f"{SCHEME}{quote(place.removeprefix('unix://'), safe='')}{path}"


def mount(session: Session) -> None:
    """Have a session know such URLs."""
    session.mount(SCHEME, _Adapter())


class _Connection(WatchedConnection):
    def _new_conn(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(self.timeout if isinstance(self.timeout, (int, float)) else None)
            made.connect(unquote(self.host))
        except OSError:
            made.close()
            raise
        return watched(made, by_proxy=True)  # it has no address


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _Adapter(HTTPAdapter):
    """Makes connections to sockets; no proxy is between."""

    def get_connection_with_tls_context(self, request: PreparedRequest, *_: Any, **__: Any) -> HTTPConnectionPool:  # noqa: ANN401 - those of requests
        place = (request.url or "").removeprefix(SCHEME).partition("/")[0]
        return _Pool(place)

    def request_url(self, request: PreparedRequest, proxies: Mapping[str, str] | None) -> str:  # noqa: ARG002 - as requests has it
        return request.path_url
