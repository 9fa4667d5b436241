"""The layout of existing repositories, read and written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sync.targets.base import Needed, TargetError
from sync.targets.directory import SandboxDirectory
from sync.targets.sandboxes import MISSING, Sandboxes, place_of
from tests.unit.publications import converted, digest_of, is_image

LINKED = "/cvmfs/images.example.org"
LITTLE = Needed(1000, 10)


@pytest.fixture
def target(tmp_path: Path) -> Sandboxes:
    """Give an empty repository."""
    (tmp_path / "repository").mkdir()
    return Sandboxes(tmp_path / "repository", LINKED)


def test_an_image_lies_by_its_digest_and_its_name_links_there(target: Sandboxes, tmp_path: Path) -> None:
    """By an absolute link, as readers of today expect it."""
    one = converted(tmp_path / "work", "ns/image")
    place = target.add(one)
    target.link(one.name, place)
    digest = one.variant.digest.removeprefix("sha256:")
    assert place == f".images/{digest[:2]}/{digest[2:]}"
    assert str((target.root / "ns" / "image:latest").readlink()) == f"{LINKED}/{place}"
    assert is_image(target.root / place, "ns/image")
    assert target.links() == {"ns/image:latest": place}
    assert target.images() == {place}


def test_a_retag_changes_the_link_and_keeps_the_old_image(target: Sandboxes, tmp_path: Path) -> None:
    """Jobs run from it."""
    old, new = (converted(tmp_path / "work", "ns/image:1", text) for text in ("old", "new"))
    for one in (old, new):
        target.link(one.name, target.add(one))
    assert target.links() == {"ns/image:1": place_of(new.variant.digest)}
    assert is_image(target.root / place_of(old.variant.digest), "old")


def test_two_names_of_one_digest_share_one_image(target: Sandboxes, tmp_path: Path) -> None:
    """It is there once, also if it was converted twice."""
    one = converted(tmp_path / "work", "ns/image:1", "same")
    places = {target.add(one), target.add(replace(one, name="ns/image:2", tree_path=str(tmp_path / "nowhere")))}
    assert len(places) == 1


def test_a_copy_that_lacks_files_is_not_published(target: Sandboxes, tmp_path: Path) -> None:
    """As it happened to others; and it leaves nothing behind."""
    root = tmp_path / "repository"
    one = replace(converted(tmp_path / "work", "ns/image:1"), tree_inodes=99)
    with pytest.raises(TargetError, match="files copied, 99 were converted"), _copying(root).writing(LITTLE) as writing:
        writing.add(one)
    assert target.images() == set()
    assert [path.name for path in (root / ".images").iterdir()] == [one.variant.digest[7:9]]


class _copying(SandboxDirectory):  # noqa: N801 - used as a function
    """A directory on another file system than the work directory: what it gets is copied."""

    def readable(self) -> Sandboxes:
        return replace(super().readable(), may_move=False)


def test_on_one_file_system_an_image_is_moved_and_not_copied(tmp_path: Path) -> None:
    """It costs nothing then."""
    directory = SandboxDirectory(tmp_path / "repository")
    directory.begin()
    one = converted(tmp_path / "work", "ns/image:1")
    inode = Path(one.tree_path).stat().st_ino
    with directory.writing(LITTLE) as writing:
        place = writing.add(one)
        writing.link(one.name, place)
    assert (directory.root / "ns" / "image:1").resolve().stat().st_ino == inode
    assert not Path(one.tree_path).exists()


def test_a_name_is_taken_away_with_the_directories_that_held_nothing_else(target: Sandboxes, tmp_path: Path) -> None:
    """Its image stays."""
    place = target.add(converted(tmp_path / "work", "any"))
    for name in ("ns/a/b/image:1", "ns/other:1"):
        target.link(name, place)
    target.unlink("ns/a/b/image:1")
    target.unlink("ns/a/b/image:1")
    assert target.links() == {"ns/other:1": place}
    assert [path.name for path in (target.root / "ns").iterdir()] == ["other:1"]
    assert target.images() == {place}


def test_what_existing_repositories_hold_is_understood(target: Sandboxes) -> None:
    """Older places, the record of what no name leads to, links to elsewhere, and files that are none of ours."""
    for place in (".images/7d/ba00", ".images/sha256:de/adbeef"):
        (target.root / place).mkdir(parents=True)
    (target.root / "library").mkdir()
    (target.root / "library" / "debian:latest").symlink_to(f"{LINKED}/.images/7d/ba00")
    (target.root / "library" / "busybox:1").symlink_to("../.images/sha256:de/adbeef")
    (target.root / "elsewhere:1").symlink_to("/cvmfs/other.example.org/.images/7d/ba00")
    (target.root / "README").write_text("hello")
    (target.root / MISSING).write_text(
        json.dumps({"missing_links": {f"{LINKED}/.images/sha256:de/adbeef": 1700000000.5}})
    )
    assert target.images() == {".images/7d/ba00", ".images/sha256:de/adbeef"}
    assert target.links() == {
        "library/debian:latest": ".images/7d/ba00",
        "library/busybox:1": ".images/sha256:de/adbeef",
    }
    assert target.missing_since() == {".images/sha256:de/adbeef": 1700000000.5}
    target.write_missing({".images/7d/ba00": 5.0})
    assert json.loads((target.root / MISSING).read_text()) == {"missing_links": {f"{LINKED}/.images/7d/ba00": 5.0}}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"missing_links": 3}', '{"missing_links": {"/x": "y"}}', "\xff"])
def test_a_record_that_cannot_be_read_lets_grace_begin_anew(target: Sandboxes, text: str) -> None:
    """Rather too late than too early."""
    (target.root / MISSING).write_text(text, encoding="latin-1")
    assert target.missing_since() == {}


def test_an_image_that_is_removed_is_gone_at_once_and_for_good(target: Sandboxes, tmp_path: Path) -> None:
    """Also one that forbids it; a next start removes what a killed one left."""
    place = target.add(converted(tmp_path / "work", "any"))
    (target.root / place / "etc").chmod(0o555)
    target.remove(place)
    assert target.images() == set()
    left = target.root / ".images" / ".new-0123456789abcdef"
    left.mkdir()
    (left / "file").touch()
    target.begin()
    assert not left.exists()


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:../../etc", "sha512:" + "a" * 64, "sha256:" + "A" * 64])
def test_what_is_no_digest_leads_nowhere(text: str) -> None:
    """Least of all out of the repository."""
    with pytest.raises(OSError, match="no digest"):
        place_of(text)
    assert place_of(digest_of("x")).count("/") == 2
