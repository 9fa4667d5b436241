"""The one table of hook statuses."""

from __future__ import annotations

from collections import Counter

import pytest

from cache_manager.status import HOLD_LIMIT, HookStatus, StatusError, table_markdown

# The table of the design, which admins script against: code, name, and what becomes of the job.
TABLE = (
    (0, "OK", "runs"),
    (110, "IMAGE_REFERENCE_INVALID", "hold"),
    (120, "IMAGE_NOT_PUBLISHED", "hold"),
    (130, "IMAGE_ACCESS_DENIED", "hold"),
    (150, "IMAGE_FILE_INVALID", "hold"),
    (310, "NO_CONTAINER_RUNTIME", "idle"),
    (320, "IMAGE_TOO_LARGE", "idle"),
    (330, "ARCHITECTURE_MISMATCH", "idle"),
    (340, "CACHE_UNUSABLE", "idle"),
    (350, "IMAGE_NOT_ALLOWED", "idle"),
    (360, "PATH_NOT_HERE", "idle"),
    (399, "HOOK_INTERNAL_ERROR", "idle"),
    (410, "CACHE_MANAGER_DOWN", "idle"),
    (420, "CACHE_FULL", "idle"),
    (430, "DISK_FULL", "idle"),
    (440, "CVMFS_UNAVAILABLE", "idle"),
    (450, "IMAGE_UNPACK_FAILED", "idle"),
    (460, "DEADLINE_EXCEEDED", "idle"),
    (510, "IMAGE_CORRUPT", "idle"),
    (610, "SOURCE_UNREACHABLE", "idle"),
    (620, "SOURCE_TOO_SLOW", "idle"),
    (630, "SOURCE_THROTTLED", "idle"),
)


def test_the_table_has_the_codes_and_names_that_admins_script_against() -> None:
    """Nothing is renamed, renumbered or dropped without this test saying so."""
    assert [(status.code, status.name, status.consequence) for status in HookStatus] == list(TABLE)


def test_every_code_stands_for_one_status() -> None:
    """A subcode in a hold reason leads to one row."""
    assert max(Counter(status.code for status in HookStatus).values()) == 1


@pytest.mark.parametrize("status", HookStatus)
def test_the_number_alone_says_whether_the_job_is_held(status: HookStatus) -> None:
    """HTCondor holds for 1 to 299 and sends back to idle from 300 on."""
    assert status.holds == (1 <= status.code <= 299)
    assert status.holds == (status.consequence == "hold")
    assert HOLD_LIMIT == 300


@pytest.mark.parametrize("status", [status for status in HookStatus if status is not HookStatus.OK])
def test_every_failure_says_when_it_happens_and_what_to_do(status: HookStatus) -> None:
    """A reader of the table is never left without a next step."""
    assert status.meaning
    assert status.remedy


@pytest.mark.parametrize("status", HookStatus)
def test_a_row_fits_a_markdown_table(status: HookStatus) -> None:
    """A bar or a line's end in a text would break the README's table."""
    row = next(line for line in table_markdown().splitlines() if line.startswith(f"| {status.code} |"))
    assert row.count("|") == 6
    assert f" {status.name} | {status.consequence} |" in row


def test_the_readme_table_has_one_row_for_each_status() -> None:
    """Two lines of heading, then the rows."""
    assert len(table_markdown().splitlines()) == 2 + len(HookStatus)
    assert table_markdown().endswith("|\n")


def test_an_error_brings_its_status_and_its_message() -> None:
    """What is raised where it is found is what the hook prints."""
    error = StatusError(HookStatus.CACHE_FULL, "htc/rocky:9: no room (1 of 2)")
    assert (error.status, error.message, str(error)) == (HookStatus.CACHE_FULL, error.message, error.message)
