"""A hostile user: `attack.py UID SOCKET KIND COUNT`, the ad of its requests on standard input; run by its path, alone.

As root it becomes UID first. It keeps COUNT connections of its KIND open, and takes another for each that is closed.
`@N@` in the ad is another number in each request.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import sys


def frame(verb: bytes, body: bytes = b"") -> bytes:
    """Return a request."""
    return b"IMGC/1 %d verb=%s job=%d left=600\n" % (len(body), verb, len(body)) + body


def first_words(kind: str, ad: bytes) -> bytes:
    """Return what is said at once."""
    return {
        "idle": b"",
        "half a header": b"IMGC/1 99 job=",
        "half a body": b"IMGC/1 1000000 job=1000000\n" + b"A = 1\n" * 1000,
        "half-closed": b"IMGC/1 99 job=",
        "slow": b"",
        "deaf": frame(b"status"),
        "following": b"IMGC/1 0 verb=advertise follow=1\n",
        "asking": frame(b"prepare", ad),
        "explaining": frame(b"explain", ad),
    }[kind]


class Attack:
    """The connections of one user."""

    def __init__(self, name: str, kind: str, ad: bytes) -> None:
        self._name = name
        self._kind = kind
        self._ad = ad
        self._poll = select.epoll()
        self._begun = 0
        self.lines: dict[int, socket.socket] = {}

    def begin(self) -> None:
        """Take another connection."""
        one = socket.socket(socket.AF_UNIX)
        one.connect(self._name)
        self.lines[one.fileno()] = one
        self._begun += 1
        self._poll.register(one, 0 if self._kind == "deaf" else select.EPOLLIN)
        try:
            one.sendall(first_words(self._kind, self._ad.replace(b"@N@", b"%d" % self._begun)))
            if self._kind == "half-closed":
                one.shutdown(socket.SHUT_WR)
        except OSError:  # closed already; it is taken anew when that is seen
            return

    def go_on(self) -> None:
        """Read, drip, and take anew what was closed."""
        for number, _ in self._poll.poll(0.05):
            one = self.lines[number]
            try:
                is_open = bool(one.recv(65536))
            except OSError:
                is_open = False
            if not is_open:
                self._poll.unregister(one)
                del self.lines[number]
                one.close()
                self.begin()
        if self._kind == "slow":
            for one in self.lines.values():
                try:
                    one.send(b"I")
                except OSError:
                    continue


def main(argv: list[str]) -> None:
    """Attack until it is killed."""
    uid, path, kind, count = int(argv[1]), argv[2], argv[3], int(argv[4])
    ad = sys.stdin.buffer.read()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    os.chdir(os.path.dirname(path))  # noqa: PTH120 - the test's directories are closed to others
    if os.geteuid() == 0 and uid:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    attack = Attack(os.path.basename(path), kind, ad)  # noqa: PTH119 - a name
    for _ in range(count):
        attack.begin()
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    while True:
        attack.go_on()


if __name__ == "__main__":
    main(sys.argv)
