"""What root and the manager's user may have done to images: bring in, pin, unpin, evict."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from cache_manager.broker import Broker
from cache_manager.cache import Cache
from cache_manager.entry import CacheEntry
from cache_manager.layout import is_key
from cache_manager.pin import canonical
from cache_manager.policy import Verdict
from cache_manager.questions import Question, Work
from cache_manager.reference import ImageReference
from cache_manager.selection import NotDone, matching_keys, reference_of, select, select_pin
from cache_manager.status import HookStatus

log = logging.getLogger(__name__)

STEP_S: Final = 0.25
"""How often the one who waits hears how far a fetch is."""

Progress = dict[str, Any]


@dataclass
class Errand:
    """An image to bring in for an admin."""

    ref: str
    image: ImageReference
    task: asyncio.Task[Verdict]


class Admin:
    """Does the verbs that change what the cache has."""

    def __init__(self, broker: Broker, cache: Cache, clock: Callable[[], float] = time.time) -> None:
        self._broker = broker
        self._cache = cache
        self._clock = clock

    @property
    def verbs(self) -> dict[str, Work]:
        """The verbs, as the server takes them."""
        return {"prefetch": self.prefetch, "pin": self.pin, "unpin": self.unpin, "evict": self.evict}

    async def prefetch(self, question: Question) -> AsyncGenerator[Progress]:
        """Bring images in, all at a time; one that fails does not stop the others."""
        results: list[Progress] = []
        wanted: dict[str, ImageReference] = {}
        for ref in dict.fromkeys(question.words("refs")):
            try:
                if matching_keys(ref, self._cache.entries):
                    (entry,) = select(ref, self._cache.entries.values())
                    results.append({"ref": ref, "key": entry.key, "done": True, "bytes": entry.size_bytes, "hit": True})
                    continue
                wanted[ref] = reference_of(ref)
            except NotDone as error:
                results.append({"ref": ref, "done": False, "message": str(error)})
        async for step in self._bring(wanted):
            if "progress" in step:
                yield step
            else:
                results += step["results"]
        yield {"done": True, "results": results}

    async def pin(self, question: Question) -> AsyncGenerator[Progress]:
        """Pin what the references mean now; what is not here is fetched first, and pinned in the moment it is."""
        results: list[Progress] = []
        wanted: dict[str, ImageReference] = {}
        for ref in dict.fromkeys(question.words("refs")):
            try:
                results.append(self._pin(ref, select(ref, self._cache.entries.values(), self._cache.pins.all())))
            except NotDone as error:
                found = None
                with suppress(NotDone):
                    found = reference_of(ref)
                if found is None or is_key(ref) or "is the beginning of" in str(error):
                    results.append({"ref": ref, "done": False, "message": str(error)})
                else:
                    wanted[ref] = found
        names = {canonical(image.short): image for image in wanted.values()}
        for name in names:
            self._cache.pins.expect(name)
        try:
            async for step in self._bring(wanted):
                if "progress" in step:
                    yield step
                else:
                    results += [self._pinned(one, wanted[one["ref"]]) for one in step["results"]]
        finally:
            for name in names:
                self._cache.pins.expect_no_more(name)
        yield {"done": True, "results": results}

    def _pin(self, ref: str, entries: list[CacheEntry]) -> Progress:
        """Pin an entry that is here: by its key if that is what was said, else by its name."""
        entry = entries[0]
        by_key = bool(matching_keys(ref, [entry.key]))
        reference = entry.key if by_key else canonical(reference_of(ref).short)
        return self._put(ref, reference, entry)

    def _pinned(self, result: Progress, image: ImageReference) -> Progress:
        entry = self._cache.entries.get(result.get("key", ""))
        if not result["done"] or entry is None:
            return result
        return result | self._put(result["ref"], canonical(image.short), entry)

    def _put(self, ref: str, reference: str, entry: CacheEntry) -> Progress:
        try:
            self._cache.pins.put(reference, entry.key, self._clock())
        except OSError as error:
            return {"ref": ref, "done": False, "message": f"{ref}: the pin cannot be written: {error.strerror}"}
        log.info("pinned %s: %s", reference, entry.key)
        return {"ref": ref, "done": True, "reference": reference, "key": entry.key, "bytes": entry.size_bytes}

    async def unpin(self, question: Question) -> AsyncGenerator[Progress]:
        """End pins. The images stay until their room is needed."""
        results: list[Progress] = []
        for ref in dict.fromkeys(question.words("refs")):
            try:
                for pin in select_pin(ref, self._cache.pins.all()):
                    self._cache.pins.remove(pin)
                    log.info("unpinned %s: %s", pin.reference, pin.key)
                    results.append({"ref": ref, "done": True, "reference": pin.reference, "key": pin.key})
            except NotDone as error:
                results.append({"ref": ref, "done": False, "message": str(error)})
            except OSError as error:
                results.append({"ref": ref, "done": False, "message": f"{ref}: {error.strerror}"})
        yield {"done": True, "results": results}

    async def evict(self, question: Question) -> AsyncGenerator[Progress]:
        """Give entries up: with `force` also those in use and pinned, and then say who loses what."""
        results: list[Progress] = []
        force = question.wishes.get("force") is True
        for ref in dict.fromkeys(question.words("refs")):
            try:
                chosen = select(ref, self._cache.entries.values(), self._cache.pins.all())
                results += [self._evict(ref, entry, force=force) for entry in chosen]
            except NotDone as error:
                results.append({"ref": ref, "done": False, "message": self._or_being_fetched(ref, str(error))})
        yield {"done": True, "results": results}

    def _evict(self, ref: str, entry: CacheEntry, *, force: bool) -> Progress:
        holders = [
            f"job {lease.job_id or '?'} (pid {lease.holder.pid})"
            for lease in self._cache.leases.values()
            if entry.key in lease.keys
        ]
        holders += [f"pin {pin.reference}" for pin in self._cache.pins.of(entry.key)]
        about = {"ref": ref, "key": entry.key, "name": entry.shown, "bytes": entry.disk_bytes, "holders": holders}
        if holders and not force:
            return about | {"done": False, "message": f"{entry.shown} ({entry.key[:12]}): held by {', '.join(holders)}"}
        try:
            self._cache.give_up([entry.key])
        except OSError as error:
            return about | {"done": False, "message": f"{entry.shown}: {error.strerror}"}
        if holders:
            log.warning("evicted %s by force: held by %s", entry.key, ", ".join(holders))
        return about | {"done": True}

    def _or_being_fetched(self, ref: str, why: str) -> str:
        with suppress(NotDone):
            name = reference_of(ref).short
            if any(flight.wanted.name == name for flight in self._broker.fetcher.flights.values()):
                return f"{ref}: is being fetched now"
        return why

    async def _bring(self, wanted: dict[str, ImageReference]) -> AsyncGenerator[Progress]:
        """Yield how far the fetches are, and at last the results."""
        errands = [
            Errand(ref, image, asyncio.ensure_future(self._broker.bring(image))) for ref, image in wanted.items()
        ]
        began = time.monotonic()
        try:
            while any(not one.task.done() for one in errands):
                await asyncio.wait([one.task for one in errands], timeout=STEP_S)
                yield {"progress": [self._progress(one) for one in errands]}
        finally:
            for one in errands:  # who asked is gone: the fetches go on for the next job
                one.task.cancel()
        yield {"results": [self._result(one, time.monotonic() - began) for one in errands]}

    def _progress(self, errand: Errand) -> Progress:
        about: Progress = {"ref": errand.ref, "state": "asking its sources", "bytes": 0, "of_bytes": 0, "seconds": 0.0}
        if errand.task.done():
            result = self._result(errand, 0.0)
            size = result.get("bytes") or 0
            return about | {"state": "here" if result["done"] else "failed", "bytes": size, "of_bytes": size}
        for flight in self._broker.fetcher.under_way():
            if flight["name"] == errand.image.short:
                state = "unpacking" if flight["unpacks"] else "fetching"
                return about | {name: flight[name] for name in ("bytes", "of_bytes", "seconds")} | {"state": state}
        return about

    def _result(self, errand: Errand, seconds: float) -> Progress:
        error = errand.task.exception()
        if error is not None:
            return {"ref": errand.ref, "done": False, "message": f"{errand.ref}: {type(error).__name__}: {error}"}
        verdict = errand.task.result()
        if verdict.status is not HookStatus.OK or verdict.image is None or not verdict.image.key:
            why = verdict.message or f"{errand.image.short}: left to the container runtime, nothing to fetch"
            return {"ref": errand.ref, "done": False, "status": verdict.status.code, "message": why}
        served = verdict.image
        return {
            "ref": errand.ref,
            "done": True,
            "key": served.key,
            "bytes": served.size_bytes,
            "hit": served.hit,
            "seconds": round(served.seconds or seconds, 3),
            "message": verdict.message,
        }
