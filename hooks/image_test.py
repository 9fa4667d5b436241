"""Starts an image once, as the job's user, in the way in which HTCondor is about to.

Imported only when the manager asks for it: once for each image in its cache. Nothing of the hook's environment goes
along: it holds session secrets.
"""

import posix
from select import select
from time import monotonic

LIMIT_S = 30.0
SAID = 4096


def frame(body: bytes, scratch: bytes, left_s: float) -> bytes:
    """Start an image once and say how that ended. The body names the runtime, then the image, on a line each."""
    runtime, _, image = body.partition(b"\n")
    status, said = run(runtime, image, scratch, min(LIMIT_S, left_s))
    return ("IMGC/1 %d status=%s\n" % (len(said), status)).encode() + said  # noqa: UP031 - bytes and numbers


def run(runtime: bytes, image: bytes, scratch: bytes, limit_s: float) -> "tuple[str, bytes]":
    """Return the exit status and the last words of a test; `timeout` and nothing for one that takes too long.

    `error` and the reason if the runtime cannot be run.
    """
    environment = {b"PATH": posix.environ.get(b"PATH", b"/usr/bin:/bin"), b"LANG": b"C.UTF-8", b"HOME": scratch}
    for name in (b"APPTAINER_CACHEDIR", b"APPTAINER_TMPDIR", b"SINGULARITY_CACHEDIR", b"SINGULARITY_TMPDIR", b"TMPDIR"):
        environment[name] = scratch
    reader, writer = posix.pipe()
    actions = [
        (posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDWR, 0),
        (posix.POSIX_SPAWN_DUP2, 0, 1),
        (posix.POSIX_SPAWN_DUP2, writer, 2),
    ]
    argv = [runtime, b"-s", b"-q", b"test", b"-C", image]
    try:
        # a group of its own, to be ended as a whole
        child = posix.posix_spawn(runtime, argv, environment, file_actions=actions, setpgroup=0)
    except OSError as error:
        posix.close(reader)
        return "error", (error.strerror or "error").encode()
    finally:
        posix.close(writer)
    running = True
    try:
        said = last_words(reader, monotonic() + limit_s)
        if said is None:
            return "timeout", b""
        running = False
        status = posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1])
        return str(status), said
    finally:
        posix.close(reader)
        if running:  # not waited for: it may be in D state
            posix.killpg(child, 9)


def last_words(reader: int, ends: float) -> "bytes | None":
    """Return the end of what is written until all writers have ended; None if they do not in time."""
    said = b""
    while select([reader], [], [], max(0.0, ends - monotonic()))[0]:
        part = posix.read(reader, 65536)
        if not part:
            return said
        said = (said + part)[-SAID:]
    return None
