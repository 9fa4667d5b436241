"""Where images come from in the tests: nginx serving files on loopback, and the two publication trees."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.pool.processes import descendants, end, make_directory, poll, start_as

CVMFS_REPOSITORY = "singularity.opensciencegrid.org"
CVMFS_BASE = Path("/cvmfs")

_CONFIG = """\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    types {{ }}
    default_type application/octet-stream;
    sendfile on;
    client_body_temp_path {directory}/temporary;
    proxy_temp_path {directory}/temporary;
    fastcgi_temp_path {directory}/temporary;
    uwsgi_temp_path {directory}/temporary;
    scgi_temp_path {directory}/temporary;
    log_format json escape=json '{{"method":"$request_method","path":"$request_uri","status":$status,'
                                '"bytes":$body_bytes_sent,"at":$msec}}';
    access_log {directory}/access.log json;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        location = /.generation {{ access_log off; return 200 "{generation}"; }}
{rules}    }}
}}
"""


class Request(NamedTuple):
    """One request as the origin logged it; `at` is the time of its end in epoch seconds, `bytes` the body's."""

    method: str
    path: str
    status: int
    bytes: int
    at: float


class Origin:
    """A web server for `root` on a loopback port, a real nginx run by `user`, as a context manager.

    What it is told by `fail` and `slow` holds for paths that start with a prefix and for requests that begin after
    the call has returned.
    """

    def __init__(self, directory: Path, root: Path, *, user: str = "www-data", port: int = 0) -> None:
        self.directory = directory
        self.root = root
        self.user = user
        self.port = port or free_port()
        self._rules: dict[str, str] = {}
        self._generation = 0
        self._nginx: subprocess.Popen[bytes] | None = None
        make_directory(directory, user)
        make_directory(directory / "temporary", user)
        root.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """The root's URL, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def access_log(self) -> Path:
        """One JSON object a line."""
        return self.directory / "access.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start serving; raises RuntimeError with nginx's complaint if it does not."""
        self._write_config()
        argv = ["/usr/sbin/nginx", "-e", f"{self.directory}/error.log", "-c", f"{self.directory}/nginx.conf"]
        complaints = self.directory / "output"
        self._nginx = start_as(self.user, argv, output=complaints)
        try:
            poll(self._serving, "nginx serving", 10)
        except (TimeoutError, RuntimeError) as error:
            self.stop()
            raise RuntimeError(f"{error}\n{complaints.read_text()}") from error

    def stop(self) -> None:
        """Stop serving, transfers under way included; the port answers no more until `start`."""
        if self._nginx is not None:
            end(self._nginx, 5)
            self._nginx = None

    def fail(self, prefix: str, status: int) -> None:
        """Answer `status` for all paths below `prefix`; 444 closes the connection without an answer."""
        self._rule(prefix, f"return {status};")

    def slow(self, prefix: str, rate: int) -> None:
        """Send what is below `prefix` with `rate` bytes/s for each connection."""
        self._rule(prefix, f"limit_rate {rate};")

    def restore(self) -> None:
        """Undo every `fail` and `slow`."""
        self._rules.clear()
        self._reload()

    def requests(self, path: str | None = None, method: str | None = None) -> list[Request]:
        """Return the requests that have ended so far, in that order: all, or those for `path` and of `method`."""
        if self._nginx is not None:
            self._answered_generation()  # nginx logs after its answer: this one follows what we were told of before
        if not self.access_log.exists():
            return []
        found = (Request(**json.loads(line)) for line in self.access_log.read_text().splitlines())
        return [one for one in found if path in {None, one.path} and method in {None, one.method}]

    def _rule(self, prefix: str, directive: str) -> None:
        self._rules[prefix] = directive
        self._reload()

    def _write_config(self) -> None:
        rules = {"/": "autoindex on;"} | self._rules
        text = _CONFIG.format(
            directory=self.directory,
            root=self.root,
            port=self.port,
            generation=self._generation,
            rules="".join(f"        location ^~ {prefix} {{ {what} }}\n" for prefix, what in rules.items()),
        )
        (self.directory / "nginx.conf").write_text(text)

    def _reload(self) -> None:
        self._generation += 1
        self._write_config()
        if self._nginx is None:
            return
        former = descendants(self._nginx.pid)
        self._nginx.send_signal(signal.SIGHUP)
        poll(self._serving, "nginx's new configuration", 10)
        poll(lambda: not any(_accepts(pid) for pid in former), "the end of nginx's former worker", 10)

    def _serving(self) -> bool:
        if self._nginx is None or self._nginx.poll() is not None:
            raise RuntimeError("nginx ended")
        return self._answered_generation() == str(self._generation)

    def _answered_generation(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/.generation")
            return connection.getresponse().read().decode()
        return ""


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts(worker: int) -> bool:
    """Whether a former worker of nginx still takes connections: until it says that it is shutting down."""
    try:
        title = Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return False
    return bool(title) and b"shutting down" not in title


class CvmfsTree:
    """A double of a CVMFS repository of images: the same names, links and layout, but an ordinary directory.

    What it cannot show: fetching on demand, catalogs, a mount that hangs. Links are absolute below /cvmfs as in the
    real one, wherever `base` is.
    """

    def __init__(self, base: Path = CVMFS_BASE, repository: str = CVMFS_REPOSITORY) -> None:
        self.root = base / repository
        self._linked_root = CVMFS_BASE / repository
        make_directory(self.root, None)

    def publish(self, name: str, sandbox: Path) -> Path:
        """Copy `sandbox` into the store and make `name` (`htc/rocky:9`) a link to it; return the link."""
        digest = hashlib.sha256(f"{name} {sandbox} {(sandbox / 'IMAGE_ID').read_text()}".encode()).hexdigest()
        stored = Path(".images") / digest[:2] / digest[2:]
        if not (self.root / stored).exists():
            shutil.copytree(sandbox, self.root / stored, symlinks=True)
        link = self.root / name
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh = link.with_name(f".{link.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self._linked_root / stored)
        fresh.rename(link)
        return link

    def retag(self, name: str, sandbox: Path) -> Path:
        """Make `name` another image in one step, as a publish transaction does; the old one stays in the store."""
        return self.publish(name, sandbox)

    def unpublish(self, name: str) -> None:
        """Remove the name; the image stays in the store."""
        (self.root / name).unlink()


class SifTree:
    """A publication tree of SIFs, `<base>/<arch>/<name>/{latest.txt,<version>.sif,<version>.json}`."""

    def __init__(self, base: Path, arch: str | None = None) -> None:
        self.base = base
        self.arch = arch or os.uname().machine

    def directory(self, name: str) -> Path:
        """Return where the image `name` (`htc/rocky:9`) lies."""
        return self.base / self.arch / name.replace("/", "__").replace(":", "__")

    def publish(self, name: str, sif: Path, version: str, *, manifest: bool = True) -> Path:
        """Publish `sif` as `version` (`20260101T000000Z`) and make it the latest; return the published file."""
        directory = self.directory(name)
        directory.mkdir(parents=True, exist_ok=True)
        published = directory / f"{version}.sif"
        shutil.copyfile(sif, published)
        if manifest:
            (directory / f"{version}.json").write_text(json.dumps(_manifest(name, published, version)))
        fresh = directory / ".latest.txt"
        fresh.write_text(f"{published.name}\n")
        fresh.rename(directory / "latest.txt")
        return published

    def path_of(self, name: str, file: str) -> str:
        """Return the request path of one of the image's files when `base` is a web server's root."""
        return f"/{self.directory(name).relative_to(self.base)}/{file}"


def _manifest(name: str, sif: Path, version: str) -> dict[str, str | int]:
    with sif.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"name": name, "sha256": digest, "size": sif.stat().st_size, "created": version}
