"""The registry as a source of images: what it is asked, and what its answers mean for the job."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cache_manager import archive
from cache_manager.credential import Credential
from cache_manager.outcome import Absent, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.registry.client import RegistryClient
from cache_manager.registry.exchange import Waits
from cache_manager.registry.manifest import SIF_LAYER
from cache_manager.sources.base import SourceError
from cache_manager.sources.registry import Registries, Registry
from cache_manager.sources.transport import Patience
from cache_manager.status import HookStatus
from tests.unit.origin import MemorySink
from tests.unit.registry_server import Registry as Server
from tests.unit.registry_server import Said, digest_of, index, manifest

ARCH = platform.machine()
NAME = {"x86_64": "amd64", "aarch64": "arm64"}[ARCH]
CONFIG = json.dumps({"architecture": NAME, "os": "linux"}).encode()
LAYER = b"layer " * 10_000
BODY = manifest(CONFIG, LAYER)


@pytest.fixture
def server() -> Iterator[Server]:
    """Give a registry with an image, alone and in an index."""
    one = Server()
    one.push("htc/rocky:9", BODY, CONFIG, LAYER)
    one.push("htc/many:child", BODY)
    one.push("htc/many:1", index(**{NAME: BODY, "s390x": BODY}))
    yield one
    one.close()


def source(server: Server, **more: object) -> Registry:
    """Return the registry as a source."""
    client = RegistryClient(Waits(2.0, 2.0), [server.host])
    found = Registry(client, Registries(), ARCH, Patience(1_000_000, 5.0))
    return replace(found, **more)  # type: ignore[arg-type]


def named(server: Server, name: str = "htc/rocky:9") -> ImageReference:
    """Return what a job names."""
    return ImageReference.parse(f"docker://{server.host}/{name}")


def located(registry: Registry, image: ImageReference) -> Located:
    """Return where an image is."""
    answer = registry.locate(image)
    assert isinstance(answer, Located), answer
    return answer


def test_a_tag_is_an_object_that_is_named_by_the_digest_of_its_image(server: Server) -> None:
    """Whichever index it came through: the same image is converted once."""
    one = located(source(server), named(server))
    assert one.url == f"docker://{server.host}/htc/rocky@{digest_of(BODY)}"
    assert (one.pointer, one.about_bytes, one.private) == (digest_of(BODY), len(CONFIG) + len(LAYER), False)
    many = located(source(server), named(server, "htc/many:1"))
    assert many.url == f"docker://{server.host}/htc/many@{digest_of(BODY)}"
    assert many.pointer != digest_of(BODY)


def test_while_a_tag_points_to_the_same_one_head_is_all_that_is_asked(server: Server) -> None:
    """Registries count whatever else they are asked for manifests."""
    before = located(source(server), named(server, "htc/many:1"))
    server.heard.clear()
    assert located(source(server, before=before), named(server, "htc/many:1")) == before
    assert [one.method for one in server.heard] == ["HEAD"]


def test_the_image_comes_as_one_archive(server: Server) -> None:
    """Its size is known before its first byte."""
    registry, sink = source(server), MemorySink()
    found = located(registry, named(server))
    server.heard.clear()
    registry.transfer(found, sink)
    assert sink.expected == [sink.size_bytes]
    look = archive.look(lambda at, length: sink.data[at : at + length], sink.size_bytes)
    assert (look.transport, look.architecture) == ("oci-archive", ARCH)
    assert server.asked("GET", "/manifests/") == []  # it was read when the image was located


def test_a_sif_comes_as_it_is(server: Server) -> None:
    """What `apptainer push` left."""
    server.push("htc/sif:1", manifest(b"{}", b"the SIF", layer_type=SIF_LAYER), b"{}", b"the SIF")
    registry, sink = source(server), MemorySink()
    found = located(registry, named(server, "htc/sif:1"))
    registry.transfer(found, sink)
    assert (sink.data, found.size_bytes) == (b"the SIF", 7)


def test_another_registry_opens_no_entry_of_the_same_digest(server: Server) -> None:
    """Digests are no secrets: whoever names one in a registry of their own has shown nothing."""
    own = Server()
    own.push("mine/rocky:9", BODY, CONFIG, LAYER)
    theirs, mine = located(source(server), named(server)), located(source(own), named(own, "mine/rocky:9"))
    own.close()
    assert theirs.version == mine.version
    assert theirs.object_id != mine.object_id
    assert theirs.digest == mine.digest == ""


ANSWERS = {
    "gone": (Said(status=404), Absent, None),
    "private": (Said(status=401), Denied, None),
    "busy": (Said(status=429, headers={"Retry-After": "7"}), Unwell, HookStatus.SOURCE_THROTTLED),
    "ill": (Said(status=503), Unwell, HookStatus.SOURCE_UNREACHABLE),
    "a page": (Said(b"<html>"), Unwell, HookStatus.IMAGE_CORRUPT),
    "for others": (Said(index(s390x=BODY)), Unwell, HookStatus.ARCHITECTURE_MISMATCH),
}


@pytest.mark.parametrize(("said", "kind", "status"), ANSWERS.values(), ids=ANSWERS)
def test_what_a_registry_says_is_what_it_means(
    server: Server, said: Said, kind: type[object], status: HookStatus | None
) -> None:
    """The registry that the job names is the authority for its images."""
    server.answers["/v2/htc/rocky/manifests/9"] = said
    server.answers[f"/v2/htc/rocky/manifests/{digest_of(said.body)}"] = said
    answer = source(server).locate(named(server))
    assert isinstance(answer, kind), answer
    if isinstance(answer, Unwell):
        assert answer.status is status
    if isinstance(answer, Absent):
        assert answer.authoritative
    if isinstance(answer, Denied):
        assert answer.wants_credential


def credential(server: Server, word: str = "joes secret") -> Credential:
    """Return what the job has for registries."""
    auth = base64.b64encode(f"joe:{word}".encode()).decode()
    return Credential("docker", json.dumps({"auths": {server.host: {"auth": auth}}}).encode())


def test_a_private_image_needs_the_jobs_own_credential(server: Server) -> None:
    """Which is for its registry alone; what comes with it is private."""
    server.users, server.private = {"joe": "joes secret"}, {"htc/rocky"}
    anonymous = source(server).locate(named(server))
    assert isinstance(anonymous, Denied)
    assert anonymous.wants_credential
    with_own = source(server, credential=credential(server))
    found = located(with_own, named(server))
    assert found.private
    with_own.confirm(found)
    with pytest.raises(SourceError) as refused:
        source(server, credential=credential(server, "wrong")).confirm(found)
    assert isinstance(refused.value.answer, Denied)
    assert not refused.value.answer.wants_credential


@pytest.mark.parametrize(
    ("secret", "words"),
    [(b"joe:s3cr3t", "no JSON"), (b'{"auths": {"elsewhere.example": {}}}', "has nothing for 127.0.0.1")],
)
def test_a_credential_of_no_use_is_said_to_be_none(server: Server, secret: bytes, words: str) -> None:
    """Without what it holds."""
    answer = source(server, credential=Credential("docker", secret)).locate(named(server))
    assert isinstance(answer, Denied)
    assert words in answer.why
    assert "s3cr3t" not in answer.why


def test_a_transfer_has_its_time(server: Server) -> None:
    """As any other."""
    registry = source(server, patience=Patience(10**9, 0.0))
    found = located(registry, named(server))
    with pytest.raises(SourceError, match="too slow") as slow:
        registry.transfer(found, MemorySink())
    assert isinstance(slow.value.answer, Unwell)
    assert slow.value.answer.status is HookStatus.SOURCE_TOO_SLOW
