"""What the server of the cases says as a registry: images well and badly described, and refusals."""

from __future__ import annotations

import json
from typing import Final

from tests.contract.doubles import ARCH, other_arch
from tests.contract.origin import Reply, Route
from tests.unit.registry_server import OCI_MANIFEST, descriptor, digest_of, index, manifest

_NAMES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
GOOD: Final = b"a layer"


def routes() -> dict[str, Route]:
    """Return the routes of all images, below /v2/reg."""
    here, there = (json.dumps({"architecture": _NAMES[arch], "os": "linux"}).encode() for arch in (ARCH, other_arch()))
    good, elsewhere = manifest(here, GOOD), manifest(there, GOOD)
    dead, lost = manifest(here, b"DOES NOT START"), manifest(here, b"a layer that is gone")
    large = json.loads(good)
    large["layers"][0]["size"] = 10**12
    found = (
        _image("good", good, here, GOOD)
        | _image("other", elsewhere, there, GOOD)
        | _image("dead", dead, here, b"DOES NOT START")
        | _image("lost", lost, here)
        | _image("large", json.dumps(large).encode(), here)
        | _image("many", index(**{_NAMES[ARCH]: good, _NAMES[other_arch()]: elsewhere}))
        | _image("foreign", index(**{_NAMES[other_arch()]: elsewhere}))
        | _image("html", b"<html>")
    )
    found |= {path.replace("/good/", "/many/"): route for path, route in found.items() if "/good/" in path}
    return found | _refusals() | _image("many", index(**{_NAMES[ARCH]: good, _NAMES[other_arch()]: elsewhere}))


def _image(name: str, body: bytes, *blobs: bytes) -> dict[str, Route]:
    headers = {"Docker-Content-Digest": digest_of(body), "Content-Type": OCI_MANIFEST}
    places = {f"/v2/reg/{name}/manifests/{version}": Reply(body, headers=headers) for version in ("1", digest_of(body))}
    return {**places, **{f"/v2/reg/{name}/blobs/{descriptor(blob)['digest']}": Reply(blob) for blob in blobs}}


def _refusals() -> dict[str, Route]:
    said = json.dumps({"errors": [{"code": "DENIED", "message": "requested access is denied"}]}).encode()
    replies = {
        "closed": Reply(said, 401, headers={"WWW-Authenticate": 'Basic realm="x"'}),
        "forbidden": Reply(said, 403),
        "ill": Reply(status=503),
        "busy": Reply(status=429, headers={"Retry-After": "3600"}),
        "lies": Reply(b"{}", headers={"Docker-Content-Digest": digest_of(b"another")}),
    }
    found: dict[str, Route] = {f"/v2/reg/{name}/manifests/1": reply for name, reply in replies.items()}
    found[f"/v2/reg/lies/manifests/{digest_of(b'another')}"] = replies["lies"]
    return found
