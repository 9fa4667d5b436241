"""Images in a data federation, from the job's ad to what is in the cache. The federation's servers are doubles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import pytest

from tests.contract.block import Answer
from tests.contract.conftest import StartSite
from tests.contract.doubles import ARCH, HTML, cvmfs_ad, image_ad, sif, tree
from tests.contract.harness import Site
from tests.federation import Faults, FederationDouble, Namespace, ObjectsDouble

JOES: Final = "eyJhbGciOi.CaNaRy7391.joe"
AMYS: Final = "eyJhbGciOi.CaNaRy7391.amy"
DEAD: Final = "http://127.0.0.1:1"
PATH: Final = "/ospool/x.sif"
CLOSED: Final = "/igwn/secret.sif"


@dataclass
class World:
    """A federation with an open and a protected namespace, and a site that knows it."""

    director: FederationDouble
    cache: ObjectsDouble
    origin: ObjectsDouble
    igwn: ObjectsDouble
    site: Site

    def run(self, image: str, owner: str = "joe", **tokens: str) -> Answer:
        """Run a job's hook; `tokens` are what HTCondor put beside the job."""
        scratch = self.site.scratch.parent / f"scratch-{owner}"
        creds = scratch / ".condor_creds"
        creds.mkdir(parents=True, exist_ok=True)
        for old in creds.iterdir():
            old.unlink()
        for name, token in tokens.items():
            (creds / f"{name}.use").write_text(token)
        return self.site.run_hook(image_ad(image).replace("joe", owner), cwd=scratch)


@pytest.fixture
def world(make_site: StartSite) -> Iterator[World]:
    """Start one."""
    with ExitStack() as stack:
        objects = {PATH: sif("x")}
        cache, origin = (stack.enter_context(ObjectsDouble(objects)) for _ in range(2))
        igwn = stack.enter_context(ObjectsDouble({CLOSED: sif("secret")}, frozenset({JOES, AMYS})))
        protected = Namespace("/igwn", [igwn.url], igwn.url, needs_token=True)
        director = stack.enter_context(FederationDouble(Namespace("/ospool", [cache.url], origin.url), protected))
        sources = f"osdf:///ospool/images/v2 {DEAD}/v2"
        site = make_site(
            IMAGE_CACHE_FEDERATION=director.url,
            IMAGE_CACHE_SIF_SOURCES=sources,
            IMAGE_CACHE_CVMFS_BASE="/nonexistent",
            IMAGE_CACHE_STALL_TIMEOUT="2s",
        )
        yield World(director, cache, origin, igwn, site.start())


def test_all_ways_to_write_an_object_share_one_fetch(world: World) -> None:
    """Of all owners: one entry, one GET."""
    host = world.director.url.removeprefix("http://")
    forms = (f"osdf://{PATH}", f"osdf:/{PATH}", f"stash:{PATH}", f"pelican://{host}{PATH}", f"igwn+osdf://{PATH}")
    answers = [world.run(form, owner) for form in forms for owner in ("joe", "amy")]
    assert {answer.code for answer in answers} == {0}
    assert len({answer.attributes["ContainerImage"] for answer in answers}) == 1
    assert world.cache.count("GET") == 1
    assert "SIF fetched from pelican://" in answers[0].message
    assert not any("Authorization" in one.headers for one in world.cache.asked)


def break_cache(**faults: object) -> Callable[[World], None]:
    """Return what gives the cache a fault."""

    def breaks(world: World) -> None:
        world.cache.faults = Faults(**faults)  # type: ignore[arg-type]

    return breaks


def break_both(**faults: object) -> Callable[[World], None]:
    """Return what gives cache and origin the same fault."""

    def breaks(world: World) -> None:
        world.cache.faults = Faults(**faults)  # type: ignore[arg-type]
        world.origin.faults = Faults(**faults)  # type: ignore[arg-type]

    return breaks


def half_dead(world: World) -> None:
    """Put dead caches before and behind the living one."""
    world.director.namespaces[0].caches = [DEAD, f"{DEAD}1", world.cache.url, DEAD]


@pytest.mark.parametrize(
    ("happens", "code", "said", "kept"),
    [
        (half_dead, 0, "SIF fetched", 1),
        (break_cache(cut=1000), 0, "SIF fetched", 1),
        (break_cache(trailer="500: input/output error"), 0, "SIF fetched", 1),
        (break_cache(other_bytes=True), 0, "SIF fetched", 1),
        (break_cache(status=404), 0, "SIF fetched", 1),
        (break_cache(silent=True), 0, "SIF fetched", 1),
        (break_both(trailer="500: input/output error"), 610, "input/output error", 0),
        (break_both(cut=1000), 610, "", 0),
        (break_both(status=404), 120, "HTTP 404", 0),
        (break_both(status=403), 130, "HTTP 403", 0),
        (break_both(status=503), 610, "HTTP 503", 0),
        (break_both(status=429, headers={"Retry-After": "3600"}), 630, "Retry-After: 3600", 0),
        (break_both(other_bytes=True), 150, "twice", 0),
    ],
    ids=[
        "half of the caches are dead",
        "a cache ends early",
        "a cache says in the end that it failed",
        "a cache has other bytes",
        "a cache lacks it",
        "a cache says nothing",
        "all say in the end that they failed",
        "all end early",
        "the origin lacks it",
        "the origin refuses it",
        "all are in trouble",
        "all have enough of us",
        "all have other bytes",
    ],
)
def test_what_goes_wrong_what_the_job_sees_and_what_the_cache_keeps(
    world: World, happens: Callable[[World], None], code: int, said: str, kept: int
) -> None:
    """Nothing half is ever kept, and the job is held only for what no other execution point could mend."""
    happens(world)
    answer = world.run(f"osdf://{PATH}")
    assert answer.code == code, answer.message
    assert said in answer.message
    assert len(world.site.names("entries")) == kept
    assert world.site.names("staging") == []


def test_a_protected_image_is_for_who_has_a_token_that_is_accepted(world: World) -> None:
    """One GET for all; who has no token, or a wrong one, gets nothing of what is already here."""
    image = f"igwn+osdf://{CLOSED}"
    assert world.run(image, igwn=JOES).code == 0
    without = world.run(image, "amy", other=AMYS)
    assert without.code == 130
    assert "the job has no credential 'igwn'; it has other" in without.message
    assert "use_oauth_services = igwn" in without.message
    refused = world.run(image, "amy", igwn="wrong")
    assert refused.code == 130
    assert "HTTP 403" in refused.message
    assert world.igwn.count("GET") == 1
    accepted = world.run(image, "amy", igwn=AMYS)
    assert accepted.code == 0
    assert "cached SIF" in accepted.message
    assert world.igwn.count("GET") == 1
    said = "".join(one.message for one in (without, refused, accepted)) + world.site.all_text()
    assert "CaNaRy" not in said + world.site.reports(image_ad(image))


def test_a_token_needs_no_name_where_the_job_has_one_only(world: World) -> None:
    """As with HTCondor's own plug-ins."""
    assert world.run(f"osdf://{CLOSED}", any_name=JOES).code == 0
    unclear = world.run(f"osdf://{CLOSED}", "amy", one=AMYS, two=AMYS)
    assert unclear.code == 130
    assert "it has one, two" in unclear.message


def test_a_job_whose_hook_is_older_than_credentials_goes_elsewhere(world: World) -> None:
    """During an update, one is older than the other."""
    said = world.site.prepare(image_ad(f"igwn+osdf://{CLOSED}")).decode()
    assert "HookStatusCode = 310" in said


def test_explain_says_that_a_credential_would_be_asked_for(world: World) -> None:
    """Only the job's hook can read it."""
    said = world.site.command("explain", "-", text=image_ad(f"igwn+osdf://{CLOSED}")).stdout
    assert "with the job's credential" in said
    assert "needs a token" in said


def test_the_pelican_command_serves_where_the_admin_prefers_it(world: World) -> None:
    """It is a double here, which copies a file; nothing of it stays in the cache."""
    site = world.site
    program = site.directory / "bin" / "pelican"
    program.parent.mkdir()
    (site.directory / "image").write_bytes(sif("x"))
    get = f"cp {site.directory}/image $4"
    program.write_text(f"#!/bin/sh\n[ $2 = stat ] && echo '{{\"Size\": 4096}}' || {get}\n")
    program.chmod(0o755)
    site.environment = {"PATH": f"{program.parent}:/usr/bin:/bin"}
    site.reconfigure(IMAGE_CACHE_PELICAN="client")
    site.restart()
    answer = world.run(f"osdf://{PATH}")
    assert answer.code == 0, answer.message
    assert not world.cache.asked
    assert site.names("staging") == []
    assert len(site.names("entries")) == 1


def test_a_private_image_is_not_advertised(world: World) -> None:
    """Nor is its name told to who may not have it."""
    assert world.run(f"igwn+osdf://{CLOSED}", igwn=JOES).code == 0
    assert world.run(f"osdf://{PATH}").code == 0
    advertised = world.site.command("advertise").stdout
    assert "secret" not in advertised
    assert "ImageCacheEntries = 2" in advertised


def test_a_publication_tree_in_a_federation_serves_what_it_publishes(world: World) -> None:
    """What latest.txt says is asked of the origin: a cache keeps what it once had."""
    for name, body in tree("htc/a:1", sif("a")).items():
        world.cache.objects[f"/ospool/images/v2/{name}"] = body
        world.origin.objects[f"/ospool/images/v2/{name}"] = body
    pointer = f"/ospool/images/v2/{ARCH}/htc__a__1/latest.txt"
    world.cache.objects[pointer] = HTML
    answer = world.site.run_hook(cvmfs_ad("htc/a:1"))
    assert answer.code == 0, answer.message
    assert "osdf:///ospool/images/v2" in answer.message
    assert world.cache.count("GET", ".sif") == 1
    assert world.origin.count("GET", ".sif") == 0
    missing = world.site.run_hook(cvmfs_ad("htc/nothing:1"))
    assert missing.code == 610  # it need not have every image
    assert "HTTP 404" in missing.message
