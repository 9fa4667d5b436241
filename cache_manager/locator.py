"""Asks sources where an image is, and keeps what they said.

One question for all who want to know at once. What is wrong is kept too: jobs do not wait for the same thing twice,
and a name that does not exist does not hammer its origin.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from cache_manager.cache import Cache
from cache_manager.helper import Helper
from cache_manager.layout import is_version_file, tree_url
from cache_manager.memory import Memory
from cache_manager.outcome import Answer, Denied, Located, Unwell, remembered, remembered_s
from cache_manager.policy import HAS_TAGS, Candidate, SourceKind
from cache_manager.settings import Settings
from cache_manager.sources.base import Confirms, Source
from cache_manager.sources.cvmfs import CHILD, Cvmfs
from cache_manager.sources.federation import Federation, Federations
from cache_manager.sources.federation_url import is_in_federation
from cache_manager.sources.library import Library
from cache_manager.sources.pelican_client import PelicanClient
from cache_manager.sources.plugin import Plugin, TransferPlugins
from cache_manager.sources.registry import Registries, Registry
from cache_manager.sources.stratum import PublishedRevisions
from cache_manager.sources.transport import Patience, shown
from cache_manager.sources.tree import Tree
from cache_manager.sources.url import Url
from cache_manager.turns import NOBODY, Turns

log = logging.getLogger(__name__)

CVMFS_TTL_S: Final = 5.0
"""How long CVMFS's answer for a name is trusted: asking again costs a tenth of a millisecond, and it may hang now."""

IN_USE_S: Final = 600.0
"""A repository that a job asked for within this time is looked at in the background, so that no job finds the hang."""

FOREIGN_HELPERS: Final = 4
"""Children for repositories that only jobs name: each may hang by itself, and names must not start processes."""

FAILURE_TTL_S: Final = 60.0
"""How long a failure is remembered: at most one request a minute for what is broken."""

THREADS: Final = 64
EACH: Final = 16
"""So many questions to sources of one kind are asked for one owner at a time: a resolver may take its time for each."""


@dataclass
class _Inquiry:
    """A question to a source, and the owners who want to know."""

    task: asyncio.Task[Answer]
    turn: asyncio.Future[str]
    owners: set[str]


class Locator:
    """Knows where images are. Lives on the manager's loop; the sources block in its threads."""

    def __init__(self, cache: Cache, clock: Callable[[], float] = time.time) -> None:
        self.unwell: dict[str, Unwell] = {}
        """CVMFS repositories that do not answer, until `recheck` finds them well."""
        self._answers: Memory[Candidate, Answer] = Memory()
        self._down: Memory[str, Unwell] = Memory()
        self._back: dict[str, str] = {}
        """Pointers that went back in time, until they name a version that is not older, with what is said of them."""
        self._asking: dict[Candidate, _Inquiry] = {}
        self._turns = {kind: Turns(THREADS, lambda: EACH) for kind in SourceKind}
        self._helpers: dict[str, Helper] = {}
        self._foreign: dict[str, Helper] = {}
        self._used_at: dict[str, float] = {}
        self._revisions = PublishedRevisions(clock)
        self._federations = Federations()
        self.plugins = TransferPlugins()
        self._registries = Registries()
        self._cache = cache
        self._clock = clock
        # each kind of source has its own threads: servers that say nothing must not stop CVMFS
        self._threads = {kind: ThreadPoolExecutor(THREADS, f"locate {kind.name}") for kind in SourceKind}
        self._arch = platform.machine()

    async def locate(self, candidate: Candidate, settings: Settings, owner: str = NOBODY) -> Answer:
        """Return where a candidate has the image; an `owner` who asks for much waits for it alone."""
        if candidate.source is SourceKind.CVMFS and candidate.repository in settings.cvmfs_repositories:
            self._used_at[candidate.repository] = self._clock()
        known = self.known(candidate)
        if known is not None:
            return known
        asking, turns = self._asking.get(candidate), self._turns[candidate.source]
        if asking is None:
            turn = turns.ask(owner)
            asking = _Inquiry(asyncio.create_task(self._ask_in_turn(turn, candidate, settings)), turn, {owner})
            self._asking[candidate] = asking
            asking.task.add_done_callback(lambda _: self._asking.pop(candidate, None))
        elif owner not in asking.owners and not asking.turn.done():
            asking.owners.add(owner)
            turns.ask(owner, asking.turn)
        return await asyncio.shield(asking.task)

    async def _ask_in_turn(self, turn: asyncio.Future[str], candidate: Candidate, settings: Settings) -> Answer:
        payer = await turn
        try:
            return await self._ask(candidate, settings)
        finally:
            self._turns[candidate.source].end(payer)

    def known(self, candidate: Candidate) -> Answer | None:
        """Return what is known of a candidate now, without asking; None if it would have to be asked."""
        if candidate.source is SourceKind.CVMFS and candidate.repository in self.unwell:
            return self.unwell[candidate.repository]
        down = self._down.get(_place(candidate), self._clock())
        if down is not None:
            return down
        known = self._answers.get(candidate, self._clock())
        return known and remembered(known, self._answers.until(candidate) - self._clock())

    async def answers_within(
        self, limit_s: float, candidate: Candidate, settings: Settings, owner: str = NOBODY
    ) -> bool:
        """Whether the question where a candidate has the image is answered in so many seconds; it goes on if not."""
        try:
            async with asyncio.timeout(limit_s):
                await self.locate(candidate, settings, owner)
        except TimeoutError:
            return False
        return True

    async def _ask(self, candidate: Candidate, settings: Settings) -> Answer:
        source = self.source(candidate, settings)
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads[candidate.source], source.locate, candidate.image)
        now = self._clock()
        if isinstance(answer, Unwell) and answer.everything:
            log.warning("%s", answer.why)
            if candidate.source is SourceKind.CVMFS and candidate.repository in settings.cvmfs_repositories:
                self.unwell[candidate.repository] = answer
            elif candidate.source in {SourceKind.CVMFS, SourceKind.TREE}:
                self._down.put(_place(candidate), answer, now + FAILURE_TTL_S)
            else:  # a job's own choice: it is remembered for that choice alone
                self._answers.put(candidate, answer, now + FAILURE_TTL_S)
        elif isinstance(answer, Located):
            answer = self._remember(candidate, answer)
            self._answers.put(candidate, answer, now + self._trusted_s(candidate, settings))
        else:
            self._answers.put(candidate, answer, now + remembered_s(answer))
            if not _asks_for_credential(answer):  # it answers, and has said what it wants
                log.warning("%s: %s", candidate.image.short, answer.why)
        return answer

    def _trusted_s(self, candidate: Candidate, settings: Settings) -> float:
        return CVMFS_TTL_S if candidate.source is SourceKind.CVMFS else settings.tag_ttl_s

    def source(self, candidate: Candidate, settings: Settings) -> Source:
        """Return the source that serves a candidate."""
        patience = Patience(settings.min_rate_bytes, settings.stall_timeout_s)
        if candidate.source is SourceKind.FEDERATION:
            return self._federation(candidate, settings)
        if candidate.source is SourceKind.TREE:
            objects = self._federation(candidate, settings) if is_in_federation(candidate.base) else None
            return Tree(candidate.base, self._arch, patience, objects)
        if candidate.source is SourceKind.URL:
            return Url(patience)
        if candidate.source is SourceKind.PLUGIN:
            return Plugin(self.plugins, patience, settings.convert_memory_bytes)
        if candidate.source in HAS_TAGS:
            return self._tagged(candidate, settings, patience)
        return self._repository(candidate.repository, settings)

    def _tagged(self, candidate: Candidate, settings: Settings, patience: Patience) -> Registry | Library:
        if candidate.source is SourceKind.LIBRARY:
            return Library(candidate.base, self._arch, patience)
        before, client = self.last_known(candidate), self._registries.client(settings)
        return Registry(client, self._registries, self._arch, patience, candidate.credential, before)

    def _federation(self, candidate: Candidate, settings: Settings) -> Federation | PelicanClient:
        patience, own = Patience(settings.min_rate_bytes, settings.stall_timeout_s), settings.federation
        if settings.pelican == "client":
            directory = str(self._cache.store.layout.staging)  # what a crash leaves there is removed at the next start
            return PelicanClient(own, patience, directory, candidate.credential)
        local = settings.pelican if settings.pelican.startswith("unix:") else ""
        return Federation(own, patience, self._federations, candidate.credential, local)

    def _repository(self, name: str, settings: Settings) -> Cvmfs:
        known = name in settings.cvmfs_repositories
        helper = self._helpers.setdefault(name, Helper(CHILD)) if known else self._foreign_helper(name)
        return Cvmfs(name, settings.cvmfs_base, helper, self._revisions)

    def _foreign_helper(self, name: str) -> Helper:
        """Return the child for a repository that is not the site's: the one that was longest idle makes room."""
        helper = self._foreign.pop(name, None)
        if helper is None and len(self._foreign) >= FOREIGN_HELPERS:
            given_up = next((one for one, idle in self._foreign.items() if idle.is_idle), "")
            if not given_up:  # all of them hang: one more question makes it no worse
                return next(iter(self._foreign.values()))
            self._foreign.pop(given_up).close()
        self._foreign[name] = helper or Helper(CHILD)
        return self._foreign[name]

    async def confirm(self, candidate: Candidate, located: Located, settings: Settings) -> None:
        """Have what the job itself names asked now, whatever is remembered of it. Raises SourceError if refused."""
        source = self.source(candidate, settings)
        if isinstance(source, Confirms):
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads[candidate.source], source.confirm, located)

    async def recheck(self, settings: Settings) -> None:
        """Ask the repositories that did not answer again, and those in use: no job has to wait to find out."""
        now = self._clock()
        in_use = {name for name, used_at in self._used_at.items() if now - used_at < IN_USE_S}
        await asyncio.gather(*(self._recheck(name, settings) for name in {*self.unwell, *in_use}))

    async def _recheck(self, name: str, settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        repository = self._repository(name, settings)
        found = await loop.run_in_executor(self._threads[SourceKind.CVMFS], repository.check)
        if found is not None:
            if name not in self.unwell:
                log.warning("%s", found.why)
            self.unwell[name] = found
        elif name in self.unwell:
            log.info("CVMFS repository %s: answers again", name)
            del self.unwell[name]

    def last_known(self, candidate: Candidate) -> Located | None:
        """Return what the pointer of a candidate pointed to when it could last be read."""
        record = self._cache.objects.known(_pointer_id(candidate))
        if not record:
            return None
        if candidate.source in HAS_TAGS:
            return _pointed_to(record)
        size: object = record.get("size_bytes")
        file = str(record.get("file", ""))
        if not is_version_file(file):
            return None
        return Located(
            url=tree_url(candidate.base, self._arch, candidate.image.published_name, file),
            digest=str(record.get("digest", "")),
            size_bytes=size if isinstance(size, int) and size > 0 else None,
        )

    def _remember(self, candidate: Candidate, located: Located) -> Located:
        """Remember what a pointer says now; return it with a note if it went back in time.

        What the publisher says now is used all the same: a version may be withdrawn. But who holds a server, or what
        is before it, could bring an old hole back that way: it is said until a version comes that is not older.
        """
        if candidate.source in HAS_TAGS:
            self._remember_tag(candidate, located)
        if candidate.source is not SourceKind.TREE:
            return located
        pointer = _pointer_id(candidate)
        file, newest = located.url.rpartition("/")[2], str(self._cache.objects.known(pointer).get("newest", ""))
        before = self.last_known(candidate)
        if before is not None:  # also what was remembered before there was a newest
            newest = max(newest, before.url.rpartition("/")[2])
        if before != replace(located, note="") or not newest:
            self._cache.objects.remember(
                pointer,
                {
                    "kind": "pointer",
                    "url": f"{shown(candidate.base)} {candidate.image.published_name}",
                    "file": file,  # the base may hold a password
                    "digest": located.digest,
                    "size_bytes": located.size_bytes or 0,
                    "newest": max(newest, file),
                },
            )
        if file >= newest:  # their names are times
            self._back.pop(pointer, None)
            return located
        what = f"latest.txt names an older version ({file}) than before ({newest})"
        told = f"{candidate.image.short}: {shown(candidate.base)}: {what}"
        if self._back.get(pointer) != told:
            log.warning("%s", told)
        self._back[pointer] = told
        return replace(located, note=what)

    def _remember_tag(self, candidate: Candidate, located: Located) -> None:
        """Remember what the tag of a registry or a library points to."""
        if self.last_known(candidate) == replace(located, private=False):
            return
        self._cache.objects.remember(
            _pointer_id(candidate),
            {
                "kind": "pointer",
                "url": located.url,
                "version": located.version,
                "pointer": located.pointer,
                "size_bytes": located.size_bytes or 0,
                "about_bytes": located.about_bytes or 0,
            },
        )

    def failures(self, *, private: bool = True) -> list[str]:
        """Return what is wrong now, as text: for `status`; without `private` not what has a credential."""
        known = self._answers.current(self._clock())
        down = [one.why for _, one in self._down.current(self._clock())]
        return (
            [one.why for one in self.unwell.values()]
            + down
            + list(self._back.values())
            + [
                f"{candidate.image.short}: {answer.why}"
                for candidate, answer in known
                if not isinstance(answer, Located)
                and not _asks_for_credential(answer)
                and (private or not (candidate.image.has_secret or candidate.credential))
            ]
        )

    def down(self) -> dict[str, str]:
        """Return the trees that do not answer, each with the reason: for `status`."""
        return {base: one.why for base, one in self._down.current(self._clock())}

    def close(self) -> None:
        """End the children; threads that wait for a network are left behind."""
        for helper in (*self._helpers.values(), *self._foreign.values()):
            helper.close()
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)


def _asks_for_credential(answer: Answer) -> bool:
    return isinstance(answer, Denied) and answer.wants_credential


def _place(candidate: Candidate) -> str:
    """Return what is down when a source as a whole does not answer: a tree, a repository; empty for a job's URL."""
    return candidate.base or (f"cvmfs {candidate.repository}" if candidate.repository else "")


def _pointer_id(candidate: Candidate) -> str:
    if candidate.source is SourceKind.REGISTRY:
        return f"pointer registry {candidate.image.path}"
    if candidate.source is SourceKind.LIBRARY:
        return f"pointer library {candidate.base} {candidate.image.path}"
    return f"pointer {candidate.base} {candidate.image.published_name}"


def _pointed_to(record: Mapping[str, str | float]) -> Located:
    """Return what a tag pointed to, by its record."""

    def size(name: str) -> int | None:
        value: object = record.get(name)
        return value if isinstance(value, int) and value > 0 else None

    return Located(
        url=str(record.get("url", "")),
        version=str(record.get("version", "")),
        pointer=str(record.get("pointer", "")),
        size_bytes=size("size_bytes"),
        about_bytes=size("about_bytes"),
    )
