"""From a request to an answer: what users meet when sources say this and that."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from cache_manager.abilities import Abilities
from cache_manager.broker import Broker
from cache_manager.cache import Cache
from cache_manager.caller import Caller, ProbeResult, TestResult
from cache_manager.jobad import JobRequest
from cache_manager.lease import Holder
from cache_manager.locator import Locator
from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.policy import Candidate, SourceKind, Verdict
from cache_manager.reference import ImageReference
from cache_manager.runner import Runner
from cache_manager.settings import Settings
from cache_manager.sources.base import Sink, Source, SourceError
from cache_manager.status import HookStatus
from tests.unit.benches import LIMIT_S, Bench, child, run
from tests.unit.builders import REPOSITORY, knobs, request, sif_file, sif_header

PUBLISHED = request(f"/cvmfs/{REPOSITORY}/htc/rocky:9")
TREES = "https://one.example/v2"
SIF = Located(url="https://one.example/v2/x86_64/htc__rocky__9/20250505T120000Z.sif")
SANDBOX = Located(path="/cvmfs/r/.images/ab/cd", sandbox=True)
NOT_PUBLISHED = Absent("not published", authoritative=True)
HANGS = Unwell(HookStatus.CVMFS_UNAVAILABLE, "hangs", everything=True)
DOWN = Unwell(HookStatus.SOURCE_UNREACHABLE, "connection refused")


@dataclass
class Delivery:
    """Delivers an image, or fails."""

    ends: Absent | Denied | Unwell | None = None

    def locate(self, image: ImageReference) -> Answer:
        """Nobody asks."""
        raise NotImplementedError

    def transfer(self, located: Located, sink: Sink) -> None:
        """Deliver."""
        del located
        if self.ends is not None:
            raise SourceError(self.ends)
        sink.write(sif_file())


class Places(Locator):
    """Knows what each kind of source says."""

    def __init__(self, cache: Cache, answers: dict[SourceKind, Answer], source: Source) -> None:
        super().__init__(cache)
        self.answers = answers
        self.delivers = source
        self.asked: list[SourceKind] = []

    async def locate(self, candidate: Candidate, settings: Settings, owner: str = "") -> Answer:
        """Say it."""
        del settings, owner
        self.asked.append(candidate.source)
        return self.answers[candidate.source]

    def source(self, candidate: Candidate, settings: Settings) -> Source:
        """Return the one source that delivers."""
        del candidate, settings
        return self.delivers


async def unasked(_path: str) -> ProbeResult:
    """Stand for a hook that is not asked back."""
    raise AssertionError


def answer(
    tmp_path: Path,
    asks: JobRequest,
    answers: dict[SourceKind, Answer],
    ends: Absent | Denied | Unwell | None = None,
    *,
    left_s: float = LIMIT_S,
) -> Verdict:
    """Return the answer to a request, where the sources say what they are told to say."""
    verdicts: list[Verdict] = []

    async def test(bench: Bench) -> None:
        settings = knobs(SIF_SOURCES=TREES)
        broker = Broker(bench.cache, lambda: settings)
        broker.locator = Places(bench.cache, answers, Delivery(ends))
        deadline = asyncio.get_running_loop().time() + left_s
        verdicts.append(await broker.answer(asks, Caller(None, unasked, deadline)))
        await asyncio.gather(*(one.task for one in broker.fetcher.flights.values() if one.task))

    run(tmp_path / "cache", test)
    return verdicts[0]


def test_the_first_form_that_serves_is_taken(tmp_path: Path) -> None:
    """CVMFS has it: nobody else is asked."""
    found = answer(tmp_path, PUBLISHED, {SourceKind.CVMFS: SANDBOX})
    assert found.image is not None
    assert (found.status, found.image.path, found.image.sandbox) == (HookStatus.OK, SANDBOX.path, True)
    assert found.message == "htc/rocky:9: CVMFS /cvmfs/r/.images/ab/cd"


@pytest.mark.parametrize("cvmfs", [HANGS, NOT_PUBLISHED])
def test_the_other_form_serves_when_the_first_does_not(tmp_path: Path, cvmfs: Answer) -> None:
    """The message tells what happened to the first."""
    found = answer(tmp_path, PUBLISHED, {SourceKind.CVMFS: cvmfs, SourceKind.TREE: SIF})
    assert found.image is not None
    assert found.image.path.endswith(".sif/image")
    assert "htc/rocky:9: SIF fetched from https://one.example/v2/x86_64/" in found.message
    assert "[instead of: " in found.message


@pytest.mark.parametrize(
    ("cvmfs", "tree", "status"),
    [
        (NOT_PUBLISHED, Absent("404"), HookStatus.IMAGE_NOT_PUBLISHED),
        (NOT_PUBLISHED, DOWN, HookStatus.IMAGE_NOT_PUBLISHED),
        (HANGS, Absent("404"), HookStatus.CVMFS_UNAVAILABLE),
        (HANGS, DOWN, HookStatus.SOURCE_UNREACHABLE),
    ],
)
def test_an_image_that_nobody_has_shown_is_judged_by_the_authority(
    tmp_path: Path, cvmfs: Answer, tree: Answer, status: HookStatus
) -> None:
    """Only a healthy CVMFS can say that it does not exist."""
    assert answer(tmp_path, PUBLISHED, {SourceKind.CVMFS: cvmfs, SourceKind.TREE: tree}).status is status


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (DOWN, HookStatus.SOURCE_UNREACHABLE),
        (Unwell(HookStatus.SOURCE_THROTTLED, "429"), HookStatus.SOURCE_THROTTLED),
        (Unwell(HookStatus.SOURCE_TOO_SLOW, "slow"), HookStatus.SOURCE_TOO_SLOW),
        (None, HookStatus.DEADLINE_EXCEEDED),
    ],
)
def test_an_image_that_a_tree_names_exists_whatever_cvmfs_says(
    tmp_path: Path, ends: Unwell | None, status: HookStatus
) -> None:
    """It is published, and only did not come in time: the job goes back to idle, and the next one finds it."""
    answers: dict[SourceKind, Answer] = {SourceKind.CVMFS: NOT_PUBLISHED, SourceKind.TREE: SIF}
    found = answer(tmp_path, PUBLISHED, answers, ends, left_s=LIMIT_S if ends else -1.0)
    assert not found.status.holds
    assert found.status is status


class Throttled(Places):
    """A tree that refuses some requests before it serves; CVMFS is unwell."""

    def __init__(self, cache: Cache, refusals: int, wait_s: float | None) -> None:
        super().__init__(cache, {SourceKind.CVMFS: HANGS, SourceKind.TREE: SIF}, Delivery())
        self.refusals = refusals
        self.refusal = Unwell(HookStatus.SOURCE_THROTTLED, "429", retry_after_s=wait_s)

    async def locate(self, candidate: Candidate, settings: Settings, owner: str = "") -> Answer:
        """Refuse, or say where it is."""
        found = await super().locate(candidate, settings, owner)
        if candidate.source is SourceKind.TREE and self.refusals:
            self.refusals -= 1
            return self.refusal
        return found


@pytest.mark.parametrize(
    ("refusals", "wait_s", "status", "asks"),
    [
        (0, 0.1, HookStatus.OK, 1),
        (1, 0.1, HookStatus.OK, 2),
        (3, 0.1, HookStatus.OK, 4),
        (1, 60.0, HookStatus.SOURCE_THROTTLED, 1),
        (1, 1e9, HookStatus.SOURCE_THROTTLED, 1),
        (1, None, HookStatus.SOURCE_THROTTLED, 1),
    ],
    ids=["at once", "later", "much later", "beyond the deadline", "never", "not said"],
)
def test_a_throttled_source_is_asked_again_if_its_wait_ends_in_time(
    tmp_path: Path, refusals: int, wait_s: float | None, status: HookStatus, asks: int
) -> None:
    """After all others, and it alone; a wait that is too long is told at once."""

    async def test(bench: Bench) -> None:
        settings = knobs(SIF_SOURCES=TREES)
        broker = Broker(bench.cache, lambda: settings)
        places = Throttled(bench.cache, refusals, wait_s)
        broker.locator = places
        verdict = await broker.answer(PUBLISHED, Caller(None, unasked, asyncio.get_running_loop().time() + LIMIT_S))
        assert verdict.status is status
        assert (
            places.asked[-asks:] == [SourceKind.TREE] * asks == [one for one in places.asked if one is SourceKind.TREE]
        )
        assert ("as the source had asked" in verdict.message) == (asks > 1)

    run(tmp_path / "cache", test)


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (Absent("404", authoritative=True), HookStatus.IMAGE_NOT_PUBLISHED),
        (Denied("403"), HookStatus.IMAGE_ACCESS_DENIED),
        (DOWN, HookStatus.SOURCE_UNREACHABLE),
    ],
)
def test_the_jobs_own_url_is_judged_by_its_own_server(
    tmp_path: Path, ends: Absent | Denied | Unwell, status: HookStatus
) -> None:
    """There is nobody else to ask."""
    asks = request("https://host.example/x.sif")
    located = Located(url="https://host.example/x.sif")
    found = answer(tmp_path, asks, {SourceKind.URL: located}, ends)
    assert found.status is status
    assert found.message.startswith("https://host.example/x.sif: ")


def test_a_job_that_did_not_name_the_image_is_not_held_for_it(tmp_path: Path) -> None:
    """The default image is this EP's own business."""
    asks = request()

    async def test(bench: Bench) -> None:
        settings = knobs(DEFAULT_IMAGE="htc/rokcy:9")
        broker = Broker(bench.cache, lambda: settings)
        broker.locator = Places(bench.cache, {SourceKind.CVMFS: NOT_PUBLISHED}, Delivery())
        verdict = await broker.answer(asks, Caller(None, unasked, asyncio.get_running_loop().time() + LIMIT_S))
        assert not verdict.status.holds
        assert "htc/rokcy:9" in verdict.message

    run(tmp_path / "cache", test)


def test_a_pointer_that_cannot_be_read_serves_what_it_last_pointed_to(tmp_path: Path) -> None:
    """The tree is down; the image is in the cache, and the message says that it may be old."""

    async def test(bench: Bench) -> None:
        settings = knobs(SIF_SOURCES=TREES, PREFER="sif")
        broker = Broker(bench.cache, lambda: settings)
        places = Places(bench.cache, {SourceKind.TREE: SIF, SourceKind.CVMFS: HANGS}, Delivery())
        broker.locator = places
        caller = Caller(None, unasked, asyncio.get_running_loop().time() + LIMIT_S)
        first = await broker.answer(PUBLISHED, caller)
        candidate = Candidate(SourceKind.TREE, PUBLISHED.image or ImageReference.parse("x"), base=TREES)
        places._remember(candidate, SIF)
        places.answers[SourceKind.TREE] = DOWN
        second = await broker.answer(PUBLISHED, caller)
        assert first.image is not None
        assert second.image is not None
        assert second.image.path == first.image.path
        assert "could not look for a newer version: connection refused" in second.message

    run(tmp_path / "cache", test)


@pytest.mark.parametrize(("owner", "served"), [("joe", True), ("amy", False), ("", False)])
def test_a_registry_that_is_down_opens_no_private_image_to_another_owner(
    tmp_path: Path, owner: str, *, served: bool
) -> None:
    """In a pilot all jobs have one uid: while nobody can say who may have it, it is for who brought it in."""
    asks = request("docker://r.example/x:1")

    async def test(bench: Bench) -> None:
        settings = knobs()
        able = Abilities("apptainer", can_use_sif=True, can_use_sandbox=True)
        broker = Broker(bench.cache, lambda: settings, Runner(abilities=lambda: able))
        found = Located(url="docker://r.example/x@sha256:1", version="sha256:1", pointer="sha256:1", private=True)
        places = broker.locator = Places(bench.cache, {SourceKind.REGISTRY: found}, Delivery())
        deadline = asyncio.get_running_loop().time() + LIMIT_S
        first = await broker.answer(asks, Caller(None, unasked, deadline, uid=os.geteuid(), owner="joe"))
        assert first.image is not None
        places._remember(Candidate(SourceKind.REGISTRY, asks.image or ImageReference.parse("x")), found)
        places.answers[SourceKind.REGISTRY] = DOWN
        second = await broker.answer(asks, Caller(None, unasked, deadline, uid=os.geteuid(), owner=owner))
        assert (second.image is not None) is served
        assert second.status is (HookStatus.OK if served else HookStatus.SOURCE_UNREACHABLE)

    run(tmp_path / "cache", test)


def test_who_gets_an_image_of_the_cache_holds_it(tmp_path: Path) -> None:
    """Fetched or found, the lease is there with the answer."""

    async def test(bench: Bench) -> None:
        settings = knobs(SIF_SOURCES=TREES, PREFER="sif")
        broker = Broker(bench.cache, lambda: settings)
        broker.locator = Places(bench.cache, {SourceKind.TREE: SIF}, Delivery())
        deadline = asyncio.get_running_loop().time() + LIMIT_S
        with child() as (one, _), child() as (other, _):
            for holder in (one, other):
                await broker.answer(PUBLISHED, Caller(holder, unasked, deadline))
            assert set(bench.cache.leases) == {one, other}
            assert (bench.cache.counters.hits, bench.cache.counters.misses) == (1, 1)

    run(tmp_path / "cache", test)


WHOLE = ProbeResult("file", 813, sif_header())


@pytest.mark.parametrize(
    ("found", "shipped", "here"),
    [
        (WHOLE, HookStatus.OK, HookStatus.OK),
        (ProbeResult("file", 300, b"hsqs" + b"\x00" * 200), HookStatus.OK, HookStatus.OK),
        (ProbeResult("directory"), HookStatus.OK, HookStatus.OK),
        (ProbeResult("file", 812, sif_header()), HookStatus.IMAGE_FILE_INVALID, HookStatus.PATH_NOT_HERE),
        (ProbeResult("file", 0), HookStatus.IMAGE_FILE_INVALID, HookStatus.PATH_NOT_HERE),
        (ProbeResult("file", 9, b"<html>502"), HookStatus.IMAGE_FILE_INVALID, HookStatus.PATH_NOT_HERE),
        (ProbeResult("absent"), HookStatus.IMAGE_FILE_INVALID, HookStatus.PATH_NOT_HERE),
        (ProbeResult("denied", error="Permission denied"), HookStatus.IMAGE_FILE_INVALID, HookStatus.PATH_NOT_HERE),
        (ProbeResult("unwell", error="Stale file handle"), HookStatus.PATH_NOT_HERE, HookStatus.PATH_NOT_HERE),
        (ProbeResult("other"), HookStatus.IMAGE_FILE_INVALID, HookStatus.PATH_NOT_HERE),
    ],
    ids=["SIF", "squashfs", "directory", "truncated", "empty", "HTML", "absent", "denied", "unwell", "device"],
)
@pytest.mark.parametrize("text", ["images/x.sif", "/srv/x.sif"])
def test_a_path_is_opened_by_the_hook_and_judged_by_what_it_found(
    tmp_path: Path, text: str, found: ProbeResult, shipped: HookStatus, here: HookStatus
) -> None:
    """A bad file that came with the job holds it; a path that another EP may have does not."""
    asks = JobRequest(ImageReference.parse(text), "ContainerImage", scratch="/exec/dir_7/scratch")
    probed: list[str] = []

    async def probe(path: str) -> ProbeResult:
        probed.append(path)
        return found

    async def test(bench: Bench) -> None:
        broker = Broker(bench.cache, knobs)
        verdict = await broker.answer(asks, Caller(None, probe, asyncio.get_running_loop().time() + LIMIT_S))
        assert verdict.status is (here if text.startswith("/") else shipped)
        assert verdict.message.startswith(f"{text}: ")
        if verdict.image is not None:
            assert verdict.image.path == (text if text.startswith("/") else f"/exec/dir_7/scratch/{text}")
            assert verdict.image.sandbox == (found.kind == "directory")

    run(tmp_path / "cache", test)
    assert probed == [text]


def test_a_job_cannot_name_an_image_by_its_place_in_the_cache(tmp_path: Path) -> None:
    """It would have no lease on it, and might be another's, who got it with a credential."""

    async def probe(_path: str) -> ProbeResult:
        return WHOLE

    async def test(bench: Bench) -> None:
        settings = knobs(DIR=str(bench.store.root))
        found = bench.put("a")
        asks = request(str(bench.store.layout.image(found.key)))
        broker = Broker(bench.cache, lambda: settings)
        verdict = await broker.answer(asks, Caller(None, probe, asyncio.get_running_loop().time() + LIMIT_S))
        assert verdict.image is None
        assert verdict.status is not HookStatus.OK
        assert not verdict.status.holds

    run(tmp_path / "cache", test)


@pytest.mark.parametrize("holder", [None, Holder(1, 1)])
def test_a_deadline_that_has_passed_is_told_as_such(tmp_path: Path, holder: Holder | None) -> None:
    """The hook's own timer must not be the first."""

    async def never(_path: str) -> ProbeResult:
        await asyncio.Event().wait()
        raise AssertionError

    async def test(bench: Bench) -> None:
        broker = Broker(bench.cache, knobs)
        caller = Caller(holder, never, asyncio.get_running_loop().time() - 1)
        verdict = await broker.answer(request("/srv/x.sif"), caller)
        assert verdict.status is HookStatus.DEADLINE_EXCEEDED
        assert verdict.message.startswith("/srv/x.sif: ")

    run(tmp_path / "cache", test)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({SourceKind.CVMFS: SANDBOX}, ["chosen: it is there", "not asked"]),
        ({SourceKind.CVMFS: HANGS, SourceKind.TREE: SIF}, ["not chosen: 440", "chosen: it would be fetched"]),
        ({SourceKind.CVMFS: HANGS, SourceKind.TREE: DOWN}, ["not chosen: 440", "not chosen: 610"]),
    ],
)
def test_explain_tells_each_step_and_fetches_nothing(
    tmp_path: Path, answers: dict[SourceKind, Answer], words: list[str]
) -> None:
    """An admin sees what a job would get, and why."""

    async def test(bench: Bench) -> None:
        settings = knobs(SIF_SOURCES=TREES)
        broker = Broker(bench.cache, lambda: settings)
        broker.locator = Places(bench.cache, answers, Delivery())
        _, steps, verdict = await broker.explain(PUBLISHED)
        assert [said[: len(word)] for (_, said), word in zip(steps, words, strict=True)] == words
        assert verdict.status.code == (0 if words[-1].startswith(("chosen", "not asked")) else 610)
        assert bench.cache.entries == {}

    run(tmp_path / "cache", test)


class Slow(Places):
    """A CVMFS repository that does not answer before it is told to."""

    def __init__(self, cache: Cache, answers: dict[SourceKind, Answer], source: Source) -> None:
        super().__init__(cache, answers, source)
        self.answers_now = asyncio.Event()
        self.others = asyncio.Event()

    async def locate(self, candidate: Candidate, settings: Settings, owner: str = "") -> Answer:
        """Wait, if it is CVMFS that is asked."""
        if candidate.source is SourceKind.CVMFS:
            await self.answers_now.wait()
        else:
            self.others.set()
        return await super().locate(candidate, settings, owner)


@pytest.mark.parametrize(("tree", "runs"), [(SIF, "image"), (Absent("404"), "cd")], ids=["a SIF", "no SIF"])
def test_a_repository_that_takes_its_time_is_waited_for_only_where_nobody_else_has_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Answer, runs: str
) -> None:
    """It may hang: the SIF serves meanwhile, and where there is none the answer is worth the wait."""
    monkeypatch.setattr("cache_manager.broker.HEDGE_S", 0.01)

    async def test(bench: Bench) -> None:
        settings = knobs(SIF_SOURCES=TREES)
        broker = Broker(bench.cache, lambda: settings)
        places = Slow(bench.cache, {SourceKind.CVMFS: SANDBOX, SourceKind.TREE: tree}, Delivery())
        broker.locator = places
        caller = Caller(None, unasked, asyncio.get_running_loop().time() + LIMIT_S)
        answering = asyncio.create_task(broker.answer(PUBLISHED, caller))
        if runs == "cd":
            async with asyncio.timeout(LIMIT_S):
                await places.others.wait()
            places.answers_now.set()
        found = await answering
        assert found.image is not None
        assert found.image.path.endswith(f"/{runs}")
        assert ("has not answered within" in found.message) == (runs == "image")

    run(tmp_path / "cache", test)


@pytest.mark.parametrize(
    ("said", "ours", "status", "kept", "again"),
    [
        (TestResult(0), "", HookStatus.OK, 1, 0),
        (TestResult(None), "", HookStatus.OK, 1, 1),
        (TestResult(255, "FATAL: no"), "", HookStatus.IMAGE_UNPACK_FAILED, 1, 1),
        (TestResult(255, "FATAL: no"), "bad superblock", HookStatus.IMAGE_UNPACK_FAILED, 0, 1),
    ],
    ids=["starts", "says nothing", "does not start for this user", "does not start for us either"],
)
def test_what_a_jobs_user_says_of_an_image_costs_that_job_alone(  # noqa: PLR0913, PLR0917 - a row of the table
    tmp_path: Path, said: TestResult, ours: str, status: HookStatus, kept: int, again: int
) -> None:
    """Users are hostile to each other: only our own test takes an image from all, and only a success is kept."""
    asked: list[str] = []

    async def test_image(runtime: str, image: str) -> TestResult:
        asked.append(f"{runtime} {image.rpartition('/')[2]}")
        return said

    async def test(bench: Bench) -> None:
        settings = knobs(SIF_SOURCES=TREES)
        broker = Broker(bench.cache, lambda: settings, Runner(why_not=lambda path: ours if "/entries/" in path else ""))
        broker.locator = Places(bench.cache, {SourceKind.CVMFS: HANGS, SourceKind.TREE: SIF}, Delivery())
        broker.runtime = "/usr/bin/apptainer"
        caller = Caller(None, unasked, asyncio.get_running_loop().time() + LIMIT_S, test_image)
        first = await broker.answer(PUBLISHED, caller)
        assert first.status is status, first.message
        assert len(bench.cache.entries) == kept
        assert asked == ["/usr/bin/apptainer image"]
        if status is not HookStatus.OK:
            assert "does not start here as the job's user: " in first.message
            assert (ours or "FATAL: no") in first.message
        await broker.answer(PUBLISHED, caller)
        assert len(asked) == 1 + again

    run(tmp_path / "cache", test)


@pytest.mark.parametrize(
    ("url", "uid", "status"),
    [
        ("https://o.example/x.sif?sig=s3cr3t", 4711, HookStatus.IMAGE_NOT_ALLOWED),
        ("https://joe:s3cr3t@o.example/x.sif", 4711, HookStatus.IMAGE_NOT_ALLOWED),
        ("https://o.example/x.sif?sig=s3cr3t", os.geteuid(), HookStatus.OK),
        ("https://o.example/x.sif", 4711, HookStatus.OK),
    ],
)
def test_what_cannot_be_kept_for_one_user_is_not_fetched(
    tmp_path: Path, url: str, uid: int, status: HookStatus
) -> None:
    """On a file system without access control lists; in a pilot all is one uid. The message has no secret."""
    verdicts: list[Verdict] = []

    async def test(bench: Bench) -> None:
        bench.store.can_admit = False
        broker = Broker(bench.cache, knobs)
        broker.locator = Places(bench.cache, {SourceKind.URL: Located(url=url)}, Delivery())
        caller = Caller(None, unasked, asyncio.get_running_loop().time() + LIMIT_S, uid=uid)
        verdicts.append(await broker.answer(request(url), caller))
        assert bool(bench.cache.entries) == (status is HookStatus.OK)

    run(tmp_path / "cache", test)
    assert verdicts[0].status is status
    assert "s3cr3t" not in verdicts[0].message
