"""The registry client: what it asks, how it is let in, and what it makes of each refusal and fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cache_manager.registry.client import Head, RegistryClient
from cache_manager.registry.exchange import Question, Servers, Waits
from cache_manager.registry.failure import Kind, RegistryError
from cache_manager.registry.manifest import ArchitectureError, Descriptor, Index, Manifest
from cache_manager.registry.reference import RegistryReference
from cache_manager.registry.tokens import Access, Credential, Tokens
from tests.unit.registry_server import OCI_INDEX, OCI_MANIFEST, Heard, Registry, Said, digest_of, index, manifest

CONFIG = b'{"architecture": "amd64", "os": "linux"}'
LAYER = bytes(range(256)) * 1000
JOE = Credential("joe", "joes secret")


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Give a registry with one image, for one architecture, and in an index."""
    one = Registry()
    body = manifest(CONFIG, LAYER)
    one.push("htc/rocky:9", body, CONFIG, LAYER)
    one.push("htc/many:amd64", body, CONFIG, LAYER)
    one.push("htc/many:1", index(arm64=manifest(b"{}"), amd64=body))
    yield one
    one.close()


@pytest.fixture
def client() -> Iterator[RegistryClient]:
    """Give a client that soon loses patience."""
    one = RegistryClient(Waits(connect_s=2.0, stall_s=2.0))
    yield one
    one.close()


def named(registry: Registry, name: str = "htc/rocky:9") -> RegistryReference:
    """Return a reference to an image of the registry."""
    return RegistryReference.parse(f"{registry.host}/{name}")


def layer_of(client: RegistryClient, reference: RegistryReference) -> Descriptor:
    """Return the image's only layer."""
    found = client.manifest(reference)
    assert isinstance(found, Manifest)
    return found.layers[0]


def test_a_head_tells_the_digest_and_costs_no_get(registry: Registry, client: RegistryClient) -> None:
    """Registries count GETs of manifests."""
    assert client.head(named(registry)) == Head(digest_of(manifest(CONFIG, LAYER)), OCI_MANIFEST)
    assert client.head(named(registry, "htc/many:1")).media_type == OCI_INDEX
    assert registry.asked("GET", "/manifests/") == []


@pytest.mark.parametrize("answer", [Said(status=405), Said(), Said(headers={"Docker-Content-Digest": "sha256:no"})])
def test_where_a_head_tells_no_digest_it_is_computed_of_the_manifest(
    registry: Registry, client: RegistryClient, answer: Said
) -> None:
    """Some registries know no HEAD, some do not send the digest."""
    registry.answers["HEAD /v2/htc/rocky/manifests/9"] = answer
    assert client.head(named(registry)).digest == digest_of(manifest(CONFIG, LAYER))


def test_the_image_for_a_machine_is_found_through_the_index(registry: Registry, client: RegistryClient) -> None:
    """Both digests are known then."""
    found = client.image(named(registry, "htc/many:1"), "x86_64")
    assert found.manifest.digest == digest_of(manifest(CONFIG, LAYER))
    assert isinstance(client.manifest(named(registry, "htc/many:1")), Index)
    assert found.index_digest != found.manifest.digest
    assert found.manifest.size_bytes == len(CONFIG) + len(LAYER)
    with pytest.raises(ArchitectureError, match="not for s390x; there is: linux/amd64, linux/arm64"):
        client.image(named(registry, "htc/many:1"), "s390x")


def test_a_blob_comes_whole_and_with_its_digest(registry: Registry, client: RegistryClient) -> None:
    """The configuration, and a layer."""
    parts: list[bytes] = []
    client.blob(named(registry), layer_of(client, named(registry)), parts.append)
    assert b"".join(parts) == LAYER


def test_tokens_are_asked_for_once_while_they_are_good(registry: Registry, client: RegistryClient) -> None:
    """However many questions follow."""
    registry.tokens = True
    for _ in range(3):
        client.head(named(registry))
    assert len(registry.asked("GET", "/token")) == 1
    assert len(registry.asked("HEAD", "/manifests/")) == 4


def test_connections_are_kept(registry: Registry, client: RegistryClient) -> None:
    """Questions one after another share one."""
    registry.tokens = True
    for _ in range(4):
        client.head(named(registry))
    assert len({one.connection for one in registry.heard if one.path != "/v2/"}) == 1


def test_a_private_image_is_read_with_its_own_credential_only(registry: Registry, client: RegistryClient) -> None:
    """And what one user may read is not what all may."""
    registry.users, registry.private = {"joe": "joes secret"}, {"htc/rocky"}
    with pytest.raises(RegistryError, match="asked without a credential") as found:
        client.head(named(registry))
    assert found.value.kind is Kind.PRIVATE
    assert client.head(named(registry), JOE).digest
    with pytest.raises(RegistryError, match="asked without a credential"):
        client.head(named(registry))
    with pytest.raises(RegistryError, match="asked with the credential that was given") as found:
        client.head(named(registry), Credential("joe", "wrong"))
    assert found.value.kind is Kind.PRIVATE


def test_a_registry_that_wants_a_password_itself_gets_it(registry: Registry, client: RegistryClient) -> None:
    """Basic, as docker-registry with a password file."""

    def guard(heard: Heard) -> Said:
        if heard.headers.get("authorization") == JOE.basic:
            return Said(headers={"Docker-Content-Digest": digest_of(b"x")})
        return Said(status=401, headers={"WWW-Authenticate": 'Basic realm="Registry Realm"'})

    registry.answers["/v2/htc/rocky/manifests/9"] = guard
    assert client.head(named(registry), JOE).digest == digest_of(b"x")
    with pytest.raises(RegistryError, match="wants a password"):
        client.head(named(registry))


def test_a_registry_does_not_send_us_to_this_machine(registry: Registry) -> None:
    """Its token server is what it says, and it may say anything; a password goes nowhere without TLS."""
    servers = Servers(Waits(2.0, 2.0), frozenset())
    here = Question("GET", f"http://{registry.host}/token", "htc/rocky:9", {}, sent_by="registry.example")
    with pytest.raises(RegistryError, match="this machine's own"), servers.ask(here):
        pass
    access = Access(RegistryReference.parse("registry.example/htc/rocky:9"), JOE)
    with pytest.raises(RegistryError, match="without TLS"):
        Tokens(servers).meet(f'Bearer realm="http://{registry.host}/token"', access, plain=False)
    servers.close()
    assert registry.heard == []


def test_no_credential_is_ever_shown() -> None:
    """Wherever values are printed."""
    shown = f"{JOE!r} {JOE} {Question('GET', 'https://h/v2/', 'x', {}, JOE.basic)!r}"
    assert "joe" not in shown
    assert JOE.basic not in shown


def test_a_blob_that_lies_elsewhere_is_fetched_there_without_our_credential(
    registry: Registry, client: RegistryClient
) -> None:
    """Storage has its own signature in the URL, and no business with our token."""
    storage = Registry()
    registry.tokens = True
    blob = layer_of(client, named(registry))
    registry.answers[f"/v2/htc/rocky/blobs/{blob.digest}"] = Said(
        status=307, headers={"Location": f"http://{storage.host}/signed?x=1"}
    )
    storage.answers["/signed?x=1"] = Said(LAYER)
    parts: list[bytes] = []
    client.blob(named(registry), blob, parts.append)
    storage.close()
    assert b"".join(parts) == LAYER
    assert registry.asked("GET", "/blobs/")[0].headers["authorization"].startswith("Bearer")
    assert "authorization" not in storage.heard[0].headers


def test_a_transfer_that_is_cut_is_taken_up_where_it_was(registry: Registry, client: RegistryClient) -> None:
    """With a range where the server knows ranges, else by leaving out what came already."""
    blob = layer_of(client, named(registry))
    path = f"/v2/htc/rocky/blobs/{blob.digest}"

    def cutting(heard: Heard) -> Said:
        begin = int(heard.headers.get("range", "bytes=0-")[6:-1])
        if begin == 0:
            return Said(LAYER, cut=100_000)
        if begin == 100_000:  # knows no ranges any more
            return Said(LAYER, cut=200_000)
        span = f"bytes {begin}-{len(LAYER) - 1}/{len(LAYER)}"
        return Said(LAYER[begin:], 206, {"Content-Range": span})

    registry.answers[path] = cutting
    parts: list[bytes] = []
    client.blob(named(registry), blob, parts.append)
    assert b"".join(parts) == LAYER
    assert [one.headers.get("range", "") for one in registry.asked("GET", path)] == [
        "",
        "bytes=100000-",
        "bytes=200000-",
    ]


WRONG_BLOBS = {
    "other bytes": (Said(b"x" * len(LAYER)), Kind.WRONG, "sha256:.* came"),
    "too many": (Said(LAYER + b"x"), Kind.WRONG, "more than its 256000 bytes came"),
    "nothing, again and again": (Said(b"", 200), Kind.UNREACHABLE, r"ended early \(0 of 256000 bytes\)"),
    "gone": (Said(b"", 404), Kind.GONE, "HTTP 404"),
    "a page": (Said(b"<html>", 502), Kind.UNREACHABLE, "HTTP 502"),
}


@pytest.mark.parametrize(("said", "kind", "words"), WRONG_BLOBS.values(), ids=WRONG_BLOBS)
def test_a_blob_that_is_not_what_was_promised_fails(
    registry: Registry, client: RegistryClient, said: Said, kind: Kind, words: str
) -> None:
    """Each with its reason."""
    blob = layer_of(client, named(registry))
    registry.answers[f"/v2/htc/rocky/blobs/{blob.digest}"] = said
    with pytest.raises(RegistryError, match=words) as found:
        client.blob(named(registry), blob, lambda _: None)
    assert found.value.kind is kind


def limited(status: int, **headers: str) -> Said:
    """Return a refusal with headers."""
    return Said(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


REFUSALS = {
    "gone": (limited(404), Kind.GONE, None),
    "a proxy's 404": (limited(404, Via="1.1 squid"), Kind.UNREACHABLE, None),
    "forbidden": (limited(403), Kind.PRIVATE, None),
    "refused without a challenge": (limited(401), Kind.PRIVATE, None),
    "an unknown challenge": (limited(401, WWW_Authenticate="Negotiate"), Kind.PRIVATE, None),
    "throttled": (limited(429, Retry_After="17"), Kind.THROTTLED, 17),
    "throttled until the window ends": (
        limited(429, ratelimit_remaining="0;w=21600", ratelimit_reset="90"),
        Kind.THROTTLED,
        90,
    ),
    "broken": (limited(503, Retry_After="3"), Kind.UNREACHABLE, 3),
    "nonsense": (limited(418), Kind.WRONG, None),
    "a token server without TLS": (limited(401, WWW_Authenticate='Bearer realm="ftp://h/t"'), Kind.WRONG, None),
}


@pytest.mark.parametrize(("said", "kind", "after_s"), REFUSALS.values(), ids=REFUSALS)
def test_each_refusal_means_what_it_says(
    registry: Registry, client: RegistryClient, said: Said, kind: Kind, after_s: float | None
) -> None:
    """For the caller: gone, private, throttled and until when, unreachable, wrong."""
    registry.answers["/v2/htc/rocky/manifests/9"] = said
    with pytest.raises(RegistryError) as found:
        client.head(named(registry))
    assert (found.value.kind, found.value.retry_after_s) == (kind, after_s)
    assert f"{registry.host}/htc/rocky:9" in str(found.value)


def test_a_registry_that_asks_for_rest_is_left_alone(registry: Registry, client: RegistryClient) -> None:
    """Manifests are what is counted: other questions go on."""
    registry.answers["GET /v2/htc/rocky/manifests/9"] = limited(429, Retry_After="60", ratelimit_limit="100;w=21600")
    for _ in range(3):
        with pytest.raises(RegistryError) as found:
            client.manifest(named(registry))
        assert found.value.kind is Kind.THROTTLED
        assert 50 < (found.value.retry_after_s or 0) <= 60
    assert len(registry.asked("GET", "/manifests/")) == 1
    assert client.head(named(registry)).digest
    limit = client.limit(registry.host)
    assert limit is not None
    assert (limit.limit, limit.window_s) == (100, 21600)


WRONG_MANIFESTS = {
    "no JSON": (b"<html>", "no JSON"),
    "schema 1": (b'{"schemaVersion": 1}', "schema 1"),
    "too large": (b"[" + b" " * 5 * 2**20, "more than 4194304 bytes"),
}


@pytest.mark.parametrize(("body", "words"), WRONG_MANIFESTS.values(), ids=WRONG_MANIFESTS)
def test_what_is_no_manifest_is_wrong(registry: Registry, client: RegistryClient, body: bytes, words: str) -> None:
    """Whatever its type says."""
    registry.answers["/v2/htc/rocky/manifests/9"] = Said(body, headers={"Content-Type": OCI_MANIFEST})
    with pytest.raises(RegistryError, match=words) as found:
        client.manifest(named(registry))
    assert found.value.kind is Kind.WRONG


def test_a_manifest_of_another_digest_than_the_one_asked_for_is_wrong(
    registry: Registry, client: RegistryClient
) -> None:
    """A digest is a promise."""
    reference = named(registry).at(digest_of(b"asked for"))
    registry.answers[f"/v2/htc/rocky/manifests/{reference.digest}"] = Said(manifest(CONFIG))
    with pytest.raises(RegistryError, match="was promised"):
        client.manifest(reference)


def page(number: int, link: str) -> Said:
    """Return a page of tags."""
    body = json.dumps({"name": "htc/rocky", "tags": [f"{number}.{one}" for one in range(3)]}).encode()
    return Said(body, headers={"Link": link} if link else {})


def test_tags_are_listed_to_the_last_page(registry: Registry, client: RegistryClient) -> None:
    """As relative links, and as whole URLs of the same server."""
    registry.answers["/v2/htc/rocky/tags/list?n=1000"] = page(1, '</v2/htc/rocky/tags/list?last=1,2>; rel="next"')
    registry.answers["/v2/htc/rocky/tags/list?last=1,2"] = page(2, f"<http://{registry.host}/third>; rel=next")
    registry.answers["/third"] = page(3, "")
    assert client.tags(named(registry)) == [f"{number}.{one}" for number in (1, 2, 3) for one in range(3)]


def test_a_list_of_tags_without_an_end_ends(registry: Registry, client: RegistryClient) -> None:
    """And a next page on another server is not asked for."""
    registry.answers["/v2/htc/rocky/tags/list?n=1000"] = page(1, '</v2/htc/rocky/tags/list?n=1000>; rel="next"')
    with pytest.raises(RegistryError, match="more than 3000 tags"):
        client.tags(named(registry))
    registry.answers["/v2/htc/rocky/tags/list?n=1000"] = page(1, '<http://elsewhere/>; rel="next"')
    with pytest.raises(RegistryError, match="another server"):
        client.tags(named(registry))


def test_nobody_answers(client: RegistryClient) -> None:
    """It is the registry as a whole that is down."""
    with pytest.raises(RegistryError, match="refused") as found:
        client.head(RegistryReference.parse("127.0.0.1:1/htc/rocky:9"))
    assert (found.value.kind, found.value.everything) == (Kind.UNREACHABLE, True)


def test_one_client_serves_many_threads(registry: Registry, client: RegistryClient) -> None:
    """Each gets its own answer."""
    registry.tokens = True
    names = [f"htc/many-{number}:1" for number in range(40)]
    digests = [registry.push(name, manifest(name.encode())) for name in names]
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda name: client.head(named(registry, name)).digest, names))
    assert found == digests
