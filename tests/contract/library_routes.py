"""What the server of the cases says as a Singularity library, below /library: a double of its API, and no library.

A tag is asked for as `v1/images/<path>:<tag>?arch=`, the SIF of its hash as `v1/imagefile/<path>:<hash>?arch=`.
"""

from __future__ import annotations

import json
from typing import Final

from tests.contract.doubles import ARCH, HTML, digest, other_arch, sif
from tests.contract.origin import Reply, Route

_NAMES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_TOP: Final = "/library/v1"
_ASKED: Final = f"?arch={_NAMES[ARCH]}"
_OTHER: Final = _NAMES[other_arch()]
_UUID: Final = "sif.5ac2d7a0-0b6e-4b4f-9d53-2f27d2b2a0c1"
GOOD_HASH: Final = f"sha256.{digest(sif('library'))}"


def routes() -> dict[str, Route]:
    """Return the routes of all images."""
    good, uuid = sif("library"), sif("library_uuid")
    moved = Reply(status=303, headers={"Location": "/own/library.sif?X-Amz-Signature=abc"})
    found = {
        **_image("e/c/good", GOOD_HASH, Reply(good), len(good)),
        **_image("short", GOOD_HASH, Reply(good), len(good)),
        **_image("e/c/moved", GOOD_HASH, moved, len(good)),
        **_image("e/c/uuid", _UUID, Reply(uuid), len(uuid)),
        **_image("e/c/lies", f"sha256.{digest(sif('promised'))}", Reply(good), len(good)),
        **_image("e/c/size", GOOD_HASH, Reply(good), len(good) - 1),
        **_image("e/c/page", f"sha256.{digest(HTML)}", Reply(HTML), len(HTML)),
        **_image("e/c/lost", GOOD_HASH, Reply(status=404), len(good)),
        **_image("e/c/other", GOOD_HASH, Reply(good), len(good), arch=_OTHER),
        "/own/library.sif?X-Amz-Signature=abc": Reply(good),
        f"{_TOP}/containers/e/c/foreign": Reply(_said(archTags={_OTHER: {"latest": "5ac2d7a0"}})),
    }
    replies = {
        "hashless": Reply(_said(size=4096)),
        "html": Reply(HTML),
        "ill": Reply(status=503),
        "closed": Reply(status=401),
        "busy": Reply(status=429, headers={"Retry-After": "3600"}),
    }
    return found | {f"{_TOP}/images/e/c/{name}:latest{_ASKED}": reply for name, reply in replies.items()}


def _said(**data: object) -> bytes:
    return json.dumps({"data": data}).encode()


def _image(path: str, named: str, delivered: Reply, size: int, arch: str = _NAMES[ARCH]) -> dict[str, Route]:
    described = Reply(_said(hash=named, size=size, arch=arch))
    return {
        f"{_TOP}/images/{path}:latest{_ASKED}": described,
        f"{_TOP}/images/{path}:{named}{_ASKED}": described,
        f"{_TOP}/imagefile/{path}:{named}{_ASKED}": delivered,
    }
