"""A tree is copied as it is."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sync.treecopy import Copied, copy_tree


def look(top: Path) -> dict[str, tuple[int, bytes | str, int]]:
    """Return mode, content or target, and time of all that is in a tree."""
    found = {}
    for path in [top, *sorted(top.rglob("*"))]:
        state = path.lstat()
        content: bytes | str = b""
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(top))] = (state.st_mode, content, state.st_mtime_ns)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a tree of everything that images have."""
    top = tmp_path / "tree"
    (top / "usr" / "bin").mkdir(parents=True)
    (top / "usr" / "bin" / "sudo").write_bytes(b"program")
    (top / "usr" / "bin" / "sudo").chmod(0o4711)
    (top / "name with blanks\nand a line").write_bytes(b"odd")
    (top / "usr" / "closed").mkdir()
    (top / "usr" / "closed" / "inside").write_bytes(b"x" * 100_000)
    (top / "usr" / "closed").chmod(0o555)
    (top / "link").symlink_to("../../outside")
    (top / "absolute").symlink_to("/etc/passwd")
    os.link(top / "usr" / "bin" / "sudo", top / "usr" / "sudo-too")
    os.mkfifo(top / "fifo", 0o622)
    os.utime(top / "usr", ns=(1, 1_000_000_000))
    return top


def test_a_copy_has_the_same_names_modes_contents_links_and_times(tree: Path, tmp_path: Path) -> None:
    """Also directories that forbid to be written to, and set-uid bits."""
    copied = copy_tree(tree, tmp_path / "copy")
    assert look(tmp_path / "copy") == look(tree)
    assert copied == Copied(7 + 3 + 100_000, 10)


def test_names_of_one_file_stay_names_of_one_file(tree: Path, tmp_path: Path) -> None:
    """A hard link takes no room twice."""
    copy_tree(tree, tmp_path / "copy")
    one, other = tmp_path / "copy" / "usr" / "bin" / "sudo", tmp_path / "copy" / "usr" / "sudo-too"
    assert one.stat().st_ino == other.stat().st_ino


def test_extended_attributes_are_copied(tree: Path, tmp_path: Path) -> None:
    """As far as the file system has them."""
    try:
        os.setxattr(tree / "usr" / "bin" / "sudo", "user.note", b"1")
    except OSError:  # a file system without them: then there is nothing to lose
        return
    copy_tree(tree, tmp_path / "copy")
    assert os.getxattr(tmp_path / "copy" / "usr" / "bin" / "sudo", "user.note") == b"1"


def test_names_that_are_no_text_are_copied(tmp_path: Path) -> None:
    """A kernel takes any bytes."""
    (tmp_path / "tree").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "tree") + b"/\xff\xfe")).write_bytes(b"1")
    copy_tree(tmp_path / "tree", tmp_path / "copy")
    assert [os.fsencode(path.name) for path in (tmp_path / "copy").iterdir()] == [b"\xff\xfe"]


def test_what_belongs_into_no_image_is_refused(tmp_path: Path) -> None:
    """A socket of the publisher's machine, or a device."""
    (tmp_path / "tree").mkdir()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "tree" / "socket"))
        with pytest.raises(OSError, match="device or a socket"):
            copy_tree(tmp_path / "tree", tmp_path / "copy")


def test_nothing_is_copied_over_what_is_there(tree: Path, tmp_path: Path) -> None:
    """What was published stays as it is."""
    (tmp_path / "copy").mkdir()
    with pytest.raises(FileExistsError):
        copy_tree(tree, tmp_path / "copy")
