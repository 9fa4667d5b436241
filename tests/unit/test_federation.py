"""Objects of a federation, from doubles of its servers: what each fault comes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest

from cache_manager.credential import Credential
from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources import transport
from cache_manager.sources.base import Route, SourceError
from cache_manager.sources.director import Asker, Directions
from cache_manager.sources.discovery import Director, Discovery
from cache_manager.sources.federation import Federation, Federations
from cache_manager.sources.federation_url import FederationUrl
from cache_manager.sources.transport import Patience
from cache_manager.status import HookStatus
from tests.federation import DISCOVERY, Faults, FederationDouble, Namespace, ObjectsDouble, Said
from tests.unit.origin import MemorySink

BODY: Final = bytes(range(256)) * 40
PATH: Final = "/ospool/x.sif"
DEAD: Final = "http://127.0.0.1:1"
IMAGE: Final = ImageReference.parse(f"osdf://{PATH}")
TOKEN: Final = Credential("igwn", b"CaNaRy7391\n")


@dataclass
class World:
    """A federation with two caches and an origin; `pauses` are the waits that were made."""

    director: FederationDouble
    one: ObjectsDouble
    two: ObjectsDouble
    origin: ObjectsDouble
    pauses: list[float] = field(default_factory=list)
    now: float = 1e9

    def __post_init__(self) -> None:
        discovery = Discovery(lambda: self.now, self.pauses.append, 0.5)
        self.known = Federations(discovery, lambda: self.now, self.pauses.append)

    @property
    def namespace(self) -> Namespace:
        """The one that there is."""
        return self.director.namespaces[0]

    def source(self, credential: Credential | None = None) -> Federation:
        """Return the source as a user with or without a credential has it."""
        return Federation(self.director.url, Patience(10**6, 1.0), self.known, credential)

    def protect(self) -> None:
        """Have the namespace want a token."""
        self.namespace.needs_token = True
        for one in (self.one, self.two, self.origin):
            one.tokens = frozenset({"CaNaRy7391"})

    def fetched(self, credential: Credential | None = None) -> bytes:
        """Return what a job gets. Raises SourceError."""
        sink = MemorySink()
        source = self.source(credential)
        found = source.locate(IMAGE)
        assert isinstance(found, Located), found
        source.transfer(found, sink)
        return bytes(sink.data)


@pytest.fixture
def world() -> Iterator[World]:
    """Start one."""
    with ExitStack() as stack:
        one, two, origin = (stack.enter_context(ObjectsDouble({PATH: BODY})) for _ in range(3))
        director = stack.enter_context(FederationDouble(Namespace("/ospool", [one.url, two.url], origin.url)))
        yield World(director, one, two, origin)


def test_an_object_comes_from_the_first_cache_in_the_directors_order(world: World) -> None:
    """Discovery is asked once, the director never followed; each server hears the same job id, and no other secret."""
    assert world.fetched() == BODY
    assert world.fetched() == BODY
    assert world.director.count("GET", DISCOVERY) == 1
    assert world.one.count("GET") == 2
    assert not world.two.asked
    assert not world.origin.asked
    heard = next(one.headers for one in world.one.asked if one.method == "GET")
    assert heard["X-Transfer-Status"] == "true"
    assert heard["User-Agent"].startswith("htcondor-image-cache/")
    assert heard["X-Pelican-JobId"] in {one.headers.get("X-Pelican-JobId") for one in world.director.asked}
    assert world.director.asked[-1].headers["X-Pelican-Timeout"] == "10s"


def test_the_version_is_what_the_server_says(world: World) -> None:
    """All ways to write an object are one object, of one version and size."""
    answers = [world.source().locate(ImageReference.parse(text)) for text in (f"osdf:{PATH}", f"stash://{PATH}")]
    assert answers[0] == answers[1]
    located = answers[0]
    assert isinstance(located, Located)
    assert located.version
    assert located.about_bytes == len(BODY)
    assert not located.private


def test_a_pelican_cache_of_this_machine_is_asked_first(world: World, tmp_path: Path) -> None:
    """On its socket; what it does not have, or is not to have, comes from the federation."""
    with ObjectsDouble({PATH: BODY}, place=str(tmp_path / "socket")) as local:
        source = replace(world.source(), local=local.url)
        found, sink = source.locate(IMAGE), MemorySink()
        assert isinstance(found, Located)
        source.transfer(found, sink)
        assert bytes(sink.data) == BODY
        assert local.count("GET") == 1
        assert local.asked[-1].headers["X-Pelican-JobId"] == source.trace
        assert not world.director.asked
        assert source.read(f"osdf://{PATH}", fresh=True) == BODY
        assert local.count("GET") == 1
        local.objects.clear()
        assert isinstance(source.locate(IMAGE), Located)
        assert world.one.asked
    gone = replace(world.source(), local=f"unix://{tmp_path}/nobody")
    assert isinstance(gone.locate(IMAGE), Located)


@pytest.mark.parametrize(("server", "same"), [("XrootD/v5.8", True), ("XRootD", True), ("nginx", False)])
def test_an_etag_that_is_the_servers_own_number_tells_no_versions_apart(
    world: World,
    server: str,
    same: bool,  # noqa: FBT001
) -> None:
    """XRootD's caches have others than the origin, and new ones once they have the object."""
    seen = []
    for one in (world.one, world.two):
        one.name = server
        world.namespace.caches = [one.url]
        seen.append(world.source().locate(IMAGE))
    assert (seen[0] == seen[1]) == same


@pytest.mark.parametrize(
    ("fault", "gets"),
    [
        ("the first cache is dead", True),
        ("the first cache is silent", True),
        ("the first cache says 500", True),
        ("the first cache does not have it", True),
        ("the first cache refuses it", True),
        ("the first cache ends early, once", True),
        ("the first cache ends early, always", True),
        ("the first cache says in the end that it failed", True),
        ("the first cache has another ETag each time, and ends early", True),
        ("all caches are dead", True),
        ("all caches say 500", True),
        ("no cache is registered", True),
        ("the director has no Link", True),
        ("all servers are dead", False),
        ("all servers say that it failed", False),
    ],
)
def test_a_fault_of_some_servers_costs_the_job_nothing(world: World, fault: str, gets: bool) -> None:  # noqa: FBT001
    """It gets the whole object from the next cache, or from the origin, as long as there is one that has it."""
    servers = {"all servers": [world.one, world.two, world.origin], "all caches": [world.one, world.two]}
    faults = {
        "silent": Faults(silent=True),
        "500": Faults(500),
        "have it": Faults(404),
        "refuses it": Faults(403),
        "ends early, once": Faults(cut=1000, times=1),
        "ends early, always": Faults(cut=1000),
        "it failed": Faults(trailer="500: unexpected end of file"),
        "another ETag each time, and ends early": Faults(cut=1000, etag=True),
    }
    hit = next((some for words, some in servers.items() if fault.startswith(words)), [world.one])
    wrong = next((one for words, one in faults.items() if fault.endswith(words)), None)
    for server in hit if wrong else ():
        server.faults = wrong or server.faults
    if fault.endswith("dead"):
        world.namespace.caches = [DEAD, world.two.url] if len(hit) == 1 else [DEAD]
        world.namespace.origin = DEAD if len(hit) == 3 else world.origin.url
    if fault == "no cache is registered":
        world.namespace.caches = []
    if fault == "the director has no Link":
        alone = Said(307, {"Location": f"{world.two.url}{PATH}?authz="})
        world.known.discovery.director(world.director.url)
        world.director.first = [alone, alone]
    if gets:
        assert world.fetched() == BODY
        return
    with pytest.raises((SourceError, AssertionError)) as caught:
        world.fetched()
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("server", ["XrootD/v5.8", "nginx"])
def test_what_is_cut_goes_on_where_it_ended(world: World, server: str) -> None:
    """Also where the server says no ETag with the bytes."""
    world.one.name = server
    world.one.faults = Faults(cut=1000, times=3)
    assert world.fetched() == BODY
    came = [one.headers.get("Range") for one in world.one.asked if one.method == "GET"]
    assert came == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]
    assert not world.two.asked


def test_the_rest_of_an_object_comes_from_another_server(world: World) -> None:
    """Objects of a federation do not change: one of the same size is the same one."""
    found, sink = world.source().locate(IMAGE), MemorySink()
    assert isinstance(found, Located)
    world.one.faults = Faults(cut=1000, status_after=503)
    world.source().transfer(found, sink)
    assert bytes(sink.data) == BODY
    assert [one.headers.get("Range") for one in world.two.asked if one.method == "GET"] == ["bytes=1000-"]


def test_a_server_that_did_not_answer_is_asked_last_for_a_while(world: World) -> None:
    """The next job does not wait for it."""
    world.namespace.caches = [DEAD, world.two.url]
    assert world.known.ordered([DEAD, world.two.url]) == [DEAD, world.two.url]
    assert world.fetched() == BODY
    assert world.known.ordered([DEAD, world.two.url]) == [world.two.url, DEAD]
    world.now += 301
    assert world.known.ordered([DEAD, world.two.url]) == [DEAD, world.two.url]


@pytest.mark.parametrize(
    ("said", "pauses", "answer"),
    [
        ([Said(429)] * 3, [3, 6, 9], None),
        ([Said(429, {"Retry-After": "2"})], [2], None),
        ([Said(502, {"Server": "nginx"}), Said(404, {"Server": "squid"})], [3, 6], None),
        ([Said(500)], [3], None),
        ([Said(429)] * 9, [3, 6, 9], Unwell),
        ([Said(429, {"Retry-After": "3600"})], [], Unwell),
        ([Said(404, {"Server": "squid"})] * 9, [3, 6, 9], Unwell),
        ([Said(404)] * 2, [], Absent),
        ([Said(400)] * 2, [], Unwell),
        ([Said(302, {"Location": "https://login.example/"})] * 9, [], Unwell),
        ([Said(307, {"Location": "/nowhere"})] * 9, [], Unwell),
        ([Said(307, {"Link": "<ftp://h/x>; pri=1"})] * 9, [], Unwell),
        ([Said(401)] * 2, [], Denied),
        ([Said(403)] * 2, [], Denied),
    ],
)
def test_what_a_director_says_instead_of_a_server(
    world: World, said: list[Said], pauses: list[int], answer: type[Answer] | None
) -> None:
    """One that starts up, or a proxy in its place, is asked again within the budget; a 404 is no word on the object."""
    world.source().locate(IMAGE)
    world.director.first = list(said)
    source = Federation(world.director.url, Patience(10**6, 60.0), world.known)
    found = source.locate(IMAGE)
    assert isinstance(found, answer or Located), found
    assert [int(one) for one in world.pauses] == pauses
    if isinstance(found, Absent):
        assert not found.authoritative
    if isinstance(found, Unwell):
        throttled = said[0].status == 429
        assert found.status is (HookStatus.SOURCE_THROTTLED if throttled else HookStatus.SOURCE_UNREACHABLE)
    if isinstance(found, Denied):
        assert found.wants_credential


@pytest.mark.parametrize(
    ("caches", "origin", "answer"),
    [
        (404, 404, Absent),
        (404, 500, Unwell),
        (500, 404, Absent),
        (403, 403, Denied),
        (403, 404, Absent),
        (403, 500, Denied),
        (500, 403, Denied),
        (429, 429, Unwell),
    ],
)
def test_the_origin_has_the_last_word(world: World, caches: int, origin: int, answer: type[Answer]) -> None:
    """A cache may be wrong; "does not exist" is the origin's alone to say."""
    world.one.faults, world.two.faults, world.origin.faults = Faults(caches), Faults(caches), Faults(origin)
    found = world.source().locate(IMAGE)
    assert isinstance(found, answer), found
    if isinstance(found, Absent):
        assert found.authoritative


@pytest.mark.parametrize(("one", "two", "answer"), [(404, 404, Absent), (403, 403, Denied), (404, 403, Unwell)])
def test_without_an_origin_caches_are_believed_only_if_they_agree(
    world: World, one: int, two: int, answer: type[Answer]
) -> None:
    """And "not here" is all that they can say."""
    world.namespace.direct = False
    world.one.faults, world.two.faults = Faults(one), Faults(two)
    found = world.source().locate(IMAGE)
    assert isinstance(found, answer), found
    if isinstance(found, Absent):
        assert not found.authoritative


def test_a_protected_object_asks_for_a_credential_and_comes_with_it(world: World) -> None:
    """Nobody is told the token but who has the object, and its director."""
    world.protect()
    before = world.source().locate(IMAGE)
    assert isinstance(before, Denied)
    assert before.wants_credential
    assert "issuer.example" in before.why
    assert not world.one.asked
    assert world.fetched(TOKEN) == BODY
    assert {one.headers["Authorization"] for one in world.one.asked} == {"Bearer CaNaRy7391"}
    located = world.source(TOKEN).locate(IMAGE)
    assert isinstance(located, Located)
    assert located.private
    assert "CaNaRy" not in repr(world.source(TOKEN)) + repr(located)


def test_a_credential_that_is_refused_says_so(world: World) -> None:
    """The job is held: another execution point gets no further with it."""
    world.protect()
    found = world.source(Credential("igwn", b"wrong")).locate(IMAGE)
    assert isinstance(found, Denied)
    assert not found.wants_credential
    assert "403" in found.why
    assert "wrong" not in found.why


def test_a_credential_that_is_over_sends_the_job_back(world: World) -> None:
    """HTCondor will bring a fresh one; nobody is asked with the old one."""
    world.protect()
    world.now = 1_000_000_060
    over = Credential("igwn", b"eyJhbGciOiJub25lIn0.eyJleHAiOjEwMDAwMDAwMDB9.x")
    found = world.source(over).locate(IMAGE)
    assert isinstance(found, Unwell)
    assert "expired 1 min ago" in found.why
    assert not world.director.asked


def test_a_credential_is_not_sent_to_a_federation_that_the_job_did_not_name_it_for(world: World) -> None:
    """Else the author of a submit file that others use could collect their tokens."""
    world.protect()
    source = Federation("https://osg-htc.org", Patience(10**6, 1.0), world.known)
    elsewhere = world.director.url.removeprefix("http://")
    world.known.discovery.__dict__["_found"].put(
        f"https://{elsewhere}", world.known.discovery.director(world.director.url), 2e9
    )
    found = source.locate(ImageReference.parse(f"pelican://{elsewhere}{PATH}"))
    assert isinstance(found, Denied)
    assert not found.wants_credential
    named = source.locate(ImageReference.parse(f"igwn+pelican://{elsewhere}{PATH}"))
    assert isinstance(named, Denied)
    assert named.wants_credential


def test_a_federation_elsewhere_leads_to_nothing_on_this_machine(world: World) -> None:
    """Neither its discovery to a director here, nor its director to a server here."""
    elsewhere = Director(world.director.url, near=False)
    what = FederationUrl.of(IMAGE, world.director.url)
    with pytest.raises(SourceError) as caught:
        Asker().directions(elsewhere, what)
    assert "this machine's own" in str(caught.value)
    with pytest.raises(SourceError) as caught:
        transport.head(Route(f"{world.one.url}{PATH}", near=False), Patience(10**6, 1.0))
    assert "this machine's own" in str(caught.value)
    assert not world.director.asked
    assert not world.one.asked


def test_a_token_goes_to_servers_with_tls_alone(world: World) -> None:
    """Those of a federation elsewhere, that is: on this machine nobody listens between."""
    servers = Directions(("http://a.example/x", "https://b.example/x"))
    elsewhere = Director("https://director.example", near=False)
    with_token, without = (list(world.source(TOKEN).routes(elsewhere, servers, token)) for token in ("t", ""))
    assert [route.url for route in with_token] == ["https://b.example/x"]
    assert [route.url for route in without] == list(servers.servers)


def test_a_director_without_tls_hears_no_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a federation calls its director: a proxy, or whoever is between, would read it."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", world.director.url)
    elsewhere = Director("http://director.example", near=False)
    assert Asker("CaNaRy7391").directions(elsewhere, FederationUrl.of(IMAGE, world.director.url)).servers
    assert [one.headers.get("Authorization") for one in world.director.asked] == [None]
