"""One user's job, one server, one broken image: none of them takes an execution point from all the others."""

from __future__ import annotations

import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

import pytest

from tests.contract.block import read_block
from tests.contract.conftest import StartSite
from tests.contract.doubles import Cvmfs, cvmfs_ad, image_ad, job_ad, sif, tree
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


def published(site: Site) -> Path:
    """Return the directory of ROCKY, which is published once."""
    link = site.cvmfs.top / "htc" / "rocky:9"
    if not link.is_symlink():
        site.cvmfs.publish("htc/rocky:9")
    return site.cvmfs.top / link.readlink().relative_to(f"/cvmfs/{site.cvmfs.repository}")


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


def test_no_name_takes_a_tree_from_the_others(make_site: StartSite, origin: Origin) -> None:
    """A tree's objects may lie on different servers, of which one is gone."""
    site = make_site(IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2", IMAGE_CACHE_CVMFS_BASE="/nonexistent").start()
    origin.serve(tree("htc/good:1", sif("good")))
    origin.serve(tree("htc/elsewhere:1", sif()))
    for path in [path for path in origin.routes if "elsewhere" in path]:
        origin.routes[path] = Reply(status=302, headers={"Location": "http://127.0.0.1:1/"})
    assert site.run_hook(cvmfs_ad("htc/elsewhere:1")).code == 610
    assert site.run_hook(cvmfs_ad("htc/good:1")).code == 0


def test_a_storm_of_hooks_is_answered(sturdy: Site) -> None:
    """All slots of a large machine start at once."""
    real = published(sturdy)
    hooks = [sturdy.start_hook(ROCKY) for _ in range(50)]
    answers = [hook.finish() for hook in hooks]
    assert all(answer.runs(real, sandbox=True) for answer in answers)


def test_a_storm_of_signals_is_survived(site: Site) -> None:
    """condor_reconfig in a loop."""
    pid = site.pid
    for _ in range(20):
        site.tell(signal.SIGHUP)
    site.wait_for(lambda: "configuration read again" in site.log_text(), "the configuration being read")
    assert site.run_hook(job_ad()).is_untouched
    assert site.ask("status")["pid"] == pid
    assert site.stop() == 0


def test_a_manager_without_descriptors_serves_again_when_it_has_some(site: Site) -> None:
    """Many connections at once take all that it may open."""
    real = published(site)
    resource.prlimit(site.pid, resource.RLIMIT_NOFILE, (site.descriptors() + 20,) * 2)
    with ExitStack() as stack:
        for _ in range(60):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            site.connect(connection)
            connection.sendall(b"IMGC/1 0 verb=advertise follow=1\n")
        assert site.start_hook(ROCKY, "--deadline", "0.5s").finish().code in {0, 399, 440, 460}
    assert site.run_hook(ROCKY, *SOON).runs(real, sandbox=True)


@contextmanager
def silent_servers() -> Iterator[list[str]]:
    """Servers that take a connection and say nothing."""
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(12)]
        yield [f"http://127.0.0.1:{one.getsockname()[1]}/x.sif" for one in servers]


def test_servers_that_say_nothing_keep_no_other_job_waiting(sturdy: Site) -> None:
    """However many: a job for CVMFS is answered meanwhile."""
    real = published(sturdy)
    before = sturdy.descriptors()
    with silent_servers() as urls:
        waiting = [sturdy.start_hook(image_ad(url), "--deadline", "10s") for url in urls]
        sturdy.wait_for(lambda: sturdy.descriptors() >= before + len(waiting), "the requests")
        assert sturdy.run_hook(ROCKY, "--deadline", "6s").runs(real, sandbox=True)


def test_transfers_that_stand_still_keep_no_other_image_waiting(sturdy: Site, origin: Origin) -> None:
    """However many URLs of jobs do not deliver, another image comes in."""
    names = [f"slow{number}" for number in range(8)]
    origin.routes |= {f"/{name}.sif": Reply(sif(name), gate=Event()) for name in names}
    origin.routes["/good.sif"] = Reply(sif())
    for name in names:
        sturdy.start_hook(image_ad(f"{origin.url}/{name}.sif"))
    sturdy.wait_for(lambda: len(sturdy.ask("status")["fetches"]) == len(names), "the fetches")
    assert sturdy.run_hook(image_ad(f"{origin.url}/good.sif"), "--deadline", "6s").code == 0


def test_names_of_repositories_start_no_process_each(sturdy: Site) -> None:
    """A job may name any repository: those that nobody mounted must not cost a process for ever."""
    for number in range(30):
        block = sturdy.prepare(cvmfs_ad("x:1", f"nowhere{number}.example.org"))
        assert read_block(block)["HookStatusCode"] == 440
    assert len(sturdy.children()) < 10


def test_a_killed_child_of_cvmfs_is_replaced(sturdy: Site) -> None:
    """The out-of-memory killer takes whom it likes."""
    real = published(sturdy)
    assert sturdy.run_hook(cvmfs_ad("htc/nothing:1")).code == 120
    for pid in sturdy.children():
        sturdy.kill_child(pid)
    assert sturdy.run_hook(ROCKY).runs(real, sandbox=True)


def test_hundreds_of_answers_leave_nothing_behind(site: Site) -> None:
    """No descriptor, no process, no lease."""
    site.cvmfs.publish("htc/rocky:9")
    site.prepare(ROCKY)
    before = (site.descriptors(), len(site.children()))
    for _ in range(150):
        assert b"HookStatusCode = 0\n" in site.prepare(ROCKY)
        assert '"status": 0' in site.reports(ROCKY)
    site.wait_for(lambda: (site.descriptors(), len(site.children())) <= before, "as few descriptors as before")
    assert site.names("leases") == []


def test_a_directory_of_images_is_no_image(sturdy: Site) -> None:
    """A job that forgot the image's name would fail here at once, again and again."""
    published(sturdy)
    assert sturdy.run_hook(cvmfs_ad("htc")).code >= 100
