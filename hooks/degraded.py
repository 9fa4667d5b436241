"""What may run without a manager. Imported only after nobody answered on the socket.

A job that names no image runs untouched where no default is configured. A path on CVMFS or on this EP runs if it is
there, asked from a child that is abandoned when it hangs: a dead mount puts a process into D state, which no alarm
ends. Everything else goes back to idle with CACHE_MANAGER_DOWN.
"""

import posix
from select import select
from time import monotonic

MANAGER_DOWN = 410
PROBE_S = 10.0
NAMES = (b"singularityimage", b"containerimage", b"dockerimage")
FLAGS = (b"wantdocker", b"wantcontainer", b"wantdockerimage", b"wantsif", b"wantsandboximage")


def answer(options, job, why, ends):
    """Return the block to print. `options` are the hook's, `why` tells what the socket said."""
    values = attributes(job)
    named = [values[name] for name in NAMES if name in values and values[name].lower() != b"undefined"]
    wants = any(values.get(name, b"").lower() == b"true" for name in FLAGS)
    if values.get(b"wantdocker", b"").lower() == b"true":
        return b"HookStatusCode = 0\n"
    if values and not named and not wants and not options["default-image"]:
        return b"HookStatusCode = 0\n"
    path = plain_path(named[0]) if named else b""
    allowed = options["degraded"] in ("yes", "*")
    if path and allowed and not below(path, options["root"] or options["socket"].rpartition("/")[0]):
        kind = ask_child(path, min(ends - monotonic() - 1.0, PROBE_S))
        if kind in ("file", "directory"):
            return runs(path.decode(), kind == "directory", why)
    subject = path.decode("utf-8", "replace") or (named[0].decode("utf-8", "replace").strip('"') if named else "default image")
    message = f"{subject[:200]}: the image cache manager does not answer ({why}); the job goes to another EP or waits"
    return status(MANAGER_DOWN, message)


def attributes(job):
    """Return the ad's attributes, names in lower case, values as they stand."""
    pairs = (line.partition(b"=") for line in job.split(b"\n"))
    return {name.strip().lower(): value.strip() for name, equals, value in pairs if equals}


def plain_path(value):
    """Return an absolute path written as a plain literal, else nothing."""
    text = value[1:-1]
    plain = value[:1] == b'"' == value[-1:] and text[:1] == b"/" and len(value) > 2  # noqa: PLR2004 - the quotes
    if not plain or b'"' in text or b"\\" in text or b"/../" in text + b"/":
        return b""
    return text


def below(path, root):
    """Whether the path leads into the cache, where nothing holds a lease for this job now."""
    return bool(root) and (path + b"/").startswith(root.rstrip("/").encode() + b"/")


def ask_child(path, limit_s):
    """Return `file`, `directory` or nothing. The child is left behind if it hangs."""
    if limit_s <= 0:
        return ""
    reader, writer = posix.pipe()
    child = posix.fork()
    if child == 0:
        try:
            posix.write(writer, what_is(path))
        finally:
            posix._exit(0)  # noqa: SLF001 - a forked child must not run its parent's exit
    posix.close(writer)
    try:
        ready, _, _ = select([reader], [], [], limit_s)
        kind = posix.read(reader, 64).decode() if ready else ""
    finally:
        posix.close(reader)
    if ready:
        posix.waitpid(child, 0)
    else:
        posix.kill(child, 9)
    return kind


def what_is(path):
    """Return what the path is, readable for this user: `file`, `directory`, or nothing."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK)
        form = posix.fstat(descriptor).st_mode & 0o170000
    except OSError:
        return b""
    if form == 0o100000 and b"SIF_MAGIC" in posix.read(descriptor, 64):
        return b"file"
    return b"directory" if form == 0o040000 and posix.listdir(descriptor) else b""


def runs(path, sandbox, why):
    """Return the universal update ad for a path that is here."""
    lines = [f'ContainerImage = "{path}"', f'SingularityImage = "{path}"', "WantContainer = true"]
    lines += [f"WantSIF = {'false' if sandbox else 'true'}", f"WantSandboxImage = {'true' if sandbox else 'false'}"]
    lines += ["WantDockerImage = false", "WantDocker = false"]
    ad = "\n".join(lines) + "\n"
    return ad.encode() + status(0, f"{path}: used as it is here, because the image cache manager is down ({why})")


def status(code, message):
    """Return the status lines."""
    clean = "".join(c if c.isprintable() else " " for c in message).replace("\\", "\\\\").replace('"', '\\"')
    return f'HookStatusCode = {code}\nHookStatusMessage = "{clean}"\n'.encode("utf-8", "replace")
