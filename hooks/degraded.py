"""What may run without a manager. Imported only after nobody answered on the socket.

A job that names no image runs untouched where no default is configured. A path on CVMFS or on this EP, and a file that
came with the job, runs if it is there, asked from a child that is abandoned when it hangs: a dead mount puts a process
into D state, which no alarm ends. Everything else goes back to idle with CACHE_MANAGER_DOWN.
"""

import posix

import look  # type: ignore[import-not-found]

MANAGER_DOWN = 410
INTERNAL_ERROR = 399
NAMES = (b"singularityimage", b"containerimage", b"dockerimage")
FLAGS = (b"wantdocker", b"wantcontainer", b"wantdockerimage", b"wantsif", b"wantsandboximage")


def answer(options: dict[str, str], job: bytes, why: str, left_s: float) -> bytes:
    """Return the block to print. `options` are the hook's, `why` tells what the socket said."""
    values = attributes(job)
    named = [values[name] for name in NAMES if name in values and values[name].lower() != b"undefined"]
    wants = any(values.get(name, b"").lower() == b"true" for name in FLAGS)
    if not values or not all(is_attribute(line) for line in job.split(b"\n") if line.strip()):
        return status(INTERNAL_ERROR, f"job ad: not one attribute a line ({len(job)} bytes, {len(values)} attributes)")
    if values.get(b"wantdocker", b"").lower() == b"true":
        return b"HookStatusCode = 0\n"
    if not named and not wants and not options["default-image"]:
        return b"HookStatusCode = 0\n"
    path = plain_path(named[0]) if named else b""
    allowed = options["degraded"] in ("yes", "*")
    if path and allowed:
        root = options["root"] or options["socket"].rpartition("/")[0]
        found = look.from_child(lambda: what_is(path, root), min(look.LIMIT_S, left_s))
        kind, _, real = found.decode("utf-8", "surrogateescape").partition(" ")
        if kind:
            return runs(real, why, sandbox=kind == "directory")
    # a URL may hold secrets: only a path is said
    subject = path.decode("utf-8", "replace") or ("the job's image" if named else "default image")
    message = f"{subject[:200]}: the image cache manager does not answer ({why}); the job goes to another EP or waits"
    return status(MANAGER_DOWN, message)


def attributes(job: bytes) -> dict[bytes, bytes]:
    """Return the ad's attributes, names in lower case, values as they stand."""
    pairs = (line.partition(b"=") for line in job.split(b"\n"))
    return {name.strip().lower(): value.strip() for name, equals, value in pairs if equals}


def is_attribute(line: bytes) -> bool:
    """Whether a line sets an attribute: HTCondor would have stopped at any other, and lost the rest."""
    name, equals, value = line.partition(b"=")
    word = name.strip()
    return bool(equals and value.strip()) and word.replace(b"_", b"a").isalnum() and not word[:1].isdigit()


def plain_path(value: bytes) -> bytes:
    """Return a path written as a plain literal, a relative one below the job's directory, else nothing."""
    text = value[1:-1]
    plain = value[:1] == b'"' == value[-1:] and len(value) > 2  # the quotes
    if not plain or b'"' in text or b"\\" in text or b"/../" in b"/" + text + b"/":
        return b""
    if text[:1] == b"/":
        return text
    return b"" if b":" in text else posix.getcwd().encode("utf-8", "surrogateescape") + b"/" + text


def real_path(path: bytes) -> tuple[int, bytes]:
    """Open a path and return the descriptor, and where it leads: every link followed. Raises OSError."""
    descriptor = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK)
    return descriptor, posix.readlink(b"/proc/self/fd/%d" % descriptor)


def what_is(path: bytes, root: str) -> bytes:
    """Return what the path is for this user, `file` or `directory`, and where it leads; nothing if it is no image.

    Nothing too for what lies in the cache: nobody holds a lease for this job now.
    """
    try:
        # the digest's directory and not the tag: a retag must not move a running job
        descriptor, real = real_path(path)
        form = posix.fstat(descriptor).st_mode & 0o170000
        try:
            cache = real_path(root.encode("utf-8", "surrogateescape"))[1]
        except OSError:
            cache = b""
        if cache and (real + b"/").startswith(cache.rstrip(b"/") + b"/"):
            return b""
        if form == 0o100000 and b"SIF_MAGIC" in posix.read(descriptor, 64):
            return b"file " + real
        return b"directory " + real if form == 0o040000 and posix.listdir(descriptor) else b""
    except OSError:
        return b""


def runs(path: str, why: str, *, sandbox: bool) -> bytes:
    """Return the universal update ad for a path that is here."""
    if any(c in '"\\' or not c.isprintable() for c in path):
        return status(MANAGER_DOWN, f"the image cache manager does not answer ({why})")
    lines = [f'ContainerImage = "{path}"', f'SingularityImage = "{path}"', "WantContainer = true"]
    lines += [
        f"WantSIF = {'false' if sandbox else 'true'}",
        f"WantSandboxImage = {'true' if sandbox else 'false'}",
    ]
    lines += ["WantDockerImage = false", "WantDocker = false"]
    ad = "\n".join(lines) + "\n"
    return ad.encode() + status(0, f"{path}: used as it is here, because the image cache manager is down ({why})")


def status(code: int, message: str) -> bytes:
    """Return the status lines."""
    clean = "".join(c if c.isprintable() else " " for c in message).replace("\\", "/").replace('"', "'")
    return f'HookStatusCode = {code}\nHookStatusMessage = "{clean}"\n'.encode("utf-8", "replace")
