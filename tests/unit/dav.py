"""A WebDAV server on loopback that knows as much, and behaves as badly, as a test wants; real ones are in the pool."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Dav:
    """Files by path below a base. `can` are the methods that it knows; `answers` are statuses by `METHOD path`."""

    def __init__(self, can: str = "PUT MOVE MKCOL DELETE") -> None:
        self.can = {"HEAD", *can.split()}
        self.files: dict[str, bytes] = {}
        self.directories = {""}
        self.asked: list[str] = []
        self.credentials: list[str] = []
        self.answers: dict[str, int] = {}
        self.digest = ""
        """What is told as the digest of each file."""
        self.loses = 0
        """How many bytes of each file get lost."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def base(self) -> str:
        """The URL of the tree."""
        return f"http://127.0.0.1:{self._server.server_port}/v2"

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(self, path: str, content: bytes) -> int:
        """Take a file; where its directory is not there, say so as WebDAV does."""
        if "MKCOL" in self.can and path.rpartition("/")[0] not in self.directories:
            return 409
        self.files[path] = content[: len(content) - self.loses]
        return 201

    def make_directory(self, path: str) -> int:
        """Make a directory below one that is there."""
        path = path.rstrip("/")
        if path in self.directories:
            return 405
        if path.rpartition("/")[0] not in self.directories:
            return 409
        self.directories.add(path)
        return 201

    def move(self, path: str, to: str, *, overwrite: bool) -> int:
        """Move a file."""
        if to in self.files and not overwrite:
            return 412
        self.files[to] = self.files.pop(path)
        return 201

    def do(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Do what is asked for; return the status."""
        told = self.answers.get(f"{method} {path}") or self.answers.get(method, 0)
        if told or method not in self.can:
            return told or 405
        if method == "PUT":
            return self.put(path, body)
        if method == "MKCOL":
            return self.make_directory(path)
        if method == "MOVE":
            to = unquote(urlsplit(headers["Destination"]).path).removeprefix("/v2/")
            return self.move(path, to, overwrite=headers.get("Overwrite") != "F")
        if path not in self.files:
            return 404
        if method == "DELETE":
            del self.files[path]
        return 200

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        dav = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                path = unquote(urlsplit(self.path).path).removeprefix("/v2/")
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                dav.asked.append(f"{self.command} {path}")
                dav.credentials.append(self.headers.get("Authorization", ""))
                self.send_response(dav.do(self.command, path, body, dict(self.headers)))
                is_there = self.command == "HEAD" and path in dav.files
                self.send_header("Content-Length", str(len(dav.files[path])) if is_there else "0")
                if is_there and dav.digest:
                    self.send_header("Digest", dav.digest)
                self.end_headers()

            do_HEAD = do_PUT = do_MOVE = do_MKCOL = do_DELETE = _do  # noqa: N815 - as http.server calls them

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called there
                """Say nothing."""

        return Handler
