"""latest.txt and manifests: a moving pointer is followed, an unreadable one is replaced by what it last said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from tests.contract.conftest import StartSite
from tests.contract.doubles import ARCH, HTML, VERSION, cvmfs_ad, sif, tree, write
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

NAME = "htc/rocky:9"
NEWER = "20270101T000000Z.sif"
NO_CVMFS = {"IMAGE_CACHE_CVMFS_BASE": "/nonexistent"}

UNREADABLE = (
    ("an HTML page", Reply(HTML)),
    ("a path", Reply(b"../../x.sif\n")),
    ("an absolute URL", Reply(b"http://localhost/x.sif\n")),
    ("two versions", Reply(f"{VERSION}\n{NEWER}\n".encode())),
    ("nothing", Reply(b"")),
    ("bytes", Reply(b"\xff\xfe\0" * 10)),
    ("digits that are no ASCII", Reply("\u0662\u0660260101T000000Z.sif\n".encode())),
    ("64 KiB and more", Reply(b"2" * 70_000)),
    ("a server that is not well", Reply(status=503)),
    ("a server that has enough", Reply(status=429)),
    ("a connection cut", Reply(VERSION.encode(), length=1000)),
)


def pointer(name: str, top: str = "/v2") -> str:
    """Return the path of an image's pointer."""
    return f"{top}/{ARCH}/{name.replace('/', '__').replace(':', '__')}/latest.txt"


@pytest.fixture(scope="module")
def server() -> Iterator[Origin]:
    """Serve HTTP for all tests of this module."""
    with Origin() as one:
        yield one


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory, server: Origin) -> Iterator[Site]:
    """Start a manager that looks at pointers each time, with an image for each case in its cache."""
    knobs = NO_CVMFS | {"IMAGE_CACHE_SIF_SOURCES": f"{server.url}/v2", "IMAGE_CACHE_TAG_TTL": "0"}
    with Site(tmp_path_factory.mktemp("moving"), knobs) as site:
        site.start()
        for number in range(len(UNREADABLE)):
            server.serve(tree(f"htc/case:{number}", sif(f"old {number}")))
            assert site.run_hook(cvmfs_ad(f"htc/case:{number}")).code == 0
        yield site


@pytest.mark.parametrize("end", ["", "\n", "\r\n", " \n\n"])
def test_a_new_version_is_fetched_when_the_pointer_moves(moving: Site, server: Origin, end: str) -> None:
    """However its line ends."""
    name = f"htc/moving:{len(end)}"
    server.serve(tree(name, sif(f"old {end}")))
    assert Path(moving.run_hook(cvmfs_ad(name)).image).read_bytes() == sif(f"old {end}")
    server.serve(tree(name, sif(f"new {end}"), version=NEWER))
    server.routes[pointer(name)] = Reply(f"{NEWER}{end}".encode())
    assert Path(moving.run_hook(cvmfs_ad(name)).image).read_bytes() == sif(f"new {end}")


@pytest.mark.parametrize("comes", [sif("another"), sif("promised") + b"x", HTML], ids=["another", "longer", "HTML"])
def test_the_digest_that_a_tree_published_is_binding(moving: Site, server: Origin, comes: bytes) -> None:
    """Whatever else its server, or what is before it, sends under that name: no job runs it, and it is not kept."""
    name = f"htc/bound:{len(comes)}-{comes[-1]}"
    server.serve(tree(name, sif("promised")))
    server.routes[pointer(name).replace("latest.txt", VERSION)] = Reply(comes)
    before = moving.names("entries")
    answer = moving.run_hook(cvmfs_ad(name))
    assert answer.code == 510, answer.message
    assert moving.names("entries") == before


def test_a_pointer_that_goes_back_in_time_is_followed_and_told(moving: Site, server: Origin) -> None:
    """A publisher may withdraw a version; somebody else may bring an old hole back. Also after a restart."""
    name, old, new = "htc/back:1", sif("old and back"), sif("new and withdrawn")
    server.serve(tree(name, old))
    assert "older" not in moving.run_hook(cvmfs_ad(name)).message
    server.serve(tree(name, new, version=NEWER))
    assert Path(moving.run_hook(cvmfs_ad(name)).image).read_bytes() == new
    server.routes[pointer(name)] = Reply(f"{VERSION}\n".encode())
    told = f"latest.txt names an older version ({VERSION}) than before ({NEWER})"
    for _ in range(2):
        answer = moving.run_hook(cvmfs_ad(name))
        assert Path(answer.image).read_bytes() == old
        assert told in answer.message
        assert any(told in failure for failure in moving.ask("status")["failures"])
        assert told in moving.log_text()
        moving.restart()
    server.serve(tree(name, new, version="20280101T000000Z.sif"))
    assert "older" not in moving.run_hook(cvmfs_ad(name)).message
    assert not any(told in failure for failure in moving.ask("status")["failures"])


@pytest.mark.parametrize("number", range(len(UNREADABLE)), ids=[row[0] for row in UNREADABLE])
def test_a_pointer_that_cannot_be_read_is_replaced_by_what_it_last_said(
    moving: Site, server: Origin, number: int
) -> None:
    """The job runs from the cache, and its message says so."""
    server.routes[pointer(f"htc/case:{number}")] = UNREADABLE[number][1]
    for _ in range(2):
        answer = moving.run_hook(cvmfs_ad(f"htc/case:{number}"))
        assert answer.code == 0, answer.message
        assert Path(answer.image).read_bytes() == sif(f"old {number}")
        assert "could not look for a newer version" in answer.message


def test_what_pointers_last_said_outlives_server_and_manager(make_site: StartSite) -> None:
    """The server's address answers nobody, also after a restart; what was never seen is not there."""
    site = make_site(**NO_CVMFS, IMAGE_CACHE_TAG_TTL="0")
    with Origin() as origin:
        site.configure(IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2")
        origin.serve(tree(NAME, sif("old")))
        site.start()
        assert site.run_hook(cvmfs_ad(NAME)).code == 0
    for _ in range(2):
        answer = site.run_hook(cvmfs_ad(NAME))
        assert answer.code == 0
        assert "could not look for a newer version" in answer.message
        assert site.run_hook(cvmfs_ad("htc/never_seen:1")).code == 610
        site.restart()


def test_a_pointer_is_trusted_for_its_time(make_site: StartSite, origin: Origin) -> None:
    """A new version comes in when it is looked for again, and a running job keeps its own."""
    site = make_site(**NO_CVMFS, IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2", IMAGE_CACHE_TAG_TTL="1h").start()
    origin.serve(tree(NAME, sif("old")))
    images = [site.run_hook(cvmfs_ad(NAME)).image]
    origin.serve(tree(NAME, sif("new"), version=NEWER))
    images.append(site.run_hook(cvmfs_ad(NAME)).image)
    assert images[0] == images[1]
    assert origin.count("latest.txt") == 1
    site.restart()
    assert Path(site.run_hook(cvmfs_ad(NAME)).image).read_bytes() == sif("new")
    assert Path(images[0]).read_bytes() == sif("old")


@pytest.fixture(scope="module")
def two_trees(tmp_path_factory: pytest.TempPathFactory, server: Origin) -> Iterator[Site]:
    """Start a manager with two publication trees."""
    knobs = NO_CVMFS | {"IMAGE_CACHE_SIF_SOURCES": f"{server.url}/first {server.url}/v2"}
    with Site(tmp_path_factory.mktemp("two"), knobs) as site:
        yield site.start()


@pytest.mark.parametrize("status", [404, 403, 503])
def test_the_next_tree_is_asked_when_the_first_does_not_have_it(two_trees: Site, server: Origin, status: int) -> None:
    """A tree is no authority for what it lacks."""
    server.serve(tree(f"htc/lacks:{status}", sif("a")))
    server.routes[pointer(f"htc/lacks:{status}", "/first")] = Reply(status=status)
    assert two_trees.run_hook(cvmfs_ad(f"htc/lacks:{status}")).code == 0


@pytest.mark.parametrize("case", ["unwell", "cut", "html", "absent"])
def test_the_next_tree_is_asked_when_the_first_cannot_deliver(two_trees: Site, server: Origin, case: str) -> None:
    """Also when both promise the same digest."""
    reply = {
        "unwell": Reply(status=503),
        "cut": Reply(sif("cut"), cut=100),
        "html": Reply(HTML),
        "absent": Reply(status=404),
    }[case]
    server.serve(tree(f"htc/both:{case}", sif(case)))
    server.serve(tree(f"htc/both:{case}", sif(case)), "/first")
    server.routes[pointer(f"htc/both:{case}", "/first").replace("latest.txt", VERSION)] = reply
    answer = two_trees.run_hook(cvmfs_ad(f"htc/both:{case}"))
    assert answer.code == 0, answer.message
    assert "instead of" in answer.message


def test_an_image_that_a_tree_has_is_not_called_unpublished(make_site: StartSite, origin: Origin) -> None:
    """CVMFS lacks it, and the tree's pointer names it but cannot deliver now: the job waits, and is not held."""
    site = make_site(IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2").start()
    site.cvmfs.publish(NAME)
    replies = (Reply(status=503), Reply(status=429), Reply(sif("cut"), cut=9), Reply(sif("slow"), gate=Event()))
    for number, reply in enumerate(replies):
        name = f"htc/tree:{number}"
        origin.serve(tree(name, reply.body or sif()))
        origin.routes[pointer(name).replace("latest.txt", VERSION)] = reply
        answer = site.run_hook(cvmfs_ad(name), "--deadline", "2.3s")
        assert answer.code >= 300, answer.message


@pytest.fixture(scope="module")
def in_a_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start a manager with a publication tree that is a directory: `tree` in the site's own."""
    directory = tmp_path_factory.mktemp("directory")
    knobs = NO_CVMFS | {"IMAGE_CACHE_SIF_SOURCES": f"file://{directory}/tree"}
    with Site(directory, knobs) as site:
        (directory / "tree" / ARCH).mkdir(parents=True)
        yield site.start()


def test_a_name_leads_to_no_place_outside_of_the_tree(in_a_directory: Site) -> None:
    """It is read by the manager, who must not be led to files of others."""
    evil = {"latest.txt": f"{VERSION}\n".encode(), VERSION: sif("evil")}
    write(in_a_directory.directory / "evil__9", evil)
    for name in ("%2e%2e%2f%2e%2e%2fevil:9", "..%2f..%2fevil:9", "x?/../../evil:9", "x#y:9"):
        assert in_a_directory.run_hook(cvmfs_ad(name)).code >= 100, name
    assert in_a_directory.names("entries") == []


@pytest.mark.parametrize("file", ["latest.txt", VERSION])
def test_a_tree_that_cannot_be_read_is_the_sources_trouble(in_a_directory: Site, file: str) -> None:
    """Not the cache's: /proc/self/mem stands for a file on a disk that fails (EIO)."""
    name = f"htc/unreadable:{len(file)}"
    write(in_a_directory.directory / "tree", tree(name, sif("a"), manifest=False))
    path = Path(f"{in_a_directory.directory}/tree{pointer(name, '')}").with_name(file)
    path.unlink()
    path.symlink_to("/proc/self/mem")
    answer = in_a_directory.run_hook(cvmfs_ad(name))
    assert answer.code == 610, answer.message
