"""latest.txt and manifests: a moving pointer is followed, an unreadable one is replaced by what it last said."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from tests.contract.conftest import StartSite
from tests.contract.doubles import ARCH, HTML, VERSION, cvmfs_ad, sif, tree, write
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

NAME = "htc/rocky:9"
POINTER = f"/v2/{ARCH}/htc__rocky__9/latest.txt"
NEWER = "20270101T000000Z.sif"

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


@pytest.fixture
def moving(make_site: StartSite, origin: Origin) -> Site:
    """A site that looks at pointers each time, with one image in its cache."""
    knobs = {"IMAGE_CACHE_SIF_SOURCES": f"{origin.url}/v2", "IMAGE_CACHE_CVMFS_BASE": "/nonexistent"}
    site = make_site(**knobs, IMAGE_CACHE_TAG_TTL="0").start()
    origin.serve(tree(NAME, sif("old")))
    answer = site.run_hook(cvmfs_ad(NAME))
    assert Path(answer.image).read_bytes() == sif("old")
    return site


@pytest.mark.parametrize("end", ["", "\n", "\r\n", " \n\n"])
def test_a_new_version_is_fetched_when_the_pointer_moves(moving: Site, origin: Origin, end: str) -> None:
    """However its line ends."""
    origin.serve(tree(NAME, sif("new"), version=NEWER))
    origin.routes[POINTER] = Reply(f"{NEWER}{end}".encode())
    answer = moving.run_hook(cvmfs_ad(NAME))
    assert Path(answer.image).read_bytes() == sif("new")
    assert len(moving.names("entries")) == 2


@pytest.mark.parametrize(("name", "reply"), UNREADABLE, ids=[row[0] for row in UNREADABLE])
def test_a_pointer_that_cannot_be_read_is_replaced_by_what_it_last_said(
    moving: Site, origin: Origin, name: str, reply: Reply
) -> None:
    """The job runs from the cache, and its message says so; also after a restart."""
    origin.routes[POINTER] = reply
    for _ in range(2):
        answer = moving.run_hook(cvmfs_ad(NAME))
        assert answer.code == 0, f"{name}: {answer.message}"
        assert Path(answer.image).read_bytes() == sif("old")
        assert "could not look for a newer version" in answer.message
        moving.restart()
    assert origin.count(".sif") == 1


def test_a_server_that_is_gone_costs_no_job_that_is_in_the_cache(make_site: StartSite) -> None:
    """Its address answers nobody."""
    site = make_site(IMAGE_CACHE_CVMFS_BASE="/nonexistent", IMAGE_CACHE_TAG_TTL="0")
    with Origin() as origin:
        site.configure(IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2")
        origin.serve(tree(NAME, sif("old")))
        site.start()
        assert site.run_hook(cvmfs_ad(NAME)).code == 0
    answer = site.run_hook(cvmfs_ad(NAME))
    assert answer.code == 0
    assert "could not look for a newer version" in answer.message
    assert site.run_hook(cvmfs_ad("htc/never_seen:1")).code == 610


def test_a_pointer_is_trusted_for_its_time(make_site: StartSite, origin: Origin) -> None:
    """A new version comes in when it is looked for again, and a running job keeps its own."""
    knobs = {"IMAGE_CACHE_SIF_SOURCES": f"{origin.url}/v2", "IMAGE_CACHE_CVMFS_BASE": "/nonexistent"}
    site = make_site(**knobs, IMAGE_CACHE_TAG_TTL="1h").start()
    origin.serve(tree(NAME, sif("old")))
    images = [site.run_hook(cvmfs_ad(NAME)).image]
    origin.serve(tree(NAME, sif("new"), version=NEWER))
    images.append(site.run_hook(cvmfs_ad(NAME)).image)
    assert images[0] == images[1]
    assert origin.count("latest.txt") == 1
    site.restart()
    assert Path(site.run_hook(cvmfs_ad(NAME)).image).read_bytes() == sif("new")
    assert Path(images[0]).read_bytes() == sif("old")


@pytest.mark.parametrize("status", [404, 403, 503])
def test_the_next_tree_is_asked_when_the_first_does_not_have_it(
    make_site: StartSite, origin: Origin, status: int
) -> None:
    """A tree is no authority for what it lacks."""
    sources = f"{origin.url}/first {origin.url}/v2"
    site = make_site(IMAGE_CACHE_SIF_SOURCES=sources, IMAGE_CACHE_CVMFS_BASE="/nonexistent").start()
    origin.serve(tree(NAME, sif("a")))
    origin.routes[f"/first/{ARCH}/htc__rocky__9/latest.txt"] = Reply(status=status)
    assert site.run_hook(cvmfs_ad(NAME)).code == 0


@pytest.mark.parametrize("reply", [Reply(status=503), Reply(sif("cut"), cut=100), Reply(HTML), Reply(status=404)])
def test_the_next_tree_is_asked_when_the_first_cannot_deliver(
    make_site: StartSite, origin: Origin, reply: Reply
) -> None:
    """Also when both promise the same digest."""
    sources = f"{origin.url}/first {origin.url}/v2"
    site = make_site(IMAGE_CACHE_SIF_SOURCES=sources, IMAGE_CACHE_CVMFS_BASE="/nonexistent").start()
    origin.serve(tree(NAME, sif("a")))
    origin.serve(tree(NAME, sif("a")), "/first")
    origin.routes[f"/first/{ARCH}/htc__rocky__9/{VERSION}"] = reply
    answer = site.run_hook(cvmfs_ad(NAME))
    assert answer.code == 0, answer.message
    assert "instead of" in answer.message


@pytest.mark.parametrize("reply", [Reply(status=503), Reply(status=429), Reply(sif("a"), gate=Event())])
def test_an_image_that_a_tree_has_is_not_called_unpublished(make_site: StartSite, origin: Origin, reply: Reply) -> None:
    """CVMFS lacks it, and the tree's pointer names it but cannot deliver now: the job waits, and is not held."""
    site = make_site(IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2").start()
    site.cvmfs.publish("htc/alma:9")
    origin.serve(tree(NAME, sif("a")))
    origin.routes[f"/v2/{ARCH}/htc__rocky__9/{VERSION}"] = reply
    answer = site.run_hook(cvmfs_ad(NAME), "--deadline", "2.5s")
    assert answer.code >= 300, answer.message


def test_a_name_leads_to_no_place_outside_of_the_tree(make_site: StartSite, tmp_path: Path) -> None:
    """A tree in a directory is read by the manager, who must not be led to files of others."""
    write(tmp_path / "evil__9", {"latest.txt": f"{VERSION}\n".encode(), VERSION: sif("evil")})
    knobs = {"IMAGE_CACHE_SIF_SOURCES": f"file://{tmp_path}/tree", "IMAGE_CACHE_CVMFS_BASE": "/nonexistent"}
    site = make_site(**knobs).start()
    (tmp_path / "tree" / ARCH).mkdir(parents=True)
    for name in ("%2e%2e%2f%2e%2e%2fevil:9", "..%2f..%2fevil:9", "x?/../../evil:9", "x#y:9"):
        assert site.run_hook(cvmfs_ad(name)).code >= 100, name
    assert site.names("entries") == []


@pytest.mark.parametrize("file", ["latest.txt", VERSION])
def test_a_tree_that_cannot_be_read_is_the_sources_trouble(make_site: StartSite, tmp_path: Path, file: str) -> None:
    """Not the cache's: /proc/self/mem stands for a file on a disk that fails (EIO)."""
    knobs = {"IMAGE_CACHE_SIF_SOURCES": f"file://{tmp_path}/tree", "IMAGE_CACHE_CVMFS_BASE": "/nonexistent"}
    site = make_site(**knobs).start()
    write(tmp_path / "tree", tree(NAME, sif("a"), manifest=False))
    path = tmp_path / "tree" / ARCH / "htc__rocky__9" / file
    path.unlink()
    path.symlink_to("/proc/self/mem")
    answer = site.run_hook(cvmfs_ad(NAME))
    assert answer.code == 610, answer.message
