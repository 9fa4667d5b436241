"""Reads a credential that HTCondor put beside the job, as the job's user: the manager may not open it.

Imported only for a job whose image needs one. The starter writes the job's tokens as <service>.use into a directory
of the scratch directory, and names that in _CONDOR_CREDS. What `docker login` wrote may come with the job instead.
"""

import posix

import look  # type: ignore[import-not-found]

LIMIT_S = 10.0
LARGEST = 64 * 1024
NAMES = 20
PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+@-")
"""Of what a name is made that may stand in a path: no slash, and none begins with a dot."""

USUAL = b"scitokens"
"""The service that is meant where none is named, if the job has more than one."""


DOCKER = b"docker"
DOCKER_FILE = b"/.docker/config.json"
"""Where a job has what it transferred as `.docker`: HTCondor sends its own Docker credentials to Docker alone."""


def frame(body: bytes, scratch: bytes, left_s: float) -> bytes:
    """Read the first credential that is there. The body has the names of services, one a line; none: the job's only."""
    limit_s = min(LIMIT_S, left_s)
    directory = posix.environ.get(b"_CONDOR_CREDS") or scratch + b"/.condor_creds"
    names = body.split(b"\n") if body else []
    found = look.from_child(lambda: read_first(directory, names, scratch), limit_s)
    return found or found_frame("unwell", why=b"does not answer (%d s)" % limit_s)


def read_first(directory: bytes, names: "list[bytes]", scratch: bytes) -> bytes:
    """Return the frame of the first of these credentials that is there."""
    there = services(directory)
    if not names:
        names = [USUAL] if USUAL in there else there[:1] if len(there) == 1 else []
    places = [(name, directory + b"/" + name + b".use") for name in names]
    if DOCKER in names:
        places.append((DOCKER, scratch + DOCKER_FILE))
    for name, path in places:
        if not is_plain(name):
            return found_frame("unwell", there, why=b"a name that is none")
        try:
            return found_frame("file", there, name, read(path))
        except OSError as error:
            if error.errno not in (2, 20):  # ENOENT, ENOTDIR
                kind = "denied" if error.errno in (1, 13) else "unwell"  # EPERM, EACCES
                return found_frame(kind, there, name, why=(error.strerror or "error").encode())
        except ValueError as error:
            return found_frame("unwell", there, name, why=str(error).encode())
    return found_frame("absent", there)


def services(directory: bytes) -> "list[bytes]":
    """Return what the job has credentials for."""
    try:
        found = sorted(name[:-4] for name in posix.listdir(directory) if name.endswith(b".use"))
    except OSError:
        return []
    return [name for name in found if is_plain(name)]


def is_plain(name: bytes) -> bool:
    """Whether a name may stand in a path."""
    return 0 < len(name) <= 128 and not name.startswith(b".") and PLAIN.issuperset(name)


def read(path: bytes) -> bytes:
    """Return a regular file of this user's own reach. Raises OSError, ValueError."""
    # O_NONBLOCK: a FIFO must not stop the hook
    descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOFOLLOW)
    try:
        if posix.fstat(descriptor).st_mode & 0o170000 != 0o100000:
            raise ValueError("is no regular file")
        data = b""
        while len(data) <= LARGEST:
            part = posix.read(descriptor, LARGEST + 1 - len(data))
            if not part:
                return data
            data += part
        raise ValueError(f"is larger than {LARGEST} bytes")
    finally:
        posix.close(descriptor)


def found_frame(
    kind: str, there: "list[bytes] | None" = None, name: bytes = b"", data: bytes = b"", why: bytes = b""
) -> bytes:
    """Return the frame of what was found."""
    names = look.quoted(b",".join((there or [])[:NAMES]))
    keys = "kind=%s name=%s names=%s error=%s" % (kind, look.quoted(name), names, look.quoted(why))  # noqa: UP031
    return ("IMGC/1 %d %s\n" % (len(data), keys)).encode() + data  # noqa: UP031 - bytes and numbers
