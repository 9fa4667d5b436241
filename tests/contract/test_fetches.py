"""However many jobs want an image, its origin sees one request; whoever goes away meanwhile, the image comes in."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from tests.contract import holders
from tests.contract.conftest import StartSite
from tests.contract.doubles import HTML, VERSION, cvmfs_ad, digest, image_ad, other_arch, sif, tree, truncated_sif
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


@pytest.fixture(scope="module")
def server() -> Iterator[Origin]:
    """Serve HTTP for all tests of this module."""
    with Origin() as one:
        yield one


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, server: Origin) -> Iterator[Site]:
    """Start a manager with a publication tree and without CVMFS."""
    knobs = {"IMAGE_CACHE_SIF_SOURCES": f"{server.url}/v2", "IMAGE_CACHE_CVMFS_BASE": "/nonexistent"}
    with Site(tmp_path_factory.mktemp("bare"), knobs) as site:
        yield site.start()


def entry(site: Site, seed: str) -> Path:
    """Return the path of the cached `sif(seed)`."""
    return site.root / "entries" / f"{digest(sif(seed))}.sif" / "image"


def waiting(site: Site) -> list[int]:
    """Return how many jobs wait for each fetch."""
    return [one["waiting"] for one in site.ask("status")["fetches"]]


def hold_back(origin: Origin, end: str) -> Callable[[], None]:
    """Have an origin keep back the last byte of a SIF until the returned function is called."""
    gate = Event()
    path = next(path for path in origin.routes if path.endswith(end))
    route = origin.routes[path]
    assert isinstance(route, Reply)
    route.gate = gate
    return gate.set


def test_ten_jobs_for_one_cold_image_are_one_fetch(bare: Site, server: Origin) -> None:
    """One look at the pointer, one SIF, ten leases, each of its own starter."""
    server.serve(tree("htc/ten:1", sif("ten")))
    release = hold_back(server, "htc__ten__1/" + VERSION)
    starters = [holders.start(bare, cvmfs_ad("htc/ten:1")) for _ in range(10)]
    bare.wait_for(lambda: waiting(bare) == [10], "ten waiting jobs")
    release()
    answers = [one.answer() for one in starters]
    assert {answer.image for answer in answers} == {str(entry(bare, "ten"))}
    assert {answer.code for answer in answers} == {0}
    assert entry(bare, "ten").read_bytes() == sif("ten")
    assert [server.count(f"__ten__1/{name}") for name in (VERSION, "latest.txt")] == [1, 1]
    assert {name.partition("-")[0] for name in bare.names("leases")} == {str(one.pid) for one in starters}
    for one in starters:
        one.end()
    bare.wait_for(lambda: not bare.names("leases"), "the end of the leases")


def test_ten_jobs_for_one_url_are_one_fetch(bare: Site, server: Origin) -> None:
    """A URL has no pointer: it is asked for its version once, and when all of it is here for its sum."""
    server.routes["/ten.sif"] = Reply(sif("ten of one url"), headers={"ETag": '"1"'})
    release = hold_back(server, "/ten.sif")
    starters = [holders.start(bare, image_ad(f"{server.url}/ten.sif")) for _ in range(10)]
    bare.wait_for(lambda: waiting(bare) == [10], "ten waiting jobs")
    release()
    assert {one.answer().code for one in starters} == {0}
    assert (server.count("/ten.sif"), server.count("/ten.sif", "HEAD")) == (1, 2)


@pytest.mark.parametrize("whom", ["launcher", "interpreter", "starter"])
def test_a_hook_that_is_killed_while_it_waits_loses_its_interest_and_not_the_fetch(
    bare: Site, server: Origin, whom: str
) -> None:
    """condor_rm during a fetch: the next job finds the image, and nobody holds it."""
    name = f"htc/killed_{whom}:1"
    server.serve(tree(name, sif(whom)))
    release = hold_back(server, f"{whom}__1/{VERSION}")
    starter = holders.start(bare, cvmfs_ad(name))
    bare.wait_for(lambda: waiting(bare) == [1], "a waiting job")
    end_of(whom, starter)
    bare.wait_for(lambda: waiting(bare) == [0], "the end of the interest")
    release()
    bare.wait_for(entry(bare, whom).exists, "the entry")
    assert not [one for one in bare.names("leases") if one.startswith(f"{starter.pid}-")]
    assert bare.run_hook(cvmfs_ad(name)).code == 0
    assert server.count(f"{whom}__1/{VERSION}") == 1


def end_of(whom: str, starter: holders.Starter) -> None:
    """Kill a part of a job."""
    launcher, interpreter = holders.family(starter)
    if whom == "starter":  # as the startd does it: all of the job's processes
        os.kill(launcher, signal.SIGKILL)
        starter.kill()
    os.kill({"launcher": launcher, "interpreter": interpreter, "starter": interpreter}[whom], signal.SIGKILL)


def test_a_fetch_outlives_the_deadline_of_its_job(bare: Site, server: Origin) -> None:
    """The next job gets what the first one waited for in vain."""
    server.serve(tree("htc/late:1", sif("late")))
    release = hold_back(server, f"late__1/{VERSION}")
    answer = bare.run_hook(cvmfs_ad("htc/late:1"), "--deadline", "2.3s")
    assert answer.code == 460
    assert "fetch goes on" in answer.message
    release()
    bare.wait_for(entry(bare, "late").exists, "the entry")
    answer = bare.run_hook(cvmfs_ad("htc/late:1"))
    assert answer.code == 0
    assert "cached SIF" in answer.message
    assert server.count(f"late__1/{VERSION}") == 1


@pytest.mark.parametrize(("name", "reply", "code"), BAD, ids=[row[0] for row in BAD])
def test_a_fetch_that_fails_leaves_nothing_and_is_not_tried_again_at_once(
    shared_site: Site, origin: Origin, name: str, reply: Reply, code: int
) -> None:
    """Nothing in staging, no room taken, no request but one more attempt; and the next good job is served."""
    site = shared_site
    origin.routes |= {"/bad.sif": reply, "/good.sif": Reply(sif(f"good {name}"))}
    before = (site.ask("status")["used_bytes"], site.names("entries"))
    answers = [site.run_hook(image_ad(f"{origin.url}/bad.sif")) for _ in range(3)]
    assert [answer.code for answer in answers] == [code] * 3, f"{name}: {answers[0].message}"
    assert origin.count("bad.sif") <= (2 if code == 150 or name == "cut off" else 1)
    # once to know it, and once for the server's sum of each thing that came whole and is no image
    assert origin.count("bad.sif", "HEAD") == (3 if code == 150 else 1)
    site.wait_for(lambda: not site.names("staging") and not site.names("trash"), "an empty staging")
    assert (site.ask("status")["used_bytes"], site.names("entries")) == before
    assert site.run_hook(image_ad(f"{origin.url}/good.sif")).code == 0


def test_a_source_that_does_not_answer_is_asked_once(bare: Site, server: Origin) -> None:
    """Its failure is remembered, also the pointer's."""
    server.routes |= {f"/v2/{path}": Reply(status=503) for path in tree("htc/unwell:1", sif())}
    assert [bare.run_hook(cvmfs_ad("htc/unwell:1")).code for _ in range(3)] == [610] * 3
    assert len([path for _, path in server.requests if "unwell" in path]) == 1


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


def test_two_urls_of_one_image_are_one_entry(shared_site: Site, origin: Origin) -> None:
    """The digest names it."""
    site = shared_site
    for name in ("/a.sif", "/b.sif"):
        origin.routes[name] = Reply(sif("same"))
    images = {site.run_hook(image_ad(f"{origin.url}/{name}.sif")).image for name in "ab"}
    assert images == {str(entry(site, "same"))}


def test_a_url_whose_content_changes_brings_the_new_content(shared_site: Site, origin: Origin) -> None:
    """Also when it grew after it was last asked for its size: the user's new file is no broken file."""
    origin.routes["/a.sif"] = Reply(sif("new", 8192), head_length=4096)
    answer = shared_site.run_hook(image_ad(f"{origin.url}/a.sif"))
    assert answer.code == 0, answer.message
    assert Path(answer.image).read_bytes() == sif("new", 8192)
