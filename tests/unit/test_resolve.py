"""What registries have for a list, and what becomes of a run that they keep waiting."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from cache_manager.registry.client import RegistryClient
from cache_manager.registry.exchange import Waits
from cache_manager.registry.manifest import SIF_LAYER
from cache_manager.registry.tokens import Credential
from sync.imagelist import ImageList
from sync.resolution import Known, Resolution, parse_known, parse_refused, render_known
from sync.resolve import REFUSED_FOR_S, Resolver
from sync.settings import Settings
from tests.unit.registry_server import Heard, Registry, Said, digest_of, index, manifest

AMD = b'{"architecture": "amd64", "os": "linux"}'
ARM = b'{"architecture": "arm64", "os": "linux"}'
LAYER = bytes(2000)
REFUSED = '{"schema": 1, "digests": {}, "refused": {"a": ["why", 1.0, "NO_KIND"]}}'
BOTH = Settings(architectures=("x86_64", "aarch64"), registry_patience_s=1.5)


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Give an empty registry."""
    one = Registry()
    yield one
    one.close()


def resolve(
    registry: Registry, *lines: str, settings: Settings = BOTH, known: Known | None = None, stall_s: float = 5.0
) -> Resolution:
    """Resolve lines whose `R` stands for the registry."""
    images = ImageList.parse("".join(f"{line.replace('R/', registry.host + '/')}\n" for line in lines).encode())
    client = RegistryClient(Waits(2.0, stall_s))
    try:
        return Resolver(client, settings, known or {}).resolve(images)
    finally:
        client.close()


def push(registry: Registry, *names: str, layer: bytes = LAYER) -> None:
    for name in names:
        registry.push(name, manifest(AMD, layer + name.encode()), AMD)


def counts(registry: Registry) -> dict[str, int]:
    """Return how often each method was asked for, without the look whether the registry speaks TLS."""
    return dict(Counter(one.method for one in registry.heard if one.path != "/v2/"))


def why(found: Resolution, name: str) -> str:
    return found.failures[name].why


def test_an_unchanged_list_costs_one_head_for_each_tag_and_nothing_else(registry: Registry) -> None:
    """Also where a tag points to an index, an image is too large, or not for our machines."""
    one, other = manifest(AMD, LAYER), manifest(ARM, LAYER)
    registry.push("htc/many:amd", one, AMD)
    registry.push("htc/many:arm", other, ARM)
    registry.push("htc/many:1", index(amd64=one, arm64=other))
    registry.push("htc/large:1", manifest(AMD, bytes(90_000)), AMD)
    registry.push("htc/arm:1", manifest(ARM, b"arm"), ARM)
    push(registry, "htc/rocky:9")
    lines = ("R/htc/many:1", "R/htc/large:1", "R/htc/arm:1", "R/htc/rocky:9")
    limited = replace(BOTH, size_limit_bytes=50_000, architectures=("x86_64",))
    first = resolve(registry, *lines, settings=limited)
    registry.heard.clear()
    known = parse_known(render_known(first.known))
    assert resolve(registry, *lines, settings=limited, known=known) == first
    assert counts(registry) == {"HEAD": 4}
    assert sorted(first.resolved) == ["htc/many:1", "htc/rocky:9"]


def test_a_manifest_that_is_refused_is_asked_for_once_in_some_hours(registry: Registry) -> None:
    """No manifest, an index without a machine of ours or whose image is missing, a SIF, an index in an index."""
    inner = index(amd64=manifest(AMD, LAYER))
    layers = [{"mediaType": SIF_LAYER, "digest": digest_of(LAYER), "size": len(LAYER)}]
    sif = json.dumps(json.loads(manifest(AMD, LAYER)) | {"layers": layers}).encode()
    registry.push("htc/odd:1", json.dumps({"schemaVersion": 2, "mediaType": "text/html"}).encode())
    registry.push("htc/none:1", index(s390x=manifest(b"{}")))
    registry.push("htc/missing:1", index(amd64=manifest(AMD, b"missing")))
    registry.push("htc/sif:1", sif, AMD)
    registry.push("htc/deep:inner", inner)
    registry.push("htc/deep:1", index(amd64=inner))
    names = ("htc/odd:1", "htc/none:1", "htc/missing:1", "htc/sif:1", "htc/deep:1")
    images = ImageList.parse("".join(f"{registry.host}/{name}\n" for name in names).encode())
    text, asked, seen = "", [], []
    client = RegistryClient(Waits(2.0, 5.0))
    for now in (1000.0, 1000.0 + REFUSED_FOR_S - 1, 1000.0 + REFUSED_FOR_S):
        registry.heard.clear()
        known, refused = parse_known(text), parse_refused(text)
        found = Resolver(client, BOTH, known, refused=refused, now=now).resolve(images)
        text = render_known(found.known, found.refused)
        asked.append(counts(registry))
        seen.append({name: one.why for name, one in found.failures.items()})
    client.close()
    assert sorted(seen[0]) == sorted(names)
    assert seen[0] == seen[1] == seen[2]
    assert asked[1] == {"HEAD": 5}
    assert asked[0]["GET"] > asked[2]["GET"] > 0


def test_a_refusal_for_who_asks_is_not_remembered(registry: Registry) -> None:
    """A credential may come with the next run, and a registry that does not answer is asked again."""
    push(registry, "htc/rocky:9", "htc/alma:9")
    plain = registry.answer

    def refuse(heard: Heard) -> Said:
        if heard.method == "GET" and "/manifests/" in heard.path:
            return Said(b"", 403 if "rocky" in heard.path else 503)
        return plain(heard)

    registry.answer = refuse  # type: ignore[method-assign]
    found = resolve(registry, "R/htc/rocky:9", "R/htc/alma:9")
    assert sorted(found.failures) == ["htc/alma:9", "htc/rocky:9"]
    assert found.refused == {}


def test_an_index_is_resolved_to_the_wanted_architectures(registry: Registry) -> None:
    """With the digest of each, and the size of what has to be fetched."""
    one, other = manifest(AMD, LAYER), manifest(ARM, LAYER, LAYER)
    registry.push("htc/a:amd", one, AMD)
    registry.push("htc/a:arm", other, ARM)
    digest = registry.push("htc/a:1", index(amd64=one, arm64=other, s390x=manifest(b"{}")))
    (found,) = resolve(registry, "R/htc/a:1").resolved.values()
    assert (found.digest, found.source, found.name) == (digest, f"{registry.host}/htc/a:1", "htc/a:1")
    assert [(one.arch, one.digest, one.compressed_bytes) for one in found.variants] == [
        ("x86_64", digest_of(one), 2000),
        ("aarch64", digest_of(other), 4000),
    ]
    assert registry.asked("GET", "/blobs/") == []


def test_an_image_without_an_index_is_what_its_configuration_says(registry: Registry) -> None:
    """One for another machine is that image's failure."""
    registry.push("htc/arm:1", manifest(ARM, LAYER), ARM)
    found = resolve(registry, "R/htc/arm:1")
    assert [one.arch for one in found.resolved["htc/arm:1"].variants] == ["aarch64"]
    found = resolve(registry, "R/htc/arm:1", settings=replace(BOTH, architectures=("x86_64",)))
    assert why(found, "htc/arm:1") == "not for x86_64; there is: aarch64"


def test_options_of_the_list_come_before_the_settings(registry: Registry) -> None:
    """Architectures, and a waiver of the limit."""
    push(registry, "htc/large:1", layer=bytes(90_000))
    lines = ("images:", "- image: R/htc/large:1")
    small = replace(BOTH, size_limit_bytes=50_000)
    assert "too large for x86_64 (90.0 kB compressed" in why(resolve(registry, *lines, settings=small), "htc/large:1")
    waived = resolve(registry, *lines, "  size_limit: 100 KB", settings=small)
    assert list(waived.resolved) == ["htc/large:1"]
    other = resolve(registry, *lines, "  architectures: [aarch64]")
    assert why(other, "htc/large:1") == "not for aarch64; there is: x86_64"


def test_an_index_whose_image_is_missing_says_which(registry: Registry) -> None:
    """Somebody cleaned up the registry."""
    registry.push("htc/a:1", index(amd64=manifest(AMD, LAYER)))
    assert why(resolve(registry, "R/htc/a:1"), "htc/a:1").startswith(
        "no such image in its registry (its image for x86_64: HTTP 404"
    )


def test_an_image_that_cannot_be_had_is_its_own_failure(registry: Registry) -> None:
    """Gone, private, another digest than was pinned, no manifest: the others are resolved."""
    registry.tokens, registry.private = True, {"htc/secret"}
    push(registry, "htc/rocky:9", "htc/secret:1")
    registry.push("htc/odd:1", json.dumps({"schemaVersion": 2, "mediaType": "text/html"}).encode())
    pinned = "sha256:" + "1" * 64
    found = resolve(registry, "R/htc/gone:1", "R/htc/secret:1", f"R/htc/rocky@{pinned}", "R/htc/odd:1", "R/htc/rocky:9")
    assert list(found.resolved) == ["htc/rocky:9"]
    assert {name: one.transient for name, one in found.failures.items()} == {
        "htc/gone:1": False,
        "htc/secret:1": False,
        f"htc/rocky@{pinned}": False,
        "htc/odd:1": False,
    }
    assert why(found, "htc/gone:1") == "no such image in its registry (HTTP 404 Not Found)"
    assert why(found, "htc/secret:1").startswith("private, or no such image")
    assert "without a credential" in why(found, "htc/secret:1")
    assert registry.host not in why(found, "htc/gone:1")


def test_a_registry_gets_its_own_credential(registry: Registry) -> None:
    """And what it shows for it is published: the publisher's list may have private images."""
    registry.users = {"joe": "word"}
    registry.private = {"htc/secret"}
    push(registry, "htc/secret:1")
    images = ImageList.parse(f"{registry.host}/htc/secret:1\n".encode())
    client = RegistryClient()
    found = Resolver(client, BOTH, {}, {registry.host: Credential("joe", "word")}).resolve(images)
    client.close()
    assert list(found.resolved) == ["htc/secret:1"]


def tags_of(registry: Registry, name: str, *tags: str, page: int = 3) -> None:
    """Have the registry list tags in pages."""

    def say(heard: Heard) -> Said:
        _, _, last = heard.path.partition("last=")
        rest = tags[tags.index(last) + 1 :] if last else tags
        link = {"Link": f'</v2/{name}/tags/list?n={page}&last={rest[page - 1]}>; rel="next"'} if rest[page:] else {}
        return Said(json.dumps({"name": name, "tags": rest[:page]}).encode(), 200, link)

    registry.answers[f"/v2/{name}/tags/list?n=1000"] = say
    for tag in tags:
        registry.answers[f"/v2/{name}/tags/list?n={page}&last={tag}"] = say


def test_a_pattern_is_replaced_by_the_tags_that_it_fits_on_any_registry(registry: Registry) -> None:
    """Page by page; signatures beside an image are none, and a line of its own counts for its image."""
    signature = "sha256-" + "a" * 64 + ".sig"
    tags = ("el8-m1", "el9-m1", "el9-m2", "el9-x", signature, "latest", "el9-m3")
    tags_of(registry, "htc/nightly", *tags)
    push(registry, *(f"htc/nightly:{one}" for one in tags))
    found = resolve(registry, "R/htc/nightly:el9-m*", "R/htc/nightly:el9-m2")
    assert sorted(found.resolved) == ["htc/nightly:el9-m1", "htc/nightly:el9-m2", "htc/nightly:el9-m3"]
    assert not found.open_globs
    every = resolve(registry, "R/htc/nightly:*")
    assert len(every.resolved) == 6


@pytest.mark.parametrize(
    ("tags", "text"),
    [(("a", "b"), "no tag of the repository fits it"), (("v1", "v2", "v3", "v4"), "stands for 4 tags, and may for 3")],
)
def test_a_pattern_that_stands_for_nothing_or_for_too_much_stays_open(
    registry: Registry, tags: tuple[str, ...], text: str
) -> None:
    """What was published for it stays."""
    tags_of(registry, "htc/nightly", *tags)
    found = resolve(registry, "R/htc/nightly:v*", settings=replace(BOTH, max_tags=3))
    assert why(found, "htc/nightly:v*") == text
    assert [one.name for one in found.open_globs] == ["htc/nightly:v*"]
    assert found.lists("htc/nightly:v7", f"{registry.host}/htc/nightly:v7")
    assert not found.lists("htc/other:v7", f"{registry.host}/htc/other:v7")


def test_a_tag_that_would_lie_at_anothers_path_is_told_of_its_pattern(registry: Registry) -> None:
    """The line that names the image is the one that stays."""
    tags_of(registry, "htc/nightly", "1", "2")
    push(registry, "htc/nightly:1", "htc/nightly:2", "htc/nightly/1:x")
    found = resolve(registry, "R/htc/nightly:*", "localhost:1/htc/nightly:1", settings=BOTH)
    assert "same path as localhost:1/htc/nightly:1 in line 2" in why(found, "htc/nightly:*")
    assert "htc/nightly:2" in found.resolved


def throttle(registry: Registry, times: int, after: Callable[[], str], method: str = "HEAD") -> list[float]:
    """Have the registry refuse with 429 so many times; returns the moments of all requests."""
    lock, asked = threading.Lock(), list[float]()
    plain = registry.answer

    def answer(heard: Heard) -> Said:
        with lock:
            if heard.method == method and "/manifests/" in heard.path:
                asked.append(time.time())
                if len(asked) <= times:
                    return Said(b"", 429, {"Retry-After": after()})
        return plain(heard)

    registry.answer = answer  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize(
    "after",
    [
        lambda: "1",
        lambda: str(int(time.time()) + 1),
        lambda: time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 1)),
    ],
    ids=["seconds", "epoch, as Docker Hub", "date"],
)
def test_a_registry_that_says_later_is_waited_for(registry: Registry, after: Callable[[], str]) -> None:
    """However it says it; all that wait are answered then."""
    names = [f"htc/a{number}:1" for number in range(12)]
    push(registry, *names)
    throttle(registry, 3, after)
    found = resolve(registry, *(f"R/{name}" for name in names), settings=replace(BOTH, registry_patience_s=20))
    assert len(found.resolved) == 12


def test_a_registry_that_says_much_later_is_left_alone_for_this_run(registry: Registry) -> None:
    """A storm of refusals is no storm of requests, and other registries are not kept waiting."""
    names = [f"htc/a{number}:1" for number in range(60)]
    push(registry, *names)
    asked = throttle(registry, 10**6, lambda: "7200")
    other = Registry()
    try:
        push(other, "htc/rocky:9")
        lines = [*(f"R/{name}" for name in names), f"{other.host}/htc/rocky:9"]
        found = resolve(registry, *lines)
    finally:
        other.close()
    assert list(found.resolved) == ["htc/rocky:9"]
    assert len(asked) <= BOTH.registry(registry.host).connections
    assert len(found.failures) == 60
    assert all(one.transient for one in found.failures.values())
    assert "left alone for 2 h; looked at again in the next run" in why(found, "htc/a59:1")


def test_a_limit_on_manifests_leaves_the_heads_alone(registry: Registry) -> None:
    """What is known is resolved all the same; nothing is asked for that would be refused."""
    push(registry, "htc/old:1", "htc/new:1", "htc/new:2")
    known = resolve(registry, "R/htc/old:1").known
    plain = registry.answer

    def limited(heard: Heard) -> Said:
        said = plain(heard)
        return replace(
            said, headers=said.headers | {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}
        )

    registry.answer = limited  # type: ignore[method-assign]
    registry.heard.clear()
    found = resolve(registry, "R/htc/old:1", "R/htc/new:1", "R/htc/new:2", known=known)
    assert list(found.resolved) == ["htc/old:1"]
    assert counts(registry) == {"HEAD": 3}
    assert "left alone for 6 h" in why(found, "htc/new:1")
    assert found.failures["htc/new:1"].transient


def test_a_registry_that_hangs_is_given_up_after_a_few_questions(registry: Registry) -> None:
    """And keeps no other image waiting."""
    names = [f"htc/a{number}:1" for number in range(40)]
    push(registry, *names)
    over = threading.Event()
    plain = registry.answer

    def hang(heard: Heard) -> Said:
        if "/manifests/" in heard.path:
            over.wait(30)
        return plain(heard)

    registry.answer = hang  # type: ignore[method-assign]
    try:
        found = resolve(registry, *(f"R/{name}" for name in names), stall_s=0.5)
    finally:
        over.set()
    assert not found.resolved
    assert all(one.transient for one in found.failures.values())
    assert "does not answer (no answer in 0.5 s); looked at again in the next run" in why(found, "htc/a39:1")
    assert len(registry.asked("HEAD", "/manifests/")) <= BOTH.registry(registry.host).connections + 3


def test_a_registry_that_is_not_there_fails_its_images_alone(registry: Registry) -> None:
    """Nobody listens on that port."""
    push(registry, "htc/rocky:9")
    found = resolve(registry, "localhost:1/a/b:1", "localhost:1/a/c:1", "R/htc/rocky:9")
    assert list(found.resolved) == ["htc/rocky:9"]
    assert {name: one.transient for name, one in found.failures.items()} == {"a/b:1": True, "a/c:1": True}
    assert all(one.why.startswith("localhost:1: ") for one in found.failures.values())


def test_a_registry_whose_name_is_not_known_is_named(registry: Registry) -> None:
    """`.invalid` is never resolved; the list alone does not say which server that is (it may be Docker Hub's)."""
    found = resolve(registry, "registry.invalid/a/b:1")
    assert why(found, "a/b:1").startswith("registry.invalid: ")


def test_broken_repositories_keep_none_of_the_same_registry_waiting(registry: Registry) -> None:
    """A server's error is an answer; only where nothing else comes is the registry left alone."""
    broken = [f"htc/broken{number}:1" for number in range(6)]
    push(registry, *broken, "htc/rocky:9")
    plain = registry.answer

    def answer(heard: Heard) -> Said:
        return Said(b"", 500) if "broken" in heard.path else plain(heard)

    registry.answer = answer  # type: ignore[method-assign]
    found = resolve(registry, *(f"R/{one}" for one in broken), "R/htc/rocky:9")
    assert list(found.resolved) == ["htc/rocky:9"]
    assert "500" in why(found, broken[0])
    assert all(one.transient for one in found.failures.values())


def test_a_registry_of_which_nothing_works_is_left_alone(registry: Registry) -> None:
    """After some errors in a row, not after one for each image."""
    names = [f"htc/a{number}:1" for number in range(200)]
    plain = registry.answer

    def answer(heard: Heard) -> Said:
        return Said(b"", 502) if "/manifests/" in heard.path else plain(heard)

    registry.answer = answer  # type: ignore[method-assign]
    found = resolve(registry, *(f"R/{name}" for name in names))
    assert len(found.failures) == 200
    assert len(registry.asked("HEAD", "/manifests/")) < 60
    assert "does not answer (HTTP 502 Bad Gateway)" in why(found, "htc/a199:1")


def test_a_registry_that_does_not_say_when_is_asked_less_and_less_often(registry: Registry) -> None:
    """And not at all when patience is over."""
    push(registry, "htc/rocky:9")
    asked = throttle(registry, 10**6, lambda: "")
    found = resolve(registry, "R/htc/rocky:9", settings=replace(BOTH, registry_patience_s=3.5))
    assert 2 <= len(asked) <= 4
    assert found.failures["htc/rocky:9"].transient


def test_an_error_that_passes_is_not_told(registry: Registry) -> None:
    """One 503 among good answers is asked again."""
    push(registry, "htc/rocky:9")
    plain, left = registry.answer, [1]

    def once(heard: Heard) -> Said:
        if "/manifests/" in heard.path and left.pop() if left else False:
            return Said(b"", 503)
        return plain(heard)

    registry.answer = once  # type: ignore[method-assign]
    assert list(resolve(registry, "R/htc/rocky:9").resolved) == ["htc/rocky:9"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 2, "digests": {}}', '{"schema": 1, "digests": {"sha256:1": 5}}', REFUSED]
)
def test_a_memory_that_is_none_costs_questions_and_nothing_else(text: str) -> None:
    """It is asked for again."""
    assert parse_known(text) == {}
    assert parse_refused(text) == {}
