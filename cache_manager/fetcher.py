"""Single flight: however many jobs wait for an image, it is fetched once, and each of them gets its lease.

Interest is registered before the fetch begins; the entry is published and leased to all who still wait in the same
turn of the loop, so nothing can evict it in between.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from cache_manager import processes, sif
from cache_manager.archive import ArchiveError
from cache_manager.arrived import Came, checked, no_image, status_of
from cache_manager.cache import Cache
from cache_manager.entry import CacheEntry
from cache_manager.layout import record_name
from cache_manager.lease import Holder
from cache_manager.memory import Memory
from cache_manager.outcome import FetchError, Located, remembered_s
from cache_manager.runner import NO_RUNNER, Runner
from cache_manager.sources.base import Source, SourceError
from cache_manager.sources.transport import shown
from cache_manager.staging import IMAGE, Staging
from cache_manager.status import HookStatus, StatusError
from cache_manager.text import human_bytes, without_secrets
from cache_manager.turns import NOBODY, Turns

log = logging.getLogger(__name__)

CONCURRENT: Final = 64
"""Transfers at a time. Most of them wait for servers: one that says nothing must not stop the others."""
_PRIVATE: Final = "private "
_OURS: Final = frozenset(
    {HookStatus.CACHE_FULL, HookStatus.DISK_FULL, HookStatus.CACHE_UNUSABLE, HookStatus.DEADLINE_EXCEEDED}
)
"""Failures that are this EP's and may end at any moment, and a fetch that was dropped: not remembered."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object to fetch: where it is, which source brings it, and under what name a job asked for it.

    `own_url` says that the job itself named the object, so a wrong one is the user's to mend; `unpack` that SIFs do not
    run here, so it has to become a directory. `owner` is at whose expense it comes in.
    """

    name: str
    located: Located
    source: Source
    own_url: bool = False
    unpack: bool = False
    owner: str = NOBODY
    uid: int | None = None
    """Of the job's user whose request it is; None for an admin's."""

    @property
    def closed(self) -> bool:
        """Whether it comes with a credential of the job's own."""
        in_url = self.own_url and without_secrets(self.located.url) != self.located.url
        return in_url or self.located.private

    @property
    def failure_id(self) -> str:
        """Under what its failure is remembered."""
        return f"{_PRIVATE}{self.located.object_id}" if self.located.private else self.located.object_id

    def is_remembered(self, error: StatusError) -> bool:
        """Whether a failure says something of the object: who has another credential may get it."""
        return error.status not in _OURS and not (self.located.private and _is_of_credential(error))

    @property
    def format(self) -> str:
        """The format of the entry that it becomes."""
        return "sandbox" if self.unpack else "sif"


def _is_of_credential(error: StatusError) -> bool:
    """Whether it is the job's credential that failed, and perhaps no other's."""
    return isinstance(error, FetchError) and error.of_credential


def _is_public(failure_id: str) -> bool:
    """Whether everybody may hear what became of an object."""
    return not failure_id.startswith(_PRIVATE) and without_secrets(failure_id) == failure_id


@dataclass(eq=False)
class Flight:
    """A fetch under way, and the holders that wait for it (one may wait more than once).

    It begins with its turn, at the expense of the first of the owners who asked for it to get one.
    """

    wanted: Wanted
    began_at: float
    turn: asyncio.Future[str]
    owners: set[str]
    task: asyncio.Task[CacheEntry] | None = None
    staging: Staging | None = None
    unpacks: bool = False
    waiting: list[tuple[Holder, str]] = field(default_factory=list)
    comers: int = 0
    """How many came for it so far, and how many of them are gone."""
    gone: int = 0
    dropped: bool = False

    @property
    def is_half_here(self) -> bool:
        """Whether as much of it is here as is missing, as far as that is known."""
        size = self.staging.of_bytes if self.staging else None
        return self.staging is not None and size is not None and 2 * self.staging.size_bytes >= size


class Fetcher:
    """Brings objects into the cache."""

    def __init__(
        self,
        cache: Cache,
        runner: Runner = NO_RUNNER,
        clock: Callable[[], float] = time.time,
        each: Callable[[], int] = lambda: CONCURRENT,
        patience_s: Callable[[], float] = lambda: inf,
    ) -> None:
        """Take how many fetches one owner may have at a time, and how long one goes on that nobody waits for."""
        self._patience_s = patience_s
        self._runner = runner
        self._turns = Turns(CONCURRENT, each)
        self._unpackings = Turns(1, lambda: 1)
        self.flights: dict[str, Flight] = {}
        self.failures: Memory[str, StatusError] = Memory()
        """Failed objects: none is asked for again so soon, however many jobs try."""
        self._cache = cache
        self._clock = clock
        self._threads = ThreadPoolExecutor(CONCURRENT, "transfer")
        self._unpacking = ThreadPoolExecutor(1, "unpack")  # one at a time: the machine is the jobs'
        self._numbers = 0

    async def fetch(self, wanted: Wanted, holder: Holder | None, job_id: str) -> CacheEntry:
        """Return the entry, fetched by this call or by one under way. Raises StatusError.

        When this call is cancelled its interest ends; the fetch goes on for the next job. It is dropped when nobody has
        come for it for the time that a hook has, and less than half of it is here.
        """
        while True:
            flight = await self._flight_for(wanted)
            try:
                return await self._landing(flight, (holder, job_id) if holder else None)
            except StatusError as error:
                # what was refused was another's credential, or had none
                is_own = flight.wanted is wanted or not (wanted.located.private or flight.wanted.located.private)
                if is_own or not _is_of_credential(error):
                    raise

    async def _flight_for(self, wanted: Wanted) -> Flight:
        """Return the fetch under way, or a new one. Raises StatusError if it failed a short time ago."""
        identity = f"{wanted.located.digest or wanted.located.object_id}.{wanted.format}"
        self._refuse_remembered(wanted.failure_id)
        while (flight := self.flights.get(identity)) is not None and flight.dropped and flight.task is not None:
            await asyncio.wait([flight.task])
        if flight is None:
            flight = Flight(wanted, self._clock(), self._turns.ask(wanted.owner), {wanted.owner})
            self.flights[identity] = flight
            flight.task = asyncio.create_task(self._fly(flight))
            flight.task.add_done_callback(lambda task: self._landed(identity, wanted, task))
        elif wanted.owner not in flight.owners and not flight.turn.done():
            flight.owners.add(wanted.owner)  # it must not wait for all that another owner asked for before
            self._turns.ask(wanted.owner, flight.turn)
        return flight

    async def _landing(self, flight: Flight, interest: tuple[Holder, str] | None) -> CacheEntry:
        """Return what a fetch brings, and have it leased to who waits. Raises StatusError."""
        if interest:
            flight.waiting.append(interest)
        flight.comers += 1
        try:
            if flight.task is None:
                raise StatusError(HookStatus.HOOK_INTERNAL_ERROR, f"{flight.wanted.name}: the fetch has no task")
            return await asyncio.shield(flight.task)
        finally:
            if interest and interest in flight.waiting:
                flight.waiting.remove(interest)
            flight.gone += 1
            wait_s = self._patience_s()
            if flight.gone == flight.comers and wait_s < inf:
                asyncio.get_running_loop().call_later(wait_s, self._drop, flight, flight.comers, wait_s)

    def _drop(self, flight: Flight, comers: int, waited_s: float) -> None:
        """Drop a fetch for which nobody came meanwhile, unless more of it is here than would be lost."""
        if flight.task is None or flight.task.done() or flight.comers != comers or flight.is_half_here:
            return
        flight.dropped = True
        here = flight.staging.size_bytes if flight.staging else 0
        why = f"{flight.wanted.name}: dropped: nobody came for it for {waited_s:.0f} s ({human_bytes(here)} were here)"
        log.info("%s", why)
        if flight.staging is None:
            flight.task.cancel()
        else:
            flight.staging.stopped = StatusError(HookStatus.DEADLINE_EXCEEDED, why)

    def under_way(self, *, private: bool = True) -> list[dict[str, str | float]]:
        """Return the fetches under way, for `status`; without `private` those with a credential have no name."""
        now = self._clock()
        return [
            {
                "name": flight.wanted.name if private or not flight.wanted.closed else "(private)",
                "from": shown(flight.wanted.located.url) if private or not flight.wanted.closed else "(private)",
                "bytes": flight.staging.size_bytes if flight.staging else 0,
                "of_bytes": flight.wanted.located.size_bytes or 0,
                "seconds": round(now - flight.began_at, 1),
                "waiting": len(flight.waiting),
                "queued": not flight.turn.done(),
                "unpacks": flight.unpacks,
            }
            for flight in self.flights.values()
        ]

    def failed(self, *, private: bool = True) -> list[str]:
        """Return what failed a short time ago, as text; without `private` not what has a credential."""
        known = self.failures.current(self._clock())
        urls = [(name.partition("#")[0], error) for name, error in known]
        return [f"{one.status.name}: {one.message}" for url, one in urls if private or _is_public(url)]

    def _refuse_remembered(self, object_id: str) -> None:
        now = self._clock()
        failed = self.failures.get(object_id, now)
        if failed is not None:
            wait_s = self.failures.until(object_id) - now
            said = isinstance(failed, FetchError) and failed.retry_after_s is not None
            message = f"{failed.message} (asked again in {wait_s:.0f} s)"
            raise FetchError(failed.status, message, wait_s if said else None)

    def _landed(self, identity: str, wanted: Wanted, task: asyncio.Task[CacheEntry]) -> None:
        self.flights.pop(identity, None)
        error = None if task.cancelled() else task.exception()  # taken, also when nobody waits any more
        if isinstance(error, StatusError):
            log.warning("not fetched: %d %s: %s", error.status.code, error.status.name, error.message)
            if wanted.is_remembered(error):
                self.failures.put(wanted.failure_id, error, self._clock() + remembered_s(error))
        elif error is not None:
            log.error("fetch failed", exc_info=error)

    async def _fly(self, flight: Flight) -> CacheEntry:
        payer = await flight.turn
        try:
            return await self._bring(flight)
        finally:
            self._turns.end(payer)

    async def _bring(self, flight: Flight) -> CacheEntry:
        wanted = flight.wanted
        self._numbers += 1
        name = record_name(wanted.located.digest or wanted.located.object_id)
        partial = self._cache.take_partial(name, wanted.owner)
        # what is kept of an earlier manager may have been one of the same pid
        nonce = partial.nonce if partial else f"{os.getpid()}-{self._numbers}-{os.urandom(4).hex()}"
        is_kept = False
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        try:
            size = wanted.located.size_bytes or wanted.located.about_bytes or 0
            await self._grow(nonce, wanted, size)

            def grow(total: int, inodes: int = 3) -> None:
                """Reserve from the transfer's thread: only the loop changes the state."""
                asyncio.run_coroutine_threadsafe(self._grow(nonce, wanted, total, inodes), loop).result()

            store = self._cache.store
            staging = flight.staging = store.take_up(partial, grow) if partial else store.stage(nonce, grow)
            staging.keep(name, processes.boot_id(), is_proven=bool(wanted.located.digest))
            came = await loop.run_in_executor(self._threads, self._transfer_checked, flight, staging)
            if wanted.unpack or came.archive:
                flight.unpacks = True
                async with self._unpackings.turn(wanted.owner):
                    came = await loop.run_in_executor(self._unpacking, self._make_runnable, wanted, staging, came, grow)
            entry = await loop.run_in_executor(self._threads, self._commit, flight, staging, came)
            # from here to the end nothing waits: published, leased and unreserved in one turn
            now = self._clock()
            self._cache.add(entry, wanted.located, now)
            self._cache.admit(entry.key, wanted.uid)
            for holder, job_id in flight.waiting:
                self._cache.acquire(entry.key, holder, now, job_id)
            self._cache.unreserve(nonce)
        except OSError as error:
            raise self._cache.failed(wanted.name, error) from None
        except asyncio.CancelledError:  # the manager ends
            is_kept = flight.staging is not None and flight.staging.is_kept
            raise
        finally:
            try:
                if not is_kept:
                    await asyncio.shield(loop.run_in_executor(None, self._cache.store.discard_staging, nonce))
            except OSError as error:
                self._cache.failed(wanted.name, error)
            self._cache.unreserve(nonce)  # what failed counts until it is gone
        spent = time.monotonic() - began
        rate = human_bytes(entry.size_bytes / max(spent, 0.001))
        log.info(
            "fetched %s from %s: %d bytes in %.2f s (%s/s)",
            wanted.name,
            entry.origin,
            entry.size_bytes,
            spent,
            rate,
        )
        return entry

    async def _grow(self, nonce: str, wanted: Wanted, total: int, inodes: int = 3) -> None:
        self._cache.reserve(nonce, wanted.name, total, inodes, wanted.owner)
        while await self._cache.room.removed(nonce):
            self._cache.reserve(nonce, wanted.name, total, inodes, wanted.owner)

    def _transfer_checked(self, flight: Flight, staging: Staging) -> Came:
        """Fetch and check; in a thread. Raises StatusError, OSError."""
        wanted = flight.wanted
        try:
            for attempt in (1, 2):
                wanted.source.transfer(wanted.located, staging)
                digest = staging.finish()
                try:
                    came = checked(wanted.located, digest, staging, may_be_archive=wanted.own_url)
                    break
                except (sif.SifError, ArchiveError) as error:
                    log.warning("%s: attempt %d: %s: %s", wanted.name, attempt, shown(wanted.located.url), error)
                    if attempt == 2:  # noqa: PLR2004 - complete and twice
                        raise no_image(wanted.located, error, staging, own_url=wanted.own_url) from None
                staging.distrust()
        except SourceError as error:
            raise status_of(error, own_url=wanted.own_url) from None
        finally:
            staging.close()
        return came

    def _make_runnable(self, wanted: Wanted, staging: Staging, came: Came, grow: Callable[[int, int], None]) -> Came:
        """Make of what came what runs here; in a thread. Raises StatusError, OSError."""
        if came.archive is None:
            self._runner.unpack(staging, wanted.name, grow)
            return came
        digest = self._runner.convert(staging, came.archive, wanted.name, grow, sandbox=wanted.unpack)
        return replace(came, digest=digest or came.digest)

    def _commit(self, flight: Flight, staging: Staging, came: Came) -> CacheEntry:
        """Start what came once, and publish it; in a thread. Raises StatusError, OSError."""
        wanted = flight.wanted
        wrong = self._runner.why_not(str(staging.directory / IMAGE))
        if wrong:
            what = f"{shown(wanted.located.url)}: does not start here: {wrong}"
            raise StatusError(HookStatus.IMAGE_UNPACK_FAILED, what)

        def describe(disk_bytes: int, inodes: int) -> CacheEntry:
            return CacheEntry(
                key=f"{came.digest}.{wanted.format}",
                name=wanted.name,
                origin=shown(wanted.located.url),
                size_bytes=staging.size_bytes,
                disk_bytes=disk_bytes,
                inodes=inodes,
                created_at=self._clock(),
                architecture=came.architecture,
                public=not wanted.closed and without_secrets(wanted.located.url) == wanted.located.url,
                closed=wanted.closed,
                owner=wanted.owner,
            )

        return self._cache.store.commit(staging, describe)
