"""Asking the manager, for the admin commands."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cache_manager import protocol
from cache_manager.configuration import ConfigurationError, read_knobs
from cache_manager.ownership import OWN_USER_KNOB, Trust, uid_of, why_unsafe
from cache_manager.processes import Peer
from cache_manager.protocol import ProtocolError

LIMIT_S: Final = 30.0


class ManagerDown(Exception):  # noqa: N818 - a finding
    """Nobody answers on the socket; the text says which and why."""


class Refused(Exception):  # noqa: N818 - a finding
    """The manager answers that it cannot or may not; the text says why."""


def ask(path: str, verb: str, body: bytes = b"", **keys: str | int) -> bytes:
    """Return the body of the manager's answer. Raises ManagerDown."""
    for reply in follow(path, verb, body, LIMIT_S, **keys):
        return reply
    raise ManagerDown(f"{path}: the manager ended in mid-answer")


def work(path: str, verb: str, **wishes: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - whatever JSON can say
    """Have the manager do something: yield how far it is, and at last its result. Raises ManagerDown, Refused."""
    for reply in follow(path, verb, json.dumps(wishes).encode(), LIMIT_S):
        answer: dict[str, Any] = json.loads(reply)
        if "error" in answer:
            raise Refused(str(answer["error"]))
        yield answer
        if answer.get("done"):
            return
    raise ManagerDown(f"{path}: the manager ended in mid-answer")


def report(path: str, verb: str, **wishes: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON can say
    """Return what the manager says to a question. Raises ManagerDown, Refused."""
    answer: dict[str, Any] = json.loads(ask(path, verb, json.dumps(wishes).encode()))
    if "error" in answer:
        raise Refused(str(answer["error"]))
    return answer


def follow(path: str, verb: str, body: bytes = b"", limit_s: float | None = None, **keys: str | int) -> Iterator[bytes]:
    """Yield the bodies of the manager's answers until it ends. Raises ManagerDown."""
    try:
        with _connected(path, limit_s) as connection, connection.makefile("rb") as stream:
            connection.sendall(protocol.frame(body, verb=verb, **keys))
            while line := stream.readline(protocol.MAX_HEADER_BYTES):
                header = protocol.parse_header(line)
                reply = stream.read(header.length)
                if len(reply) != header.length:
                    return
                yield reply
    except (OSError, ProtocolError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ManagerDown(f"{path}: {what}") from None


def _connected(path: str, limit_s: float | None) -> socket.socket:
    """Connect from the socket's own directory: its path may be longer than the kernel's 108 bytes."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    here = os.open(".", os.O_RDONLY)
    directory, _, name = path.rpartition("/")
    try:
        os.chdir(directory or ".")
        # a connection with Python's time limit fails at once where others wait to be let in: the kernel's waits
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", round(limit_s or 0), 0))
        connection.connect(name)
        connection.settimeout(limit_s)
        _refuse_stranger(connection, path)
    except OSError:
        connection.close()
        raise
    finally:
        os.fchdir(here)
        os.close(here)
    return connection


def _refuse_stranger(connection: socket.socket, path: str) -> None:
    """Refuse a listener who is neither root, nor we, nor the manager's user: it would be believed. Raises OSError."""
    uid = Peer.of(connection).uid
    if uid in {0, os.geteuid()}:
        return
    # nobody else can have put it into a directory of its own, unless anybody could have made that directory
    safe = not why_unsafe(path, Trust(frozenset({0, os.geteuid()}), strict=False))
    if safe and Path(path).parent.stat().st_uid == uid:
        return
    with suppress(ConfigurationError):
        if uid_of(read_knobs().get(OWN_USER_KNOB, "")) == uid:
            return
    raise OSError(errno.EPERM, f"uid {uid} listens there, who is not the manager's user")
