"""Runs a command on a kernel without pidfd_open, as far as the command can tell: a seccomp filter answers ENOSYS.

Run as `python -m tests.contract.old_kernel COMMAND [ARGUMENT...]`; the command replaces this process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Final

PIDFD_OPEN: Final = 434
"""The system call's number, the same on every architecture."""

_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _SKIP_UNLESS_EQUAL, _RETURN = 0x20, 0x15, 0x06
_REFUSE, _ALLOW = 0x00050000 | errno.ENOSYS, 0x7FFF0000
_PROGRAM = (
    (_LOAD, 0, 0, 0),
    (_SKIP_UNLESS_EQUAL, 0, 1, PIDFD_OPEN),
    (_RETURN, 0, 0, _REFUSE),
    (_RETURN, 0, 0, _ALLOW),
)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def forget_pidfd() -> None:
    """Have this process and all that it starts do without. Raises OSError."""
    code = b"".join(struct.pack("HBBI", *one) for one in _PROGRAM)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(_PROGRAM), code)
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    forget_pidfd()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the test's own command
