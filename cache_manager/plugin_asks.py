# ruff: noqa: PTH109, PTH123
# pathlib takes longer to import than all that is done here
"""How the transfer plug-in asks the manager for the job's image: one question on its socket, as the hook's."""

from __future__ import annotations

import os
import pwd
import socket
import struct
import time
from collections.abc import Mapping

from cache_manager import plugin_credential
from cache_manager.plugin_credential import quoted
from cache_manager.plugin_next import Site

MANAGER_DOWN = 410
INTERNAL_ERROR = 399
DEADLINE_S = 1200.0
LOST_S = 15.0
"""How long a manager that ended in mid-answer is given to come back: condor_master starts it within seconds."""
RETRY_S = 0.2
LONG = 100
"""sun_path has 108 bytes: a longer path is reached from its own directory."""
MAX_REPLY = 1 << 20
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Answer:
    """What the manager says: where the image is, or the status that the job would get and why."""

    def __init__(self, status: int, message: str, path: str = "") -> None:
        self.status = status
        self.message = message
        self.path = path


class _Lost(Exception):  # noqa: N818 - a finding
    """The manager was reached, and ended before it had answered."""


def job_ad(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the strings of the job ad that stand there as literals, by their names in lower case."""
    found = {}
    for line in _read(environment.get("_CONDOR_JOB_AD", "")).decode("utf-8", "surrogateescape").splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        if value[:1] == '"' == value[-1:] and len(value) > 1:
            found[name.lower()] = _text(value)
    return found


def _text(literal: str) -> str:
    """Return a string of the old syntax: a backslash stands for itself there, but before a quote."""
    return literal[1:-1].replace('\\"', '"')


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def ask(site: Site, url: str, environment: Mapping[str, str]) -> Answer:
    """Return the manager's answer for the image at a URL; 410 where there is none."""
    if not site.socket:
        return Answer(MANAGER_DOWN, "HTCondor's configuration names no IMAGE_CACHE_SOCKET")
    job, machine = (_read(environment.get(name, "")) for name in ("_CONDOR_JOB_AD", "_CONDOR_MACHINE_AD"))
    ends = time.monotonic() + _seconds(site.deadline)
    lost_at = 0.0
    while True:
        left = ends - time.monotonic()
        keys = f"job={len(job)} left={left:.1f} scratch={quoted(os.getcwdb())} url={quoted(os.fsencode(url))}"
        keys += " can=credential"
        request = f"IMGC/1 {len(job) + len(machine)} {keys}\n".encode() + job + machine
        try:
            return _answered(site, request, max(left, 0.1), environment)
        except _Lost as error:
            lost_at = lost_at or time.monotonic()
            why = str(error)
        except OSError as error:
            why = error.strerror or str(error)
        if not lost_at or time.monotonic() > min(ends, lost_at + LOST_S):
            return Answer(MANAGER_DOWN, f"the image cache manager does not answer ({site.socket}: {why})")
        time.sleep(RETRY_S)


def _answered(site: Site, request: bytes, left: float, environment: Mapping[str, str]) -> Answer:
    """Ask once. Raises OSError when nobody listens, _Lost when the answer ended."""
    connection = _connected(site)
    try:
        connection.settimeout(left)
        connection.sendall(request)
        header, body = _received(connection)
        if b" ask=credential" in header:
            connection.sendall(plugin_credential.frame(body, environment))
            header, body = _received(connection)
    except OSError as error:
        raise _Lost(f"in mid-answer: {error.strerror or error}") from None
    finally:
        connection.close()
    if b" ask=" in header:
        return Answer(INTERNAL_ERROR, "the manager asks what a transfer plug-in cannot answer")
    lines = (line.partition(" = ") for line in body.decode("utf-8", "surrogateescape").splitlines())
    said = {name: value for name, _, value in lines}
    code = said.get("HookStatusCode", "")
    status = int(code) if code.isdecimal() else INTERNAL_ERROR
    path = _text(said.get("ContainerImage", '""')) if status == 0 else ""
    message = _text(said.get("HookStatusMessage", '""')) or "the manager leaves this image alone"
    return Answer(status or INTERNAL_ERROR, message, path)


def _connected(site: Site) -> socket.socket:
    """Return a connection to the manager. Raises OSError, also when it is somebody else who listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if len(os.fsencode(site.socket)) <= LONG:
            connection.connect(site.socket)
        else:
            directory, _, name = site.socket.rpartition("/")
            here = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.chdir(directory)
                connection.connect(name)
            finally:
                os.fchdir(here)
                os.close(here)
        credentials = struct.calcsize("3i")
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials))
        if uid not in {0, os.geteuid(), _uid_of(site.owner)}:
            raise PermissionError(1, f"uid {uid} listens there, who is not the manager's user")
    except OSError:
        connection.close()
        raise
    return connection


def _uid_of(name: str) -> int:
    """Return the uid of a user given by name or number; -1 if there is none."""
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return -1


def _received(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return header and body of a reply. Raises _Lost."""
    data = b""
    while b"\n" not in data or len(data) < _length(data):
        part = connection.recv(65536)
        if not part or len(data) > MAX_REPLY:
            raise _Lost("in mid-answer")
        data += part
    header, _, body = data.partition(b"\n")
    return header, body


def _length(data: bytes) -> int:
    """Return how long the reply is with its header, told by its beginning. Raises _Lost for one that is none."""
    header = data.partition(b"\n")[0]
    words = header.split()
    if len(words) < 2 or words[0] != b"IMGC/1" or not words[1].isdigit():  # noqa: PLR2004 - magic and length
        raise _Lost("with what is no answer")
    return len(header) + 1 + int(words[1])


def _seconds(text: str) -> float:
    """Return a time like 1200, 20m or 90s in seconds; the default for anything else."""
    scale = _UNITS.get(text[-1:], 0)
    try:
        value = float(text[:-1]) * scale if scale else float(text)
    except ValueError:
        return DEADLINE_S
    return value if 0 < value < 1e6 else DEADLINE_S  # noqa: PLR2004 - eleven days
