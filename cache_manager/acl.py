"""Who may enter a directory beside its owner: POSIX access control lists, as the kernel keeps them (acl(5)).

The attribute is a version and then entries of tag, permissions and id, little-endian, ordered by tag and id. No
library: there is one in C, and Python has none.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ATTRIBUTE: Final = "system.posix_acl_access"
INHERITED: Final = "system.posix_acl_default"
_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")
_OWNER, _USER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NO_ID: Final = 0xFFFFFFFF
_ALL, _ENTER, _NOTHING = 7, 5, 0
_NONE: Final = frozenset({errno.ENODATA, errno.ENOTSUP})


def readers(directory: Path) -> frozenset[int]:
    """Return the uids that may enter a directory beside its owner. Raises OSError."""
    try:
        raw = os.getxattr(directory, ATTRIBUTE, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NONE:
            return frozenset()
        raise
    if raw[:4] != _VERSION or len(raw) % _ENTRY.size != len(_VERSION) % _ENTRY.size:
        return frozenset()
    rows = _ENTRY.iter_unpack(raw[4:])
    return frozenset(uid for tag, permissions, uid in rows if tag == _USER and permissions & 1)


def admit(directory: Path, uids: Iterable[int]) -> None:
    """Let these uids enter a directory, and nobody else but its owner and root. Raises OSError."""
    rows = [(_OWNER, _ALL, _NO_ID), *((_USER, _ENTER, uid) for uid in sorted(set(uids)))]
    rows += [(_GROUP, _NOTHING, _NO_ID), (_MASK, _ENTER, _NO_ID), (_OTHER, _NOTHING, _NO_ID)]
    os.setxattr(directory, ATTRIBUTE, _VERSION + b"".join(_ENTRY.pack(*row) for row in rows), follow_symlinks=False)


def remove(directory: Path) -> None:
    """Take a directory's lists away, also the one for what is made in it: its mode alone counts. Raises OSError."""
    for name in (ATTRIBUTE, INHERITED):
        try:
            os.removexattr(directory, name, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NONE:
                raise


def works_on(directory: Path) -> bool:
    """Whether the file system of a directory of ours keeps such lists: some network file systems do not."""
    try:
        admit(directory, [os.geteuid()])
        remove(directory)
    except OSError:
        return False
    return True
