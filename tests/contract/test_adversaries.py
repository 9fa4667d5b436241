"""One user's job, one server, one broken image: none of them takes an execution point from all the others."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Event

import pytest

from tests.contract.block import read_block
from tests.contract.doubles import Cvmfs, cvmfs_ad, image_ad, job_ad, sif
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

SOON = ("--deadline", "8s")
ROCKY = cvmfs_ad("htc/rocky:9")

BOMBS = (
    ("half a million blanks and no value", job_ad("A =" + " " * 500_000)),
    ("half a million blanks in front of a value", job_ad("A =" + " " * 500_000 + "1", "SingularityImage = A")),
    ("half a million blanks in front of an equals sign", job_ad("A" + " " * 500_000 + "= 1")),
    ("half a million blanks and a vertical tab", job_ad("A = 1" + " " * 500_000 + "\x0b")),
    ("half a million quotes", job_ad("SingularityImage = " + '"' * 500_000)),
    ("half a million backslashes", job_ad('SingularityImage = "' + "\\" * 500_000 + '"')),
    ("a hundred thousand brackets", job_ad(f"SingularityImage = {'(' * 100_000}1{')' * 100_000}")),
    ("a hundred thousand braces", job_ad(f"SingularityImage = {'{' * 100_000}1{'}' * 100_000}")),
    ("a hundred thousand negations", job_ad(f"SingularityImage = {'!' * 100_000}true")),
    ("an expression that asks itself", job_ad("SingularityImage = SingularityImage")),
    ("two that ask each other", job_ad("A = B", "B = A", "SingularityImage = A")),
    (
        "a chain of ten thousand",
        job_ad("A0 = 1", *(f"A{n} = A{n - 1} + 1" for n in range(1, 10_000)), "SingularityImage = A9999"),
    ),
    (
        "a tree of 2^40 leaves",
        job_ad("A0 = true", *(f"A{n} = A{n - 1} && A{n - 1}" for n in range(1, 41)), "SingularityImage = A40"),
    ),
    (
        "a text of 2^40 bytes",
        job_ad('A0 = "x"', *(f"A{n} = strcat(A{n - 1}, A{n - 1})" for n in range(1, 41)), "SingularityImage = A40"),
    ),
    ("a pattern that backtracks", job_ad(f'SingularityImage = regexps("^(a+)+$", "{"a" * 40}b", "x")')),
    ("thirty thousand attributes", job_ad(*(f"A{n} = {n}" for n in range(30_000)), "SingularityImage = strcat(A1)")),
)


NAMES = (
    "x" * 300,
    "x/" * 100 + "y",
    "loop:1",
    "../x",
    "htc",
    "htc/rocky:9/bin/nothing",
    "htc/file:1",
    "htc/file:1/x",
    ".",
)

REPLIES = (
    ("closes without an answer", Reply(status=0)),
    ("leads to nobody", Reply(status=302, headers={"Location": "http://127.0.0.1:1/"})),
    ("leads in a circle", Reply(status=302, headers={"Location": "/bad.sif"})),
    ("is not well", Reply(status=503)),
    ("closes early", Reply(sif(), cut=100)),
)


@pytest.fixture
def sturdy(shared_site: Site) -> Site:
    """Return a site whose manager may not take all memory; a new one, if the last test brought it down."""
    if shared_site.manager is None or shared_site.manager.poll() is not None:
        shared_site.start()
    shared_site.limit_memory(4 << 30)
    return shared_site


@pytest.mark.parametrize(("name", "ad"), BOMBS, ids=[row[0] for row in BOMBS])
def test_no_ad_stops_the_manager(sturdy: Site, name: str, ad: str) -> None:
    """It is answered, and so is the next job, while the manager stays the same process."""
    pid = sturdy.pid
    sturdy.log.write_text("", encoding="utf-8")
    bomb = sturdy.start_hook(ad, *SOON)
    assert sturdy.run_hook(job_ad(), *SOON).is_untouched, name
    assert bomb.finish().code != 460
    assert sturdy.ask("status")["pid"] == pid
    assert "Traceback" not in sturdy.log_text()


@pytest.mark.parametrize("name", NAMES)
def test_no_name_takes_a_cvmfs_repository_from_the_others(sturdy: Site, name: str) -> None:
    """What is wrong with one image is not wrong with the repository."""
    repository = f"repository{NAMES.index(name)}.example.org"
    cvmfs = Cvmfs(sturdy.cvmfs.base, repository)
    real = cvmfs.publish("htc/rocky:9")
    cvmfs.link("loop:1", "loop:1")
    (cvmfs.top / "htc" / "file:1").write_bytes(b"text")
    sturdy.run_hook(image_ad(f"/cvmfs/{repository}/{name}"))
    assert sturdy.run_hook(cvmfs_ad("htc/rocky:9", repository)).runs(real, sandbox=True)


@pytest.mark.parametrize(("name", "reply"), REPLIES, ids=[row[0] for row in REPLIES])
def test_no_url_takes_a_server_from_the_others(sturdy: Site, origin: Origin, name: str, reply: Reply) -> None:
    """A server that answers badly for one URL is still there for another."""
    origin.routes |= {"/bad.sif": reply, "/good.sif": Reply(sif())}
    assert sturdy.run_hook(image_ad(f"{origin.url}/bad.sif")).code == 610, name
    assert sturdy.run_hook(image_ad(f"{origin.url}/good.sif")).code == 0


@contextmanager
def silent_servers() -> Iterator[list[str]]:
    """Servers that take a connection and say nothing."""
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(12)]
        yield [f"http://127.0.0.1:{one.getsockname()[1]}/x.sif" for one in servers]


def test_servers_that_say_nothing_keep_no_other_job_waiting(site: Site) -> None:
    """However many: a job for CVMFS is answered meanwhile."""
    real = site.cvmfs.publish("htc/rocky:9")
    before = site.descriptors()
    with silent_servers() as urls:
        waiting = [site.start_hook(image_ad(url), "--deadline", "10s") for url in urls]
        site.wait_for(lambda: site.descriptors() >= before + len(waiting), "the requests")
        assert site.run_hook(ROCKY, "--deadline", "6s").runs(real, sandbox=True)


def test_transfers_that_stand_still_keep_no_other_image_waiting(site: Site, origin: Origin) -> None:
    """However many URLs of jobs do not deliver, another image comes in."""
    names = [f"slow{number}" for number in range(8)]
    origin.routes |= {f"/{name}.sif": Reply(sif(name), gate=Event()) for name in names}
    origin.routes["/good.sif"] = Reply(sif())
    for name in names:
        site.start_hook(image_ad(f"{origin.url}/{name}.sif"))
    site.wait_for(lambda: len(site.ask("status")["fetches"]) == len(names), "the fetches")
    assert site.run_hook(image_ad(f"{origin.url}/good.sif"), "--deadline", "6s").code == 0


def test_names_of_repositories_start_no_process_each(site: Site) -> None:
    """A job may name any repository: those that nobody mounted must not cost a process for ever."""
    for number in range(30):
        block = site.prepare(cvmfs_ad("x:1", f"nowhere{number}.example.org"))
        assert read_block(block)["HookStatusCode"] == 440
    assert len(site.children()) < 10


def test_a_killed_child_of_cvmfs_is_replaced(site: Site) -> None:
    """The out-of-memory killer takes whom it likes."""
    real = site.cvmfs.publish("htc/rocky:9")
    assert site.run_hook(cvmfs_ad("htc/nothing:1")).code == 120
    for pid in site.children():
        site.kill_child(pid)
    assert site.run_hook(ROCKY).runs(real, sandbox=True)


def test_a_thousand_answers_leave_nothing_behind(site: Site) -> None:
    """No descriptor, no process, no lease."""
    site.cvmfs.publish("htc/rocky:9")
    site.prepare(ROCKY)
    before = (site.descriptors(), len(site.children()))
    for _ in range(500):
        assert b"HookStatusCode = 0\n" in site.prepare(ROCKY)
        assert '"status": 0' in site.reports(ROCKY)
    site.wait_for(lambda: (site.descriptors(), len(site.children())) <= before, "as few descriptors as before")
    assert site.names("leases") == []


def test_a_directory_of_images_is_no_image(site: Site) -> None:
    """A job that forgot the image's name would fail here at once, again and again."""
    site.cvmfs.publish("htc/rocky:9")
    assert site.run_hook(cvmfs_ad("htc")).code >= 100
