"""What the manager tells the admin commands: plain values, which they print as tables or JSON."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cache_manager import __version__, updatead
from cache_manager.abilities import Abilities
from cache_manager.broker import Broker
from cache_manager.cache import Cache
from cache_manager.protocol import Header
from cache_manager.server import Report, block_of, read_request
from cache_manager.settings import Settings
from cache_manager.status import StatusError
from cache_manager.text import without_secrets


@dataclass(frozen=True, slots=True)
class Condition:
    """How the manager is: `reason` says what is wrong, also where that does not make it unhealthy."""

    healthy: bool
    reason: str


class Reports:
    """Answers the verbs of the admin commands."""

    def __init__(
        self,
        broker: Broker,
        cache: Cache,
        settings: Callable[[], Settings],
        abilities: Callable[[], Abilities],
        condition: Callable[[], Condition],
    ) -> None:
        self._broker = broker
        self._cache = cache
        self._settings = settings
        self._abilities = abilities
        self._condition = condition
        self._started_at = time.time()

    @property
    def verbs(self) -> dict[str, Report]:
        """The verbs, as the server takes them."""
        return {"status": self._status, "list": self._list, "explain": self._explain}

    async def _status(self, _header: Header, _body: bytes) -> dict[str, Any]:
        cache, settings = self._cache, self._settings()
        usage, condition, abilities = cache.usage, self._condition(), self._abilities()
        try:
            free: int | None = cache.store.room().free_bytes
        except OSError:
            free = None
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "healthy": condition.healthy,
            "reason": condition.reason,
            "root": settings.root,
            "max_bytes": settings.max_bytes,
            "used_bytes": usage.size_bytes,
            "free_bytes": free,
            "max_inodes": settings.max_inodes,
            "used_inodes": usage.inodes,
            "entries": len(cache.entries),
            "leases": len(cache.leases),
            "in_use": len(cache.in_use),
            "hits": cache.counters.hits,
            "misses": cache.counters.misses,
            "evictions": cache.counters.evictions,
            "fetched_bytes": cache.counters.fetched_bytes,
            "quarantined": cache.counters.quarantined,
            "runtime": abilities.runtime,
            "can_use_sif": abilities.can_use_sif,
            "can_use_sandbox": abilities.can_use_sandbox,
            "abilities_tried": abilities.tried,
            "why_not": abilities.why_not,
            "fetches": self._broker.fetcher.under_way(),
            "sources": [without_secrets(base) for base in settings.sif_sources],
            "cvmfs_repositories": list(settings.cvmfs_repositories),
            "failures": [*self._broker.locator.failures(), *self._broker.fetcher.failed()],
        }

    async def _list(self, _header: Header, _body: bytes) -> dict[str, Any]:
        leases: dict[str, list[str]] = {}
        for lease in self._cache.leases.values():
            for key in lease.keys:
                leases.setdefault(key, []).append(lease.job_id or f"pid {lease.holder.pid}")
        entries = sorted(self._cache.entries.values(), key=lambda entry: entry.last_used_at, reverse=True)
        return {
            "entries": [
                {
                    "key": entry.key,
                    "name": entry.name if entry.public else "(private)",
                    "digest": f"sha256:{entry.digest}",
                    "format": entry.format,
                    "size_bytes": entry.size_bytes,
                    "disk_bytes": entry.disk_bytes,
                    "origin": entry.origin if entry.public else "(private)",
                    "created_at": entry.created_at,
                    "last_used_at": entry.last_used_at,
                    "leases": leases.get(entry.key, []),
                }
                for entry in entries
            ]
        }

    async def _explain(self, header: Header, body: bytes) -> dict[str, Any]:
        return await explain(self._broker, header, body)


async def explain(broker: Broker, header: Header, body: bytes) -> dict[str, Any]:
    """Return the decision for a job ad step by step, without fetching."""
    steps: list[dict[str, str]] = []
    try:
        request = read_request(header, body)
    except StatusError as error:
        block = updatead.status(error.status, error.message)
        return {
            "asked": "",
            "named_by": "",
            "steps": steps,
            "status": error.status.code,
            "ad": block.decode(),
        }
    ranking, found, verdict = await broker.explain(request)
    for candidate, words in found:
        place = without_secrets(candidate.base) or candidate.repository
        source = f"{candidate.source.value} ({place})" if place else candidate.source.value
        steps.append({"source": source, "answer": words})
    steps += [{"source": "-", "answer": f"skipped: {words}"} for words in ranking.skipped]
    return {
        "asked": ranking.image.short if ranking.image else "",
        "named_by": request.named_by or ("IMAGE_CACHE_DEFAULT_IMAGE" if ranking.image else ""),
        "steps": steps,
        "status": verdict.status.code,
        "ad": block_of(verdict).decode(),
    }
