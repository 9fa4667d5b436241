"""One user would have the manager for themselves: whatever they do, another user's job is answered meanwhile.

Nothing is timed here (`make bench` measures): the other's answer has to come while the attack still goes on.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Final

import pytest

from tests.contract import holders
from tests.contract.conftest import StartSite
from tests.contract.doubles import cvmfs_ad, image_ad, job_ad, sif, tree
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply
from tests.contract.processes import PATIENCE_S

PROGRAM: Final = Path(__file__).with_name("attack.py")
OTHER: Final = 31991
"""A uid that is nobody's: the attacker's, where the tests run as root."""

ROCKY: Final = cvmfs_ad("htc/rocky:9")
LASTS: Final = job_ad(
    f'A0 = regexp("(a*)*(a*)*(a*)*b", "{"a" * 2000}") is true', f"SingularityImage = strcat({', '.join(['A0'] * 1000)})"
)
"""A pattern that backtracks until its library gives up, a thousand times: minutes. classad2 bounds steps, not time."""

GROWS: Final = job_ad(
    f'A0 = "{"x" * 1000}"',
    *(f"A{number} = strcat({', '.join([f'A{number - 1}'] * 50)})" for number in range(1, 7)),
    "SingularityImage = A6",
)
"""A text of 15 TB."""

LARGE: Final = job_ad(
    'SingularityImage = "/cvmfs/x.example.org/y"', *(f"A{number} = {number}" for number in range(60_000))
)


@contextmanager
def attack(site: Site, kind: str, count: int, ad: str = "", uid: int = OTHER) -> Iterator[subprocess.Popen[bytes]]:
    """Have a user attack within this block; nobody stops them."""
    argv = [sys.executable, "-IS", str(PROGRAM), str(uid), str(site.socket), kind, str(count)]
    process = site.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(ad.encode())
    process.stdin.close()
    assert process.stdout.readline() == b"begun\n", "the attack did not begin"
    try:
        yield process
        assert process.poll() is None, "the attack ended by itself"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def ep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start a manager with one image, and with descriptors as an EP has them: soft 1,024."""
    with Site(tmp_path_factory.mktemp("starved")) as site:
        site.cvmfs.publish("htc/rocky:9")
        yield site.start()


def image_is_served(site: Site) -> bool:
    """Whether a job of another user gets its image."""
    answer = site.run_hook(ROCKY, "--deadline", "15s")
    return answer.code == 0 and "/.images/" in answer.image


CONNECTIONS: Final = (
    ("idle", 1000),
    ("idle", 2000),
    ("slow", 1000),
    ("half a header", 1000),
    ("half a body", 1000),
    ("half-closed", 200),
    ("deaf", 1000),
    ("following", 1000),
)


@pytest.mark.parametrize(("kind", "count"), CONNECTIONS, ids=[f"{count} {kind}" for kind, count in CONNECTIONS])
@pytest.mark.parametrize("uid", [OTHER, os.geteuid()], ids=["of another user", "of the same user, as in a pilot"])
def test_connections_that_want_nothing_keep_nobody_waiting(ep: Site, kind: str, count: int, uid: int) -> None:
    """Idle ones, a byte now and then, half-closed, and those that never read their answer."""
    with attack(ep, kind, count, uid=uid):
        assert all(image_is_served(ep) for _ in range(3))
    ep.wait_for(lambda: ep.ask("status")["descriptors"] < 100, "the end of the connections")


def test_the_manager_may_open_what_the_kernel_allows(ep: Site) -> None:
    """The soft limit is often 1,024: fewer than one user's connections."""
    soft, hard = resource.prlimit(ep.pid, resource.RLIMIT_NOFILE)
    assert soft == min(hard, 65536)


FLOODS: Final = (
    ("job that names no image", "asking", job_ad()),
    ("job for an image", "asking", ROCKY),
    ("ad of a million bytes", "asking", LARGE),
    ("question what would be done", "explaining", ROCKY),
    ("expression that takes minutes", "asking", LASTS),
    ("expression that takes all memory", "asking", GROWS),
    ("broken ad", "asking", "garbage\n" * 10_000),
)


@pytest.mark.parametrize(("name", "kind", "ad"), FLOODS, ids=[row[0] for row in FLOODS])
@pytest.mark.parametrize("uid", [OTHER, os.geteuid()], ids=["of another user", "of the same user, as in a pilot"])
def test_a_flood_of_requests_keeps_nobody_waiting(ep: Site, name: str, kind: str, ad: str, uid: int) -> None:
    """Two hundred connections that ask again as soon as they were answered."""
    del name
    pid = ep.pid
    with attack(ep, kind, 200, ad, uid):
        assert all(image_is_served(ep) for _ in range(5))
    assert ep.ask("status")["pid"] == pid
    assert "Traceback" not in ep.log_text()


@pytest.mark.parametrize("ad", [LASTS, GROWS], ids=["time", "memory"])
def test_an_expression_that_takes_too_much_sends_its_job_back_by_name(ep: Site, ad: str) -> None:
    """The job goes back to idle, and its author reads which attribute it was."""
    answer = ep.run_hook(ad)
    assert (answer.code, answer.message[:35]) == (399, "SingularityImage: its expression ta"), answer.message


def test_an_ordinary_expression_is_evaluated(ep: Site) -> None:
    """As before, whoever does it; with the slot's values, and large ads too."""
    ad = job_ad('SingularityImage = strcat("/cvmfs/singularity.opensciencegrid.org/htc/", TARGET.Wanted)')
    answer = ep.run_hook(ad, machine_ad='Wanted = "rocky:9"\n')
    assert answer.code == 0, answer.message
    assert "/.images/" in answer.image
    large = ROCKY + "".join(f"A{number} = {number}\n" for number in range(20_000))
    assert ep.run_hook(large).image == answer.image


def test_children_that_are_killed_are_replaced(ep: Site) -> None:
    """The out-of-memory killer takes whom it likes."""
    ad = job_ad('SingularityImage = strcat("/cvmfs/singularity.opensciencegrid.org/", "htc/rocky:9")')
    assert ep.run_hook(ad).code == 0
    for pid in ep.children():
        ep.kill_child(pid)
    assert ep.run_hook(ad).code == 0
    assert len(ep.children()) < 10


def test_fetches_that_stand_still_keep_another_owners_image_waiting_no_longer(site: Site, origin: Origin) -> None:
    """However many: they wait for one another, and are done in their turn."""
    names = [f"slow{number}" for number in range(80)]
    gate = Event()
    origin.routes |= {f"/{name}.sif": Reply(sif(name), gate=gate) for name in names}
    origin.routes["/good.sif"] = Reply(sif())
    eve = [site.start_hook(image_ad(f"{origin.url}/{name}.sif").replace('"joe"', '"eve"')) for name in names]
    site.wait_for(lambda: sum(one["queued"] for one in site.ask("status")["fetches"]) == 64, "the queue")
    assert site.run_hook(image_ad(f"{origin.url}/good.sif")).code == 0
    # what eve waits for is not hers alone: joe gets it at his own expense
    joe = site.start_hook(image_ad(f"{origin.url}/slow79.sif"))
    site.wait_for(lambda: origin.count("/slow79.sif"), "the fetch for joe")
    assert sum(one["queued"] for one in site.ask("status")["fetches"]) == 63
    gate.set()
    assert joe.finish().code == 0
    assert {hook.finish().code for hook in eve} == {0}


def test_an_owner_above_the_share_gives_up_own_images_first(make_site: StartSite, origin: Origin) -> None:
    """A job of another owner finds its image again, although it is the one that was longest not used."""
    site = make_site(
        IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2", IMAGE_CACHE_CVMFS_BASE="/nonexistent", IMAGE_CACHE_MAX_BYTES="1 MB"
    ).start()
    names = [f"htc/n{number}:1" for number in range(20)]
    for name in names:
        origin.serve(tree(name, sif(name, 100_000)))

    def run(name: str, owner: str) -> str:
        """Run a job to its end, and return what it was told."""
        starter = holders.start(site, cvmfs_ad(name).replace('"joe"', f'"{owner}"'))
        answer = starter.answer()
        starter.end()
        site.wait_for(lambda: not site.ask("status")["leases"], "the end of the lease")
        assert answer.code == 0, answer.message
        return answer.message

    run(names[0], "joe")
    for name in names[1:]:
        run(name, "eve")
    assert "cached SIF" in run(names[0], "joe")
    owners = re.findall(r'"owner": "\d+ (\w+)"', site.all_text())
    assert sorted(set(owners)) == ["eve", "joe"]
    # once another owner has used it, it is everybody's
    assert "cached SIF" in run(names[-1], "joe")
    assert site.all_text().count('"owner": ""') == 1


def test_patience_is_longer_than_any_limit_here() -> None:
    """A job's deadline in these tests is beyond what an attack may take."""
    assert PATIENCE_S > 15
