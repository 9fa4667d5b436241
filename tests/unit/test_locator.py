"""Where images are: asked once for all who want to know, and not again too soon."""

from __future__ import annotations

import asyncio
import platform
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from cache_manager.locator import FAILURE_TTL_S, Locator
from cache_manager.outcome import Absent, Located, Unwell
from cache_manager.policy import Candidate, SourceKind
from cache_manager.reference import ImageReference
from tests.unit.benches import Bench, run
from tests.unit.builders import knobs
from tests.unit.origin import Origin, Reply


def at(url: str) -> Candidate:
    """Return the candidate for an image at a URL."""
    return Candidate(SourceKind.URL, ImageReference.parse(url))


def in_tree(base: str, name: str = "htc/rocky:9") -> Candidate:
    """Return the candidate for a published image."""
    return Candidate(SourceKind.TREE, ImageReference.parse_configured(name), base=base)


def on_cvmfs(name: str = "htc/rocky:9") -> Candidate:
    """Return the candidate for an image on CVMFS."""
    image = ImageReference.parse(f"/cvmfs/images.example/{name}")
    return Candidate(SourceKind.CVMFS, image, repository="images.example")


def look(tmp_path: Path, test: Callable[[Bench, Locator], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a locator."""

    async def within(bench: Bench) -> None:
        locator = Locator(bench.cache, lambda: bench.now)
        try:
            await test(bench, locator)
        finally:
            locator.close()

    run(tmp_path / "cache", within)


def test_one_question_serves_all_who_want_to_know(tmp_path: Path, origin: Origin) -> None:
    """And the answer is trusted for IMAGE_CACHE_TAG_TTL."""
    origin.replies["/x.sif"] = Reply(b"image", headers={"ETag": '"1"'})

    async def test(bench: Bench, locator: Locator) -> None:
        settings = knobs(TAG_TTL="15m")
        candidate = at(f"{origin.base}/x.sif")
        answers = await asyncio.gather(*(locator.locate(candidate, settings) for _ in range(5)))
        assert len(set(answers)) == 1
        bench.now += 899
        await locator.locate(candidate, settings)
        assert len(origin.asked) == 1
        bench.now += 2
        await locator.locate(candidate, settings)
        assert len(origin.asked) == 2

    look(tmp_path, test)


def test_a_name_that_is_not_there_does_not_hammer_its_origin(tmp_path: Path, origin: Origin) -> None:
    """One request a minute, however many jobs have the typing error; a publication is seen after that."""

    async def test(bench: Bench, locator: Locator) -> None:
        settings, candidate = knobs(), in_tree(f"{origin.base}/v2")
        for _ in range(3):
            assert isinstance(await locator.locate(candidate, settings), Absent)
        assert len(origin.asked) == 1
        assert len(locator.failures()) == 1
        bench.now += FAILURE_TTL_S + 1
        await locator.locate(candidate, settings)
        assert len(origin.asked) == 2

    look(tmp_path, test)


def test_a_server_that_says_when_is_asked_again_then(tmp_path: Path, origin: Origin) -> None:
    """Who asks meanwhile learns how much of the wait is left."""

    async def test(bench: Bench, locator: Locator) -> None:
        settings, candidate = knobs(), in_tree(f"{origin.base}/v2")
        pointer = f"/v2/{platform.machine()}/htc__rocky__9/latest.txt"
        origin.replies[pointer] = Reply(status=429, headers={"Retry-After": "10"})
        for left_s in (10, 3):
            answer = await locator.locate(candidate, settings)
            assert isinstance(answer, Unwell)
            assert answer.retry_after_s == left_s
            bench.now += 7
        assert len(origin.asked) == 1
        await locator.locate(candidate, settings)
        assert len(origin.asked) == 2

    look(tmp_path, test)


def test_a_server_that_is_down_is_asked_once_a_minute_for_all_its_images(tmp_path: Path) -> None:
    """And no job learns from that what another job asked for."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        base = f"http://127.0.0.1:{gone.getsockname()[1]}"

    async def test(bench: Bench, locator: Locator) -> None:
        del bench
        settings = knobs()
        first = await locator.locate(at(f"{base}/home/joe/secret-project.sif"), settings)
        second = await locator.locate(at(f"{base}/amy.sif"), settings)
        assert isinstance(first, Unwell)
        assert isinstance(second, Unwell)
        assert "Connection refused" in second.why
        assert "secret-project" not in second.why

    look(tmp_path, test)


def test_what_a_pointer_pointed_to_outlives_the_manager(tmp_path: Path, origin: Origin) -> None:
    """It serves while the tree does not answer."""
    origin.replies[f"/v2/{platform.machine()}/htc__rocky__9/latest.txt"] = Reply(b"20250505T120000Z.sif\n")
    candidate = in_tree(f"{origin.base}/v2")
    found: list[Located | None] = []

    async def before(bench: Bench, locator: Locator) -> None:
        del bench
        answer = await locator.locate(candidate, knobs())
        assert isinstance(answer, Located)
        found.append(answer)

    async def after(bench: Bench, locator: Locator) -> None:
        del bench
        found.append(locator.last_known(candidate))
        assert locator.last_known(in_tree(f"{origin.base}/v2", "htc/rocky:8")) is None

    look(tmp_path, before)
    look(tmp_path, after)
    assert found[0] == found[1]


def test_a_repository_that_does_not_answer_is_asked_by_nobody_until_it_is_well(tmp_path: Path) -> None:
    """Jobs go on to the next source at once; the manager looks itself."""

    async def test(bench: Bench, locator: Locator) -> None:
        del bench
        settings = knobs(CVMFS_BASE=str(tmp_path), CVMFS_REPOSITORIES="images.example")
        assert isinstance(await locator.locate(on_cvmfs(), settings), Unwell)
        (tmp_path / "images.example" / "htc" / "rocky:9" / "usr").mkdir(parents=True)
        assert isinstance(await locator.locate(on_cvmfs(), settings), Unwell)
        await locator.recheck(settings)
        assert locator.unwell == {}
        assert isinstance(await locator.locate(on_cvmfs(), settings), Located)

    look(tmp_path, test)


def test_one_bad_name_does_not_make_a_repository_unwell(tmp_path: Path) -> None:
    """Whoever misspells an image, or names too long a path, harms nobody else."""

    async def test(bench: Bench, locator: Locator) -> None:
        del bench
        settings = knobs(CVMFS_BASE=str(tmp_path), CVMFS_REPOSITORIES="images.example")
        (tmp_path / "images.example" / "htc" / "rocky:9" / "usr").mkdir(parents=True)
        (tmp_path / "images.example" / "htc" / "loop").symlink_to("loop")
        for name in ("htc/rokcy:9", "a" * 300, "htc/loop", "a/" * 1800 + "b"):
            await locator.locate(on_cvmfs(name), settings)
        assert locator.unwell == {}
        assert isinstance(await locator.locate(on_cvmfs(), settings), Located)

    look(tmp_path, test)
