"""The jobs of the demo, each with what its author would notice."""

from __future__ import annotations

import pytest

from tests.pool.demo import Demo, Row
from tests.pool.world import CVMFS_REPOSITORY


def rows(demo: Demo) -> dict[str, Row]:
    """Return the lines of the table by their titles."""
    return {row.title: row for _, row in demo.rows}


@pytest.mark.parametrize(
    "title",
    [
        "names no image: the default",
        '+HookKeyword = "none"',
        "its own stderr and exit code 7",
        "container universe, absolute path",
        "no CVMFS: its published SIF",
        "ten jobs at once, cold (the last)",
        "ships its SIF",
        "an http URL",
        "names no image, no default: untouched",
        "the same again: a hit",
    ],
)
def test_a_job_reads_its_own_image_inside_the_container(demo: Demo, title: str) -> None:
    """The file /IMAGE_ID says which image it is."""
    row = rows(demo)[title]
    assert row.job.stdout == f"{row.expected}\n", row.job.message()


def test_a_retag_does_not_move_a_running_job(demo: Demo) -> None:
    """It read its image's name before and after the tag moved."""
    assert demo.retagged.stdout == "htc/rocky:9 sandbox\n" * 2


def test_the_message_names_the_digest_behind_the_tag(demo: Demo) -> None:
    """The job's log tells which image it was."""
    assert f"htc/rocky:9: CVMFS {CVMFS_REPOSITORY}/.images/" in demo.retagged.message()


def test_ten_jobs_for_one_cold_image_cost_one_get(demo: Demo) -> None:
    """Also one for the pointer."""
    assert [job.stdout for job in demo.ten] == ["htc/cold:1 SIF\n"] * 10
    assert [demo.count("htc/cold:1", file) for file in ("20260101T000000Z.sif", "latest.txt")] == [1, 1]


def test_the_second_job_with_an_image_is_a_hit(demo: Demo) -> None:
    """One GET for two jobs, and the message says so."""
    assert demo.count("htc/rocky:9") == 1
    assert "cached SIF of http" in rows(demo)["the same again: a hit"].job.message()


def test_a_typo_is_held_with_a_reason_that_tells_what_to_do(demo: Demo) -> None:
    """Hold code 19, subcode 120, the image's name, and the name that was probably meant."""
    hold = demo.typo.hold
    assert hold is not None
    assert (hold.code, hold.subcode) == (19, 120)
    assert "htc/rocki:9: not published" in hold.reason
    assert "did you mean htc/rocky:9?" in hold.reason
    assert "check the spelling" in hold.reason


def test_an_origin_that_is_down_sends_the_job_back_to_idle_and_is_asked_once_a_minute(demo: Demo) -> None:
    """Two tries of the job, one request."""
    messages = demo.down.messages()
    assert len(messages) >= 2
    assert [message for message in messages if "htc/down:1: " not in message or "HTTP 503" not in message] == []
    assert not any(event.number == 12 for event in demo.down.events())
    assert demo.count("htc/down:1", "latest.txt") == 1


def test_stderr_and_exit_code_are_the_jobs_own(demo: Demo) -> None:
    """Nothing of ours is in them."""
    assert demo.own.stderr == "only this\n"
    assert demo.own.exit_code == 7


def test_a_job_without_an_image_gets_no_message(demo: Demo) -> None:
    """It is not our business."""
    assert rows(demo)["names no image, no default: untouched"].job.messages() == []


def test_the_demo_finds_nothing_to_complain_about(demo: Demo) -> None:
    """What it prints below its table is checked."""
    assert len(demo.check()) == 4
