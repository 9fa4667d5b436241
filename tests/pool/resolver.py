"""A resolver that takes every question and answers none: names take as long as the system's library waits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CONFIGURATION: Final = Path("/etc/resolv.conf")


@contextmanager
def silent_resolver() -> Iterator[None]:
    """Have this machine (a disposable tree, as root) ask a name server that says nothing."""
    before = CONFIGURATION.read_bytes()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        CONFIGURATION.write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n", encoding="ascii")
        try:
            yield
            server.settimeout(0)
            assert server.recv(65536), "the resolver was not asked"
        finally:
            CONFIGURATION.write_bytes(before)
