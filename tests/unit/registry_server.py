"""A registry on loopback, small enough to be broken in any way. Connections are kept, as by real ones."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass
class Said:
    """An answer; `cut` sends only so many bytes of the body and closes the connection."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass
class Heard:
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    connection: int


def digest_of(body: bytes) -> str:
    """Return a body's digest."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def descriptor(body: bytes, media_type: str = LAYER, **more: object) -> dict[str, object]:
    """Return what a manifest says of a blob."""
    return {"mediaType": media_type, "digest": digest_of(body), "size": len(body), **more}


def manifest(config: bytes, *layers: bytes, layer_type: str = LAYER) -> bytes:
    """Return an image's manifest."""
    values: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(config, CONFIG)}
    return json.dumps(values | {"layers": [descriptor(layer, layer_type) for layer in layers]}).encode()


def index(**manifests: bytes) -> bytes:
    """Return an index of manifests by architecture (`amd64`)."""
    listed = [
        descriptor(body, OCI_MANIFEST, platform={"os": "linux", "architecture": name})
        for name, body in manifests.items()
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that go away."""


class Registry:
    """The server. `answers` come before what it has: by `METHOD path` or by path, each may be a function.

    With `users` it gives tokens for their passwords only; with `tokens` it wants one, and gives it to anybody. Private
    repositories (`private`) are read by users alone.
    """

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.answers: dict[str, Said | Callable[[Heard], Said]] = {}
        self.heard: list[Heard] = []
        self.tokens = False
        self.users: dict[str, str] = {}
        self.private: set[str] = set()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def host(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def push(self, name: str, body: bytes, *blobs: bytes) -> str:
        """Take a manifest under `repository:tag`, and blobs; return its digest."""
        repository, _, tag = name.partition(":")
        self.manifests[f"{repository}/{tag}"] = self.manifests[f"{repository}/{digest_of(body)}"] = body
        self.blobs |= {digest_of(blob): blob for blob in blobs}
        return digest_of(body)

    def asked(self, method: str, part: str) -> list[Heard]:
        """Return the requests of a method whose path has a part."""
        return [one for one in self.heard if one.method == method and part in one.path]

    def answer(self, heard: Heard) -> Said:
        """Return what is said to a request."""
        special = self.answers.get(f"{heard.method} {heard.path}") or self.answers.get(heard.path)
        if special is not None:
            return special(heard) if callable(special) else special
        parts = urlsplit(heard.path)
        if parts.path == "/token":
            return self._token(heard, parse_qs(parts.query))
        repository, _, rest = parts.path.removeprefix("/v2/").partition("/manifests/")
        if not rest:
            repository, _, rest = parts.path.removeprefix("/v2/").partition("/blobs/")
        refused = self._refused(heard, repository)
        if refused is not None:
            return refused
        if "/manifests/" in heard.path:
            body = self.manifests.get(f"{repository}/{rest}")
            if body is None:
                return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            headers = {"Content-Type": json.loads(body)["mediaType"], "Docker-Content-Digest": digest_of(body)}
            return Said(body, 200, headers)
        blob = self.blobs.get(rest)
        return Said(blob) if blob is not None else _error(404, "BLOB_UNKNOWN", "blob unknown")

    def _refused(self, heard: Heard, repository: str) -> Said | None:
        if not (self.tokens or self.users):
            return None
        token = heard.headers.get("authorization", "").removeprefix("Bearer ")
        user, _, scope = token.partition("|")
        if scope == f"repository:{repository}:pull" and (user or repository not in self.private):
            return None
        where = f'realm="http://{self.host}/token",service="double",scope="repository:{repository}:pull"'
        said = _error(401, "UNAUTHORIZED", "authentication required")
        return Said(said.body, 401, {"WWW-Authenticate": f"Bearer {where}"})

    def _token(self, heard: Heard, query: dict[str, list[str]]) -> Said:
        said = heard.headers.get("authorization", "").removeprefix("Basic ")
        user, _, password = base64.b64decode(said).decode().partition(":")
        if said and self.users.get(user) != password:
            return _error(401, "UNAUTHORIZED", "incorrect username or password")
        return Said(json.dumps({"token": f"{user}|{query['scope'][0]}", "expires_in": 300}).encode())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer()

            def do_HEAD(self) -> None:
                self._answer()

            def _answer(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                heard = Heard(self.command, self.path, headers, self.client_address[1])
                registry.heard.append(heard)
                said = registry.answer(heard)
                self.send_response(said.status)
                for name, value in ({"Content-Length": str(len(said.body))} | said.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(said.body[: said.cut])
                self.close_connection |= said.cut is not None

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


def _error(status: int, code: str, message: str) -> Said:
    return Said(json.dumps({"errors": [{"code": code, "message": message}]}).encode(), status)
