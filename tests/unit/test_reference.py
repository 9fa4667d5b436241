"""Every form in which a user may name an image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache_manager.reference import MAX_BYTES, ImageReference, ReferenceKind
from cache_manager.status import HookStatus, StatusError


def understood(parse: Callable[[str], ImageReference], text: str) -> ImageReference | None:
    """Return the image, or None for a reference that is refused as invalid."""
    try:
        return parse(text)
    except StatusError as error:
        if error.status is HookStatus.IMAGE_REFERENCE_INVALID:
            return None
        raise


CVMFS = "/cvmfs/singularity.opensciencegrid.org"
REPOSITORY = "singularity.opensciencegrid.org"


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        (f"{CVMFS}/htc/rocky:9", ReferenceKind.CVMFS, "htc/rocky:9"),
        (f"{CVMFS}/htc/rocky:9/", ReferenceKind.CVMFS, "htc/rocky:9"),
        (f"{CVMFS}//htc//rocky:9///", ReferenceKind.CVMFS, "htc/rocky:9"),
        (f"/{CVMFS}/library/debian:latest", ReferenceKind.CVMFS, "library/debian:latest"),
        (f"{CVMFS}/ns/a/b/c:tag", ReferenceKind.CVMFS, "ns/a/b/c:tag"),
        (f"file://{CVMFS}/htc/rocky:9", ReferenceKind.CVMFS, "htc/rocky:9"),
        ("/srv/images/a.sif", ReferenceKind.PATH, "/srv/images/a.sif"),
        ("/srv/images/rootfs/", ReferenceKind.PATH, "/srv/images/rootfs"),
        ("//srv//images/a b.sif", ReferenceKind.PATH, "/srv/images/a b.sif"),
        ("/cvmfs.sif", ReferenceKind.PATH, "/cvmfs.sif"),
        ("file:///srv/images/a.sif", ReferenceKind.PATH, "/srv/images/a.sif"),
        ("a.sif", ReferenceKind.JOB_FILE, "a.sif"),
        ("images/a.sif", ReferenceKind.JOB_FILE, "images/a.sif"),
        ("rootfs/", ReferenceKind.JOB_FILE, "rootfs"),
        ("a..b.sif", ReferenceKind.JOB_FILE, "a..b.sif"),
        ("ein bild.sif", ReferenceKind.JOB_FILE, "ein bild.sif"),
        ("größe.sif", ReferenceKind.JOB_FILE, "größe.sif"),
        ("x.sif?pack=auto", ReferenceKind.JOB_FILE, "x.sif?pack=auto"),
        ("osdf:///ospool/uc-shared/x.sif", ReferenceKind.FEDERATION, "/ospool/uc-shared/x.sif"),
        ("osdf://ospool/x.sif", ReferenceKind.FEDERATION, "ospool/x.sif"),
        ("osdf:/ospool/x.sif", ReferenceKind.FEDERATION, "/ospool/x.sif"),
        ("stash:///ospool/x.sif", ReferenceKind.FEDERATION, "/ospool/x.sif"),
        ("pelican://osg-htc.org/ospool/x.sif", ReferenceKind.FEDERATION, "osg-htc.org/ospool/x.sif"),
        ("osdf:///ospool/x.sif?directread", ReferenceKind.FEDERATION, "/ospool/x.sif?directread"),
        ("https://host.example/x.sif?sig=A%2BB&e=1", ReferenceKind.HTTP, "host.example/x.sif?sig=A%2BB&e=1"),
        ("http://host.example:8080/x.sif", ReferenceKind.HTTP, "host.example:8080/x.sif"),
        ("HTTPS://Host.example/X.sif", ReferenceKind.HTTP, "Host.example/X.sif"),
        ("https://[2001:db8::1]:8443/x.sif", ReferenceKind.HTTP, "[2001:db8::1]:8443/x.sif"),
        ("docker://htc/rocky:9", ReferenceKind.REGISTRY, "htc/rocky:9"),
        ("docker:busybox", ReferenceKind.REGISTRY, "busybox"),
        ("docker://host:5000/ns/r@sha256:abc", ReferenceKind.REGISTRY, "host:5000/ns/r@sha256:abc"),
        ("oras://ghcr.io/ns/r:1", ReferenceKind.REGISTRY, "ghcr.io/ns/r:1"),
        ("library://lolcow", ReferenceKind.LIBRARY, "lolcow"),
        ("library://host:5000/e/c/x:1", ReferenceKind.LIBRARY, "host:5000/e/c/x:1"),
        ("shub://a/b", ReferenceKind.LIBRARY, "a/b"),
        ("s3://bucket/x.sif", ReferenceKind.PLUGIN, "bucket/x.sif"),
        ("davs://host.example/x.sif", ReferenceKind.PLUGIN, "host.example/x.sif"),
    ],
)
def test_every_form_that_users_write_is_understood(text: str, kind: ReferenceKind, path: str) -> None:
    """The kind decides who serves it, the path what is asked for."""
    image = ImageReference.parse(text)
    assert (image.kind, image.path) == (kind, path)
    assert image.repository == (REPOSITORY if kind is ReferenceKind.CVMFS else "")


@pytest.mark.parametrize(
    ("text", "scheme", "token"),
    [
        ("igwn+osdf:///igwn/x.sif", "osdf", "igwn"),
        ("my_token.v2+pelican://osg-htc.org/x.sif", "pelican", "my_token.v2"),
        ("OSDF:///ospool/x.sif", "osdf", ""),
        ("box+https://host.example/x.sif", "https", "box"),
    ],
)
def test_a_token_in_front_of_the_scheme_is_told_apart(text: str, scheme: str, token: str) -> None:
    """HTCondor writes the credential's name before a plus."""
    image = ImageReference.parse(text)
    assert (image.scheme, image.token) == (scheme, token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "\t",
        "/",
        "///",
        "/cvmfs",
        "/cvmfs/",
        f"{CVMFS}",
        f"{CVMFS}/",
        f"{CVMFS}/htc/../../etc",
        "../a.sif",
        "images/../../a.sif",
        "..",
        "/srv/../etc/shadow",
        "file:///srv/../etc/shadow",
        "file://host.example/x.sif",
        "file://",
        "https://",
        "https:///",
        "osdf://",
        "osdf:",
        "docker://",
        "docker:",
        "https://host.example/../x.sif",
        "gopher://host.example/x.sif",
        "instance://one",
        "https://host.example/a b.sif",
        "https://host.example/größe.sif",
        'https://host.example/"x".sif',
        "https://host.example\\@other.example/x.sif",
        "a\nb.sif",
        "a\x00b.sif",
        "a\x7fb.sif",
        "a\x85b.sif",
        "a\u2028b.sif",
        "/srv/" + "a" * MAX_BYTES,
        "ä" * (MAX_BYTES // 2 + 1),
    ],
)
def test_what_can_be_no_image_holds_the_job_at_once(text: str) -> None:
    """No execution point could ever run it, and the message says what is wrong with it."""
    with pytest.raises(StatusError) as caught:
        ImageReference.parse(text)
    assert caught.value.status is HookStatus.IMAGE_REFERENCE_INVALID
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "text",
    [
        "https:///x.sif",
        "http://:8080/x.sif",
        "https://user@/x.sif",
        "https://[2001:db8::1/x.sif",
        "https://host.example:99999/x.sif",
        "https://host.example:port/x.sif",
        "pelican:///ospool/x.sif",
    ],
)
def test_a_url_whose_host_can_be_none_is_refused(text: str) -> None:
    """Nobody can ever fetch it, so the job is held now and does not go back to idle for ever."""
    with pytest.raises(StatusError) as caught:
        ImageReference.parse(text)
    assert caught.value.status is HookStatus.IMAGE_REFERENCE_INVALID


@pytest.mark.parametrize("text", [".", "./"])
def test_the_jobs_own_directory_is_no_image(text: str) -> None:
    """A dot names the scratch directory, which no runtime can run."""
    with pytest.raises(StatusError) as caught:
        ImageReference.parse(text)
    assert caught.value.status is HookStatus.IMAGE_REFERENCE_INVALID


@pytest.mark.parametrize("text", [f"/cvmfs/./{REPOSITORY}/htc/rocky:9", f"/./cvmfs/{REPOSITORY}/./htc/rocky:9"])
def test_a_dot_in_a_path_names_the_same_image(text: str) -> None:
    """The kernel skips it, so the same CVMFS image is asked for."""
    image = ImageReference.parse(text)
    assert (image.kind, image.repository, image.path) == (ReferenceKind.CVMFS, REPOSITORY, "htc/rocky:9")


@given(st.text(max_size=200) | st.text("/:.?#@+%[]_-aA1cvmfsdockerfile \n\x00", max_size=60))
@example("a" * 50_000)
@example("/" * 4096)
@example("a+" * 2000 + "://x")
@example("\udcff.sif")
def test_any_text_is_an_image_or_an_invalid_reference(text: str) -> None:
    """The parser has no third way out."""
    for parse in (ImageReference.parse, ImageReference.parse_configured):
        image = understood(parse, text)
        if image is not None:
            assert image.path
            assert ".." not in image.path.partition("?")[0].partition("#")[0].split("/")


@given(st.from_regex(r"\A/?[a-z0-9:._-]{1,8}(/[a-z0-9:._-]{0,8}){0,5}\Z"))
def test_what_was_understood_is_understood_again(text: str) -> None:
    """An image's text names the same image, however often it goes around."""
    try:
        image = ImageReference.parse(text)
    except StatusError:
        return
    assert ImageReference.parse(image.text) == image
