"""What the child says of a CVMFS repository, here a directory that looks like one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cache_manager.sources import cvmfs_child
from cache_manager.sources.cvmfs_child import OneImage

REPO = "images.example"
REAL = ".images/ab/cdef"


@pytest.fixture
def base(tmp_path: Path) -> str:
    """Return a base with one repository: a real image, and nothing that leads to it yet."""
    image = tmp_path / REPO / REAL
    (image / "usr").mkdir(parents=True)
    (tmp_path / REPO / "htc").mkdir()
    (tmp_path / REPO / "README").write_text("a known object")
    return str(tmp_path)


def link(base: str, name: str, target: str) -> None:
    """Make a link in the repository."""
    path = Path(base, REPO, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "target",
    [
        f"/cvmfs/{REPO}/{REAL}",
        f"/cvmfs/{REPO}/{REAL}/",
        f"../{REAL}",
        f"./../htc/../{REAL}",
        f"/cvmfs/{REPO}/htc/../{REAL}",
        f"/cvmfs/{REPO}//.images/./ab/cdef",
        "{base}/" + f"{REPO}/{REAL}",
        "second",
        "chain0",
    ],
)
def test_every_link_is_followed_to_the_digest(base: str, target: str) -> None:
    """A retag does not move a running job; links say /cvmfs wherever the repository is mounted."""
    link(base, "htc/rocky:9", target.replace("{base}", base))
    link(base, "htc/second", f"/cvmfs/{REPO}/htc/third")
    link(base, "htc/third", f"../{REAL}")
    for number in range(15):
        link(base, f"htc/chain{number}", f"chain{number + 1}")
    link(base, "htc/chain15", f"/cvmfs/{REPO}/{REAL}")
    assert cvmfs_child.resolve(base, REPO, "htc/rocky:9") == f"{base}/{REPO}/{REAL}"
    found = cvmfs_child.answer(base, REPO, "htc/rocky:9")
    assert found == {"state": "located", "path": f"{base}/{REPO}/{REAL}", "sandbox": True}


def test_a_link_in_the_middle_of_a_name_is_followed_too(base: str) -> None:
    """Repositories have directories by another name."""
    link(base, "osg", "htc")
    link(base, "htc/rocky:9", f"/cvmfs/{REPO}/{REAL}")
    assert cvmfs_child.resolve(base, REPO, "osg//./rocky:9/") == f"{base}/{REPO}/{REAL}"


@pytest.mark.parametrize(
    "target",
    [
        "/etc",
        "/",
        "/cvmfs/other.example/x",
        f"/cvmfs/{REPO}.evil.example/x",
        f"/cvmfs/{REPO}/../other.example/x",
        "../../etc",
        "../../../../../../etc",
        "{base}/other.example",
        "{base}",
    ],
)
def test_a_link_out_of_the_repository_is_not_followed(base: str, target: str) -> None:
    """The publisher's error must not become a directory of this EP; the repository itself is well."""
    Path(base, "other.example", "x").mkdir(parents=True)
    link(base, "htc/rocky:9", target.replace("{base}", base))
    with pytest.raises(OneImage):
        cvmfs_child.resolve(base, REPO, "htc/rocky:9")
    found = cvmfs_child.answer(base, REPO, "htc/rocky:9")
    assert (found["state"], found["image"]) == ("unwell", True)
    assert "leads out of the repository" in str(found["why"])


@pytest.mark.parametrize("path", ["..", "../other.example/x", "htc/../../other.example"])
def test_a_name_cannot_leave_the_repository(base: str, path: str) -> None:
    """Whoever asks."""
    with pytest.raises(OneImage):
        cvmfs_child.resolve(base, REPO, path)


def loop(base: str) -> str:
    """Make a link to itself."""
    link(base, "htc/loop", "loop")
    return "htc/loop"


def two_loops(base: str) -> str:
    """Make two links to one another."""
    link(base, "htc/one", f"/cvmfs/{REPO}/htc/two")
    link(base, "htc/two", "one")
    return "htc/one"


def long_chain(base: str) -> str:
    """Make more links than a kernel follows."""
    for number in range(50):
        link(base, f"htc/c{number}", f"c{number + 1}")
    return "htc/c0"


def growing_loop(base: str) -> str:
    """Make a link that makes the path longer each time."""
    link(base, "htc/grows", "grows/and/grows")
    return "htc/grows"


def long_component(_base: str) -> str:
    """Name more than a file name may have."""
    return "htc/" + "a" * 300


def long_path(_base: str) -> str:
    """Name more than a path may have."""
    return "/".join(["a" * 200] * 30)


def long_target(base: str) -> str:
    """Make a link to a name that no file can have."""
    link(base, "htc/long", "b" * 300)
    return "htc/long"


def dangling(base: str) -> str:
    """Make a link to what is not there."""
    link(base, "htc/dangling", f"/cvmfs/{REPO}/.images/00/00")
    return "htc/dangling"


def through_a_file(base: str) -> str:
    """Make a link through a file."""
    link(base, "htc/file", "../README/x")
    return "htc/file"


def empty_directory(base: str) -> str:
    """Make an image without a file."""
    Path(base, REPO, "htc", "empty").mkdir()
    return "htc/empty"


def text_file(_base: str) -> str:
    """Name a file that is no image."""
    return "README"


def empty_file(base: str) -> str:
    """Make an empty file."""
    Path(base, REPO, "htc", "nothing").touch()
    return "htc/nothing"


BROKEN = [loop, two_loops, long_chain, growing_loop, long_component, long_path, long_target, dangling]


@pytest.mark.parametrize("make", [*BROKEN, through_a_file, empty_directory, text_file, empty_file])
def test_what_is_wrong_with_one_image_says_nothing_of_the_repository(base: str, make: object) -> None:
    """One job's typing error, or one bad publication, must not switch CVMFS off for all jobs of the EP."""
    assert callable(make)
    found = cvmfs_child.answer(base, REPO, make(base))
    assert found["state"] == "absent" or found.get("image") is True
    assert found["state"] != "located"
    assert cvmfs_child.answer(base, REPO, "") == {"state": "healthy"}


def test_a_loop_ends(base: str) -> None:
    """As the kernel ends it."""
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        cvmfs_child.resolve(base, REPO, loop(base))


@pytest.mark.parametrize("name", ["htc/rocky:10", "nowhere/rocky:9", "README/rocky:9", "htc/rocky:9/usr/missing"])
def test_what_a_healthy_repository_does_not_have_is_absent(base: str, name: str) -> None:
    """The repository was read just now, so this holds the job."""
    link(base, "htc/rocky:9", f"/cvmfs/{REPO}/{REAL}")
    assert cvmfs_child.answer(base, REPO, name)["state"] == "absent"


def test_names_nearby_are_told(base: str) -> None:
    """For `did you mean`; what is hidden is not offered."""
    link(base, "htc/rocky:9", f"/cvmfs/{REPO}/{REAL}")
    assert cvmfs_child.answer(base, REPO, "htc/rocky:8")["similar"] == ["htc/rocky:9"]
    assert cvmfs_child.answer(base, REPO, "hct/rocky:9")["similar"] == ["README", "htc"]


def test_a_sif_on_cvmfs_is_an_image_as_well(base: str) -> None:
    """The runtime tells the two apart; so do we."""
    Path(base, REPO, "htc", "rocky.sif").write_bytes(
        b"#!/usr/bin/env run-singularity\n\x00SIF_MAGIC\x00" + b"\x00" * 90
    )
    found = cvmfs_child.answer(base, REPO, "htc/rocky.sif")
    assert found == {"state": "located", "path": f"{base}/{REPO}/htc/rocky.sif", "sandbox": False}


@pytest.mark.parametrize("path", ["", "htc/rocky:9"])
def test_a_repository_that_is_not_mounted_is_unwell_and_its_images_are_not_absent(tmp_path: Path, path: str) -> None:
    """An empty mount point is autofs without CVMFS: nothing there is proof of nothing."""
    assert cvmfs_child.answer(str(tmp_path), REPO, path)["state"] == "unwell"
    (tmp_path / REPO).mkdir()
    found = cvmfs_child.answer(str(tmp_path), REPO, path)
    assert found["state"] == "unwell"
    assert "nothing is mounted" in str(found["why"])
    assert not found.get("image")


def test_a_file_in_the_place_of_a_repository_is_not_mounted(tmp_path: Path) -> None:
    """Whatever it is."""
    (tmp_path / REPO).write_text("x")
    assert cvmfs_child.answer(str(tmp_path), REPO, "htc/rocky:9")["state"] == "unwell"
