"""From a request to an answer: whose hook asks, what it is asked back, how long it waits, and what it may have."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cache_manager.abilities import Abilities
from cache_manager.broker import Broker
from cache_manager.cache import Cache
from cache_manager.caller import Caller, ProbeResult, TestResult
from cache_manager.jobad import JobRequest
from cache_manager.lease import Holder
from cache_manager.outcome import Absent, Answer, Located
from cache_manager.policy import Candidate, SourceKind, Verdict
from cache_manager.reference import ImageReference
from cache_manager.runner import Runner
from cache_manager.settings import Settings
from cache_manager.sources.base import Source
from cache_manager.status import HookStatus
from tests.unit.benches import LIMIT_S, Bench, child, run
from tests.unit.brokers import (
    DOWN,
    HANGS,
    PUBLISHED,
    SANDBOX,
    SIF,
    TREES,
    Delivery,
    Places,
    unasked,
)
from tests.unit.builders import knobs, request, sif_header


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
