"""Debian's docker-registry on loopback, and images pushed to it as `docker push` does."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import ssl
from base64 import b64encode
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.pool.processes import end, poll, start_as

_CONFIG: Final = """\
version: 0.1
log:
  level: error
  accesslog:
    disabled: false
storage:
  filesystem:
    rootdirectory: {directory}/data
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
"""
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(body: bytes) -> str:
    """Return a body's digest."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


class DockerRegistry:
    """A registry below `directory`, as a context manager.

    `users` (htpasswd lines) are those who may read; everybody without them. `certificate` makes it speak TLS.
    """

    def __init__(self, directory: Path, *, users: str = "", certificate: Path | None = None) -> None:
        self.directory = directory
        self.password = ""
        """`user:password` of who pushes."""
        self._users = users
        self._certificate = certificate
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port: int = probe.getsockname()[1]

    @property
    def host(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self._port}"

    @property
    def log(self) -> str:
        """What it wrote: a line for each request."""
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "config.yml"
        text = _CONFIG.format(directory=self.directory, port=self._port)
        if self._certificate:
            text += f"  tls:\n    certificate: {self._certificate}\n    key: {self._certificate}\n"
        if self._users:
            (self.directory / "htpasswd").write_text(self._users, encoding="ascii")
            text += f"auth:\n  htpasswd:\n    realm: test\n    path: {self.directory}/htpasswd\n"
        config.write_text(text, encoding="utf-8")
        self._process = start_as(None, ["docker-registry", "serve", config], output=self.directory / "log")
        poll(self._answers, f"docker-registry answers at {self.host}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._process, 5)

    def stop(self) -> None:
        """End it; it can be started again, with all that was pushed."""
        end(self._process, 5)

    def count(self, method: str, part: str) -> int:
        """Return how many requests of a method were let in whose path has a part."""
        lines = (line.partition(f'"{method} /v2/')[2] for line in self.log.splitlines())
        return sum(part in line.split(" ")[0] and line.split('" ')[1].startswith(("2", "3")) for line in lines if line)

    def fetched(self) -> list[str]:
        """Return the digest of every blob that was read, once for each time."""
        lines = (line for line in self.log.splitlines() if '"GET /v2/' in line and "/blobs/" in line)
        return [line.partition("/blobs/")[2].partition(" ")[0] for line in lines]

    def push(self, name: str, config: bytes, *layers: bytes, layer_type: str = _LAYER) -> str:
        """Push an image as `repository:tag`; return the digest of its manifest."""
        repository, _, tag = name.partition(":")
        for blob in (config, *layers):
            self.push_blob(repository, blob)
        described = [_described(one, layer_type) for one in layers]
        values = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": _described(config, _CONFIG_TYPE)}
        return self.put_manifest(repository, tag, values | {"layers": described})

    def push_index(self, name: str, **manifests: str) -> str:
        """Push an index of manifests that are there, by architecture (`amd64`); return its digest."""
        repository, _, tag = name.partition(":")
        listed = []
        for arch, digest in manifests.items():
            status, body = self._ask("GET", f"/v2/{repository}/manifests/{digest}", headers={"Accept": _MANIFEST})
            assert status == 200, body
            platform = {"os": "linux", "architecture": arch}
            listed.append({"mediaType": _MANIFEST, "digest": digest, "size": len(body), "platform": platform})
        return self.put_manifest(repository, tag, {"schemaVersion": 2, "mediaType": _INDEX, "manifests": listed})

    def push_blob(self, repository: str, blob: bytes) -> str:
        """Push a blob, unless it is there; return its digest."""
        digest = digest_of(blob)
        if self._ask("HEAD", f"/v2/{repository}/blobs/{digest}")[0] == 200:
            return digest
        connection = self._connection()
        connection.request("POST", f"/v2/{repository}/blobs/uploads/", headers=self._headers)
        answer = connection.getresponse()
        answer.read()
        place = (answer.headers["Location"] or "").partition(self.host)[2]
        headers = {"Content-Type": "application/octet-stream"} | self._headers
        connection.request("PUT", f"{place}&digest={digest}", blob, headers)
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        assert answer.status == 201, said
        return digest

    def put_manifest(self, repository: str, tag: str, values: dict[str, Any]) -> str:
        """Push a manifest; return its digest."""
        body = json.dumps(values).encode()
        path = f"/v2/{repository}/manifests/{tag}"
        status, said = self._ask("PUT", path, body, {"Content-Type": str(values["mediaType"])})
        assert status == 201, said
        return digest_of(body)

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.request(method, path, body, (headers or {}) | self._headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Basic {b64encode(self.password.encode()).decode()}"} if self.password else {}

    def _connection(self) -> http.client.HTTPConnection:
        if self._certificate:
            context = ssl.create_default_context(cafile=str(self._certificate))
            return http.client.HTTPSConnection("127.0.0.1", self._port, timeout=30, context=context)
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self._ask("GET", "/v2/")[0] in {200, 401}
        return False


def _described(body: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}
