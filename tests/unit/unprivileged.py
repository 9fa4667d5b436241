"""What a test does as an ordinary user, for whom modes count: root may do anything anywhere.

Run as `python -m tests.unit.unprivileged MODE DIRECTORY`; the directory becomes the user's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path, PurePosixPath

from cache_manager.layout import CacheLayout
from cache_manager.store import Store
from tests.unit.builders import key_of

NOBODY = 65534


def become_ordinary(directory: str) -> None:
    """Stand in the directory, as its owner; the directories above it stay closed."""
    os.chdir(directory)
    if os.geteuid() == 0:
        os.chown(".", NOBODY, NOBODY)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def read_only_tree(top: Path, mode: int) -> None:
    """Make a tree as images unpack: with directories that their owner may not write to, or not even enter."""
    (top / "usr" / "lib").mkdir(parents=True)
    (top / "usr" / "lib" / "libc.so").write_text("x")
    for path in (top / "usr" / "lib" / "libc.so", top / "usr" / "lib", top / "usr"):
        path.chmod(mode)


def remove_entry(store: Store, mode: int) -> None:
    """Evict and remove a sandbox."""
    entry = store.root / "entries" / key_of("a", "sandbox")
    read_only_tree(entry / "image", mode)
    trashed = store.evict(entry.name)
    assert trashed is not None
    assert not entry.exists()
    store.remove(trashed)
    assert not trashed.exists()


def main() -> None:
    """Do it; a traceback and an exit status other than 0 say that it failed."""
    mode, directory = sys.argv[1:]
    become_ordinary(directory)
    store = Store(CacheLayout(PurePosixPath("cache")))
    store.prepare()
    remove_entry(store, int(mode, 8))


if __name__ == "__main__":
    main()
