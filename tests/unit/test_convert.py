"""Conversions that fail: each ends with the image's name and the reason, and nothing of it is left."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cache_manager.registry import manifest as manifests
from cache_manager.registry.manifest import Descriptor
from sync.blobs import BlobStore
from sync.convert import Place, convert
from sync.request import Limits, Request, RequestError, mismatch, result_from_json, result_to_json
from sync.values import Converted, Failure, Variant
from tests.layers import Entry, config, layer, tar
from tests.unit import registry_server
from tests.unit.registry_server import Registry, Said

CONFIG = config()
NAME = "htc/image:1"
GOOD = layer(Entry("a", body="text"))


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Give a registry that does what a test wants."""
    one = Registry()
    yield one
    one.close()


def push(registry: Registry, *layers: bytes, layer_type: str = registry_server.LAYER) -> Request:
    """Push an image; return the request for its conversion."""
    body = registry_server.manifest(CONFIG, *layers, layer_type=layer_type)
    digest = registry.push(NAME, body, CONFIG, *layers)
    return Request(NAME, f"{registry.host}/{NAME}", digest, Variant("x86_64", digest))


def wrong_digest(registry: Registry) -> Request:
    request = push(registry, GOOD)
    registry.blobs[registry_server.digest_of(GOOD)] = GOOD[:-1] + b"x"
    return request


def lying_size(registry: Registry) -> Request:
    request = push(registry, GOOD)
    registry.blobs[registry_server.digest_of(GOOD)] = GOOD + bytes(1000)
    return request


def gone_layer(registry: Registry) -> Request:
    request = push(registry, GOOD)
    del registry.blobs[registry_server.digest_of(GOOD)]
    return request


def broken_registry(registry: Registry) -> Request:
    request = push(registry, GOOD)
    registry.answers[f"/v2/htc/image/blobs/{registry_server.digest_of(GOOD)}"] = Said(b"", 503)
    return request


def bomb(registry: Registry) -> Request:
    """Return one of 256 MiB in 256 kB, where no more than 16 MiB are taken for small."""
    head = tar([Entry("a")])[:512]
    size = 2**28
    field = bytearray(head)
    field[124:136] = b"%011o\0" % size
    field[148:156] = b" " * 8
    field[148:156] = b"%06o\0 " % sum(field)
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(bytes(field)), *(packer.compress(bytes(2**20)) for _ in range(size >> 20)), packer.flush()]
    return replace(push(registry, b"".join(parts)), limits=Limits(small_bytes=2**24))


def foreign(registry: Registry) -> Request:
    return push(registry, GOOD, layer_type="application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")


def index(registry: Registry) -> Request:
    request = push(registry, GOOD)
    digest = registry.push("htc/image:2", registry_server.index(amd64=registry.manifests["htc/image/1"]))
    return replace(request, variant=Variant("x86_64", digest))


def no_config(registry: Registry) -> Request:
    body = registry_server.manifest(b"[]", GOOD)
    digest = registry.push(NAME, body, b"[]", GOOD)
    return Request(NAME, f"{registry.host}/{NAME}", digest, Variant("x86_64", digest))


FAILURES: dict[str, tuple[Callable[[Registry], Request], str, bool]] = {
    "a layer with another digest": (wrong_digest, "came", False),
    "a layer larger than the manifest says": (lying_size, "more than its", False),
    "a layer that is gone": (gone_layer, "404", False),
    "a registry that is broken": (broken_registry, "503", True),
    "a bomb": (bomb, "layer 1 of 1: a: with it the image unpacks to more than 5", False),
    "a layer that lies elsewhere": (foreign, "is not published", False),
    "an index where an image is asked for": (index, "is an index of images", False),
    "a configuration that is none": (no_config, "its configuration is no JSON object", False),
    "gzip that is cut": (lambda one: push(one, GOOD, GOOD[:-10]), "layer 2 of 2: damaged or cut", False),
    "gzip with another checksum": (lambda one: push(one, GOOD[:-8] + bytes(8)), "damaged or cut", False),
    "zstd that is damaged": (
        lambda one: push(one, zstandard.compress(tar([Entry("a")]))[:6] + b"x" * 99),
        "damaged",
        False,
    ),
    "no archive at all": (lambda one: push(one, gzip.compress(b"text" * 500)), "layer 1 of 1: no tar header", False),
    "an archive that is cut": (
        lambda one: push(one, gzip.compress(tar([Entry("a", body="x")])[:600])),
        "truncated",
        False,
    ),
    "a link out": (lambda one: push(one, layer(Entry("a", "hard", "../../x"))), "a: a hard link to", False),
    "no such architecture": (
        lambda one: replace(push(one, GOOD), variant=replace(push(one, GOOD).variant, arch="pdp11")),
        "no SIFs for pdp11",
        False,
    ),
    "too many files": (
        lambda one: replace(push(one, layer(*(Entry(str(n)) for n in range(20)))), limits=Limits(max_inodes=10)),
        "more than 10 files",
        False,
    ),
    "no more time": (lambda one: replace(push(one, GOOD), limits=Limits(time_s=-1.0)), "not done after", True),
    "a credential that is missing": (
        lambda one: replace(push(one, GOOD), access=replace(push(one, GOOD).access, credentials_file="/nowhere/x")),
        "/nowhere/x",
        False,
    ),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_conversion_that_fails_says_why_and_leaves_nothing(registry: Registry, tmp_path: Path, what: str) -> None:
    """The reason begins with the image's name, and whether to try later is decided."""
    make, why, transient = FAILURES[what]
    request = make(registry)
    (tmp_path / "work").mkdir()
    result = convert(request, Place(tmp_path / "work" / "image", tmp_path / "blobs"))
    assert isinstance(result, Failure)
    assert result.why.startswith(f"{NAME} ({request.variant.arch}): ")
    assert why in result.why
    assert result.transient == transient
    assert not list((tmp_path / "work").iterdir())
    digests = {f"sha256:{path.name}" for path in (tmp_path / "blobs").glob("*") if not path.suffix}
    assert all(f"sha256:{hashlib.sha256(registry.blobs[one]).hexdigest()}" == one for one in digests)
    assert not list((tmp_path / "blobs").glob("*.part"))


def test_requests_and_results_travel_as_they_are(registry: Registry) -> None:
    """To another process or machine, with the manifest that was fetched."""
    body = registry_server.manifest(CONFIG, GOOD)
    parsed = manifests.parse(body)
    assert isinstance(parsed, manifests.Manifest)
    request = replace(push(registry, GOOD), manifest=parsed, limits=Limits(time_s=5.0))
    assert Request.from_json(request.to_json()) == request
    done = Converted(NAME, "s", "sha256:i", request.variant, "/t", "d", 1, 2, "/s", "e", 3, {"mksquashfs": "4.7"})
    for result in (done, request.failure("why", transient=True)):
        assert result_from_json(result_to_json(result)) == result
    for text in ("", "{}", "[]", '{"converted": {}}', '{"failure": 1}', "null"):
        with pytest.raises(RequestError):
            result_from_json(text)
        with pytest.raises(RequestError):
            Request.from_json(text)


def test_a_blob_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    """And one whose fetch failed is not there."""
    store, blob, calls = BlobStore(tmp_path), Descriptor("", "sha256:" + "a" * 64, 3), []

    def fetch(_: Descriptor, write: Callable[[bytes], object]) -> None:
        calls.append(1)
        write(b"abc")
        if len(calls) == 1:
            raise OSError("cut")

    with pytest.raises(OSError, match="cut"):
        store.get(blob, fetch)
    assert not store.path(blob.digest).exists()
    assert store.get(blob, fetch).read_bytes() == store.get(blob, fetch).read_bytes() == b"abc"
    assert len(calls) == 2
    store.forget(blob.digest)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"name": "ns/other:1"}, "is of ns/other:1"),
        ({"variant": Variant("x86_64", "sha256:" + "2" * 64)}, f"is sha256:{'2' * 64} for x86_64, and was to be"),
        ({"variant": Variant("aarch64", "sha256:" + "1" * 64)}, f"is sha256:{'1' * 64} for aarch64, and was to be"),
    ],
)
def test_a_result_of_another_request_is_told_from_ones_own(changes: dict[str, Any], why: str) -> None:
    """A job of a former publisher may bring its result to where this one's is waited for."""
    digest = "sha256:" + "1" * 64
    request = Request("ns/one:1", "registry.example/ns/one:1", digest, Variant("x86_64", digest, 5))
    own = Converted(
        request.name, request.source, digest, request.variant, "/tree", "3" * 64, 1, 1, "/image.sif", "4" * 64, 1
    )
    read = result_from_json(result_to_json(replace(own, **changes)))
    found = mismatch(request, read)
    assert found.startswith(why)
    assert bool(found) == bool(changes)
