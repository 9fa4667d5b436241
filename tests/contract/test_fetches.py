"""However many jobs want an image, its origin sees one request; whoever goes away meanwhile, the image comes in."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from tests.contract import holders
from tests.contract.conftest import StartSite
from tests.contract.doubles import HTML, cvmfs_ad, digest, image_ad, other_arch, sif, tree, truncated_sif
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

BAD = (
    ("an HTML page", Reply(HTML), 150),
    ("nothing", Reply(), 150),
    ("half a SIF", Reply(truncated_sif()), 150),
    ("another machine's", Reply(sif(arch=other_arch())), 330),
    ("too large", Reply(sif("large"), length=10**12, cut=4096), 320),
    ("cut off", Reply(sif("cut"), length=8192), 610),
    ("forbidden", Reply(status=403), 130),
    ("unwell", Reply(status=503), 610),
    ("throttled", Reply(status=429), 630),
)


@pytest.fixture
def bare(make_site: StartSite, origin: Origin) -> Site:
    """Start a manager with a publication tree and without CVMFS."""
    return make_site(
        IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2", IMAGE_CACHE_CVMFS_BASE="/nonexistent", IMAGE_CACHE_TAG_TTL="15m"
    ).start()


def hold_back(origin: Origin, end: str) -> Callable[[], None]:
    """Have an origin keep back the last byte of a SIF until the returned function is called."""
    gate = Event()
    path = next(path for path in origin.routes if path.endswith(end))
    route = origin.routes[path]
    assert isinstance(route, Reply)
    route.gate = gate
    return gate.set


def test_ten_jobs_for_one_cold_image_are_one_fetch(bare: Site, origin: Origin) -> None:
    """One look at the pointer, one SIF, ten leases, each of its own starter."""
    origin.serve(tree("htc/cold:1", sif("cold")))
    release = hold_back(origin, ".sif")
    starters = [holders.start(bare, cvmfs_ad("htc/cold:1")) for _ in range(10)]
    bare.wait_for(lambda: [one["waiting"] for one in bare.ask("status")["fetches"]] == [10], "ten waiting jobs")
    release()
    answers = [one.answer() for one in starters]
    assert {answer.image for answer in answers} == {answers[0].image}
    assert {answer.code for answer in answers} == {0}
    assert Path(answers[0].image).read_bytes() == sif("cold")
    assert [origin.count(end) for end in (".sif", "latest.txt", ".json")] == [1, 1, 1]
    assert {name.partition("-")[0] for name in bare.names("leases")} == {str(one.pid) for one in starters}


def test_ten_jobs_for_one_url_are_one_fetch(site: Site, origin: Origin) -> None:
    """A URL has no pointer: it is asked for its version once."""
    origin.routes["/a.sif"] = Reply(sif("a"), headers={"ETag": '"1"'})
    release = hold_back(origin, ".sif")
    starters = [holders.start(site, image_ad(f"{origin.url}/a.sif")) for _ in range(10)]
    site.wait_for(lambda: [one["waiting"] for one in site.ask("status")["fetches"]] == [10], "ten waiting jobs")
    release()
    assert {one.answer().code for one in starters} == {0}
    assert (origin.count(".sif"), origin.count(".sif", "HEAD")) == (1, 1)


@pytest.mark.parametrize("whom", ["launcher", "interpreter", "starter"])
def test_a_hook_that_is_killed_while_it_waits_loses_its_interest_and_not_the_fetch(
    bare: Site, origin: Origin, whom: str
) -> None:
    """condor_rm during a fetch: the next job finds the image, and nobody holds it."""
    origin.serve(tree("htc/cold:1", sif("cold")))
    release = hold_back(origin, ".sif")
    starter = holders.start(bare, cvmfs_ad("htc/cold:1"))
    bare.wait_for(lambda: [one["waiting"] for one in bare.ask("status")["fetches"]] == [1], "a waiting job")
    end_of(whom, starter)
    bare.wait_for(lambda: [one["waiting"] for one in bare.ask("status")["fetches"]] == [0], "the end of the interest")
    release()
    bare.wait_for(lambda: bare.ask("status")["entries"], "the entry")
    assert bare.names("leases") == []
    assert bare.run_hook(cvmfs_ad("htc/cold:1")).code == 0
    assert origin.count(".sif") == 1


def end_of(whom: str, starter: holders.Starter) -> None:
    """Kill a part of a job."""
    launcher, interpreter = holders.family(starter)
    if whom == "starter":  # as the startd does it: all of the job's processes
        os.kill(launcher, signal.SIGKILL)
        starter.kill()
    os.kill({"launcher": launcher, "interpreter": interpreter, "starter": interpreter}[whom], signal.SIGKILL)


def test_a_fetch_outlives_the_deadline_of_its_job(bare: Site, origin: Origin) -> None:
    """The next job gets what the first one waited for in vain."""
    origin.serve(tree("htc/cold:1", sif("cold")))
    release = hold_back(origin, ".sif")
    answer = bare.run_hook(cvmfs_ad("htc/cold:1"), "--deadline", "2.3s")
    assert answer.code == 460
    assert "fetch goes on" in answer.message
    release()
    bare.wait_for(lambda: bare.ask("status")["entries"], "the entry")
    answer = bare.run_hook(cvmfs_ad("htc/cold:1"))
    assert answer.code == 0
    assert "cached SIF" in answer.message
    assert origin.count(".sif") == 1


@pytest.mark.parametrize(("name", "reply", "code"), BAD, ids=[row[0] for row in BAD])
def test_a_fetch_that_fails_leaves_nothing_and_is_not_tried_again_at_once(
    shared_site: Site, origin: Origin, name: str, reply: Reply, code: int
) -> None:
    """Nothing in staging, no room taken, no second request; and the next good job is served."""
    site = shared_site
    origin.routes |= {"/bad.sif": reply, "/good.sif": Reply(sif(f"good {name}"))}
    before = (site.ask("status")["used_bytes"], site.names("entries"))
    answers = [site.run_hook(image_ad(f"{origin.url}/bad.sif")) for _ in range(3)]
    assert [answer.code for answer in answers] == [code] * 3, f"{name}: {answers[0].message}"
    assert origin.count("bad.sif") <= (2 if code == 150 else 1)
    assert origin.count("bad.sif", "HEAD") == 1
    site.wait_for(lambda: not site.names("staging") and not site.names("trash"), "an empty staging")
    assert (site.ask("status")["used_bytes"], site.names("entries")) == before
    assert site.run_hook(image_ad(f"{origin.url}/good.sif")).code == 0


def test_a_source_that_does_not_answer_is_asked_once(bare: Site, origin: Origin) -> None:
    """Its failure is remembered, also the pointer's."""
    origin.routes |= {f"/v2/{path}": Reply(status=503) for path in tree("htc/cold:1", sif())}
    assert [bare.run_hook(cvmfs_ad("htc/cold:1")).code for _ in range(3)] == [610] * 3
    assert len(origin.requests) == 1


def test_what_is_too_large_is_not_fetched(make_site: StartSite, origin: Origin) -> None:
    """A promise is enough; where there is none, the server's first words are."""
    site = make_site(IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2", IMAGE_CACHE_MAX_BYTES="100 KB").start()
    origin.serve(tree("htc/large:1", sif("large", 200_000)))
    origin.routes["/large.sif"] = Reply(sif("large", 200_000))
    assert site.run_hook(cvmfs_ad("htc/large:1")).code == 320
    assert origin.count(".sif") == 0
    assert site.run_hook(image_ad(f"{origin.url}/large.sif")).code == 320
    assert origin.count(".sif") <= 1
    assert site.ask("status")["fetched_bytes"] == 0


def test_an_image_of_unknown_size_may_fill_the_cache_to_its_cap(make_site: StartSite, origin: Origin) -> None:
    """Its reservation grows as it comes in, and not beyond what fits."""
    site = make_site(IMAGE_CACHE_MAX_BYTES="3 MB").start()
    origin.routes["/a.sif"] = Reply(sif("a", 2_500_000), length=-1)
    answer = site.run_hook(image_ad(f"{origin.url}/a.sif"))
    assert answer.code == 0, answer.message


def test_a_small_image_of_unknown_size_fits_into_a_small_cache(make_site: StartSite, origin: Origin) -> None:
    """What is not known is not held against it."""
    site = make_site(IMAGE_CACHE_MAX_BYTES="500 KB").start()
    origin.routes["/a.sif"] = Reply(sif("a"), length=-1)
    answer = site.run_hook(image_ad(f"{origin.url}/a.sif"))
    assert answer.code == 0, answer.message


def test_two_urls_of_one_image_are_one_entry(site: Site, origin: Origin) -> None:
    """The digest names it."""
    for name in ("/a.sif", "/b.sif"):
        origin.routes[name] = Reply(sif("same"))
    images = {site.run_hook(image_ad(f"{origin.url}/{name}.sif")).image for name in "ab"}
    assert images == {f"{site.root}/entries/{digest(sif('same'))}.sif/image"}


def test_a_url_whose_content_changes_brings_the_new_content(make_site: StartSite, origin: Origin) -> None:
    """Also when it grew after it was last asked for its size: the user's new file is no broken file."""
    site = make_site(IMAGE_CACHE_TAG_TTL="15m").start()
    origin.routes["/a.sif"] = Reply(sif("new", 8192), head_length=4096)
    answer = site.run_hook(image_ad(f"{origin.url}/a.sif"))
    assert answer.code == 0, answer.message
    assert Path(answer.image).read_bytes() == sif("new", 8192)
