"""Evaluates what users write as expressions: in children that can be ended, so that none takes the manager with it.

A child is started when it is first needed, and stays. One that takes too much processor time, memory or stack ends by
itself or is killed; the job goes back to idle, and its message names the attribute. One user's ads are evaluated one
at a time, and users take turns.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from cache_manager import protocol
from cache_manager.evaluated import from_json
from cache_manager.jobad import JobRequest
from cache_manager.status import HookStatus, StatusError
from cache_manager.turns import Turns

log = logging.getLogger(__name__)

CHILDREN: Final = 3
EACH: Final = 1
WALL_S: Final = 10.0
"""The child's own limit is processor time: on a busy machine it may take longer."""

ANSWER_BYTES: Final = 2 * protocol.MAX_BODY_BYTES
"""More is no answer: an expression made it grow."""

_START: Final = "import sys; sys.path.insert(0, sys.argv[1]); from cache_manager.evaluator_child import main; main()"
_OTHERS: Final = frozenset({-signal.SIGKILL, -signal.SIGTERM})
"""How a child ends that somebody else ended: it is asked again, once."""


class _Gone(Exception):  # noqa: N818 - a finding
    """The child did not answer; `attribute` is what it was at, empty if it had not begun."""

    def __init__(self, attribute: str, *, by_others: bool) -> None:
        self.attribute = attribute
        self.by_others = by_others


class Evaluator:
    """Reads ads that need evaluation. Lives on the manager's loop."""

    def __init__(self) -> None:
        self._turns = Turns(CHILDREN, lambda: EACH)
        self._idle: list[Process] = []
        self._ending: set[asyncio.Task[None]] = set()

    async def read(self, user: str, job: bytes, machine: bytes, scratch: str, limit_s: float = WALL_S) -> JobRequest:
        """Return what the hook sent, for `user` in turn. Raises StatusError, also where the limits were reached."""
        head = {"job": len(job), "machine": len(machine), "scratch": scratch}
        request = json.dumps(head).encode() + b"\n" + job + machine
        async with self._turns.turn(user):
            for attempt in (1, 2):
                try:
                    async with self._child() as child:
                        answer = await _ask(child, request, limit_s)
                        break
                except _Gone as gone:
                    if not gone.by_others or attempt == 2:  # noqa: PLR2004 - the second
                        raise _too_much(gone.attribute, user) from None
        if "request" in answer:
            return from_json(answer["request"])
        status = next(one for one in HookStatus if one.code == answer["status"])
        raise StatusError(status, answer["message"])

    @asynccontextmanager
    async def _child(self) -> AsyncIterator[Process]:
        """Give a child; one with which something went wrong is ended."""
        while self._idle:
            child = self._idle.pop()
            if child.returncode is None:
                break
        else:
            child = await _start()
        try:
            yield child
        except BaseException:
            ending = asyncio.create_task(_end(child))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            raise
        self._idle.append(child)

    def close(self) -> None:
        """End the children that have nothing to do; the others end with the manager's end of their pipe."""
        for child in self._idle:
            with suppress(ProcessLookupError):
                child.kill()


async def _end(child: Process) -> None:
    """End a child, and hear of all that asyncio would complain of otherwise."""
    with suppress(ProcessLookupError):
        child.kill()
    if child.stdin is not None:
        with suppress(OSError):
            child.stdin.close()
            await child.stdin.wait_closed()
    await child.wait()


async def _start() -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-c",
        _START,
        str(Path(__file__).parents[1]),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        cwd="/",
        env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "CONDOR_CONFIG": "ONLY_ENV"},
        start_new_session=True,
        limit=ANSWER_BYTES,
    )


async def _ask(child: Process, request: bytes, limit_s: float) -> dict[str, Any]:
    """Return a child's answer. Raises _Gone."""
    attribute = ""
    if child.stdin is None or child.stdout is None:
        raise _Gone(attribute, by_others=False)
    try:
        async with asyncio.timeout(limit_s):
            child.stdin.write(request)
            await child.stdin.drain()
            while line := await child.stdout.readline():
                answer: dict[str, Any] = json.loads(line)
                if "evaluates" not in answer:
                    return answer
                attribute = str(answer["evaluates"])
            status = await child.wait()
    except ConnectionError:  # it ended before it was asked
        status = await child.wait()
    except (TimeoutError, ValueError):  # ValueError: a line without end, or none of ours
        raise _Gone(attribute, by_others=False) from None
    raise _Gone(attribute, by_others=status in _OTHERS)


def _too_much(attribute: str, user: str) -> StatusError:
    what = f"{attribute}: its expression takes" if attribute else "job ad: reading it takes"
    log.warning("uid %s: %s too long or too much memory to evaluate", user, what)
    return StatusError(HookStatus.HOOK_INTERNAL_ERROR, f"{what} too much time or memory to evaluate (1 s, 512 MiB)")
