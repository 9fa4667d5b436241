"""The prepare-job hook: hands the job ad to the cache manager and prints its answer in one write.

It decides nothing and parses nothing: an interpreter starts in 6 ms, and a module imported here may cost as much
again. posix, _signal, _socket, select and time are C modules and cost nothing; os, signal and socket cost 9 ms.
Whatever happens it prints one block with a HookStatusCode and exits with 0: HTCondor holds a job whose hook exits
with 1. (What happens before `main`, a broken import, is the launcher's to answer.) The codes are literals here; a
test compares them with cache_manager.status.

    prepare_job.py --socket PATH [--owner USER] [--deadline SECONDS] [--default-image] [--degraded] [--next-hook PATH]

The environment holds session secrets of HTCondor: only the names below are read, nothing of it is forwarded.
"""

import posix
import sys
from time import monotonic

import _signal
import _socket
from select import select

INTERNAL_ERROR = 399
DEADLINE_EXCEEDED = 460
MAX_REQUEST = 1024 * 1024
MAX_BLOCK = 10000
DEADLINE_S = 1200.0
RETRY_S = 0.2
QUESTIONS = frozenset((b"ask=probe", b"ask=test", b"ask=credential"))


class Deadline(Exception):  # noqa: N818 - it is no error
    """The hook's total time is over."""


class Refused(Exception):  # noqa: N818 - it is the manager's absence
    """Nobody listens on the socket."""


def text_of(error: BaseException) -> str:
    """Return an exception as text on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def block(code: int, message: str) -> bytes:
    """Return an answer's lines: the status, and a message escaped for a ClassAd string."""
    clean = "".join(" " if ord(c) < 32 or 126 < ord(c) < 160 else c for c in message[:1500])
    clean = clean.replace('"', '\\"')
    return f'HookStatusCode = {code}\nHookStatusMessage = "{clean}"\n'.encode("utf-8", "replace")


def arguments(argv: list[str]) -> dict[str, str]:
    """Read the command line; `--name=value` too. Unknown options are ignored: they come from a newer `config`."""
    options = {
        "socket": "",
        "deadline": "",
        "default-image": "",
        "degraded": "",
        "root": "",
        "owner": "",
        "next-hook": "",
    }
    words = list(argv)
    while words:
        name, equals, value = words.pop(0).partition("=")
        name = name[2:] if name.startswith("--") else ""
        if name in ("socket", "deadline", "root", "owner", "next-hook") and not equals:
            value = words.pop(0) if words else ""
        elif not equals:
            value = "yes"
        if name in options:
            options[name] = value
    return options


def seconds(text: str) -> float:
    """Return a time like 1200, 20m or 90s in seconds; the default for anything else."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    scale = units.get(text[-1:], 0)
    try:
        value = float(text[:-1]) * scale if scale else float(text)
    except ValueError:
        return DEADLINE_S
    return value if 0 < value < 1e6 else DEADLINE_S  # eleven days


def run(argv: list[str]) -> bytes:
    """Return the block to print."""
    options = arguments(argv)
    deadline_s = seconds(options["deadline"])
    ends = monotonic() + deadline_s
    keep_time(ends)
    try:
        job = read_all(0)
        if len(job) > MAX_REQUEST:
            return block(INTERNAL_ERROR, f"job ad: too large ({len(job)} bytes, at most {MAX_REQUEST})")
        ours = answer(options, job, ends)
        followed = options["next-hook"] and b"HookStatusCode = 0\n" in ours
        return after(options["next-hook"], job, ours, ends) if followed else ours
    except Deadline:
        return block(DEADLINE_EXCEEDED, f"image cache: no answer within the hook's deadline ({deadline_s:.0f} s)")


def keep_time(ends: float) -> None:
    """Have Deadline raised when the time is over, whatever is waited for, and SystemExit for a signal."""
    parent = posix.getppid()

    def tick(_signum: int, _frame: object) -> None:
        if posix.getppid() != parent:
            posix._exit(1)  # the launcher and its starter have ended: nobody reads an answer
        if monotonic() >= ends:
            raise Deadline

    def ended(signum: int, _frame: object) -> None:
        raise SystemExit(signum)

    _signal.signal(_signal.SIGALRM, tick)
    _signal.setitimer(_signal.ITIMER_REAL, max(0.001, min(1.0, ends - monotonic())), 1.0)
    for name in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT):
        _signal.signal(name, ended)
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
    # HTCondor starts its hooks with nearly every signal blocked, SIGALRM too: the timer would never end anything
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def answer(options: dict[str, str], job: bytes, ends: float) -> bytes:
    """Return the manager's block; asks again when the manager ends in mid-answer: it comes back."""
    machine = machine_ad()
    scratch = posix.getcwd()
    reached = False
    parent = posix.getppid()
    while True:
        if posix.getppid() != parent:
            posix._exit(1)  # an orphan must not begin a fetch
        keys = " ".join(
            (
                f"job={len(job)} left={ends - monotonic():.1f} scratch={quoted(fs_bytes(scratch))}",
                f"starter={quoted(posix.environ.get(b'CONDOR_STARTER_PID', b''))}",
                f"slot={quoted(posix.environ.get(b'_CONDOR_SLOT', b''))} can=test,credential",
            )
        )
        header = f"IMGC/1 {len(job) + len(machine)} {keys}\n".encode()
        try:
            return ask(options, header + job + machine, scratch, ends)
        except Refused as refused:
            if not reached:
                return degraded(options, job, str(refused), ends)
        except ConnectionError:
            reached = True
        select([], [], [], RETRY_S)


def read_all(descriptor: int) -> bytes:
    """Return what is to be read, to the end."""
    parts: list[bytes] = []
    while True:
        part = posix.read(descriptor, 1 << 18)
        if not part:
            return b"".join(parts)
        parts.append(part)


def machine_ad() -> bytes:
    """Return the slot's ad, which the starter puts beside the job's files; empty if it is not there."""
    try:
        descriptor = posix.open(posix.environ.get(b"_CONDOR_MACHINE_AD", b""), posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return read_all(descriptor)
    finally:
        posix.close(descriptor)


def quoted(raw: bytes) -> str:
    """Return bytes as a value for the header: everything that is not plain is percent-encoded."""
    return "".join(chr(c) if c > 42 and c < 127 and c not in b"%=" else f"%{c:02X}" for c in raw)


def fs_bytes(path: str) -> bytes:
    """Return a path as the kernel has it."""
    return path.encode("utf-8", "surrogateescape")


def connect(path: str) -> _socket.socket:
    """Return a connection to the manager. Raises Refused.

    A path longer than the 107 bytes that the kernel takes is reached from its own directory.
    """
    raw = fs_bytes(path)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        if len(raw) <= 100:  # sun_path
            connection.connect(raw)
        else:
            directory, _, base = raw.rpartition(b"/")
            here = posix.open(".", posix.O_RDONLY | posix.O_CLOEXEC)
            try:
                posix.chdir(directory)
                connection.connect(base)
            finally:
                posix.fchdir(here)
                posix.close(here)
    except OSError as error:
        connection.close()
        raise Refused(f"{path}: {error.strerror or error}") from None
    return connection


def refuse_stranger(options: dict[str, str], connection: _socket.socket) -> None:
    """Refuse a listener who is neither root, nor this user, nor the manager's. Raises Refused.

    What it answers is run as the job's user: in a directory like /tmp anybody may have put the socket there.
    """
    said = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)  # pid, uid, gid
    uid = int.from_bytes(said[4:8], sys.byteorder)
    if uid not in (0, posix.geteuid()) and not is_managers(uid, options["owner"], options["root"]):
        connection.close()
        raise Refused(f"{options['socket']}: uid {uid} listens there, who is not the manager's user")


def is_managers(uid: int, owner: str, root: str) -> bool:
    """Whether a uid is the manager's: of the user whom `config` named, by name or number.

    A configuration that was written before it named one has the owner of the cache, if only that one can write to it.
    """
    if owner.isdigit():
        return uid == int(owner)
    if owner:
        import pwd  # built into the interpreter; the name is in /etc/passwd, which is read in 0.1 ms

        try:
            return bool(uid == pwd.getpwnam(owner).pw_uid)
        except KeyError:
            return False
    try:
        found = posix.stat(root)
    except (OSError, ValueError):
        return False
    return found.st_uid == uid and not found.st_mode & 0o022


def ask(options: dict[str, str], request: bytes, scratch: str, ends: float) -> bytes:
    """Send the request and return the block of the answer. Raises Refused, ConnectionError."""
    connection = connect(options["socket"])
    refuse_stranger(options, connection)
    try:
        send(connection, request)
        while True:
            words, body = receive(connection)
            if not QUESTIONS.intersection(words):
                return checked(body)
            connection.sendall(asked(words, body, scratch, ends))
    except OSError as error:
        raise ConnectionError(text_of(error)) from None
    finally:
        connection.close()


def send(connection: _socket.socket, request: bytes) -> None:
    """Send the request. A manager that refused it by its header has answered, and reads no more."""
    try:
        connection.sendall(request)
    except OSError:
        return


def receive(connection: _socket.socket) -> tuple[list[bytes], bytes]:
    """Return one frame: the words of its header, and its body. Raises ConnectionError when it ends too early."""
    data = b""
    while b"\n" not in data:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("the manager ended in mid-answer")
        data += part
        if not (data + b"IMGC/1 "[len(data) :]).startswith(b"IMGC/1 ") or len(data) > MAX_REQUEST:
            raise ValueError(f"the manager's answer is none ({len(data)} bytes)")
    header, _, body = data.partition(b"\n")
    words = header.split()
    if len(words) < 2 or words[0] != b"IMGC/1" or not words[1].isdigit():
        raise ValueError(f"the manager's answer is none ({len(data)} bytes)")
    length = int(words[1])
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("the manager ended in mid-answer")
        body += part
    if len(body) != length:
        raise ValueError(f"the manager's answer has a wrong length ({len(body)} of {length} bytes)")
    return words, body


def checked(body: bytes) -> bytes:
    """Return the block if HTCondor can read it; an answer that it would misread is an error."""
    if not body.endswith(b"\n") or len(body) > MAX_BLOCK or b"\nHookStatusCode = " not in b"\n" + body or b"\0" in body:
        raise ValueError(f"the manager's answer is no update ad ({len(body)} bytes)")
    return body


def asked(words: list[bytes], body: bytes, scratch: str, ends: float) -> bytes:
    """Return the answer to a question of the manager's, which only the job's user can answer."""
    beside()
    if b"ask=test" in words:
        import image_test  # type: ignore[import-not-found]

        return bytes(image_test.frame(body, fs_bytes(scratch), ends - monotonic() - 1.0))
    if b"ask=credential" in words:
        import credential  # type: ignore[import-not-found]

        return bytes(credential.frame(body, fs_bytes(scratch), ends - monotonic() - 1.0))
    import look  # type: ignore[import-not-found]

    name = body if body.startswith(b"/") else fs_bytes(scratch) + b"/" + body
    return bytes(look.frame(name, ends - monotonic() - 1.0))


def beside() -> None:
    """Have the modules beside this one found, which only some jobs need."""
    here = __file__.rpartition("/")[0] or "."
    if here not in sys.path:
        sys.dont_write_bytecode = True
        sys.path.insert(0, here)


def degraded(options: dict[str, str], job: bytes, why: str, ends: float) -> bytes:
    """Return the answer without a manager."""
    beside()
    import degraded as without  # type: ignore[import-not-found]

    return bytes(without.answer(options, job, why, ends - monotonic() - 1.0))


def after(path: str, job: bytes, ours: bytes, ends: float) -> bytes:
    """Return the answer after the site's former hook."""
    beside()
    import next_hook  # type: ignore[import-not-found]

    return bytes(next_hook.run(path, job, ours, ends))


def main() -> None:
    """Print the answer in one write, and leave without the interpreter's tidying up."""
    try:
        text = run(sys.argv[1:])
    except SystemExit as ended:
        text = block(INTERNAL_ERROR, f"image cache: the hook was ended by signal {ended.code}")
    except BaseException as error:  # noqa: BLE001 - an uncaught exception exits with 1, and HTCondor holds the job
        text = block(INTERNAL_ERROR, f"image cache: {text_of(error)}")
    while text:
        text = text[posix.write(1, text) :]
    posix._exit(0)  # saves 2 ms


if __name__ == "__main__":
    main()
