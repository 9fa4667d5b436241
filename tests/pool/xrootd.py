"""Real XRootD servers, as they stand in OSDF: an origin of files, and a caching proxy before another one; over HTTP."""

from __future__ import annotations

import http.client
import re
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.pool.origin import free_port
from tests.pool.processes import end, make_directory, poll, start_as

_CONFIG: Final = """\
all.export {prefix}
all.adminpath {directory}/admin
all.pidpath {directory}/admin
oss.localroot {directory}/data
xrd.port {xroot}
xrd.network nodnr
xrd.protocol http:{port} libXrdHttp.so
http.trace all
ofs.trace open
"""
_CACHE: Final = """\
ofs.osslib libXrdPss.so
pss.origin 127.0.0.1:{origin}
pss.cachelib libXrdPfc.so
pfc.ram 1g
"""
_ASKED: Final = re.compile(r"first line: (GET|HEAD) (/\S*)")
USER: Final = "www-data"


class XrootdServer:
    """An XRootD server below `directory`, as a context manager; before `origin` it is a caching proxy."""

    def __init__(self, directory: Path, prefix: str, origin: XrootdServer | None = None) -> None:
        self.directory = directory
        self.port, self.xroot = free_port(), free_port()
        config = _CONFIG.format(prefix=prefix, directory=directory, xroot=self.xroot, port=self.port)
        for name in ("", "admin", "data"):
            make_directory(directory / name, USER)
        (directory / "config").write_text(config + (_CACHE.format(origin=origin.xroot) if origin else ""))
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        argv = ["xrootd", "-c", str(self.directory / "config"), "-n", "xrd"]
        self._server = start_as(USER, argv, output=self.directory / "log")
        poll(self._serves, f"XRootD at {self.directory}: {self.log[-2000:]}", 30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            end(self._server, 5)

    @property
    def url(self) -> str:
        """Its URL over HTTP, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it said."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def publish(self, path: str, file: Path) -> None:
        """Put a file into an origin."""
        place = self.directory / "data" / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
        place.chmod(0o644)

    def count(self, method: str, path: str) -> int:
        """Return how often it was asked for a path over HTTP."""
        return sum(found == (method, path) for found in _ASKED.findall(self.log))

    def _serves(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/.nothing")
            return connection.getresponse().status > 0
        return False
