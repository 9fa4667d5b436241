"""From a request to an answer: what users meet when sources say this and that."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cache_manager.broker import Broker
from cache_manager.cache import Cache
from cache_manager.caller import Caller
from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.policy import Candidate, SourceKind
from cache_manager.reference import ImageReference
from cache_manager.settings import Settings
from cache_manager.status import HookStatus
from tests.unit.benches import LIMIT_S, Bench, run
from tests.unit.brokers import (
    DOWN,
    HANGS,
    NOT_PUBLISHED,
    PUBLISHED,
    SANDBOX,
    SIF,
    TREES,
    Delivery,
    Places,
    answer,
    unasked,
)
from tests.unit.builders import knobs, request


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
