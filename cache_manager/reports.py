"""What the manager tells the admin commands of itself: plain values, which they print as tables or JSON."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from cache_manager import __version__, updatead
from cache_manager.abilities import Abilities
from cache_manager.broker import Broker
from cache_manager.disk import Room
from cache_manager.jobad import JobRequest
from cache_manager.pin import Pin
from cache_manager.policy import Row, Verdict
from cache_manager.processes import Peer
from cache_manager.questions import Question, Report
from cache_manager.reader import Reader
from cache_manager.reconcile import Quarantined
from cache_manager.scrub import Scrubber
from cache_manager.server import block_of
from cache_manager.settings import Settings
from cache_manager.status import HookStatus, StatusError
from cache_manager.text import printable, without_secrets

LAST_FAILURES: Final = 10


@dataclass(frozen=True, slots=True)
class Condition:
    """How the manager is: `reason` says what is wrong, also where that does not make it unhealthy."""

    healthy: bool
    reason: str


class Reports:
    """Answers the verbs of the admin commands."""

    def __init__(  # noqa: PLR0913, PLR0917 - all that there is to report of
        self,
        broker: Broker,
        reader: Reader,
        scrubber: Scrubber,
        settings: Callable[[], Settings],
        abilities: Callable[[], Abilities],
        condition: Callable[[], Condition],
    ) -> None:
        self._broker = broker
        self._reader = reader
        self._cache = broker.cache
        self._settings = settings
        self._abilities = abilities
        self._condition = condition
        self._scrubber = scrubber
        self.last_failures: deque[dict[str, Any]] = deque(maxlen=LAST_FAILURES)
        """The jobs that did not get an image, the last one first."""
        self.why_not: Callable[[Peer, str], str] = lambda _peer, _scratch: ""
        """Why nothing is asked of sources for a peer that states this scratch directory; empty if it is."""
        self._started_at = time.time()

    @property
    def verbs(self) -> dict[str, Report]:
        """The verbs, as the server takes them."""
        return {"status": self._status, "explain": self._explain}

    def judged(self, request: JobRequest, verdict: Verdict) -> None:
        """Take note of an answer."""
        self._cache.counters.answers[verdict.status.code] += 1
        if verdict.status is HookStatus.OK:
            return
        image = request.image
        public = image is None or not image.has_secret
        self.last_failures.appendleft(
            {
                "at": time.time(),
                "job": printable(request.job_id, 40),
                "status": verdict.status.code,
                "name": verdict.status.name,
                "image": ("(default image)" if image is None else image.short) if public else "(private)",
            }
        )

    async def _status(self, question: Question) -> dict[str, Any]:
        private = question.may_change
        cache, settings = self._cache, self._settings()
        usage, condition, abilities = cache.usage, self._condition(), self._abilities()
        try:
            room: Room | None = cache.store.room()
        except OSError:
            room = None
        pinned = [cache.entries[key] for key in cache.pins.keys if key in cache.entries]
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "healthy": condition.healthy,
            "reason": condition.reason,
            "root": settings.root,
            "max_bytes": settings.max_bytes,
            "used_bytes": usage.size_bytes,
            "free_bytes": room.free_bytes if room else None,
            "free_inodes": room.free_inodes if room else None,
            "min_free_bytes": settings.min_free_bytes,
            "max_inodes": settings.max_inodes,
            "used_inodes": usage.inodes,
            "entries": len(cache.entries),
            "leases": len(cache.leases),
            "descriptors": _descriptors(),
            "in_use": len(cache.leases.in_use),
            "reserved_bytes": sum(one.size_bytes for one in cache.budget.reservations.values()),
            "pins": [self._pin_row(pin) for pin in cache.pins.all()],
            "pinned_bytes": sum(one.disk_bytes for one in pinned),
            "in_quarantine": [self._quarantine_row(one) for one in cache.quarantined.values()],
            "hits": cache.counters.hits,
            "misses": cache.counters.misses,
            "answers": {str(code): count for code, count in sorted(cache.counters.answers.items())},
            "evictions": cache.counters.evictions,
            "evicted_bytes": cache.counters.evicted_bytes,
            "fetched_bytes": cache.counters.fetched_bytes,
            "quarantined": cache.counters.quarantined,
            "scrub": self._scrub(settings),
            "runtime": abilities.runtime,
            "can_use_sif": abilities.can_use_sif,
            "can_use_sandbox": abilities.can_use_sandbox,
            "abilities_tried": abilities.tried,
            "why_not": abilities.why_not,
            "fetches": [_with_rate(one) for one in self._broker.fetcher.under_way(private=private)],
            "sources": [without_secrets(base) for base in settings.sif_sources],
            "cvmfs_repositories": list(settings.cvmfs_repositories),
            "source_health": self._sources(settings),
            "last_failures": list(self.last_failures),
            "failures": [
                *self._broker.locator.failures(private=private),
                *self._broker.fetcher.failed(private=private),
            ],
        }

    def _pin_row(self, pin: Pin) -> dict[str, Any]:
        entry = self._cache.entries.get(pin.key)
        public = entry is None or entry.public
        return {
            "reference": pin.reference if public else "(private)",
            "key": pin.key,
            "pinned_at": pin.pinned_at,
            "here": entry is not None,
            "disk_bytes": entry.disk_bytes if entry else 0,
        }

    def _quarantine_row(self, one: Quarantined) -> dict[str, Any]:
        return {
            "key": one.key,
            "name": one.name,
            "disk_bytes": one.size_bytes,
            "inodes": one.inodes,
            "why": one.why,
            "since": one.since,
        }

    def _scrub(self, settings: Settings) -> dict[str, Any]:
        """Return how far the background reading is: 'unread' are those not read since the start of the manager."""
        scrubber, reading = self._scrubber, self._scrubber.reading
        known = [at for key, at in scrubber.verified_at.items() if key in self._cache.entries]
        return {
            "rate_bytes": settings.scrub_rate_bytes,
            "reading": reading.entry.shown if reading else "",
            "done_bytes": reading.done_bytes if reading else 0,
            "of_bytes": reading.of_bytes if reading else 0,
            "read_bytes": scrubber.read_bytes,
            "unread": len(self._cache.entries) - len(known),
            "oldest_verified_at": min(known, default=None),
            "findings": scrubber.findings,
        }

    def _sources(self, settings: Settings) -> list[dict[str, Any]]:
        """Return each configured source, and why it is unwell; empty for one of which nothing bad is known."""
        unwell, down = self._broker.locator.unwell, self._broker.locator.down()
        repositories = [
            ("CVMFS", name, unwell[name].why if name in unwell else "") for name in settings.cvmfs_repositories
        ]
        trees = [("tree", without_secrets(base), down.get(base, "")) for base in settings.sif_sources]
        return [{"kind": kind, "name": name, "well": not why, "why": why} for kind, name, why in repositories + trees]

    async def _explain(self, question: Question) -> dict[str, Any]:
        why = self.why_not(question.peer, question.header.keys.get("scratch", ""))
        user = str(question.peer.uid)
        return await explain(self._broker, self._reader.request(user, question.header, question.body), ask=not why)


def _descriptors() -> int | None:
    """Return how many files the manager has open; None where that cannot be seen."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - numbers; one of them is this look's
    except OSError:
        return None


def _with_rate(fetch: dict[str, str | float]) -> dict[str, Any]:
    """Add the rate, and the time that is left if the size is known."""
    done, size, seconds = (float(fetch[name]) for name in ("bytes", "of_bytes", "seconds"))
    rate = done / max(seconds, 0.1)
    left = (size - done) / rate if size and rate else None
    return fetch | {"rate_bytes": round(rate), "left_s": None if left is None else round(max(0.0, left), 1)}


def _row(row: Row) -> dict[str, str]:
    """Return a line of the order of sources."""
    return {
        "source": row.source.value,
        "place": without_secrets(row.place),
        "serves": ", ".join(sorted(kind.name.lower() for kind in row.serves)),
        "why_not": row.off or row.unfit,
    }


async def explain(broker: Broker, asked: Awaitable[JobRequest], *, ask: bool = True) -> dict[str, Any]:
    """Return the decision for what was asked step by step, without fetching; without `ask` from what is known."""
    steps: list[dict[str, str]] = []
    try:
        request = await asked
    except StatusError as error:
        block = updatead.status(error.status, error.message)
        return {
            "asked": "",
            "named_by": "",
            "order": [],
            "steps": steps,
            "status": error.status.code,
            "ad": block.decode(),
        }
    ranking, found, verdict = await broker.explain(request, ask=ask)
    for candidate, words in found:
        place = without_secrets(candidate.base) or candidate.repository
        source = f"{candidate.source.value} ({place})" if place else candidate.source.value
        steps.append({"source": source, "answer": words})
    steps += [{"source": "-", "answer": f"skipped: {words}"} for words in ranking.skipped]
    steps += [{"source": "-", "answer": f"switched off: {one.why}"} for one in ranking.passed_over]
    return {
        "order": [_row(row) for row in ranking.order],
        "asked": ranking.image.short if ranking.image else "",
        "named_by": request.named_by or ("IMAGE_CACHE_DEFAULT_IMAGE" if ranking.image else ""),
        "steps": steps,
        "status": verdict.status.code,
        "ad": block_of(verdict).decode(),
    }
