"""The names by which messages, slot ads and allow lists speak of an image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.reference import ImageReference, ReferenceKind
from cache_manager.status import StatusError

SECRET = "s3cr3t"  # noqa: S105 - that is the point


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/cvmfs/singularity.opensciencegrid.org/htc/rocky:9", "htc/rocky:9"),
        ("/srv/images/a.sif", "/srv/images/a.sif"),
        ("a.sif", "a.sif"),
        ("https://host.example/x.sif?sig=1#frag", "https://host.example/x.sif"),
        ("https://user:word@host.example:8443/x.sif", "https://host.example:8443/x.sif"),
        ("osdf:///ospool/x.sif?directread", "osdf:///ospool/x.sif"),
        ("igwn+osdf:///igwn/x.sif", "igwn+osdf:///igwn/x.sif"),
        ("docker:busybox", "docker:busybox"),
        ("docker://htc/rocky:9", "docker://htc/rocky:9"),
        ("docker://ghcr.io/ns/r@sha256:abc", "docker://ghcr.io/ns/r@sha256:abc"),
        ("docker://busybox@sha256:abc", "docker://busybox@sha256:abc"),
        ("https://host.example/a@b.sif", "https://host.example/a@b.sif"),
    ],
)
def test_the_short_name_is_what_the_user_recognizes(text: str, short: str) -> None:
    """It is what stands in messages, in the slot ad and in `list`."""
    assert ImageReference.parse(text).short == short


@pytest.mark.parametrize(
    "text",
    [
        f"https://host.example/x.sif?token={SECRET}",
        f"https://host.example/x.sif#{SECRET}",
        f"https://host.example/x.sif?a=1#?b={SECRET}",
        f"https://user:{SECRET}@host.example/x.sif",
        f"https://{SECRET}@host.example/x.sif",
        f"https://user:a@{SECRET}@host.example/x.sif",
        f"HTTPS://user:{SECRET}@host.example/x.sif",
        f"osdf:///ospool/x.sif?authz={SECRET}",
        f"box+https://user:{SECRET}@host.example/x.sif",
        f"s3://key:{SECRET}@bucket/x.sif",
        f"osdf:/ospool/x.sif?authz={SECRET}",
    ],
)
def test_the_short_name_never_tells_a_secret(text: str) -> None:
    """The query may be a signature, the user part a password, and messages are read by many."""
    assert SECRET not in ImageReference.parse(text).short


@given(st.from_regex(r"\A[a-z0-9.]{1,10}(:[0-9]{1,4})?(/[a-zA-Z0-9._-]{0,8}){1,4}\Z"))
def test_no_url_tells_its_query_or_its_user(rest: str) -> None:
    """Wherever the path leads, the same short name stands for the URL with and without secrets."""
    try:
        plain = ImageReference.parse(f"https://{rest}")
    except StatusError:
        return
    told = ImageReference.parse(f"https://user:{SECRET}@{rest}?sig={SECRET}#{SECRET}").short
    assert told == plain.short


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@host.example/a b.sif",
        f"https://host.example/a b.sif?sig={SECRET}",
        f"gopher://user:{SECRET}@host.example/x.sif",
        f"https://host.example/../x.sif?sig={SECRET}",
    ],
)
def test_the_message_about_a_bad_reference_never_tells_a_secret(text: str) -> None:
    """A hold reason is shown to everybody who asks condor_q."""
    with pytest.raises(StatusError) as caught:
        ImageReference.parse(text)
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    "text", ["htc/rocky:9", "debian", "library/debian:latest", "ns/a/b/c:tag", "a__b/c:1.2-x", "docker:24"]
)
def test_an_admin_may_write_the_published_name_alone(text: str) -> None:
    """A default image is named as in the image list."""
    image = ImageReference.parse_configured(text)
    assert (image.kind, image.published_name, image.short) == (ReferenceKind.NAME, text, text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("/cvmfs/singularity.opensciencegrid.org/htc/rocky:9", ReferenceKind.CVMFS),
        ("docker://htc/rocky:9", ReferenceKind.REGISTRY),
        ("osdf:///ospool/x.sif", ReferenceKind.FEDERATION),
        ("/srv/a.sif", ReferenceKind.PATH),
    ],
)
def test_what_an_admin_writes_with_a_scheme_means_what_it_means_for_users(text: str, kind: ReferenceKind) -> None:
    """The same text names the same image in the configuration and in a submit file."""
    assert ImageReference.parse_configured(text).kind is kind
