"""What is done for whoever connects. Who asks is told by the kernel, not by the request."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from cache_manager import askback, jobad, processes, protocol, updatead
from cache_manager.broker import Broker
from cache_manager.caller import Caller, no_credentials
from cache_manager.connections import Connections, Seat
from cache_manager.door import Door, Guest
from cache_manager.line import Line
from cache_manager.listening import identity, is_listened_on, listener
from cache_manager.policy import Verdict
from cache_manager.processes import Peer
from cache_manager.protocol import Header, ProtocolError
from cache_manager.questions import Question, Verbs
from cache_manager.reader import LARGE_BYTES, Reader
from cache_manager.selection import NotDone
from cache_manager.status import HookStatus, StatusError
from cache_manager.text import printable
from cache_manager.turns import NOBODY, Turns

log = logging.getLogger(__name__)

LARGE_AT_A_TIME: Final = 16
LARGE_EACH: Final = 4
"""Large requests take memory while they come in: so many of all users and of one; the others wait in the kernel."""

REPORTS_AT_A_TIME: Final = 16
REPORTS_EACH: Final = 2
HOOKS_EACH: Final = 512
"""So many hooks of one owner are answered at a time; beyond that they wait for their turn within their deadline."""

LEFT_DEFAULT_S: Final = 1200.0
MARGIN_S: Final = 2.0
"""The manager answers so long before the hook's own timer does."""

GONE_S: Final = 0.5
"""How often a waiting request looks whether its hook is still there."""


TRUSTED: Final = frozenset({0, os.geteuid()})
"""Root and the manager's own user, which in a pilot is every job's."""


class _Stranger(Exception):  # noqa: N818 - a finding
    """Who asks gets no image here; the text says why."""


class Server:
    """Serves the hook (verb prepare) and the admin commands (all other verbs, answered in JSON)."""

    def __init__(
        self,
        broker: Broker,
        verbs: Verbs,
        reader: Reader,
        advertised: Callable[[], bytes],
        judged: Callable[[jobad.JobRequest, Verdict, int], None],
    ) -> None:
        self.changes = 0
        """Counts the changes that followers of `advertise` may want to hear of."""
        self.connections = Connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0], TRUSTED)
        self._broker = broker
        self._verbs = verbs
        self._reader = reader
        self._advertised = advertised
        self._judged = judged
        self._large = Turns(LARGE_AT_A_TIME, lambda: LARGE_EACH)
        self._reports = Turns(REPORTS_AT_A_TIME, lambda: REPORTS_EACH)
        self._hooks = Turns(sys.maxsize, lambda: HOOKS_EACH)
        self.why_not: Callable[[Peer, str], str] = lambda _peer, _scratch: ""
        """Why a peer that states this scratch directory gets no image; empty if it may."""
        self._door = Door(self.connections, self._attend)
        self._path = ""
        self._socket: tuple[int, int] | None = None

    async def start(self, path: str) -> None:
        """Listen. Any user may connect: what one may get is decided for each request. Raises OSError."""
        self._path = path
        self._door.open(listener(Path(path)))
        self._socket = identity(path)

    async def mend(self) -> None:
        """Listen again where the socket was removed, with its directory perhaps. Requests under way go on."""
        found = identity(self._path)
        if found == self._socket or (found is not None and is_listened_on(self._path)):
            return
        before = self._door
        self._door = Door(self.connections, self._attend)
        try:
            await self.start(self._path)
        except OSError as error:
            log.warning("socket %s: %s", self._path, error.strerror or error)
            self._door = before
            return
        log.info("socket %s: made again", self._path)
        before.close()

    async def stop(self) -> None:
        """Take no more connections."""
        self._door.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108 - a name, no object

    async def _attend(self, guest: Guest, seat: Seat) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(protocol.MAX_HEADER_BYTES, loop)
        ends = asyncio.StreamReaderProtocol(reader, loop=loop)
        seat.close = _not_now  # asyncio is about to take the socket over: nobody else may close it
        transport, _ = await loop.connect_accepted_socket(lambda: ends, guest.connection)
        seat.close = transport.abort
        writer = asyncio.StreamWriter(transport, ends, reader, loop)
        try:
            await self._serve(Line(reader, writer, guest.peer), seat)
            writer.close()
        except (ConnectionError, EOFError, TimeoutError, asyncio.CancelledError):
            # cancelled only when the manager ends, and asyncio would log that as an error
            log.debug("uid %d: the connection ended", guest.peer.uid)
        finally:
            if not writer.is_closing():
                transport.abort()  # what nobody reads is not waited for

    async def _serve(self, line: Line, seat: Seat) -> None:
        try:
            header = await line.read_header()
        except ProtocolError as error:
            block = updatead.status(HookStatus.HOOK_INTERNAL_ERROR, f"image cache request: {error}")
            await line.send(protocol.frame(block))
            return
        verb = header.keys.get("verb", "prepare")
        if verb == "prepare":
            await self._prepare(line, header, seat)
            return
        async with self._room_for(line, header):
            body = await line.read_body(header)
            self.connections.heard(seat)
            if verb == "advertise":
                await self._advertise(line, follow="follow" in header.keys)
            else:
                await self._ask(line, verb, Question(header, body, line.peer))

    def _room_for(self, line: Line, header: Header) -> AbstractAsyncContextManager[None]:
        """Wait, with a large request, until there is room for it in memory."""
        return self._large.turn(line.user) if header.length > LARGE_BYTES else nullcontext()

    async def _asked(self, line: Line, header: Header, seat: Seat) -> jobad.JobRequest:
        """Return what a hook asks for. Raises StatusError, _Stranger. The ads are not kept: they may be large."""
        async with self._room_for(line, header):
            body = await line.read_body(header)
            self.connections.heard(seat)
            why = self.why_not(line.peer, header.keys.get("scratch", ""))
            if why:
                raise _Stranger(why)
            request = await self._reader.request(line.user, header, body)
            return jobad.for_transfer(request, header.keys["url"]) if "url" in header.keys else request

    async def _ask(self, line: Line, verb: str, question: Question) -> None:
        """Answer an admin command in JSON."""

        async def say(reply: dict[str, Any]) -> None:
            await line.send(protocol.frame(json.dumps(reply).encode()))

        try:
            if verb in self._verbs.reports:
                async with self._reports.turn(NOBODY if line.peer.uid in TRUSTED else line.user):
                    await say(await self._verbs.reports[verb](question))
            elif verb not in self._verbs.works:
                await say({"error": f"unknown verb {verb!r}"})
            elif not question.may_change:
                allowed = f"only root and the manager's user (uid {os.geteuid()}) may do that"
                log.warning("refused %s to uid %d", verb, question.peer.uid)
                await say({"error": f"{verb}: {allowed}, you are uid {question.peer.uid}"})
            else:
                async with aclosing(self._verbs.works[verb](question)) as replies:
                    async for reply in replies:
                        await say(reply)
        except NotDone as error:
            await say({"error": str(error)})
        except (ConnectionError, EOFError):
            raise
        except Exception as error:  # an admin's question must not end the connection without a word
            log.exception("verb %s", verb)
            await say({"error": f"{type(error).__name__}: {error}"})

    async def _prepare(self, line: Line, header: Header, seat: Seat) -> None:
        task = asyncio.ensure_future(self._answer(line, header, seat))
        try:
            while not (await asyncio.wait({task}, timeout=GONE_S))[0]:
                if line.reader.at_eof():
                    raise ConnectionResetError  # the hook was killed: its interest ends
            await line.send(protocol.frame(task.result()))
        finally:
            task.cancel()

    async def _answer(self, line: Line, header: Header, seat: Seat) -> bytes:
        """Return the block that the hook prints. Never raises: a job must not be held for a fault of ours."""
        began = asyncio.get_running_loop().time()
        request = jobad.JobRequest()
        try:
            request = await self._asked(line, header, seat)
            holder = processes.holder_for(line.peer, int(header.number("starter", 0)), header.keys.get("scratch", ""))
            deadline = asyncio.get_running_loop().time() + header.number("left", LEFT_DEFAULT_S) - MARGIN_S
            can, foreign = header.keys.get("can", "").split(","), line.peer.uid not in {0, os.getuid()}
            caller = Caller(
                holder,
                askback.prober(line.exchange),
                deadline,
                askback.tester(line.exchange) if foreign and "test" in can else None,
                line.peer.uid,
                owner_of(line.peer, request),
                askback.reader_of_credentials(line.exchange) if "credential" in can else no_credentials,
            )
            verdict = await self._answer_in_turn(request, caller)
            block = block_of(verdict)
        except StatusError as error:
            verdict = Verdict(error.status, error.message)
            block = updatead.status(error.status, error.message)
        except _Stranger as stranger:  # says nothing of this EP or of an image: not judged
            log.warning("refused an image: %s", stranger)
            return updatead.status(HookStatus.HOOK_INTERNAL_ERROR, f"image cache: {stranger}")
        except (ConnectionError, EOFError, TimeoutError):
            raise  # nobody listens, or said what it wants
        except Exception as error:  # the one place: whatever it is, the job goes back to idle and not on hold
            log.exception("request of uid %d", line.peer.uid)
            verdict = Verdict(HookStatus.HOOK_INTERNAL_ERROR, f"cache manager: {type(error).__name__}: {error}")
            block = updatead.status(verdict.status, verdict.message)
        if "url" not in header.keys or verdict.status.holds:  # else the job's hook asks the same in a moment
            self._judged(request, verdict, line.peer.uid)
        log.info(
            "answer %s uid %d %s: %d %s in %.3f s: %s",
            printable(request.job_id, 40) or "?",
            line.peer.uid,
            printable(header.keys.get("slot", "-"), 40),
            verdict.status.code,
            verdict.status.name,
            asyncio.get_running_loop().time() - began,
            printable(verdict.message, 2000) or "untouched",
        )
        return block

    async def _answer_in_turn(self, request: jobad.JobRequest, caller: Caller) -> Verdict:
        """Have a job's image found, when it is its owner's turn."""
        try:
            async with self._hooks.turn(caller.owner, caller.deadline):
                return await self._broker.answer(request, caller)
        except TimeoutError:
            what = f"image cache: {HOOKS_EACH} other jobs of the same user wait for an answer"
            return Verdict(HookStatus.DEADLINE_EXCEEDED, what)

    async def _advertise(self, line: Line, *, follow: bool) -> None:
        """Send the slot attributes; to a follower again whenever they change."""
        last, seen = b"", -1
        while True:
            if seen != self.changes:
                seen = self.changes
                async with self._reader.turns.turn(line.user):
                    now = self._advertised()
                if now != last:
                    await line.send(protocol.frame(now))
                    last = now
            if not follow or line.reader.at_eof():
                return
            await asyncio.sleep(GONE_S)


def _not_now() -> None:
    """Close nothing."""


def owner_of(peer: Peer, request: jobad.JobRequest) -> str:
    """Return at whose expense a request is: the kernel's word for the user, because an ad says what its user likes.

    Where the jobs have the manager's own uid (a pilot) there is only the ad's Owner to tell one from another.
    """
    return f"{peer.uid} {printable(request.owner, 64)}".strip() if peer.uid == os.geteuid() else str(peer.uid)


def block_of(verdict: Verdict) -> bytes:
    """Return the lines that the hook prints for a verdict."""
    if verdict.image is None:
        return updatead.status(verdict.status, verdict.message)
    if not updatead.can_say(verdict.image.path):
        what = f"{printable(verdict.image.path)}: a path that cannot be written into an ad"
        return updatead.status(HookStatus.HOOK_INTERNAL_ERROR, what)
    return updatead.runs_image(verdict.image.path, sandbox=verdict.image.sandbox, message=verdict.message)
