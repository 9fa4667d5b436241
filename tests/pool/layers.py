"""Images of layers, made by hand: busybox, and a file that says which image it is."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Final

BUSYBOX: Final = Path("/bin/busybox")
_DIRECTORIES: Final = ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "var")
_COMMANDS: Final = ("cat", "sh", "sleep", "true")
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def base_layer() -> bytes:
    """Return a layer with busybox and the directories that a container has."""
    with io.BytesIO() as raw:
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for name in _DIRECTORIES:
                info = tarfile.TarInfo(name)
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            _add(tar, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
            for name in _COMMANDS:
                info = tarfile.TarInfo(f"bin/{name}")
                info.type, info.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(info)
        return raw.getvalue()


def layer_that_says(text: str) -> bytes:
    """Return a layer with the file /IMAGE_ID."""
    with io.BytesIO() as raw:
        with tarfile.open(fileobj=raw, mode="w") as tar:
            _add(tar, "IMAGE_ID", f"{text}\n".encode(), 0o644)
        return raw.getvalue()


def layer_of_zeros(size_bytes: int) -> bytes:
    """Return a packed layer with a file of zeros."""
    info = tarfile.TarInfo("zeros")
    info.size = size_bytes
    with io.BytesIO() as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed:
            packed.write(info.tobuf())
            for _ in range(size_bytes // 10**6):
                packed.write(bytes(10**6))
            packed.write(bytes(-size_bytes % 512 + 1024))
        return raw.getvalue()


def image_that_says(text: str, machine: str = "x86_64") -> tuple[bytes, bytes, bytes]:
    """Return the configuration and the two layers, packed, of an image."""
    layers = [base_layer(), layer_that_says(text)]
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]}
    architecture = _ARCHITECTURES.get(machine, machine)
    config = {"architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/sh"]}, "rootfs": rootfs}
    packed = [gzip.compress(one, mtime=0) for one in layers]
    return json.dumps(config).encode(), packed[0], packed[1]


def docker_archive(path: Path, text: str, machine: str = "x86_64") -> None:
    """Write an image as `docker save` does."""
    config, *layers = image_that_says(text, machine)
    names = [f"layer{number}.tar" for number, _ in enumerate(layers)]
    listed = [{"Config": "config.json", "RepoTags": ["x/y:1"], "Layers": names}]
    with tarfile.open(path, "w") as tar:
        for name, layer in zip(names, layers, strict=True):
            _add(tar, name, gzip.decompress(layer), 0o644)
        _add(tar, "config.json", config, 0o644)
        _add(tar, "manifest.json", json.dumps(listed).encode(), 0o644)


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))
