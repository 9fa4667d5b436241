"""A digest that follows a file while it grows."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from cache_manager import hashing
from cache_manager.hashing import INLINE_BYTES, Follower

PIECE = os.urandom(INLINE_BYTES // 2 + 7)


def following(path: Path) -> Follower:
    """Return what follows a file, by a descriptor that stays open to the end."""
    follower = Follower()
    follower.follow(os.open(path, os.O_RDONLY))
    return follower


@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("begun", [False, True], ids=["from its first byte", "begun earlier"])
def test_the_digest_is_that_of_all_that_was_written(tmp_path: Path, pieces: int, *, begun: bool) -> None:
    """Small files are read at the end, large ones by a thread meanwhile, which ends then."""
    path = tmp_path / "image"
    path.write_bytes(PIECE if begun else b"")
    follower = following(path)
    if begun:
        follower.begin(len(PIECE))
    with path.open("ab", buffering=0) as file:
        for _ in range(pieces):
            file.write(PIECE)
            follower.wrote(file.tell())
    expected = hashlib.sha256(PIECE * (pieces + begun)).hexdigest()
    assert [follower.hexdigest(), follower.hexdigest()] == [expected, expected]
    assert "digest" not in {thread.name for thread in threading.enumerate()}


def test_the_writing_waits_for_it_when_it_is_far_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page cache has dropped would be read from disk again."""
    monkeypatch.setattr(hashing, "BEHIND_BYTES", INLINE_BYTES)
    path = tmp_path / "image"
    path.write_bytes(PIECE * 20)
    follower = following(path)
    follower.wrote(20 * len(PIECE))
    assert follower.hexdigest() == hashlib.sha256(PIECE * 20).hexdigest()


def test_a_file_that_cannot_be_read_back_is_an_error(tmp_path: Path) -> None:
    """A digest of something else would be worse."""
    path = tmp_path / "image"
    path.write_bytes(PIECE)
    follower = following(path)
    follower.wrote(len(PIECE) + 1)
    with pytest.raises(OSError, match="image has become shorter"):
        follower.hexdigest()
    for size in (1, 20 * len(PIECE)):
        gone = Follower()
        gone.wrote(size)
        with pytest.raises(OSError, match="Bad file descriptor"):
            gone.hexdigest()


def test_it_ends_wherever_it_is_when_nobody_wants_it_any_more(tmp_path: Path) -> None:
    """A fetch that failed leaves no thread."""
    path = tmp_path / "image"
    path.write_bytes(PIECE * 20)
    follower = following(path)
    follower.wrote(20 * len(PIECE))
    follower.close()
    assert "digest" not in {thread.name for thread in threading.enumerate()}
