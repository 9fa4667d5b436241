"""What the trials of both forms mean."""

from __future__ import annotations

import pytest

from cache_manager.abilities import LONGEST, Abilities, Ran, judge

RUNTIME = "/usr/bin/apptainer"
GOOD = Ran(37, "INFO:    gocryptfs not found, will not be able to use gocryptfs\n")
TEMPORARY = Ran(
    37,
    "INFO:    squashfuse not found, will not be able to mount SIF or other squashfs files\n"
    "INFO:    Converting SIF file to temporary sandbox...\nINFO:    Cleaning up image...\n",
)
NO_FUSE = Ran(255, "INFO:  x\nFATAL:   container creation failed: fuse: failed to open /dev/fuse: Permission denied\n")
NO_NAMESPACES = Ran(1, "ERROR  : Failed to create user namespace: not allowed to create user namespace\n")
SILENT = Ran(1, "")
SLOW = Ran(None, "")


@pytest.mark.parametrize(
    ("sif", "sandbox", "able", "words"),
    [
        (GOOD, GOOD, (True, True), ""),
        (
            TEMPORARY,
            GOOD,
            (False, True),
            "SIFs: each job would unpack its image into a temporary sandbox: squash",
        ),
        (Ran(37, "CONVERTING SIF TO TEMPORARY SANDBOX"), GOOD, (False, True), "temporary sandbox"),
        (NO_FUSE, GOOD, (False, True), "failed to open /dev/fuse: Permission denied"),
        (NO_NAMESPACES, NO_NAMESPACES, (False, False), "image directories: "),
        (SILENT, GOOD, (False, True), "SIFs: the trial ended with status 1"),
        (Ran(0, ""), Ran(0, ""), (False, False), "status 0"),
        (GOOD, SILENT, (True, False), "image directories: the trial ended with status 1"),
    ],
    ids=["both", "temporary", "shouted", "no fuse", "no namespaces", "silent", "another program", "no directories"],
)
def test_only_a_program_that_ran_counts(sif: Ran, sandbox: Ran, able: tuple[bool, bool], words: str) -> None:
    """Whatever was assumed."""
    for guess in (True, False):
        found = judge(Abilities(RUNTIME, can_use_sif=guess, can_use_sandbox=guess), sif, sandbox)
        assert (found.can_use_sif, found.can_use_sandbox) == able
        assert found.tried
        assert words in found.why_not
        assert bool(found.why_not) == (able != (True, True))


@pytest.mark.parametrize("guess", [True, False])
def test_a_trial_that_takes_too_long_says_nothing(*, guess: bool) -> None:
    """What was assumed stays, and the slowness is told."""
    found = judge(Abilities(RUNTIME, can_use_sif=guess, can_use_sandbox=guess), SLOW, SLOW)
    assert (found.can_use_sif, found.can_use_sandbox) == (guess, guess)
    assert "did not end in time" in found.why_not


def test_the_reason_stays_short() -> None:
    """It goes into slot ads and messages."""
    found = judge(Abilities(RUNTIME, can_use_sif=True, can_use_sandbox=True), Ran(1, "x" * 10**5), Ran(1, "y" * 10**5))
    assert len(found.why_not) <= 2 * LONGEST
