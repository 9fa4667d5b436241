"""The table of cases through the pure policy: ads and the answers of the world as values."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from cache_manager.abilities import UNKNOWN
from cache_manager.outcome import Failed, Served
from cache_manager.policy import Ranking, Site, SourceKind, Verdict, rank, verdict
from cache_manager.protocol import MAX_BODY_BYTES, Header
from cache_manager.reader import read_request
from cache_manager.server import block_of
from cache_manager.settings import Settings
from cache_manager.status import HookStatus, StatusError
from tests.cases import CASES, NOT_YET
from tests.cases.case import SCRATCH, Case
from tests.contract.block import Answer

NAMES = {"@ORIGIN@": "http://127.0.0.1:8080", "@SITE@": "/site", "@PORT@": "8080"}
BY_POLICY = [case for case in CASES if not case.no_manager and len(case.ad) <= MAX_BODY_BYTES]
"""What the policy decides: the others do not reach it."""


def fill(text: str) -> str:
    """Put the world's names into a text."""
    for name, value in NAMES.items():
        text = text.replace(name, value)
    return text


def settings_of(case: Case) -> Settings:
    """Return the settings of a row's site."""
    known = {"LOCAL_DIR": "/site", "IMAGE_CACHE_CVMFS_BASE": "/site/cvmfs"} | dict(case.knobs)
    return Settings.from_knobs({name: fill(value) for name, value in known.items()})


def decide(case: Case) -> tuple[Ranking, list[Served | Failed], Verdict]:
    """Return who is asked, what they say, and what the policy makes of it. Raises StatusError."""
    settings = settings_of(case)
    job = fill(case.ad).encode() if isinstance(case.ad, str) else case.ad
    header = Header(0, {"job": str(len(job)), "scratch": fill(SCRATCH)})
    request = read_request(header, job + case.machine.encode())
    abilities = replace(UNKNOWN, runtime=settings.runtime)
    unwell = frozenset(settings.cvmfs_repositories if case.unwell else ())
    ranking = rank(request, Site(settings, unwell, abilities))
    if ranking.verdict or ranking.image is None:
        return ranking, [], ranking.verdict or Verdict(HookStatus.OK, "")
    why = f"because {fill(case.said)}" if case.code else "because it is so"
    attempts = [ask.attempt(fill(case.runs), why) for ask in case.asked]
    return ranking, attempts, verdict(ranking.image, attempts, settings.messages, request.named_by or "default")


@pytest.mark.parametrize("case", BY_POLICY, ids=lambda case: f"{case.code}: {case.name}")
def test_the_policy_asks_whom_the_table_says_and_answers_as_it_says(case: Case) -> None:
    """Candidates in their order, hold or idle, the image's name in the message, and what runs."""
    try:
        ranking, attempts, found = decide(case)
    except StatusError as error:
        ranking, attempts, found = Ranking(None), [], Verdict(error.status, error.message)
    assert found.status.code == case.code, found.message
    asked = [candidate.source for candidate in ranking.candidates]
    assert asked[: len(case.asked)] == [ask.source for ask in case.asked]
    served = [attempt for attempt in attempts if isinstance(attempt, Served)]
    assert served == ([attempts[-1]] if case.runs else [])
    if not served:
        assert len(asked) == len(case.asked)
    bases = [candidate.base for candidate in ranking.candidates if candidate.source is SourceKind.TREE]
    assert bases in ([], list(settings_of(case).sif_sources))
    repositories = {candidate.repository for candidate in ranking.candidates if candidate.source is SourceKind.CVMFS}
    if ranking.image and ranking.image.repository:
        assert repositories <= {ranking.image.repository}
    _compare(Answer.of(block_of(found), b"", 0, 0), case, ranking)


def _compare(answer: Answer, case: Case, ranking: Ranking) -> None:
    """Hold the block that HTCondor gets against the row."""
    assert answer.code == case.code
    if case.runs:
        kind, _, place = fill(case.runs).partition(" ")
        assert answer.runs(f"/cache/{place}" if kind == "entry" else place, sandbox=kind == "sandbox")
    elif case.code == 0:
        assert answer.is_untouched
        assert not case.asks
        assert ranking.skipped
    elif ranking.image is not None:
        assert ranking.image.short[:200] in answer.message
    if settings_of(case).messages == "never":
        assert not answer.message
    assert fill(case.said) in answer.message


def test_the_table_is_large_and_has_every_status() -> None:
    """Every row of HookStatus, except those that cannot be reached yet, each with its reason."""
    assert len(CASES) >= 120
    assert {case.code for case in CASES} | set(NOT_YET) == {status.code for status in HookStatus}
    assert not {case.code for case in CASES} & set(NOT_YET)


def test_no_two_cases_of_the_table_have_the_same_name() -> None:
    """A name says what is special about a case."""
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
