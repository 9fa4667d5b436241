"""From a request to an answer: asks the candidates in order, within the hook's deadline, and has the policy judge."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Final

from cache_manager import opened, policy
from cache_manager.arrived import status_of
from cache_manager.cache import Cache
from cache_manager.caller import Caller, ProbeResult
from cache_manager.credential import HANDLES, NoCredential
from cache_manager.entry import CacheEntry
from cache_manager.fetcher import Fetcher, Wanted
from cache_manager.jobad import JobRequest
from cache_manager.locator import Locator
from cache_manager.outcome import Answer, Denied, Failed, FetchError, Located, Served, Unwell, failure_of
from cache_manager.policy import HAS_TAGS, JOBS_OWN, Candidate, Ranking, Site, SourceKind, Verdict
from cache_manager.reference import ImageReference
from cache_manager.runner import NO_RUNNER, Runner
from cache_manager.settings import Settings
from cache_manager.sources.base import SourceError
from cache_manager.status import HookStatus, StatusError
from cache_manager.switches import Switches
from cache_manager.text import printable
from cache_manager.turns import Turns

_BY_HOOK: Final = frozenset({SourceKind.JOB_FILE, SourceKind.LOCAL})
_FETCHED: Final = JOBS_OWN | {SourceKind.TREE}

NO_DEADLINE_S: Final = 7 * 86400.0
"""A fetch has budgets of its own."""

_PROVE_NOTHING: Final = frozenset(
    {
        HookStatus.IMAGE_NOT_PUBLISHED,
        HookStatus.SOURCE_UNREACHABLE,
        HookStatus.SOURCE_THROTTLED,
        HookStatus.CACHE_UNUSABLE,
    }
)
"""A fetch that fails with any other status was in contact with the image: it exists."""

HEDGE_S: Final = 2.0
"""A repository that has not answered after this time is not waited for while there are other sources to ask."""

TESTS: Final = 2
"""How many images are tested at a time because of what jobs' users say of them."""

MIN_WAIT_S: Final = 0.05
"""Before a throttled source is asked again; more for who has waited long already."""


class Broker:
    """Answers requests. One for each manager; lives on its loop."""

    def __init__(
        self,
        cache: Cache,
        settings: Callable[[], Settings],
        runner: Runner = NO_RUNNER,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.runtime = ""
        """The runtime with which HTCondor tests an image before each job; empty if it does not."""
        self._why_not = runner.why_not
        self._proven: set[str] = set()
        self.locator = Locator(cache, clock)
        self.switches = Switches()
        self.fetcher = Fetcher(
            cache, runner, clock, lambda: settings().owner_fetches, lambda: settings().hook_deadline_s
        )
        self._tests = Turns(TESTS, lambda: 1)
        self._testing: dict[str, asyncio.Task[str]] = {}
        self._abilities = runner.abilities
        self.cache = cache
        self._cache = cache
        self._settings = settings
        self._clock = clock

    def rank(self, request: JobRequest, settings: Settings) -> Ranking:
        """Return the candidates for a request as things are now."""
        off = self.switches.federations_off(settings)
        return policy.rank(request, Site(settings, frozenset(self.locator.unwell), self._abilities(), off))

    async def answer(self, request: JobRequest, caller: Caller) -> Verdict:
        """Return how the hook answers. The settings are those of the moment in which the request began."""
        settings = self._settings()
        ranking = self.rank(request, settings)
        if ranking.verdict is not None or ranking.image is None:
            return ranking.verdict or Verdict(HookStatus.OK, "")
        attempts: dict[Candidate, Served | Failed] = {}
        asking: Sequence[Candidate] = ranking.candidates
        waited_s = 0.0
        while True:
            found = await self._attempts(asking, request, caller, settings)
            others = {candidate: one for candidate, one in attempts.items() if candidate not in asking}
            attempts = others | {candidate: _after_waiting(one, waited_s) for candidate, one in found.items()}
            so_far = [*ranking.passed_over, *attempts.values()]
            verdict = policy.verdict(ranking.image, so_far, settings.messages, request.named_by or "default")
            wait_s = max(_asked_to_wait_s(verdict, so_far), waited_s / 8 + MIN_WAIT_S)
            if asyncio.get_running_loop().time() + wait_s >= caller.deadline:
                return verdict
            # the refusal is remembered just so long: of all who wait for it, one asks
            await asyncio.sleep(wait_s)
            waited_s += wait_s
            asking = [candidate for candidate, one in attempts.items() if _is_throttled(one)]

    async def _attempts(
        self, candidates: Sequence[Candidate], request: JobRequest, caller: Caller, settings: Settings
    ) -> dict[Candidate, Served | Failed]:
        """Return what came of the candidates, up to the first that served: that one comes last.

        A CVMFS repository that takes its time is asked to the end only after all others: it may hang.
        """
        found: dict[Candidate, Served | Failed] = {}
        late: list[Candidate] = []
        for candidate in itertools.chain(candidates, late):
            found.pop(candidate, None)
            others = candidate.source is SourceKind.CVMFS and candidate not in late and candidate is not candidates[-1]
            if others and not await self.locator.answers_within(HEDGE_S, candidate, settings, caller.owner):
                why = f"CVMFS repository {candidate.repository} has not answered within {HEDGE_S:.0f} s"
                found[candidate] = Failed(HookStatus.CVMFS_UNAVAILABLE, why)
                late.append(candidate)
                continue
            found[candidate] = await self._attempt(candidate, request, caller, settings)
            if isinstance(found[candidate], Served):
                break
        return found

    async def bring(self, image: ImageReference) -> Verdict:
        """Return where an image is in the cache, fetched if need be: for an admin, who has no deadline and no lease.

        CVMFS is not asked, also where it has the image: who prefetches wants it here.
        """
        settings = self._settings()
        request = JobRequest(image=image, named_by="admin")
        ranking = self.rank(request, settings)
        candidates = [one for one in ranking.candidates if one.source in _FETCHED]
        if not candidates:
            why = "; ".join(ranking.skipped) or "no source from which it would be fetched"
            unable = Verdict(HookStatus.NO_CONTAINER_RUNTIME, f"{image.short}: {why}")
            return ranking.verdict if ranking.verdict and ranking.verdict.status.code else unable
        caller = Caller(None, _nobody, asyncio.get_running_loop().time() + NO_DEADLINE_S)
        attempts = await self._attempts(candidates, request, caller, settings)
        return policy.verdict(image, [*ranking.passed_over, *attempts.values()], named_by="admin")

    async def _attempt(
        self, candidate: Candidate, request: JobRequest, caller: Caller, settings: Settings
    ) -> Served | Failed:
        try:
            async with asyncio.timeout_at(caller.deadline):
                if candidate.source in _BY_HOOK:
                    return await self._opened(candidate, request, caller, settings)
                return await self._from_source(candidate, request, caller, settings)
        except TimeoutError:
            why = f"{candidate.source.value}: not here within the hook's deadline; the fetch goes on for the next job"
            # a tree that was not heard to its end may have the image, whatever an authority says
            return Failed(HookStatus.DEADLINE_EXCEEDED, why, existing=candidate.source is SourceKind.TREE)
        except StatusError as error:
            # a tree that names a version has the image, whatever becomes of the fetch
            existing = candidate.source is SourceKind.TREE or error.status not in _PROVE_NOTHING
            retry_after_s = error.retry_after_s if isinstance(error, FetchError) else None
            why = error.message.removeprefix(f"{candidate.image.short}: ")  # the verdict names it
            return Failed(error.status, why, existing=existing, retry_after_s=retry_after_s)

    async def _opened(
        self, candidate: Candidate, request: JobRequest, caller: Caller, settings: Settings
    ) -> Served | Failed:
        """Have the hook open the path as the job's user: the manager opens nothing for anybody."""
        found = await caller.probe(candidate.image.path)
        brought = opened.came_from(candidate, found, request.original, settings.root)
        published = brought or opened.leads_to(found)
        if published is None:
            return opened.judge(candidate, found, request.scratch, settings.root)
        ranking = self.rank(replace(request, image=published), settings)
        attempts = list((await self._attempts(ranking.candidates, request, caller, settings)).values())
        if attempts and isinstance(attempts[-1], Served):
            return attempts[-1]
        verdict = ranking.verdict or policy.verdict(published, [*ranking.passed_over, *attempts])
        if brought is not None:  # the file's own failure, as it is what the job names
            return attempts[0] if len(attempts) == 1 else Failed(verdict.status, verdict.message)
        # a link of the job's is the job's everywhere; one of this EP's may lead to an image elsewhere
        ours = candidate.source is SourceKind.LOCAL and verdict.status.holds
        status = HookStatus.PATH_NOT_HERE if ours else verdict.status
        return Failed(status, f"leads to {published.text}: {verdict.message}")

    async def _from_source(
        self, candidate: Candidate, request: JobRequest, caller: Caller, settings: Settings
    ) -> Served | Failed:
        began = time.monotonic()
        candidate, answer = await self._located(candidate, caller, settings)
        located, note = self._usable(candidate, answer, caller)
        if isinstance(located, Failed):
            return located
        if located.path:
            return Served(located.path, f"CVMFS {located.path}", sandbox=located.sandbox, hit=True)
        entry = self._cached(candidate, located, settings)
        hit = entry is not None
        if entry is None:
            wanted = Wanted(
                candidate.image.short,
                located,
                self.locator.source(candidate, settings),
                own_url=candidate.is_jobs_own,
                unpack=candidate.unpack,
                uid=caller.uid,
                owner=caller.owner,
            )
            self._refuse_unkept(wanted)
            entry = await self.fetcher.fetch(wanted, caller.holder, request.job_id)
        if not self._cache.may_read(entry, caller.uid):
            await self._admit(entry, candidate, located, caller, settings)
        if not (hit and self._cache.leases.has(entry.key, caller.holder)):  # else the same job asks again
            self._cache.counters.hits += hit
            self._cache.counters.misses += not hit
        path = self._cache.acquire(entry.key, caller.holder, self._clock(), request.job_id, caller.owner)
        self._cache.pins.follow(candidate.image.short, entry.key)
        await self._prove(entry, str(path), caller)
        return Served(
            str(path),
            _origin(entry, hit=hit),
            sandbox=entry.format == "sandbox",
            key=entry.key,
            size_bytes=entry.size_bytes,
            seconds=time.monotonic() - began,
            hit=hit,
            note=note,
        )

    async def _located(self, candidate: Candidate, caller: Caller, settings: Settings) -> tuple[Candidate, Answer]:
        """Return where the image is: as everybody may have it, else with the job's own credential.

        A credential is read only where it is asked for. What is known of a place with one is known of that one alone.
        """
        answer = await self.locator.locate(candidate, settings, caller.owner)
        if not isinstance(answer, Denied) or not answer.wants_credential:
            return candidate, answer
        names = candidate.image.credential_names
        held = await caller.credential(names)
        if isinstance(held, NoCredential):
            wanted = names[0] if names else "<service>"
            advice = f"ask for one with {HANDLES} = {wanted} in the submit file"
            return candidate, Denied(f"{answer.why}; {held.advice}: {advice}")
        candidate = replace(candidate, credential=held)
        return candidate, await self.locator.locate(candidate, settings, caller.owner)

    def _refuse_unkept(self, wanted: Wanted) -> None:
        """Refuse what could not be kept from others once it is here. Raises StatusError.

        Without access control lists there is no file that just one other user can read.
        """
        if wanted.closed and wanted.uid not in {None, 0, os.geteuid()} and not self._cache.store.can_admit:
            what = "comes with a credential, and this cache's file system cannot keep it for one user alone (no ACLs)"
            raise StatusError(HookStatus.IMAGE_NOT_ALLOWED, f"{wanted.name}: {what}")

    async def _admit(
        self, entry: CacheEntry, candidate: Candidate, located: Located, caller: Caller, settings: Settings
    ) -> None:
        """Let the job's user into an entry that came with another's credential. Raises StatusError.

        A tree is the site's, and for all its jobs; what jobs name themselves has to be accepted now, as this user
        names it, and with this user's credential.
        """
        if candidate.is_jobs_own:
            try:
                await self.locator.confirm(candidate, located, settings)
            except SourceError as error:
                raise status_of(error, own_url=True) from None
            if entry.key not in self._cache.entries:
                raise StatusError(HookStatus.SOURCE_UNREACHABLE, f"{candidate.image.short}: was given up meanwhile")
        self._cache.admit(entry.key, caller.uid)

    async def _prove(self, entry: CacheEntry, path: str, caller: Caller) -> None:
        """Have an entry started once as a user who is not the manager's, before its first use.

        Raises StatusError. What the job's user says of it costs that job alone: only our own test quarantines it.
        """
        key = entry.key
        if caller.test is None or not self.runtime or key in self._proven:
            return
        # not one at a time: who is asked may be in no hurry
        found = await caller.test(self.runtime, path)
        if found.exit_status == 0:
            self._proven = {one for one in self._proven if one in self._cache.entries} | {key}
        elif found.exit_status is not None:
            why = await self._tested(path, caller.owner)
            if why and key in self._cache.entries:
                self._cache.quarantine(key, f"does not start: {why}")
            said = printable(" ".join((why or found.said).split())[-300:]) or f"exit status {found.exit_status}"
            what = f"{entry.origin}: does not start here as the job's user: {said}"
            raise StatusError(HookStatus.IMAGE_UNPACK_FAILED, what)

    async def _tested(self, path: str, owner: str) -> str:
        """Return why an entry does not start, by our own test: however many say so, it is made once at a time."""
        task = self._testing.get(path)
        if task is None:
            task = self._testing[path] = asyncio.create_task(self._test(path, owner))
            task.add_done_callback(lambda _: self._testing.pop(path, None))
        return await asyncio.shield(task)

    async def _test(self, path: str, owner: str) -> str:
        async with self._tests.turn(owner):
            return await asyncio.to_thread(self._why_not, path)

    def _usable(
        self, candidate: Candidate, answer: Answer, caller: Caller | None = None
    ) -> tuple[Located | Failed, str]:
        """Return where to take the image from, and a note for the job's author.

        A pointer that cannot be read is replaced by what it last pointed to, if that is in the cache. What came with a
        credential is not for another owner then: nobody has said now that they may have it.
        """
        if isinstance(answer, Located):
            return answer, answer.note
        cvmfs = candidate.source is SourceKind.CVMFS
        failed = failure_of(answer, HookStatus.CVMFS_UNAVAILABLE if cvmfs else HookStatus.SOURCE_UNREACHABLE)
        read = candidate.source in HAS_TAGS and not isinstance(answer, Unwell)  # the registry's own word
        last = None if read else self.locator.last_known(candidate)
        entry = None if last is None else self._cache.find(last, candidate.formats)
        if last is not None and entry is not None and not (caller and _is_anothers(entry, caller)):
            return last, f"could not look for a newer version: {failed.why}"
        return failed, ""

    def _cached(self, candidate: Candidate, located: Located, settings: Settings) -> CacheEntry | None:
        """Return the entry of what was located. Of an object without a version it is trusted like a tag."""
        if candidate.is_jobs_own and not located.version:
            fetched_at: object = self._cache.objects.known(located.object_id).get("fetched_at")
            now = self._clock()
            if not isinstance(fetched_at, (int, float)) or not now - settings.tag_ttl_s <= fetched_at <= now:
                return None
        return self._cache.find(located, candidate.formats)

    async def explain(
        self, request: JobRequest, *, ask: bool = True
    ) -> tuple[Ranking, list[tuple[Candidate, str]], Verdict]:
        """Return what `answer` would do, without fetching: each candidate with what became of it, and the verdict.

        Without `ask` no source is asked: only what is known of them is said.
        """
        settings = self._settings()
        ranking = self.rank(request, settings)
        steps: list[tuple[Candidate, str]] = []
        attempts: list[Served | Failed] = list(ranking.passed_over)
        for candidate in ranking.candidates:
            if attempts and isinstance(attempts[-1], Served):
                steps.append((candidate, "not asked: the one before serves"))
                continue
            known = self.locator.known(candidate)
            if ask or known is not None or candidate.source in _BY_HOOK:
                attempt, words = await self._foreseen(candidate, settings)
            else:
                words = "not asked: only for jobs of this execution point, root and the manager's user"
                attempt = Failed(HookStatus.SOURCE_UNREACHABLE, words)
            attempts.append(attempt)
            steps.append((candidate, words))
        if ranking.image is None or ranking.verdict is not None:
            return ranking, steps, ranking.verdict or Verdict(HookStatus.OK, "")
        named_by = request.named_by or "default"
        return ranking, steps, policy.verdict(ranking.image, attempts, settings.messages, named_by)

    async def _foreseen(self, candidate: Candidate, settings: Settings) -> tuple[Served | Failed, str]:
        if candidate.source in _BY_HOOK:
            served = Served(candidate.image.path, f"{candidate.source.value}, if the job's user can read it")
            return served, "chosen: the hook opens it as the job's user"
        answer = await self.locator.locate(candidate, settings)
        if isinstance(answer, Denied) and answer.wants_credential:
            served = Served("<path>", f"{candidate.source.value}, if the job's own credential is accepted for it")
            return served, f"chosen: asked for with the job's credential, which its hook reads: {answer.why}"
        located, _ = self._usable(candidate, answer)
        if isinstance(located, Failed):
            return located, f"not chosen: {located.status.code} {located.status.name}: {located.why}"
        if located.path:
            return Served(located.path, f"CVMFS {located.path}", sandbox=located.sandbox), "chosen: it is there"
        entry = self._cached(candidate, located, settings)
        if entry is not None:
            path = str(self._cache.store.layout.image(entry.key))
            served = Served(path, _origin(entry, hit=True), sandbox=entry.format == "sandbox", hit=True)
            return served, "chosen: it is in the cache"
        key = f"{located.digest or '<sha256>'}.{'sandbox' if candidate.unpack else 'sif'}"
        size = f", {located.size_bytes} bytes" if located.size_bytes else ""
        path = str(self._cache.store.layout.image(key))
        unpacked = " and unpacked, because SIFs do not run here" if candidate.unpack else ""
        if candidate.source is SourceKind.REGISTRY:
            unpacked = f" and converted to a {'directory' if candidate.unpack else 'SIF'}"
        served = Served(path, f"SIF that would be fetched{unpacked}", sandbox=candidate.unpack)
        return served, f"chosen: it would be fetched{unpacked}{size}"


def _origin(entry: CacheEntry, *, hit: bool) -> str:
    """Return in words where an entry came from."""
    unpacked = entry.format == "sandbox"
    if hit:
        return f"cached {'directory, unpacked from the SIF' if unpacked else 'SIF'} of {entry.origin}"
    return f"SIF fetched {'and unpacked ' if unpacked else ''}from {entry.origin}"


def _is_anothers(entry: CacheEntry, caller: Caller) -> bool:
    """Whether an entry came with another's credential, and the uid, which is all jobs' in a pilot, does not tell."""
    return entry.closed and caller.uid == os.geteuid() and entry.owner != caller.owner


async def _nobody(path: str) -> ProbeResult:
    """Stand for the hook where there is none."""
    return ProbeResult("absent", error=f"nobody opens {path}")


def _is_throttled(one: Served | Failed) -> bool:
    return isinstance(one, Failed) and one.status is HookStatus.SOURCE_THROTTLED


def _asked_to_wait_s(verdict: Verdict, attempts: Sequence[Served | Failed]) -> float:
    """Return how long the first of the throttled sources asks to wait, if nothing but that is in the way."""
    if verdict.status is not HookStatus.SOURCE_THROTTLED:
        return inf
    said = [one.retry_after_s for one in attempts if isinstance(one, Failed) and _is_throttled(one)]
    return min((wait_s for wait_s in said if wait_s is not None), default=inf)


def _after_waiting(one: Served | Failed, waited_s: float) -> Served | Failed:
    if not waited_s or isinstance(one, Failed):
        return one
    note = f"{waited_s:.0f} s later, as the source had asked"
    return replace(one, note=f"{one.note}; {note}" if one.note else note)
