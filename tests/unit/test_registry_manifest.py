"""Manifests and indexes: what is read of them, which image is chosen, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cache_manager.registry import manifest as manifests
from cache_manager.registry.manifest import ArchitectureError, Index, Manifest, ManifestError, Platform
from tests.unit.registry_server import OCI_INDEX, OCI_MANIFEST, descriptor, digest_of, index, manifest

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
SIF = "application/vnd.sylabs.sif.layer.v1.sif"


def listed(*platforms: str) -> Index:
    """Return an index of images for platforms (`linux/arm64/v8`); each has its own digest."""
    words = [dict(zip(("os", "architecture", "variant"), one.split("/"), strict=False)) for one in platforms]
    images = [descriptor(one.encode(), OCI_MANIFEST, platform=two) for one, two in zip(platforms, words, strict=True)]
    found = manifests.parse(json.dumps({"mediaType": OCI_INDEX, "manifests": images}).encode())
    assert isinstance(found, Index)
    return found


CHOICES = [
    (("linux/arm64/v8", "linux/amd64"), "x86_64", "linux/amd64"),
    (("linux/amd64", "linux/arm64/v8"), "aarch64", "linux/arm64/v8"),
    (("linux/arm64",), "aarch64", "linux/arm64"),
    (("linux/amd64/v3", "linux/amd64"), "x86_64", "linux/amd64"),
    (("linux/amd64/v3", "linux/amd64/v2"), "x86_64", "linux/amd64/v2"),
    (("windows/amd64", "unknown/unknown", "linux/amd64"), "x86_64", "linux/amd64"),
    (("linux/arm/v5", "linux/arm/v7"), "armv7l", "linux/arm/v7"),
    (("linux/ppc64le",), "ppc64le", "linux/ppc64le"),
    (("linux/loong64",), "loong64", "linux/loong64"),
]


@pytest.mark.parametrize(("platforms", "machine", "chosen"), CHOICES)
def test_the_image_that_runs_on_all_machines_of_an_architecture_is_chosen(
    platforms: tuple[str, ...], machine: str, chosen: str
) -> None:
    """A cache is shared, and what is attested is no image."""
    assert manifests.choose(listed(*platforms), machine).digest == digest_of(chosen.encode())


def test_an_image_that_is_for_others_says_for_whom() -> None:
    """Another EP may run it."""
    with pytest.raises(ArchitectureError, match="not for x86_64; there is: linux/arm64/v8, windows/amd64"):
        manifests.choose(listed("linux/arm64/v8", "windows/amd64", "unknown/unknown"), "x86_64")
    with pytest.raises(ArchitectureError, match="there is: nothing"):
        manifests.choose(listed(), "x86_64")


def test_a_manifest_has_its_layers_sizes_and_its_own_digest() -> None:
    """Computed of the bytes as they came."""
    body = manifest(b"{}", b"lower", b"upper one")
    found = manifests.parse(body + b"\n", "text/html; charset=utf-8")
    assert isinstance(found, Manifest)
    assert found.digest == digest_of(body + b"\n")
    assert [layer.digest for layer in found.layers] == [digest_of(b"lower"), digest_of(b"upper one")]
    assert (found.config.digest, found.size_bytes, found.sif) == (digest_of(b"{}"), 16, None)


def test_a_pushed_sif_is_one_layer() -> None:
    """It need not be converted."""
    found = manifests.parse(manifest(b"{}", b"SIF", layer_type=SIF))
    assert isinstance(found, Manifest)
    assert found.sif is not None
    assert found.sif.digest == digest_of(b"SIF")


@pytest.mark.parametrize(
    ("content_type", "values", "kind"),
    [
        (f"{DOCKER}; charset=utf-8", {"config": descriptor(b""), "layers": []}, Manifest),
        (DOCKER_LIST, {"manifests": []}, Index),
        ("application/json", {"manifests": []}, Index),
        ("", {"config": descriptor(b""), "layers": []}, Manifest),
        (DOCKER, {"mediaType": OCI_INDEX, "manifests": []}, Index),
    ],
)
def test_the_bodys_own_type_comes_before_the_headers(
    content_type: str, values: dict[str, Any], kind: type[object]
) -> None:
    """And where neither says it, what is in it does."""
    assert isinstance(manifests.parse(json.dumps(values).encode(), content_type), kind)


BLOB = descriptor(b"x")
WRONG = {
    "nothing": b"",
    "no JSON": b"<html>",
    "no object": b"[]",
    "nested": b"[" * 100_000,
    "too large": b" " * (manifests.MAX_BYTES + 1),
    "schema 1": {"schemaVersion": 1, "fsLayers": []},
    "no image": {"mediaType": "application/x", "config": BLOB},
    "layers are no list": {"config": BLOB, "layers": {}},
    "too many layers": {"config": BLOB, "layers": [BLOB] * (manifests.MAX_LAYERS + 1)},
    "a layer is no object": {"config": BLOB, "layers": ["x"]},
    "no configuration": {"layers": []},
    "a digest that leads elsewhere": {"config": {**BLOB, "digest": "sha256:../../x"}, "layers": []},
    "another digest": {"config": {**BLOB, "digest": "md5:" + "0" * 32}, "layers": []},
    "a digest that is none": {"config": {**BLOB, "digest": 7}, "layers": []},
    "no size": {"config": {"digest": digest_of(b"")}, "layers": []},
    "a negative size": {"config": {**BLOB, "size": -1}, "layers": []},
    "a huge size": {"config": {**BLOB, "size": 10**40}, "layers": []},
    "a size that is a truth": {"config": {**BLOB, "size": True}, "layers": []},
    "an index of nonsense": {"manifests": [7]},
}


@pytest.mark.parametrize("what", WRONG.values(), ids=WRONG)
def test_what_cannot_be_meant_is_refused(what: bytes | dict[str, Any]) -> None:
    """On one line, whatever was in it."""
    with pytest.raises(ManifestError) as found:
        manifests.parse(what if isinstance(what, bytes) else json.dumps(what).encode())
    assert "\n" not in str(found.value)


def test_platforms_that_are_nonsense_are_not_chosen() -> None:
    """They are no reason to refuse the others."""
    body = json.dumps({"manifests": [{**BLOB, "platform": 7}, {**BLOB, "platform": {"os": [], "architecture": 1}}]})
    found = manifests.parse(body.encode())
    assert isinstance(found, Index)
    assert [one.platform for one in found.manifests] == [Platform(), Platform()]


def test_an_index_tells_the_images_by_architecture() -> None:
    """Each with its own manifest's digest and size."""
    one, two = manifest(b"one"), manifest(b"two")
    found = manifests.parse(index(amd64=one, arm64=two))
    assert isinstance(found, Index)
    assert [(str(item.platform), item.digest, item.size_bytes) for item in found.manifests] == [
        ("linux/amd64", digest_of(one), len(one)),
        ("linux/arm64", digest_of(two), len(two)),
    ]


@pytest.mark.parametrize(
    ("config", "machine"),
    [
        (b'{"architecture": "arm64"}', "aarch64"),
        (b'{"architecture": "loong64"}', "loong64"),
        (b"{}", ""),
        (b"[", ""),
        (b"[]", ""),
        (b'{"architecture": 7}', ""),
    ],
)
def test_an_images_configuration_tells_for_which_machine_it_is(config: bytes, machine: str) -> None:
    """Where there is no index."""
    assert manifests.architecture_of(config) == machine
