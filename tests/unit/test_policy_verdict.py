"""What the answers of the sources mean for the job."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.outcome import Absent, Denied, Failed, Served, Unwell, failure_of
from cache_manager.policy import PRECEDENCE, verdict
from cache_manager.reference import ImageReference
from cache_manager.status import HookStatus
from cache_manager.updatead import MESSAGE_BYTES

IMAGE = ImageReference.parse("https://user:word@host.example/rocky.sif?sig=s3cr3t")
SHORT = "https://host.example/rocky.sif"
HIT = Served("/cache/x/image", "cached SIF of https://o.example/x.sif", size_bytes=3_141_592, seconds=0.01, hit=True)
FETCHED = Served("/cache/x/image", "SIF fetched from https://o.example/x.sif", size_bytes=10**9, seconds=12.34)
SANDBOX = Served("/cvmfs/r/.images/aa/bb", "CVMFS /cvmfs/r/.images/aa/bb", sandbox=True, hit=True)

NEVER_FROM_A_SOURCE = {
    HookStatus.OK,
    HookStatus.IMAGE_REFERENCE_INVALID,
    HookStatus.CACHE_MANAGER_DOWN,
}
HELD_BY_ITSELF = {HookStatus.IMAGE_ACCESS_DENIED, HookStatus.IMAGE_FILE_INVALID}
FAILURES = st.builds(
    Failed,
    status=st.sampled_from(PRECEDENCE),
    why=st.text(min_size=1, max_size=10),
    existing=st.booleans(),
    not_here=st.booleans(),
).filter(lambda one: not (one.existing and (one.not_here or one.status is HookStatus.IMAGE_NOT_PUBLISHED)))


def test_every_failure_of_a_source_has_its_place() -> None:
    """A status without a place would be an exception in the middle of an answer."""
    assert set(PRECEDENCE) == set(HookStatus) - NEVER_FROM_A_SOURCE
    assert len(set(PRECEDENCE)) == len(PRECEDENCE)


@pytest.mark.parametrize("first", PRECEDENCE)
def test_of_two_failures_the_telling_one_is_the_answer_whoever_was_asked_first(first: HookStatus) -> None:
    """The order of the table decides, both reasons are told, and the image is named: for all pairs."""
    for second in set(PRECEDENCE) - {first}:
        found = verdict(IMAGE, [Failed(first, "one said so"), Failed(second, "two said so")])
        assert found.status is min(first, second, key=PRECEDENCE.index)
        assert found.image is None
        assert found.message.startswith(f"{SHORT}: ")
        assert [found.message.count(f"{who} said so") for who in ("one", "two")] == [1, 1]


def test_nobody_to_ask_is_a_fault_of_ours() -> None:
    """It must not hold anybody."""
    assert verdict(IMAGE, []).status is HookStatus.HOOK_INTERNAL_ERROR


@given(st.lists(FAILURES, min_size=1, max_size=4))
def test_a_job_is_held_only_where_no_other_ep_could_run_it(failures: list[Failed]) -> None:
    """An authority has to say that it is not published, and nobody may have shown that it exists."""
    found = verdict(IMAGE, failures)
    assert found.status in {failure.status for failure in failures}
    if found.status.holds and found.status not in HELD_BY_ITSELF:
        assert found.status is HookStatus.IMAGE_NOT_PUBLISHED
        assert not any(failure.existing for failure in failures)


@given(st.lists(FAILURES, min_size=2, max_size=4).flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))))
def test_the_order_of_the_questions_does_not_change_the_answer(orders: tuple[list[Failed], list[Failed]]) -> None:
    """IMAGE_CACHE_PREFER must not decide whether a job is held."""
    assert verdict(IMAGE, orders[0]).status is verdict(IMAGE, orders[1]).status


@pytest.mark.parametrize("status", [one for one in PRECEDENCE if one.holds])
def test_a_job_is_never_held_for_an_image_that_it_did_not_name(status: HookStatus) -> None:
    """The default image is this EP's: another EP has another, and the user can mend nothing."""
    found = verdict(IMAGE, [Failed(status, "not there")], named_by="default")
    assert not found.status.holds


@pytest.mark.parametrize("status", PRECEDENCE)
def test_only_a_held_job_is_told_what_to_do(status: HookStatus) -> None:
    """Nobody reads advice on a job that runs elsewhere a minute later."""
    told = verdict(IMAGE, [Failed(status, "why it failed")]).message
    assert told.startswith(f"{SHORT}: why it failed")
    assert (status.remedy in told) == status.holds
    assert "s3cr3t" not in told


@pytest.mark.parametrize(
    ("served", "named_by", "text"),
    [
        (HIT, "job", f"{SHORT}: cached SIF of https://o.example/x.sif, 3.1 MB"),
        (FETCHED, "job", f"{SHORT}: SIF fetched from https://o.example/x.sif, 1.0 GB, 12.3 s"),
        (SANDBOX, "job", f"{SHORT}: CVMFS /cvmfs/r/.images/aa/bb"),
        (SANDBOX, "default", f"default image {SHORT}: CVMFS /cvmfs/r/.images/aa/bb"),
    ],
)
def test_a_job_that_runs_learns_which_image_it_got(served: Served, named_by: str, text: str) -> None:
    """Image, source, bytes, seconds."""
    found = verdict(IMAGE, [served], "always", named_by)
    assert (found.status, found.image, found.message) == (HookStatus.OK, served, text)


@pytest.mark.parametrize("messages", ["always", "fallback", "never"])
@pytest.mark.parametrize("fell_back", [True, False])
def test_the_site_decides_when_a_running_job_gets_a_message(messages: str, *, fell_back: bool) -> None:
    """Each message is an event in the job's log."""
    attempts: list[Served | Failed] = [
        *([Failed(HookStatus.CVMFS_UNAVAILABLE, "CVMFS hangs")] if fell_back else []),
        HIT,
    ]
    found = verdict(IMAGE, attempts, messages)
    assert (found.status, found.image) == (HookStatus.OK, HIT)
    assert bool(found.message) == (messages == "always" or (messages == "fallback" and fell_back))
    assert ("instead of: CVMFS hangs" in found.message) == (fell_back and messages != "never")


@pytest.mark.parametrize(("everything", "elsewhere"), [*product([True, False], PRECEDENCE)])
def test_an_answer_becomes_the_failure_that_it_means(elsewhere: HookStatus, *, everything: bool) -> None:
    """A denial shows that the image exists; an absence is final only from an authority."""
    unwell = Unwell(HookStatus.SOURCE_THROTTLED, "w", everything=everything)
    assert failure_of(unwell, elsewhere) == Failed(HookStatus.SOURCE_THROTTLED, "w")
    assert failure_of(Denied("d"), elsewhere) == Failed(HookStatus.IMAGE_ACCESS_DENIED, "d", existing=True)
    assert failure_of(Absent("a", authoritative=True), elsewhere) == Failed(HookStatus.IMAGE_NOT_PUBLISHED, "a")
    assert failure_of(Absent("a"), elsewhere) == Failed(elsewhere, "a", not_here=True)


def test_each_of_many_long_reasons_is_told_in_part() -> None:
    """None is cut off because it comes last, and the whole fits into what HTCondor takes."""
    many = [Failed(HookStatus.SOURCE_UNREACHABLE, f"source {number} {'x' * 900} end {number}") for number in range(9)]
    short = Failed(HookStatus.CVMFS_UNAVAILABLE, "the short one")
    message = verdict(ImageReference.parse(f"https://host.example/{'y' * 3000}.sif"), [*many, short]).message
    assert len(message.encode()) <= MESSAGE_BYTES
    assert "the short one" in message
    assert all(f"source {number} " in message and f"end {number}" in message for number in range(9))
    served = verdict(IMAGE, [*many, FETCHED]).message
    assert len(served.encode()) <= MESSAGE_BYTES
    assert all(f"source {number} " in served for number in range(9))
