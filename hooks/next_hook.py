"""The site's former prepare-job hook, which ours displaced: run after it, with what it decided, and merged.

Imported only where IMAGE_CACHE_NEXT_HOOK is set and our own answer lets the job run.
"""

import posix
from select import select
from time import monotonic

INTERNAL_ERROR = 399
DEADLINE_EXCEEDED = 460
MAX_OUTPUT = 1 << 20
MAX_BLOCK = 10000
SIGPIPE, SIGXFSZ = 13, 25
STATUS_CODE = b"hookstatuscode"
STATUS_MESSAGE = b"hookstatusmessage"


def run(path: str, job: bytes, ours: bytes, ends: float) -> bytes:
    """Return our block with the other hook's attributes over it, or the other hook's status if it is not 0.

    It sees the job ad with our changes, as HTCondor shows it to a second hook, and the environment that HTCondor gave.
    """
    shown = [line for line in ours.splitlines(keepends=True) if name_of(line) not in (STATUS_CODE, STATUS_MESSAGE)]
    try:
        output, status = converse(path, job + b"".join(shown), ends)
    except OSError as error:
        return refusal(INTERNAL_ERROR, f"next hook {path}: {error.strerror}")
    if status is None:
        return refusal(DEADLINE_EXCEEDED, f"next hook {path}: not done within the hook's deadline")
    theirs = {name_of(line): line.strip() for line in output.split(b"\n") if name_of(line)}
    said = theirs.pop(STATUS_CODE, b"").partition(b"=")[2].strip()
    code = int(said) if said.isdigit() and len(said) < 9 else status
    if code < 0:
        return refusal(INTERNAL_ERROR, f"next hook {path}: ended by signal {-code}")
    return merged(path, ours, theirs, code)


def merged(path: str, ours: bytes, theirs: dict[bytes, bytes], code: int) -> bytes:
    """Return one block. The status stands first: HTCondor stops at a line that it cannot read, and theirs may be so."""
    lines = {name_of(line): line for line in ours.splitlines()} if code == 0 else {}
    lines.update(theirs)
    message = lines.pop(STATUS_MESSAGE, b"")
    if code and not message:
        message = f'HookStatusMessage = "next hook {plain(path)}: status {code}"'.encode()
    head = [b"HookStatusCode = %d" % code] + ([message] if message else [])
    lines.pop(STATUS_CODE, None)
    text = b"\n".join([*head, *lines.values()]) + b"\n"
    if len(text) >= MAX_BLOCK:
        return refusal(INTERNAL_ERROR, f"next hook {path}: its answer is too large ({len(text)} bytes)")
    return text


def name_of(line: bytes) -> bytes:
    """Return the attribute that a line sets, in lower case; empty if it sets none."""
    name, equals, value = line.partition(b"=")
    word = name.strip().lower()
    return word if equals and value.strip() and word.replace(b"_", b"a").isalnum() else b""


def plain(text: str) -> str:
    """Return text for a ClassAd string."""
    return "".join(c for c in text if c.isprintable() and c not in '"\\')


def refusal(code: int, message: str) -> bytes:
    """Return the lines of a status."""
    return f'HookStatusCode = {code}\nHookStatusMessage = "{plain(message)}"\n'.encode("utf-8", "replace")


def converse(path: str, text: bytes, ends: float) -> "tuple[bytes, int | None]":
    """Run the hook, give it the ad, and return what it printed and how it ended (minus the signal).

    None for one that was ended, with all that it started, because the time was over. Raises OSError.
    """
    in_read, in_write = posix.pipe()
    out_read, out_write = posix.pipe()
    actions = [(posix.POSIX_SPAWN_DUP2, in_read, 0), (posix.POSIX_SPAWN_DUP2, out_write, 1)]
    try:
        # a group of its own, to be ended as a whole; and no signal ignored that Python ignores
        child = posix.posix_spawn(
            path, [path], posix.environ, file_actions=actions, setpgroup=0, setsigdef=[SIGPIPE, SIGXFSZ]
        )
    finally:
        posix.close(in_read)
        posix.close(out_write)
    posix.set_blocking(in_write, False)
    running = True
    try:
        output = exchange(in_write, out_read, text, ends)
        while monotonic() < ends:
            ended, status = posix.waitpid(child, posix.WNOHANG)
            if ended:
                running = False
                return output, posix.waitstatus_to_exitcode(status)
            select([], [], [], 0.005)
    finally:  # the hook's own deadline may have come first, as an exception
        if running:
            posix.killpg(child, 9)
            posix.waitpid(child, 0)
    return b"", None


def exchange(in_write: int, out_read: int, text: bytes, ends: float) -> bytes:
    """Write and read at once, until the other side closes its output or the time is over."""
    parts: list[bytes] = []
    writing = [in_write]
    while monotonic() < ends:
        readable, writable, _ = select([out_read], writing, [], max(0.0, ends - monotonic()))
        if writable:
            try:
                text = text[posix.write(in_write, text[:4096]) :]
            except OSError:
                text = b""  # it does not read its input
            if not text:
                posix.close(in_write)
                writing = []
        if readable:
            part = posix.read(out_read, 65536)
            if not part:
                break
            parts.append(part)
    return b"".join(parts)[:MAX_OUTPUT]
