"""How images in registries are named, and what that means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.registry.reference import RegistryReference, RegistryReferenceError

DIGEST = "sha256:" + "0123456789abcdef" * 4
HUB = "docker.io"

NAMED = {
    "debian": (HUB, "library/debian", "latest", ""),
    "debian:12-slim": (HUB, "library/debian", "12-slim", ""),
    "library/debian:latest": (HUB, "library/debian", "latest", ""),
    "htc/rocky": (HUB, "htc/rocky", "latest", ""),
    "htc/rocky:9-cuda-12.6.0": (HUB, "htc/rocky", "9-cuda-12.6.0", ""),
    "docker.io/debian": (HUB, "library/debian", "latest", ""),
    "docker.io/htc/rocky:9": (HUB, "htc/rocky", "9", ""),
    "index.docker.io/debian": (HUB, "library/debian", "latest", ""),
    "registry-1.docker.io/htc/rocky": (HUB, "htc/rocky", "latest", ""),
    "registry.hub.docker.com/library/debian:12": (HUB, "library/debian", "12", ""),
    "ghcr.io/eic/eic_xl:25.04.1-stable": ("ghcr.io", "eic/eic_xl", "25.04.1-stable", ""),
    "containers.ligo.org/computing/distributed/pool-exorciser/gpu_burn:latest": (
        "containers.ligo.org",
        "computing/distributed/pool-exorciser/gpu_burn",
        "latest",
        "",
    ),
    "GHCR.io/eic/eic_xl": ("ghcr.io", "eic/eic_xl", "latest", ""),
    "localhost/x": ("localhost", "x", "latest", ""),
    "localhost:5000/x:1": ("localhost:5000", "x", "1", ""),
    "host:5000/r:1": ("host:5000", "r", "1", ""),
    "[::1]:5000/ns/r:1": ("[::1]:5000", "ns/r", "1", ""),
    "10.0.0.1:5000/ns/r": ("10.0.0.1:5000", "ns/r", "latest", ""),
    "host:5000": (HUB, "library/host", "5000", ""),
    "a/b/c/d:1": (HUB, "a/b/c/d", "1", ""),
    "ns/a__b.c-d--e:T_1": (HUB, "ns/a__b.c-d--e", "T_1", ""),
    f"debian@{DIGEST}": (HUB, "library/debian", "", DIGEST),
    f"ghcr.io/a/b:1@{DIGEST}": ("ghcr.io", "a/b", "1", DIGEST),
}


@pytest.mark.parametrize(("text", "parts"), NAMED.items())
def test_a_reference_is_read_as_docker_and_the_community_write_it(text: str, parts: tuple[str, ...]) -> None:
    """With and without registry, port, tag and digest."""
    found = RegistryReference.parse(text)
    assert (found.registry, found.repository, found.tag, found.digest) == parts
    assert RegistryReference.parse(str(found)) == found


WRONG = {
    "": "names no repository",
    "host:5000/": "names no repository",
    "htc/Rocky:9": "lower case",
    "CMSSW/cms": "lower case",
    "htc//rocky": "'' is no part",
    "htc/rocky/": "'' is no part",
    "/htc/rocky": "'' is no part",
    "-x/y": "'-x' is no part",
    "x/y___z": "is no part",
    "../x": "is no registry",
    "x/..": "'..' is no part",
    "htc/rocky:": "is no tag",
    "htc/rocky:.9": "is no tag",
    "htc/rocky:*": "is no tag",
    "htc/rocky:9:10": "is no tag",
    "htc/rocky:" + "a" * 129: "is no tag",
    "htc/rocky@sha256:abc": "is no digest",
    f"htc/rocky@{DIGEST}@{DIGEST}": "is no digest",
    f"htc/rocky@{DIGEST.upper()}": "is no digest",
    "host:0/x": "is no registry",
    "host:65536/x": "is no registry",
    "user@host/x": "is no digest",
    "a b/c": "is no part",
    "htc/rocky\n": "is no part",
    "http://host/x": "is no registry",
    "a" * 256: "too long",
    "x/" * 300: "too long",
}


@pytest.mark.parametrize(("text", "words"), WRONG.items())
def test_what_is_no_reference_is_refused_with_the_part_that_is_wrong(text: str, words: str) -> None:
    """The name is in the message."""
    with pytest.raises(RegistryReferenceError, match=words) as found:
        RegistryReference.parse(text)
    assert str(found.value).startswith("image ")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("debian", "library/debian:latest"),
        ("ghcr.io/eic/eic_xl:1", "eic/eic_xl:1"),
        (f"htc/rocky:9@{DIGEST}", "htc/rocky:9"),
        (f"htc/rocky@{DIGEST}", f"htc/rocky@{DIGEST}"),
    ],
)
def test_images_are_published_without_their_registry(text: str, name: str) -> None:
    """As today's CVMFS repository has them."""
    assert RegistryReference.parse(text).published_name == name


def test_docker_hub_is_asked_where_its_images_are() -> None:
    """Its name is no registry's."""
    assert RegistryReference.parse("debian").host == "registry-1.docker.io"
    assert RegistryReference.parse("ghcr.io/a/b").host == "ghcr.io"


def test_the_digest_is_what_is_asked_for() -> None:
    """A tag beside it is for people."""
    found = RegistryReference.parse(f"htc/rocky:9@{DIGEST}")
    assert (found.version, found.scope) == (DIGEST, "repository:htc/rocky:pull")
    assert RegistryReference.parse("htc/rocky:9").at(DIGEST) == found


@given(st.text(alphabet="aB0.:/@-_*[] sha256", max_size=60))
def test_whatever_is_written_is_a_reference_or_an_error(text: str) -> None:
    """And a reference means the same when it is written in full."""
    try:
        found = RegistryReference.parse(text)
    except RegistryReferenceError:
        return
    assert RegistryReference.parse(str(found)) == found
