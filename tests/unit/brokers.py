"""A broker whose sources say what a test tells them to say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from cache_manager.broker import Broker
from cache_manager.cache import Cache
from cache_manager.caller import Caller, ProbeResult
from cache_manager.jobad import JobRequest
from cache_manager.locator import Locator
from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.policy import Candidate, SourceKind, Verdict
from cache_manager.reference import ImageReference
from cache_manager.settings import Settings
from cache_manager.sources.base import Sink, Source, SourceError
from cache_manager.status import HookStatus
from tests.unit.benches import LIMIT_S, Bench, run
from tests.unit.builders import REPOSITORY, knobs, request, sif_file

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
        raise AssertionError(image)

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
