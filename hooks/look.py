"""Looks at paths as the job's user, in a child: a dead mount hangs rather than fails.

Imported only for a job whose image is a path, and without a manager.
"""

import posix
from select import select
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 10.0
HEAD = 4096


def frame(name: bytes, left_s: float) -> bytes:
    """Open a path as the job's user and say what it is: kind, size and first bytes. The manager may not open it."""
    limit_s = min(LIMIT_S, left_s)
    why = "does not answer (%.0f s)" % limit_s  # noqa: UP031 - bytes and numbers
    return from_child(lambda: look_at(name), limit_s) or found_frame("unwell", why=why)


def look_at(name: bytes) -> bytes:
    """Return the frame that says what a path is."""
    size, head, real = 0, b"", b""
    try:
        # O_NONBLOCK: a FIFO must not stop the hook
        descriptor = posix.open(name, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        found = posix.fstat(descriptor)
        real = posix.readlink(b"/proc/self/fd/%d" % descriptor)
        kind = {0o100000: "file", 0o040000: "directory"}.get(found.st_mode & 0o170000, "other")
        size = found.st_size
        if kind == "file":
            head = posix.read(descriptor, HEAD)
    except OSError as error:
        # ENOENT, ENOTDIR: not there; EACCES, EPERM: not for this user
        kind = {2: "absent", 20: "absent", 13: "denied", 1: "denied"}.get(error.errno or 0, "unwell")
        return found_frame(kind, real=led_to(name), why=error.strerror or "error")
    return found_frame(kind, size, head, real)


def led_to(name: bytes) -> bytes:
    """Return where a link that cannot be followed leads, empty if it is none. Not into CVMFS, which may hang."""
    real = b""
    for _ in range(20):
        if real.startswith(b"/cvmfs/"):
            break
        try:
            target = posix.readlink(real or name)
        except OSError:
            break
        real = target if target.startswith(b"/") else (real or name).rpartition(b"/")[0] + b"/" + target
    return real


def found_frame(kind: str, size: int = 0, head: bytes = b"", real: bytes = b"", why: str = "") -> bytes:
    """Return the frame of what was found."""
    keys = "kind=%s size=%d error=%s real=%s" % (kind, size, quoted(why.encode()), quoted(real))  # noqa: UP031
    return ("IMGC/1 %d %s\n" % (len(head), keys)).encode() + head  # noqa: UP031


def quoted(raw: bytes) -> str:
    """Return bytes as a value for the header: everything that is not plain is percent-encoded."""
    return "".join(chr(c) if c > 42 and c < 127 and c not in b"%=" else f"%{c:02X}" for c in raw)


def from_child(work: "Callable[[], bytes]", limit_s: float) -> bytes:
    """Return what `work` returns, done in a child; nothing when that takes longer than `limit_s`.

    A file system that hangs puts a process into D state, which no signal ends: the child is left behind then. It has
    none of our descriptors but its pipe: whoever reads our output waits for all who could still write to it.
    """
    if limit_s <= 0:
        return b""
    reader, writer = posix.pipe()
    child = posix.fork()
    if child == 0:
        try:
            posix.dup2(writer, 3)
            posix.closerange(4, 256)
            posix.closerange(0, 3)
            text = work()
            while text:
                text = text[posix.write(3, text) :]
        finally:
            posix._exit(0)  # a forked child must not run its parent's exit
    posix.close(writer)
    parts: list[bytes] = []
    ends = monotonic() + limit_s
    running = True
    try:
        while select([reader], [], [], max(0.0, ends - monotonic()))[0]:
            part = posix.read(reader, 65536)
            if not part:
                running = False
                return b"".join(parts)
            parts.append(part)
        return b""
    finally:  # the hook's own deadline may have come first, as an exception
        posix.close(reader)
        if running:
            posix.kill(child, 9)
        else:
            posix.waitpid(child, 0)
