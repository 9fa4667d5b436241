"""A publication tree of SIFs, over http and as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.outcome import Absent, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources.base import SourceError
from cache_manager.sources.transport import Patience
from cache_manager.sources.tree import Tree
from cache_manager.status import HookStatus
from tests.unit.builders import REPOSITORY
from tests.unit.origin import MemorySink, Origin, Reply

PATIENCE = Patience(10**6, 20.0)
ROCKY = ImageReference.parse(f"/cvmfs/{REPOSITORY}/htc/rocky:9")
PLACE = "/v2/x86_64/htc__rocky__9"
VERSION = "20250505T120000Z.sif"
DIGEST = "ab" * 32
MANIFEST = {"name": "htc/rocky:9", "sha256": DIGEST, "size": 1000}


def tree_at(base: str) -> Tree:
    """Return a tree as an x86_64 EP sees it."""
    return Tree(base, "x86_64", PATIENCE)


def publish(origin: Origin, manifest: bytes | None = None, latest: bytes = VERSION.encode()) -> Tree:
    """Publish an image, with or without a manifest, and return its tree."""
    origin.replies[f"{PLACE}/latest.txt"] = Reply(latest)
    if manifest is not None:
        origin.replies[f"{PLACE}/{VERSION.removesuffix('.sif')}.json"] = Reply(manifest)
    return tree_at(f"{origin.base}/v2/")


@pytest.mark.parametrize("latest", [VERSION.encode(), VERSION.encode() + b"\n", b"  " + VERSION.encode() + b"\r\n"])
def test_a_tree_without_manifests_is_served_by_name(origin: Origin, latest: bytes) -> None:
    """The trees of today have only latest.txt and the SIF."""
    assert publish(origin, latest=latest).locate(ROCKY) == Located(url=f"{origin.base}{PLACE}/{VERSION}")


@pytest.mark.parametrize("digest", [DIGEST, f"sha256:{DIGEST}"])
def test_a_manifest_promises_digest_and_size(origin: Origin, digest: str) -> None:
    """A damaged transfer is found by them."""
    found = publish(origin, json.dumps({**MANIFEST, "sha256": digest, "tools": {}}).encode()).locate(ROCKY)
    assert found == Located(url=f"{origin.base}{PLACE}/{VERSION}", digest=DIGEST, size_bytes=1000)


def test_files_are_a_tree_as_well(tmp_path: Path) -> None:
    """A site may have the tree on a shared file system."""
    place = tmp_path / "v2" / "x86_64" / "htc__rocky__9"
    place.mkdir(parents=True)
    (place / "latest.txt").write_text(f"{VERSION}\n")
    (place / VERSION).write_bytes(b"image")
    tree, sink = tree_at(f"file://{tmp_path}/v2"), MemorySink()
    located = tree.locate(ROCKY)
    assert isinstance(located, Located)
    tree.transfer(located, sink)
    assert sink.data == b"image"


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_image_that_a_tree_does_not_have_is_no_proof(origin: Origin, status: int) -> None:
    """Another tree, or CVMFS, may have it: the job is not held. Object stores say 403 for what is not there."""
    origin.replies[f"{PLACE}/latest.txt"] = Reply(status=status)
    answer = tree_at(f"{origin.base}/v2").locate(ROCKY)
    assert isinstance(answer, Absent)
    assert not answer.authoritative


@pytest.mark.parametrize("status", [429, 500, 502, 503])
@pytest.mark.parametrize("name", ["latest.txt", "20250505T120000Z.json"])
def test_a_tree_that_cannot_answer_is_unwell(origin: Origin, status: int, name: str) -> None:
    """Also for the manifest: without it the digest would not be checked."""
    tree = publish(origin)
    origin.replies[f"{PLACE}/{name}"] = Reply(status=status)
    assert isinstance(tree.locate(ROCKY), Unwell)


@pytest.mark.parametrize(
    "latest",
    [
        b"",
        b"\n",
        b"<html>502 Bad Gateway</html>",
        b"latest.sif",
        b"../../x/20250505T120000Z.sif",
        b"\xff\xfe",
        b"x" * 70_000,
        b"20250505T120000Z.sif\n20250506T120000Z.sif\n",
        "\u0662\u0660250505T120000Z.sif".encode(),
    ],
)
def test_what_names_no_version_is_never_fetched(origin: Origin, latest: bytes) -> None:
    """A proxy's error page came with status 200, and became the name of an image."""
    answer = publish(origin, latest=latest).locate(ROCKY)
    assert isinstance(answer, Unwell)
    assert answer.status is HookStatus.SOURCE_UNREACHABLE
    assert origin.asked == [f"GET {PLACE}/latest.txt"]


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"<html>",
        b"[]",
        b"5",
        b"null",
        b"\xff\xfe{}",
        b"[" * 60_000,
        json.dumps({**MANIFEST, "sha256": "ab"}).encode(),
        json.dumps({**MANIFEST, "sha256": DIGEST.upper()}).encode(),
        json.dumps({**MANIFEST, "sha256": None}).encode(),
        json.dumps({**MANIFEST, "sha256": ["ab"]}).encode(),
        json.dumps({**MANIFEST, "size": 0}).encode(),
        json.dumps({**MANIFEST, "size": -1}).encode(),
        json.dumps({**MANIFEST, "size": "1000"}).encode(),
        json.dumps({**MANIFEST, "size": 1e400}).encode(),
        json.dumps({**MANIFEST, "name": "htc/rocky:8"}).encode(),
        json.dumps({**MANIFEST, "name": ["htc/rocky:9"]}).encode(),
        b"{}",
    ],
)
def test_a_manifest_that_cannot_be_meant_is_a_corrupt_image(origin: Origin, manifest: bytes) -> None:
    """It is published wrongly; an image that cannot be checked is not taken instead."""
    answer = publish(origin, manifest).locate(ROCKY)
    assert isinstance(answer, Unwell)
    assert answer.status is HookStatus.IMAGE_CORRUPT
    assert answer.why.startswith(f"{origin.base}{PLACE}/20250505T120000Z.json: ")


@pytest.mark.parametrize("text", ["htc/rocky", "htc/rocky:latest"])
@pytest.mark.parametrize("name", ["htc/rocky", "htc/rocky:latest"])
def test_no_tag_means_latest_in_a_manifest_too(origin: Origin, text: str, name: str) -> None:
    """Both names lead to one directory, so its manifest is right for both."""
    place = "/v2/x86_64/htc__rocky__latest"
    origin.replies[f"{place}/latest.txt"] = Reply(VERSION.encode())
    origin.replies[f"{place}/20250505T120000Z.json"] = Reply(json.dumps({**MANIFEST, "name": name}).encode())
    answer = tree_at(f"{origin.base}/v2").locate(ImageReference.parse_configured(text))
    assert isinstance(answer, Located)


def test_two_names_that_meet_in_one_directory_are_told_apart(origin: Origin) -> None:
    """`a/b__c:1` and `a__b/c:1` have one directory: the wrong one must not be run."""
    origin.replies["/v2/x86_64/a__b__c__1/latest.txt"] = Reply(VERSION.encode())
    manifest = json.dumps({**MANIFEST, "name": "a/b__c:1"}).encode()
    origin.replies["/v2/x86_64/a__b__c__1/20250505T120000Z.json"] = Reply(manifest)
    tree = tree_at(f"{origin.base}/v2")
    answers = [tree.locate(ImageReference.parse_configured(name)) for name in ("a/b__c:1", "a__b/c:1")]
    assert [type(answer) for answer in answers] == [Located, Unwell]


@pytest.mark.parametrize("status", [401, 403, 404, 410, 500])
def test_a_sif_that_latest_txt_names_and_that_is_not_there_is_the_trees_fault(origin: Origin, status: int) -> None:
    """The image is published, so the user is not told that it does not exist, or is forbidden."""
    tree = publish(origin)
    located = tree.locate(ROCKY)
    origin.replies[f"{PLACE}/{VERSION}"] = Reply(status=status)
    assert isinstance(located, Located)
    with pytest.raises(SourceError) as caught:
        tree.transfer(located, MemorySink())
    assert isinstance(caught.value.answer, Unwell)
    assert caught.value.answer.status is HookStatus.SOURCE_UNREACHABLE


@pytest.mark.parametrize("name", ["%2e%2e%2f%2e%2e%2fsecret:1", "..%2f..%2fsecret:1", "%2E%2E%2F%2E%2E%2Fsecret:1"])
def test_a_job_cannot_lead_a_tree_of_files_out_of_itself(tmp_path: Path, name: str) -> None:
    """The manager opens those files as its own user: a job would choose what it reads, and what others run."""
    (tmp_path / "v2" / "x86_64").mkdir(parents=True)
    (tmp_path / "secret__1").mkdir()
    (tmp_path / "secret__1" / "latest.txt").write_text(VERSION)
    answer = tree_at(f"file://{tmp_path}/v2").locate(ImageReference.parse(f"/cvmfs/{REPOSITORY}/{name}"))
    assert isinstance(answer, Absent)


@given(st.from_regex(r"\A[^/\x00-\x1f\x7f-\x9f\u2028\u2029]{1,30}\Z"))
def test_any_name_ends_in_an_answer(name: str) -> None:
    """A job may name anything below a repository."""
    if name.strip(". "):
        image = ImageReference.parse(f"/cvmfs/{REPOSITORY}/{name}")
        assert isinstance(tree_at("file:///does/not/exist").locate(image), (Absent, Unwell))
