"""Archives of layers, as `docker save` writes them."""

from __future__ import annotations

import io
import json
import tarfile

from tests.contract.doubles import ARCH

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def archive(arch: str = ARCH, *, index: str = "manifest.json") -> bytes:
    """Return an archive of one image; `index` is the name of what lists it."""
    config = json.dumps({"architecture": _ARCHITECTURES[arch], "os": "linux"}).encode()
    listed = json.dumps([{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]).encode()
    return tar_of({"layer.tar": b"layer" * 1000, "config.json": config, index: listed})


def tar_of(files: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """Return a tar."""
    with io.BytesIO() as raw:
        with tarfile.open(fileobj=raw, mode="w", format=form) as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return raw.getvalue()
