"""A child that may hang: asked with a time limit, and left behind when it does not answer."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


class Hangs(Exception):  # noqa: N818 - a finding about the outside
    """The child did not answer in time. It was killed, and may stay in D state."""


class Helper:
    """One long-lived child of `script`, which answers JSON lines. Safe to use from several threads."""

    def __init__(self, script: Path) -> None:
        self._argv = [sys.executable, "-IS", str(script)]
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._abandoned: subprocess.Popen[bytes] | None = None
        self._hung_at = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for the child, and none that was left behind still hangs."""
        hangs = self._abandoned is not None and self._abandoned.poll() is None
        return not hangs and not self._lock.locked()

    def ask(self, request: dict[str, str], limit_s: float) -> dict[str, Any]:
        """Return the child's answer. Raises Hangs after `limit_s`.

        At once while an abandoned child still hangs, and for all who were waiting for their turn when it began to.
        """
        arrived_at = time.monotonic()
        with self._lock:
            if self._hung_at >= arrived_at:
                raise Hangs
            if self._abandoned is not None:
                if self._abandoned.poll() is None:
                    raise Hangs
                self._abandoned = None
            line = (json.dumps(request) + "\n").encode()
            for attempt in (1, 2):  # a child that died since it was last asked is replaced once
                child = self._running()
                try:
                    reply = self._exchange(child, line, limit_s)
                except OSError:
                    reply = b""
                if reply.endswith(b"\n"):
                    return _object(reply)
                self._drop(child)
                if attempt == 2:  # noqa: PLR2004 - the second
                    break
            raise Hangs

    def close(self) -> None:
        """End the child."""
        with self._lock:
            if self._child is not None:
                self._drop(self._child)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            _close_pipes(self._child)
            self._child = None
        if self._child is None:
            self._child = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
                start_new_session=True,
            )
        return self._child

    def _exchange(self, child: subprocess.Popen[bytes], line: bytes, limit_s: float) -> bytes:
        if child.stdin is None or child.stdout is None:
            return b""
        child.stdin.write(line)
        child.stdin.flush()
        reply = b""
        poll = select.poll()
        poll.register(child.stdout, select.POLLIN)
        while not reply.endswith(b"\n"):
            if not poll.poll(limit_s * 1000):
                self._abandon(child)
                raise Hangs
            part = os.read(child.stdout.fileno(), 1 << 20)
            if not part:
                break
            reply += part
        return reply

    def _abandon(self, child: subprocess.Popen[bytes]) -> None:
        """Kill without waiting: in D state it ends when its mount comes back."""
        child.kill()
        self._hung_at = time.monotonic()
        self._abandoned, self._child = child, None
        _close_pipes(child)

    def _drop(self, child: subprocess.Popen[bytes]) -> None:
        child.kill()
        _close_pipes(child)
        child.wait(5)
        self._child = None


def _object(reply: bytes) -> dict[str, Any]:
    """Return the child's answer. Raises Hangs for one that is none: a child that is broken cannot say either."""
    try:
        answer = json.loads(reply)
    except ValueError:
        raise Hangs from None
    if not isinstance(answer, dict):
        raise Hangs
    return answer


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # unwritten bytes for a dead child
                continue
