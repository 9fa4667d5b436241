"""The forms in which an object in a federation is named."""

from __future__ import annotations

import pytest

from cache_manager.reference import ImageReference
from cache_manager.sources.federation_url import FederationUrl
from cache_manager.status import HookStatus, StatusError

OWN = "https://osg-htc.org"


def url(text: str, own: str = OWN) -> FederationUrl:
    """Return what a job's reference means."""
    return FederationUrl.of(ImageReference.parse(text), own)


@pytest.mark.parametrize(
    "text",
    [
        "osdf:///ospool/x.sif",
        "osdf://ospool/x.sif",
        "osdf:/ospool/x.sif",
        "stash:///ospool/x.sif",
        "stash:/ospool//x.sif",
        "OSDF:///ospool/x.sif#a",
        "pelican://osg-htc.org/ospool/x.sif",
        "pelican://OSG-HTC.org//ospool/x.sif",
        "igwn+osdf:///ospool/x.sif",
        "osdf:///ospool/x.sif?unknown=1",
    ],
)
def test_all_ways_to_write_an_object_mean_the_same(text: str) -> None:
    """Jobs that write it differently share a fetch."""
    assert url(text) == FederationUrl(OWN, "/ospool/x.sif")
    assert url(text).identity == "pelican://osg-htc.org/ospool/x.sif"


def test_a_job_may_name_another_federation() -> None:
    """Its discovery is always over TLS; the site's own is as the site says."""
    assert url("pelican://other.example:8444/ns/x.sif").discovery == "https://other.example:8444"
    assert url("pelican://127.0.0.1:80/ns/x.sif", "http://127.0.0.1:80").discovery == "http://127.0.0.1:80"


@pytest.mark.parametrize(
    ("text", "query"), [("?directread", "directread="), ("?skipstat=1&x=y&prefercached", "skipstat=1&prefercached=")]
)
def test_the_director_hears_what_it_knows(text: str, query: str) -> None:
    """And it is the same object whatever it is asked beside."""
    found = url(f"osdf:///ospool/x.sif{text}")
    assert found.query == query
    assert found.identity == "pelican://osg-htc.org/ospool/x.sif"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("osdf:///ospool/x.sif?pack=auto", "`pack`"),
        ("osdf:///ospool/x?recursive", "`recursive`"),
        ("pelican://osg-htc.org/ospool/x?recursive=true", "`recursive`"),
        ("osdf:///ospool/x.sif?directread&prefercached", "exclude each other"),
        ("pelican://user:secret@osg-htc.org/ospool/x.sif", "no user"),
        ("osdf://user:secret@ospool/x.sif", "no user"),
        ("osdf:///../x.sif", "`..`"),
    ],
)
def test_what_is_no_image_in_a_federation_is_refused_by_name(text: str, why: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(StatusError) as caught:
        ImageReference.parse(text)
    assert caught.value.status is HookStatus.IMAGE_REFERENCE_INVALID
    assert why in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("igwn+osdf:///x/y.sif", ("igwn",)),
        ("my_igwn.read+osdf:///x/y.sif", ("my_igwn_read", "my_igwn.read", "my.igwn.read")),
        ("IGWN+pelican://h/x/y.sif", ("IGWN",)),
        ("osdf:///x/y.sif", ()),
    ],
)
def test_the_name_before_the_scheme_is_that_of_a_credential(text: str, names: tuple[str, ...]) -> None:
    """A scheme has no underscores: dots stand for them."""
    assert ImageReference.parse(text).credential_names == names
