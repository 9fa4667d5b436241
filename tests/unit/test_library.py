"""Images in Singularity libraries: how they are named, what a library is asked, and what its answers mean."""

from __future__ import annotations

import hashlib
import json

import pytest

from cache_manager.library import LibraryReference
from cache_manager.outcome import Absent, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.settings import Settings, SettingsError
from cache_manager.sources.base import SourceError
from cache_manager.sources.library import Library
from cache_manager.sources.transport import Patience
from cache_manager.status import HookStatus, StatusError
from tests.unit.origin import MemorySink, Origin, Reply

SIF = b"the bytes of a SIF"
HASH = f"sha256.{hashlib.sha256(SIF).hexdigest()}"
IMAGE = ImageReference.parse("library://e/c/x:1")
TAG = "/v1/images/e/c/x:1?arch=amd64"
FILE = f"/v1/imagefile/e/c/x:{HASH}?arch=amd64"
CONTAINER = "/v1/containers/e/c/x"


def library(origin: Origin, arch: str = "x86_64") -> Library:
    """Return a library as an EP sees it."""
    return Library(origin.base, arch, Patience(10**6, 5.0))


def said(**data: object) -> Reply:
    """Return a library's answer."""
    return Reply(json.dumps({"data": data}).encode())


@pytest.mark.parametrize(
    ("text", "host", "path", "tag"),
    [
        ("lolcow", "", "lolcow", "latest"),
        ("c/lolcow:3", "", "c/lolcow", "3"),
        ("e/c/lolcow:1.2-x", "", "e/c/lolcow", "1.2-x"),
        ("host.example/e/c", "", "host.example/e/c", "latest"),
        ("Host.Example/e/c/lolcow", "host.example", "e/c/lolcow", "latest"),
        ("host:8443/e/c/lolcow:2", "host:8443", "e/c/lolcow", "2"),
        ("[::1]:80/e/c/lolcow:2", "[::1]:80", "e/c/lolcow", "2"),
        ("/e/c/lolcow", "", "e/c/lolcow", "latest"),
        ("lolcow:2,latest", "", "lolcow", "2"),
        (f"e/c/lolcow:{HASH}", "", "e/c/lolcow", HASH),
    ],
)
def test_a_name_means_what_apptainer_takes_it_for(text: str, host: str, path: str, tag: str) -> None:
    """A host is only what stands before entity, collection and container; of several tags the first counts."""
    assert LibraryReference.parse(text) == LibraryReference(host, path, tag)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("joe:secret@host/e/c/x", "takes no user"),
        ("e/c/x?arch=arm64", "no query"),
        ("e/c/x#1", "no fragment"),
        ("host:0/e/c/x", "is no host"),
        ("host:99999/e/c/x", "is no host"),
        ("[1.2:]:80/e/c/x", "is no host"),
        ("host/d/e/c/x", "has 4 parts"),
        ("e//x", "is no part"),
        ("e/%2e%2e/x", "is no part"),
        ("e/../x", "`..`"),
        ("e/c/x:", "is no tag"),
        ("x:1:2", "is no tag"),
    ],
)
def test_what_no_library_has_is_refused_by_name(text: str, why: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(StatusError) as caught:
        ImageReference.parse(f"library://{text}")
    assert caught.value.status is HookStatus.IMAGE_REFERENCE_INVALID
    assert why in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "own", "server"),
    [
        ("x", "", ""),
        ("x", "http://lib.example:80/api", "http://lib.example:80/api"),
        ("lib.example:80/e/c/x", "http://lib.example:80/api", "http://lib.example:80/api"),
        ("other.example/e/c/x", "http://lib.example:80/api", "https://other.example"),
        ("other.example/e/c/x", "", "https://other.example"),
    ],
)
def test_a_job_names_another_library_or_means_the_sites(text: str, own: str, server: str) -> None:
    """Another one is always asked over TLS; the site's own as the site says."""
    assert LibraryReference.parse(text).server(own) == server


@pytest.mark.parametrize(
    "text", ["lib.example", "ftp://lib.example", "https://joe:secret@h", "https://h/?x", "https://"]
)
def test_what_is_no_url_of_a_library_is_no_configuration(text: str) -> None:
    """The message names the knob, and no password."""
    with pytest.raises(SettingsError, match="IMAGE_CACHE_LIBRARY: is no URL of a library") as caught:
        Settings.from_knobs({"IMAGE_CACHE_LIBRARY": text, "LOCAL_DIR": "/l", "LOG": "/log"})
    assert "secret" not in str(caught.value)


def test_a_tag_is_resolved_to_a_hash_and_the_sif_of_that_hash_fetched(origin: Origin) -> None:
    """A tag that moves in between changes nothing; and the hash proves the bytes."""
    origin.replies |= {TAG: said(hash=HASH, size=len(SIF), arch="amd64"), FILE: Reply(SIF)}
    found, sink = library(origin).locate(IMAGE), MemorySink()
    assert found == Located(url=f"{origin.base}{FILE}", version=HASH, pointer=HASH, size_bytes=len(SIF))
    assert isinstance(found, Located)
    library(origin).transfer(found, sink)
    promised = sink.promised()
    assert sink.data == SIF
    assert promised is not None
    assert (promised.algorithm, promised.value) == ("sha-256", hashlib.sha256(SIF).digest())
    assert origin.asked == [f"GET {TAG}", f"GET {FILE}"]


def test_a_hash_that_is_not_one_of_the_bytes_proves_nothing(origin: Origin) -> None:
    """Old libraries number their images: that tells versions apart, and no more."""
    file = FILE.replace(HASH, "sif.5ac2d7a0-0b6e")
    origin.replies |= {TAG: said(hash="sif.5ac2d7a0-0b6e"), file: Reply(SIF)}
    found, sink = library(origin).locate(IMAGE), MemorySink()
    assert isinstance(found, Located)
    assert (found.url, found.version, found.size_bytes) == (f"{origin.base}{file}", "sif.5ac2d7a0-0b6e", None)
    library(origin).transfer(found, sink)
    assert sink.data == SIF


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(b"<html>"), "no JSON"),
        (Reply(b"[" * 60_000), "no JSON"),
        (Reply(b"[]"), "no answer of a library"),
        (Reply(b'{"data": 1}'), "no answer of a library"),
        (said(size=1), "names no hash"),
        (said(hash="sha256.../../x"), "names no hash"),
        (said(hash=7), "names no hash"),
    ],
)
def test_an_answer_that_no_library_gives_says_nothing_of_the_image(origin: Origin, reply: Reply, why: str) -> None:
    """The job goes back to idle; the message names what came."""
    origin.replies[TAG] = reply
    answer = library(origin).locate(IMAGE)
    assert isinstance(answer, Unwell)
    assert answer.status is HookStatus.IMAGE_CORRUPT
    assert why in answer.why


@pytest.mark.parametrize(
    ("size", "known"), [(0, None), (-1, None), (True, None), ("1", None), (2**63, None), (1.5, None), (9, 9)]
)
def test_a_size_that_cannot_be_meant_is_none(origin: Origin, size: object, known: int | None) -> None:
    """The hash is what counts."""
    origin.replies[TAG] = said(hash=HASH, size=size)
    answer = library(origin).locate(IMAGE)
    assert isinstance(answer, Located)
    assert answer.size_bytes == known


@pytest.mark.parametrize(
    "container",
    [Reply(b"", 404), Reply(b"{}"), said(archTags={"arm64": {"2": "id"}}), said(archTags=[]), Reply(b"", 503)],
)
def test_a_library_has_the_last_word_on_what_there_is(origin: Origin, container: Reply) -> None:
    """Whatever it says, or does not say, of the container: the tag is not there."""
    origin.replies[CONTAINER] = container
    answer = library(origin).locate(IMAGE)
    assert isinstance(answer, Absent)
    assert answer.authoritative
    assert "HTTP 404" in answer.why


def test_a_404_from_a_proxy_is_not_the_librarys_word(origin: Origin) -> None:
    """The image may be there all the same."""
    origin.replies[TAG] = Reply(b"", 404, {"Via": "1.1 squid"})
    answer = library(origin).locate(IMAGE)
    assert isinstance(answer, Absent)
    assert not answer.authoritative


@pytest.mark.parametrize(
    ("replies", "there"),
    [
        (
            {CONTAINER: said(archTags={"arm64": {"1": "id"}, "ppc64le": {"1": "id"}, "amd64": {"2": "id"}})},
            "arm64, ppc",
        ),
        ({TAG: said(hash=HASH, arch="arm64")}, "aarch64"),
    ],
)
def test_an_image_for_other_machines_exists(origin: Origin, replies: dict[str, Reply], there: str) -> None:
    """The job goes where it can run, and is not held."""
    origin.replies |= replies
    answer = library(origin).locate(IMAGE)
    assert isinstance(answer, Unwell)
    assert answer.status is HookStatus.ARCHITECTURE_MISMATCH
    assert f"there is: {there}" in answer.why


@pytest.mark.parametrize(("status", "means"), [(401, Denied), (403, Denied), (429, Unwell), (500, Unwell)])
def test_a_refusal_is_the_librarys_word_and_trouble_is_none(origin: Origin, status: int, means: type) -> None:
    """There is no credential that could be tried."""
    origin.replies[TAG] = Reply(b"", status)
    answer = library(origin).locate(IMAGE)
    assert isinstance(answer, means)
    assert not getattr(answer, "wants_credential", False)


def test_a_sif_that_a_library_names_and_does_not_have_is_its_trouble(origin: Origin) -> None:
    """It is no reason to hold the job: the name is good."""
    origin.replies[TAG] = said(hash=HASH)
    found = library(origin).locate(IMAGE)
    assert isinstance(found, Located)
    with pytest.raises(SourceError, match="although the library names it") as caught:
        library(origin).transfer(found, MemorySink())
    assert isinstance(caught.value.answer, Unwell)
