"""The prepare-job hook: hands the job ad to the cache manager and prints its answer in one write.

It decides nothing and parses nothing: an interpreter starts in 6 ms, and each module imported here costs as much
again. Whatever happens it prints one block with a HookStatusCode and exits with 0: HTCondor holds a job whose hook
exits with 1. The codes are literals here; a test compares them with cache_manager.status.

    prepare_job.py --socket PATH [--deadline SECONDS] [--default-image] [--degraded]

The environment holds session secrets of HTCondor: only the names below are read, nothing of it is forwarded.
"""

import sys

INTERNAL_ERROR = 399
DEADLINE_EXCEEDED = 460
MAX_REQUEST = 1024 * 1024
MAX_BLOCK = 10000
HEAD = 4096
DEADLINE_S = 1200.0
RETRY_S = 0.2


class Deadline(Exception):  # noqa: N818 - it is no error
    """The hook's total time is over."""


class Refused(Exception):  # noqa: N818 - it is the manager's absence
    """Nobody listens on the socket."""


def text_of(error):
    """Return an exception as text on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def block(code, message):
    """Return an answer's lines: the status, and a message escaped for a ClassAd string."""
    clean = "".join(" " if ord(c) < 32 or 126 < ord(c) < 160 else c for c in message[:1500])  # noqa: PLR2004
    clean = clean.replace("\\", "\\\\").replace('"', '\\"')
    return f'HookStatusCode = {code}\nHookStatusMessage = "{clean}"\n'.encode("utf-8", "replace")


def arguments(argv):
    """Read the command line; `--name=value` too. Unknown options are ignored: they come from a newer `config`."""
    options = {"socket": "", "deadline": "", "default-image": "", "degraded": "", "root": ""}
    words = list(argv)
    while words:
        name, equals, value = words.pop(0).partition("=")
        name = name[2:] if name.startswith("--") else ""
        if name in ("socket", "deadline", "root") and not equals:
            value = words.pop(0) if words else ""
        elif not equals:
            value = "yes"
        if name in options:
            options[name] = value
    return options


def seconds(text):
    """Return a time like 1200, 20m or 90s in seconds; the default for anything else."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    scale = units.get(text[-1:], 0)
    try:
        value = float(text[:-1]) * scale if scale else float(text)
    except ValueError:
        return DEADLINE_S
    return value if 0 < value < 1e6 else DEADLINE_S  # noqa: PLR2004 - eleven days


def run(argv):  # noqa: C901, PLR0915 - one straight way, and a function call is not free here
    """Return the block to print."""
    # posix, _signal and _socket are C modules that cost nothing; os, signal and socket cost 9 ms
    import _signal
    import posix
    from time import monotonic

    options = arguments(argv)
    deadline_s = seconds(options["deadline"])
    ends = monotonic() + deadline_s
    parent = posix.getppid()

    def tick(_signum, _frame):
        if posix.getppid() != parent:
            posix._exit(1)  # noqa: SLF001 - the starter has ended: nobody reads an answer
        if monotonic() >= ends:
            raise Deadline

    def ended(signum, _frame):
        raise SystemExit(signum)

    _signal.signal(_signal.SIGALRM, tick)
    _signal.setitimer(_signal.ITIMER_REAL, min(1.0, deadline_s), 1.0)
    for name in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT):
        _signal.signal(name, ended)
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)

    job = b""
    try:
        job = read_all(posix, 0)
        if len(job) > MAX_REQUEST:
            return block(INTERNAL_ERROR, f"job ad: too large ({len(job)} bytes, at most {MAX_REQUEST})")
        machine = machine_ad(posix)
        scratch = posix.getcwd()
        keys = "job=%d left=%%.1f starter=%s scratch=%s slot=%s" % (  # noqa: UP031 - half filled in
            len(job),
            quoted(posix.environ.get(b"CONDOR_STARTER_PID", b"")),
            quoted(scratch.encode("utf-8", "surrogateescape")),
            quoted(posix.environ.get(b"_CONDOR_SLOT", b"")),
        )
        sent = False
        while True:
            try:
                left = ends - monotonic()
                header = "IMGC/1 %d %s\n" % (len(job) + len(machine), keys % left)  # noqa: UP031
                return ask(posix, options["socket"], header.encode() + job + machine, scratch)
            except Refused as refused:
                if not sent:
                    return degraded(options, job, str(refused), ends)
            except ConnectionError:
                sent = True  # the manager was there and is gone: condor_master brings it back
            pause(_signal, RETRY_S)
    except Deadline:
        return block(DEADLINE_EXCEEDED, f"image cache: no answer within the hook's deadline ({deadline_s:.0f} s)")


def read_all(posix, descriptor):
    """Return what is to be read, to the end."""
    parts = []
    while True:
        part = posix.read(descriptor, 1 << 18)
        if not part:
            return b"".join(parts)
        parts.append(part)


def machine_ad(posix):
    """Return the slot's ad, which the starter puts beside the job's files; empty if it is not there."""
    try:
        descriptor = posix.open(posix.environ.get(b"_CONDOR_MACHINE_AD", b""), posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return read_all(posix, descriptor)
    finally:
        posix.close(descriptor)


def quoted(raw):
    """Return bytes as a value for the header: everything that is not plain is percent-encoded."""
    return "".join(chr(c) if c > 42 and c < 127 and c not in b"%=" else f"%{c:02X}" for c in raw)  # noqa: PLR2004


def pause(_signal, duration):
    """Wait; the timer's ticks go on."""
    from select import select

    select([], [], [], duration)


def connect(posix, path):
    """Return a connection to the manager. Raises Refused.

    A path longer than the 107 bytes that the kernel takes is reached from its own directory.
    """
    from _socket import AF_UNIX, SOCK_STREAM, socket

    raw = path.encode("utf-8", "surrogateescape")
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        if len(raw) <= 100:  # noqa: PLR2004 - sun_path
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


def ask(posix, path, request, scratch):
    """Send the request and return the block of the answer. Raises Refused, ConnectionError."""
    connection = connect(posix, path)
    try:
        try:
            connection.sendall(request)
        except OSError:
            pass  # it may have answered before it read everything
        while True:
            words, body = receive(connection)
            if b"ask=probe" not in words:
                return checked(body)
            connection.sendall(probe(posix, body, scratch))
    except OSError as error:
        raise ConnectionError(text_of(error)) from None
    finally:
        connection.close()


def receive(connection):
    """Return one frame: the words of its header, and its body. Raises ConnectionError when it ends too early."""
    data = b""
    while b"\n" not in data:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("the manager ended in mid-answer")
        data += part
        if len(data) > MAX_REQUEST:
            raise ValueError("the manager's answer has no header")
    header, _, body = data.partition(b"\n")
    words = header.split()
    if len(words) < 2 or words[0] != b"IMGC/1" or not words[1].isdigit():  # noqa: PLR2004
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


def checked(body):
    """Return the block if HTCondor can read it; an answer that it would misread is an error."""
    if not body.endswith(b"\n") or len(body) > MAX_BLOCK or b"HookStatusCode = " not in body or b"\0" in body:
        raise ValueError(f"the manager's answer is no update ad ({len(body)} bytes)")
    return body


def probe(posix, path, scratch):
    """Open a path as the job's user and say what it is: kind, size and first bytes. The manager may not open it."""
    name = path if path.startswith(b"/") else scratch.encode("utf-8", "surrogateescape") + b"/" + path
    kind, size, head, why = "absent", 0, b"", ""
    try:
        # O_NONBLOCK: a FIFO must not stop the hook
        descriptor = posix.open(name, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        try:
            found = posix.fstat(descriptor)
            form = found.st_mode & 0o170000
            kind = {0o100000: "file", 0o040000: "directory"}.get(form, "other")
            size = found.st_size
            if kind == "file":
                head = posix.read(descriptor, HEAD)
        finally:
            posix.close(descriptor)
    except OSError as error:
        why = error.strerror or "error"
        # ENOENT, ENOTDIR: not there; EACCES, EPERM: not for this user
        kind = {2: "absent", 20: "absent", 13: "denied", 1: "denied"}.get(error.errno, "unwell")
    keys = "kind=%s size=%d error=%s" % (kind, size, quoted(why.encode()))  # noqa: UP031
    return ("IMGC/1 %d %s\n" % (len(head), keys)).encode() + head  # noqa: UP031


def degraded(options, job, why, ends):
    """Return the answer without a manager."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, __file__.rpartition("/")[0] or ".")
    import degraded as without

    return without.answer(options, job, why, ends)


def main():
    """Print the answer in one write, and leave without the interpreter's tidying up."""
    try:
        answer = run(sys.argv[1:])
    except SystemExit as ended:
        answer = block(INTERNAL_ERROR, f"image cache: the hook was ended by signal {ended.code}")
    except BaseException as error:  # noqa: BLE001 - an uncaught exception exits with 1, and HTCondor holds the job
        answer = block(INTERNAL_ERROR, f"image cache: {text_of(error)}")
    import posix

    while answer:
        answer = answer[posix.write(1, answer) :]
    posix._exit(0)  # noqa: SLF001 - 2 ms less


if __name__ == "__main__":
    main()
