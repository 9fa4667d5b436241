"""Convert one image: its layers are unpacked once, and both forms are made from that tree."""

from __future__ import annotations

import errno
import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cache_manager import __version__, sifwriter
from cache_manager.sifwriter import Kind
from cache_manager.text import human_time
from sync import imageconfig, layers, model, pull, singularity, squash, unpack
from sync.blobs import BlobStore
from sync.imageconfig import ConfigError, ImageConfig
from sync.layers import LayerError
from sync.model import ModelError
from sync.pull import PullError
from sync.request import Limits, Request
from sync.squash import Packed, PackError, Packing
from sync.tarheader import TarError
from sync.tree import Bounds, Counts, Tree, UnpackError
from sync.values import Converted, Failure

TREE: Final = "tree"
SIF: Final = "image.sif"
"""What is in a conversion's directory when it is done."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_PASSING: Final = _FULL | {errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""What says nothing about the image."""

Report = Callable[[str], None]


class OverdueError(Exception):
    """The conversion took longer than it may."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a conversion works: a directory that it makes, and the run's blobs."""

    directory: Path
    blobs: Path


def convert(request: Request, place: Place, report: Report = lambda _: None) -> Converted | Failure:
    """Make both forms of an image below `place.directory`. Of what fails, nothing is left there.

    `report` is told what is done: `fetching`, `unpacking`, `packing`.
    """
    began = time.monotonic()

    def check() -> None:
        if time.monotonic() - began > request.limits.time_s:
            raise OverdueError(f"not done after {human_time(request.limits.time_s)}")

    result: Converted | Failure | None = None
    try:
        place.directory.mkdir(parents=True)
        result = _Conversion(request, place, report, check).run()
    except (UnpackError, TarError, LayerError, ModelError, ConfigError) as error:
        result = request.failure(str(error))
    except PullError as error:
        result = request.failure(str(error), transient=error.transient)
    except (PackError, OverdueError) as error:
        result = request.failure(str(error), transient=True)
    except OSError as error:
        what = f"{error.strerror}: {error.filename}" if error.filename else error.strerror or str(error)
        result = request.failure(what, transient=error.errno in _PASSING)
    finally:
        if not isinstance(result, Converted):
            shutil.rmtree(place.directory, ignore_errors=True)
    return result


class _Conversion:
    """The steps, on one image."""

    def __init__(self, request: Request, place: Place, report: Report, check: Callable[[], None]) -> None:
        self._request = request
        self._place = place
        self._report = report
        self._check = check
        self._tree = place.directory / TREE

    def run(self) -> Converted:
        request = self._request
        if not sifwriter.is_known(request.variant.arch):
            raise UnpackError(f"there are no SIFs for {request.variant.arch}")
        with pull.client_for([request]) as client:
            puller = pull.Puller(client, request, self._check)
            self._report("fetching")
            manifest = puller.manifest()
            config = imageconfig.parse(puller.config(manifest))
            allowed = _bounds(request.limits, manifest.size_bytes, self._check)
            with Tree(self._tree, allowed) as tree:
                for number, layer in enumerate(puller.layers(manifest, BlobStore(self._place.blobs)), 1):
                    self._report(f"unpacking layer {number} of {len(manifest.layers)}")
                    self._add(tree, layer, f"layer {number} of {len(manifest.layers)}")
                _complete(tree, config, request)
                digest = model.tree_digest(tree.root)
        left_out = [f"{count} {what}" for count, what in _left_out(tree.counts) if count]
        if left_out:
            self._report(f"left out: {', '.join(left_out)}")
        self._report("packing")
        packed = self._pack(config)
        return Converted(
            name=request.name,
            source=request.source,
            index_digest=request.index_digest,
            variant=request.variant,
            tree_path=str(self._tree),
            tree_digest=digest,
            tree_bytes=tree.counts.size_bytes,
            tree_inodes=tree.counts.inodes,
            sif_path=str(self._place.directory / SIF),
            sha256=packed.sha256,
            size_bytes=packed.size_bytes,
            tools=_tools(request),
        )

    def _add(self, tree: Tree, layer: Path, which: str) -> None:
        try:
            with layers.uncompressed(layer) as blocks:
                unpack.add_layer(tree, blocks, self._check)
        except (UnpackError, TarError, LayerError) as error:
            raise type(error)(f"{which}: {error}") from None

    def _pack(self, config: ImageConfig) -> Packed:
        request = self._request
        described = [
            (Kind.DEFINITION, "", singularity.definition(request.source, request.index_digest).encode()),
            (Kind.JSON, "inspect-metadata.json", _json(singularity.metadata(config, request))),
            (Kind.JSON, "oci-config.json", _json(config.raw)),
        ]
        arch = request.variant.arch
        packing = Packing(arch, request.compression, request.level, request.memory_bytes, config.created_at)
        target = self._place.directory / SIF
        return squash.pack(self._tree, target, described, packing, self._check)


def _left_out(counts: Counts) -> tuple[tuple[int, str], ...]:
    return (counts.specials, "devices and FIFOs"), (counts.xattrs, "attributes that may not be set here")


def _bounds(limits: Limits, compressed_bytes: int, check: Callable[[], None]) -> Bounds:
    return Bounds(limits.allowed_bytes(compressed_bytes), limits.max_inodes, check)


def _complete(tree: Tree, config: ImageConfig, request: Request) -> None:
    """Put into the tree what it needs to run, and finish it. What the image has itself of mount points stays."""
    when = config.created_at * 10**9
    tree.begin_layer()
    for member in singularity.mount_members():
        if not tree.has(model.words_of(member.name)):
            member.mtime_ns = when
            unpack.add(tree, member, iter(()))
    for member, content in singularity.members(config, request):
        member.mtime_ns = when
        unpack.add(tree, member, iter([memoryview(content)]))
    tree.finish()


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode()


def _tools(request: Request) -> dict[str, str]:
    compression = request.compression if request.level is None else f"{request.compression}-{request.level}"
    return {
        "condor_image_sync": __version__,
        "mksquashfs": squash.tool_version(),
        "compression": compression,
        "python": platform.python_version(),
    }
