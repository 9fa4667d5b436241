"""The cache manager: puts the parts together, keeps them going, and ends them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, Final

from filelock import FileLock, Timeout

from cache_manager import __version__, advertise, configuration, runtime, updatead
from cache_manager.broker import Broker
from cache_manager.cache import POLL_S, Cache
from cache_manager.configuration import ConfigurationError
from cache_manager.layout import CacheLayout
from cache_manager.locator import Locator
from cache_manager.protocol import Header
from cache_manager.server import Server, block_of, read_request
from cache_manager.settings import Settings, SettingsError
from cache_manager.status import StatusError
from cache_manager.store import Store

log = logging.getLogger(__name__)

TIDY_S: Final = 10.0
RECHECK_S: Final = 30.0
RELOAD_S: Final = 10.0
"""How often a root that cannot be used is tried again."""


class ManagerError(Exception):
    """The manager cannot start; the text says why."""


class Manager:
    """One manager for one root. `run` returns when it was told to end."""

    def __init__(self, settings: Settings, knobs: dict[str, str]) -> None:
        self.settings = settings
        self.started_at = time.time()
        self.abilities = runtime.abilities(runtime.find(settings.runtime, knobs.get("SINGULARITY", "")))
        self._configuration_trouble = ""
        self._root_trouble = ""
        layout = CacheLayout(PurePosixPath(settings.root))
        self.cache = Cache(Store(layout), lambda: self.settings, self._changed)
        self.broker = Broker(self.cache, lambda: self.settings)
        reports = {"status": self._status, "list": self._list, "explain": self._explain}
        self.server = Server(self.broker, reports, lambda: updatead.render(self._attributes()))
        self._lock = FileLock(str(layout.lock), mode=0o644)
        self._ending = asyncio.Event()

    @property
    def locator(self) -> Locator:
        """Who knows where images are."""
        return self.broker.locator

    @property
    def trouble(self) -> str:
        """Why the cache is not healthy; empty if it is."""
        return self._root_trouble

    def _changed(self) -> None:
        self.server.changes += 1

    async def run(self) -> None:
        """Serve until a signal. Raises ManagerError when it cannot begin."""
        os.umask(0o022)
        self._load()
        try:
            await self.server.start(self.settings.socket)
        except OSError as error:
            raise ManagerError(f"socket {self.settings.socket}: {error.strerror or error}") from None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        tasks = [
            loop.create_task(self._every(TIDY_S, self._tidy)),
            loop.create_task(self._every(POLL_S, self._poll)),
            loop.create_task(self._every(RECHECK_S, self._recheck)),
            loop.create_task(self._every(RELOAD_S, self._reload)),
        ]
        loop.add_signal_handler(signal.SIGHUP, lambda: tasks.append(loop.create_task(self._reconfigure())))
        log.info("cache manager %s serves %s on %s", __version__, self.settings.root, self.settings.socket)
        await self._ending.wait()
        log.info("ends")
        await self.server.stop()
        for task in tasks:
            task.cancel()
        self.locator.close()
        self._lock.release()

    def _load(self) -> None:
        """Lock the root and read it; one that cannot be used is reported, and tried again.

        Raises ManagerError when another manager has it: what lies there is not ours to mend.
        """
        try:
            self.cache.store.prepare()
            self._lock.acquire(timeout=0)
            self.cache.load()
            self._root_trouble = ""
        except Timeout:
            raise ManagerError(f"cache {self.settings.root}: another manager has it") from None
        except OSError as error:
            self._root_trouble = f"cache directory {self.settings.root}: {error.strerror or error}"
        except StatusError as error:
            self._root_trouble = error.message
        if self._root_trouble:
            log.error("%s", self._root_trouble)
        self.cache.trouble = self._root_trouble

    async def _every(self, period_s: float, do: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(period_s)
            try:
                await do()
            except Exception:  # a background task must not end for one bad moment
                log.exception("background task")

    async def _tidy(self) -> None:
        self.cache.tidy(time.time())

    async def _poll(self) -> None:
        self.cache.poll_holders()

    async def _recheck(self) -> None:
        await self.locator.recheck(self.settings)

    async def _reload(self) -> None:
        if self._root_trouble:
            self._load()
            self._changed()

    async def _reconfigure(self) -> None:
        """Read the configuration again (SIGHUP, from condor_reconfig); a bad one changes nothing and is advertised."""
        try:
            knobs = await asyncio.to_thread(configuration.read_knobs)
            settings = Settings.from_knobs(knobs)
        except (ConfigurationError, SettingsError) as error:
            log.error("configuration not read again, the old one stays: %s", error)  # noqa: TRY400 - it says it all
            self._configuration_trouble = f"configuration: {error}"
        else:
            for name in ("root", "socket", "log"):
                if getattr(settings, name) != getattr(self.settings, name):
                    log.warning("a new %s needs a restart of the manager", name)
            self.settings = settings
            self._configuration_trouble = ""
            log.info("configuration read again")
        self._changed()

    def _attributes(self) -> dict[str, updatead.Literal]:
        shown = advertise.attributes(
            self.cache.entries.values(),
            self.cache.counters,
            self.settings.max_bytes,
            self.abilities,
            self.trouble,
        )
        if self._configuration_trouble and not self.trouble:
            shown["ImageCacheReason"] = self._configuration_trouble
        return shown

    async def _status(self, _header: Header, _body: bytes) -> dict[str, Any]:
        cache, settings = self.cache, self.settings
        usage = cache.usage
        try:
            free: int | None = cache.store.room().free_bytes
        except OSError:
            free = None
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self.started_at,
            "healthy": not self.trouble,
            "reason": self.trouble or self._configuration_trouble,
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
            "runtime": self.abilities.runtime,
            "can_use_sif": self.abilities.can_use_sif,
            "can_use_sandbox": self.abilities.can_use_sandbox,
            "fetches": self.broker.fetcher.under_way(),
            "sources": list(settings.sif_sources),
            "cvmfs_repositories": list(settings.cvmfs_repositories),
            "failures": [*self.locator.failures(), *self.broker.fetcher.failed()],
        }

    async def _list(self, _header: Header, _body: bytes) -> dict[str, Any]:
        leases: dict[str, list[str]] = {}
        for lease in self.cache.leases.values():
            for key in lease.keys:
                leases.setdefault(key, []).append(lease.job_id or f"pid {lease.holder.pid}")
        entries = sorted(self.cache.entries.values(), key=lambda entry: entry.last_used_at, reverse=True)
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
        return await explain(self.broker, header, body)


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
        place = candidate.base or candidate.repository
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


async def serve(settings: Settings, knobs: dict[str, str]) -> None:
    """Run a manager. Raises ManagerError."""
    with suppress(asyncio.CancelledError):
        await Manager(settings, knobs).run()
