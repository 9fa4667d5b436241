"""A web server that takes files: nginx with its dav module, on loopback, with or without MOVE."""

from __future__ import annotations

import http.client
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.pool.origin import free_port
from tests.pool.processes import end, make_directory, poll, start_as

USER: Final = "www-data"
PASSWORD: Final = "joe:a secret of joe's"  # noqa: S105 - a test's

_CONFIG: Final = """\
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ }}
http {{
    client_body_temp_path {directory}/temporary;
    proxy_temp_path {directory}/temporary;
    fastcgi_temp_path {directory}/temporary;
    uwsgi_temp_path {directory}/temporary;
    scgi_temp_path {directory}/temporary;
    access_log {directory}/access.log;
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{port};
        root {directory}/data;
        dav_methods {methods};
        auth_basic "joe";
        auth_basic_user_file {directory}/users;
    }}
}}
"""


class DavServer:
    """The server, as a context manager; `methods` are those of WebDAV that it knows."""

    def __init__(self, directory: Path, methods: str = "PUT DELETE MKCOL COPY MOVE") -> None:
        self.directory = directory
        self.port = free_port()
        for name in ("", "temporary", "data", "data/v2"):
            make_directory(directory / name, USER)
        user, _, password = PASSWORD.partition(":")
        (directory / "users").write_text(f"{user}:{{PLAIN}}{password}\n")
        text = _CONFIG.format(directory=directory, port=self.port, methods=methods)
        (directory / "config").write_text(text)
        self._nginx: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the tree."""
        return f"http://127.0.0.1:{self.port}/v2"

    @property
    def root(self) -> Path:
        """Where the tree lies."""
        return self.directory / "data" / "v2"

    def __enter__(self) -> Self:
        argv = ["/usr/sbin/nginx", "-e", f"{self.directory}/error.log", "-c", f"{self.directory}/config"]
        self._nginx = start_as(USER, argv, output=self.directory / "output")
        poll(self._answers, "nginx with dav")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nginx is not None:
            end(self._nginx, 5)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            with suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/")
                return connection.getresponse().status > 0
            return False
        finally:
            connection.close()
