"""The cache manager: puts the parts together, keeps them going, and ends them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final

from cache_manager import __version__, advertise, configuration, processes, runtime, updatead
from cache_manager.admin import Admin
from cache_manager.askers import Askers
from cache_manager.broker import Broker
from cache_manager.cache import Cache
from cache_manager.configuration import ConfigurationError
from cache_manager.converter import Converter
from cache_manager.health import Failure, Health, counts_for
from cache_manager.heartbeat import BEAT_S, Heartbeat
from cache_manager.images import Images
from cache_manager.jobad import JobRequest
from cache_manager.layout import CacheLayout
from cache_manager.leases import POLL_S
from cache_manager.locator import Locator
from cache_manager.ownership import Trust, uid_of, why_unsafe
from cache_manager.policy import Verdict
from cache_manager.questions import Verbs
from cache_manager.reader import Reader
from cache_manager.reports import Condition, Reports
from cache_manager.root import Root, TakenError
from cache_manager.runner import Runner
from cache_manager.runtime import Runtime
from cache_manager.scrub import Scrubber
from cache_manager.server import Server
from cache_manager.settings import Settings, SettingsError
from cache_manager.status import HookStatus, StatusError
from cache_manager.store import Store
from cache_manager.unpacker import Unpacker
from cache_manager.upkeep import Upkeep

log = logging.getLogger(__name__)

TIDY_S: Final = 10.0
RECHECK_S: Final = 10.0
SCRUB_S: Final = 5.0
"""How often the scrub looks whether an entry is due."""
LOOK_S: Final = 60.0
"""How long an EP that failed takes no container jobs, at least."""

ROOT_S: Final = 2.0
"""How often the root and the socket are looked at: one that cannot be used takes no jobs, and is tried again."""


class ManagerError(Exception):
    """The manager cannot start; the text says why."""


class Manager:
    """One manager for one root. `run` returns when it was told to end."""

    def __init__(self, settings: Settings, knobs: dict[str, str]) -> None:
        self.settings = settings
        self._trust = Trust.of(os.geteuid(), knobs)
        self._configuration_trouble = ""
        self._root_trouble = ""
        layout = CacheLayout(PurePosixPath(settings.root))
        self.cache = Cache(Store(layout), lambda: self.settings, self._changed, self._suspected)
        self.runtime = Runtime(
            lambda: runtime.find(self.settings.runtime, knobs.get("SINGULARITY", "")),
            knobs.get("LIBEXEC", ""),
            str(layout.runtime),
            runtime.telling_options(knobs.get("SINGULARITY_EXTRA_ARGUMENTS", "")),
        )
        unpacker = Unpacker(self.runtime, lambda: self.settings)
        converter = Converter(self.runtime, lambda: self.settings)
        runner = Runner(lambda: self.runtime.abilities, self.runtime.why_not, unpacker.unpack, converter.convert)
        self.broker = Broker(self.cache, lambda: self.settings, runner)
        self.locator.plugins.configure(knobs.get("FILETRANSFER_PLUGINS", ""))
        self._tests_before_jobs = knobs.get("SINGULARITY_RUN_TEST_BEFORE_JOB", "true").lower() not in {"false", "0"}
        self._tell_runtime()
        self.health = Health()
        self._shared_uids = {0, os.geteuid(), uid_of("nobody") or 0}
        """Of HTCondor's own word, of a pilot's jobs, and of those whose users have no account here."""
        self.scrubber = Scrubber(self.cache, lambda: self.settings)
        self._reader = Reader()
        self.reports = Reports(
            self.broker, self._reader, self.scrubber, lambda: self.settings, runner.abilities, self._condition
        )
        self.server = Server(
            self.broker, self._verbs(), self._reader, lambda: updatead.render(self._attributes()), self._judged
        )
        self.root = Root(self.cache.store)
        self._disk_is_full = False
        self.server.why_not = self.reports.why_not = Askers(knobs).why_not
        self._tests: set[asyncio.Future[None]] = set()
        self._ending = asyncio.Event()

    def _verbs(self) -> Verbs:
        images, upkeep = Images(self.cache, self.scrubber), Upkeep(self.cache, lambda: self.settings)
        works = {"verify": self.scrubber.verify, "cleanup": upkeep.cleanup}
        return Verbs(self.reports.verbs | images.verbs, Admin(self.broker, self.cache).verbs | works)

    @property
    def locator(self) -> Locator:
        """Who knows where images are."""
        return self.broker.locator

    @property
    def trouble(self) -> str:
        """Why the cache is not healthy; empty if it is."""
        return self._root_trouble or self.health.trouble(time.time())

    def _condition(self) -> Condition:
        trouble = self.trouble
        return Condition(not trouble, trouble or self._configuration_trouble)

    def _judged(self, request: JobRequest, verdict: Verdict, uid: int) -> None:
        """Learn from an answer to a user; a job that is left as it is says nothing."""
        self.reports.judged(request, verdict)
        before = self.trouble
        if verdict.image is not None:
            self.health.succeeded()
        elif verdict.status is not HookStatus.OK and not self._is_jobs_own(request, verdict):
            image = request.image.short if request.image else "default image"
            if request.image and request.image.has_secret:  # the reason is advertised
                image = "(private)"
            who = counts_for(uid, request.owner, self._shared_uids)
            self.health.failed(Failure(time.time(), verdict.status, image, who))
            if verdict.status is HookStatus.CACHE_UNUSABLE:
                self._look_at_root()
            elif verdict.status is HookStatus.DISK_FULL:
                self._disk_is_full = self._disk_is_full or self.cache.room.is_short_of_disk()
        if self.trouble != before:
            log.warning("health: %s", self.trouble or "well again")
            self._changed()

    def _is_jobs_own(self, request: JobRequest, verdict: Verdict) -> bool:
        """Whether the trouble is with a CVMFS repository that only the job names: it says nothing of this EP."""
        repository = request.image.repository if request.image else ""
        unknown = bool(repository) and repository not in self.settings.cvmfs_repositories
        return verdict.status is HookStatus.CVMFS_UNAVAILABLE and unknown

    def _suspected(self, key: str) -> None:
        """Test an entry again from which jobs end at once; mostly they are just short."""
        task = asyncio.ensure_future(self._test_again(key))
        self._tests.add(task)
        task.add_done_callback(self._tests.discard)

    async def _test_again(self, key: str) -> None:
        image = str(self.cache.store.layout.image(key))
        why = await asyncio.to_thread(self.runtime.why_not, image)
        if why and key in self.cache.entries:
            self.cache.quarantine(key, f"does not start any more: {why}")

    async def _look(self) -> None:
        """Look at the EP itself while it takes no jobs: one good look opens it again."""
        if self._root_trouble or not self.health.trouble(time.time()):
            return
        await self.locator.recheck(self.settings)
        try:
            await asyncio.to_thread(self.cache.store.prepare)
            free = self.cache.store.room().free_bytes
        except (StatusError, OSError):
            return
        cvmfs_is_bad = HookStatus.CVMFS_UNAVAILABLE in self.health.statuses and bool(self.locator.unwell)
        disk_is_bad = HookStatus.DISK_FULL in self.health.statuses and free < self.settings.min_free_bytes
        if not (cvmfs_is_bad or disk_is_bad):
            log.info("health: a look at the execution point found nothing wrong")
            self.health.succeeded()
            self._changed()

    def _changed(self) -> None:
        self.server.changes += 1

    async def run(self) -> None:
        """Serve until a signal. Raises ManagerError when it cannot begin."""
        os.umask(0o022)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whoever started us may have blocked what ends us
        try:
            self._load()
        except TakenError as error:
            raise ManagerError(str(error)) from None
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
            loop.create_task(self._every(LOOK_S, self._look)),
            loop.create_task(self._every(ROOT_S, self._check)),
            loop.create_task(self._try_runtime()),
            loop.create_task(self._every(LOOK_S, self._try_runtime)),
            loop.create_task(self._every(BEAT_S, self._beat)),
            loop.create_task(self._every(SCRUB_S, self.scrubber.run)),
            loop.create_task(self._read_switches()),
            loop.create_task(self._every(RECHECK_S, self._read_switches)),
        ]
        loop.add_signal_handler(signal.SIGHUP, lambda: tasks.append(loop.create_task(self._reconfigure())))
        log.info("cache manager %s serves %s on %s", __version__, self.settings.root, self.settings.socket)
        await self._ending.wait()
        log.info("ends")
        await self.server.stop()
        for task in tasks:
            task.cancel()
        self.locator.close()
        self._reader.close()
        self.scrubber.close()
        self.root.let_go()

    def _load(self) -> None:
        """Take the root and read it; one that cannot be used is reported, and tried again. Raises TakenError."""
        trouble: StatusError | None = None
        try:
            self._refuse_unsafe()
            self.root.take()
            self.cache.load()
            self._mark()
        except OSError as error:
            trouble = self.cache.store.trouble("", error)
        except StatusError as error:
            trouble = error
        before, self._root_trouble = self._root_trouble, trouble.message if trouble else ""
        self.cache.trouble = self._root_trouble
        if trouble:
            self.cache.trouble_status = trouble.status
        if self._root_trouble != before:
            log.error("%s", self._root_trouble) if trouble else log.info("the cache directory can be used again")
        self._changed()

    def _look_at_root(self) -> None:
        """See whether the root can still be used; take it again when it was changed, or could not be."""
        try:
            self.root.look()
            if self.root.is_ours and not self._root_trouble and not self.cache.stale:
                return
        except StatusError:
            pass  # what is missing in it may be made: then all is well
        try:
            self._load()
        except TakenError as error:  # it was moved away, and another manager runs on what lies there now
            self._root_trouble = self.cache.trouble = str(error)
            self._changed()

    async def _check(self) -> None:
        """Look at what all jobs need: the root, the socket, room on the disk."""
        self._look_at_root()
        if self._root_trouble:
            return
        self.health.root_is_well()
        await self.server.mend()
        full = self.cache.room.is_short_of_disk()
        if self._disk_is_full and not full and self.health.statuses == {HookStatus.DISK_FULL}:
            log.info("health: there is room on the disk again")
            self.health.succeeded()
            self._changed()
        self._disk_is_full = full

    def _refuse_unsafe(self) -> None:
        """Refuse places where others could put something of theirs under our names. Raises StatusError."""
        for what, path in (("cache directory", self.settings.root), ("socket", self.settings.socket)):
            why = why_unsafe(path, self._trust)
            if why:
                raise StatusError(HookStatus.CACHE_UNUSABLE, f"{what} {path}: {why}")

    async def _every(self, period_s: float, do: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(period_s)
            try:
                await do()
            except Exception:  # a background task must not end for one bad moment
                log.exception("background task")

    async def _tidy(self) -> None:
        if not self._root_trouble:
            self.cache.tidy(time.time())
            self.cache.room.keep_free(time.time())

    def _mark(self) -> None:
        """Mark the root as ours, and say who has it; a full disk is no reason not to serve. Raises OSError."""
        manager = processes.holder(os.getpid())
        if manager is None:
            return
        try:
            self.cache.store.write_heartbeat(Heartbeat(processes.place(), manager, __version__).to_json())
        except OSError as error:
            if self.cache.store.trouble("", error).status is not HookStatus.DISK_FULL:
                raise

    async def _beat(self) -> None:
        """Say that the root has a living manager."""
        if self._root_trouble:
            return
        try:
            self.cache.store.beat()
        except FileNotFoundError:
            self._look_at_root()
            if not self._root_trouble:
                self._mark()
        except OSError as error:
            self.cache.failed("", error)

    async def _poll(self) -> None:
        self.cache.leases.poll()

    async def _recheck(self) -> None:
        await self.locator.recheck(self.settings)

    async def _try_runtime(self) -> None:
        """See what runs here, at the start and when the runtime is another one."""
        if await asyncio.to_thread(self.runtime.look, time.time()):
            self._tell_runtime()
            self._changed()

    async def _read_switches(self) -> None:
        """See whether the sites' exceptions have changed."""
        await asyncio.to_thread(self.broker.switches.read, self.settings)

    def _tell_runtime(self) -> None:
        self.broker.runtime = self.runtime.abilities.runtime if self._tests_before_jobs else ""

    async def _reconfigure(self) -> None:
        """Read the configuration again (SIGHUP, from condor_reconfig); a bad one changes nothing and is advertised."""
        try:
            knobs = await asyncio.to_thread(configuration.read_knobs)
            settings = Settings.from_knobs(knobs)
        except (ConfigurationError, SettingsError) as error:
            log.error("configuration not read again, the old one stays: %s", error)  # noqa: TRY400 - it says it all
            self._configuration_trouble = f"configuration: {error}"
        else:
            fixed = {name: getattr(self.settings, name) for name in ("root", "socket", "log")}
            for name, value in fixed.items():
                if getattr(settings, name) != value:
                    log.warning("a new %s needs a restart of the manager", name)
            self.settings = replace(settings, **fixed)
            self._configuration_trouble = ""
            self.locator.plugins.configure(knobs.get("FILETRANSFER_PLUGINS", ""))
            await self._read_switches()
            log.info("configuration read again")
        self._changed()

    def _attributes(self) -> dict[str, updatead.Literal]:
        condition = self._condition()
        shown = advertise.attributes(
            self.cache.entries.values(),
            self.cache.counters,
            self.settings.max_bytes,
            self.runtime.abilities,
        )
        return shown | {"ImageCacheHealthy": condition.healthy, "ImageCacheReason": condition.reason}


async def serve(settings: Settings, knobs: dict[str, str]) -> None:
    """Run a manager. Raises ManagerError."""
    with suppress(asyncio.CancelledError):
        await Manager(settings, knobs).run()
