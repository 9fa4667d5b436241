"""The sites' exceptions: what a file says, for which execution points, and how it reaches the message of a job."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.exceptions import SiteException, parse, switched_off
from cache_manager.switches import Switches
from tests.unit.builders import knobs

FILE = """Site,percent,message
Anvil,100,"NAT, and no cache nearby"
# a remark
Villanova, 50%, half of them, by agreement

Utah,0,none at all
Clemson,100
"""


def test_the_lines_of_the_pool_are_read_as_they_are() -> None:
    """With and without a heading, quotes, remarks and a message."""
    rules, faults = parse(FILE)
    assert not faults
    assert rules == (
        SiteException("Anvil", 100, "NAT, and no cache nearby"),
        SiteException("Villanova", 50, "half of them, by agreement"),
        SiteException("Utah", 0, "none at all"),
        SiteException("Clemson", 100, ""),
    )


@pytest.mark.parametrize(
    "line", ["Anvil", "Anvil,much,x", "Anvil,101,x", "Anvil,-1,x", "Anvil,nan,x", ",50,x", "Anvil,,x"]
)
def test_a_broken_line_is_told_and_the_others_count(line: str) -> None:
    """A typing error of one site is no other site's trouble."""
    rules, faults = parse(f"Utah,100,a\n{line}\nClemson,100,b\n")
    assert [rule.site for rule in rules] == ["Utah", "Clemson"]
    assert len(faults) == 1
    assert faults[0].startswith("line 2: ")


@given(st.text())
def test_no_file_is_fatal(text: str) -> None:
    """Whatever it holds."""
    rules, _ = parse(text)
    assert all(0 <= rule.percent <= 100 for rule in rules)


@pytest.mark.parametrize("percent", [0, 10, 50, 100])
def test_so_many_percent_of_a_sites_execution_points_are_off_and_stay_so(percent: int) -> None:
    """Each decides for itself, and the same each time."""
    rules = (SiteException("Anvil", percent, "NAT"),)
    off = [bool(switched_off(rules, "anvil", f"ep{number}")) for number in range(1000)]
    assert abs(sum(off) - 10 * percent) <= (40 if 0 < percent < 100 else 0)
    assert off == [bool(switched_off(rules, "anvil", f"ep{number}")) for number in range(1000)]


def test_another_site_and_one_without_a_name_ask_as_ever() -> None:
    """An empty name in the file is no name."""
    rules = (SiteException("Anvil", 100, "NAT"),)
    assert not switched_off(rules, "Utah", "ep")
    assert not switched_off(rules, "", "ep")
    assert switched_off(rules, "Anvil", "ep") == "switched off at Anvil: NAT (IMAGE_CACHE_EXCEPTIONS)"


def test_a_changed_file_is_read_again_and_its_faults_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that is not there yet, or no more."""
    file = tmp_path / "exceptions.csv"
    settings, switches = knobs(SITE="Anvil", EXCEPTIONS=str(file)), Switches()
    with caplog.at_level(logging.WARNING):
        for text, off, faults in ((None, False, 1), ("Anvil,100,NAT\nbroken\n", True, 1), ("Anvil,0,\n", False, 0)):
            if text is not None:
                file.write_text(text)
            caplog.clear()
            switches.read(settings)
            switches.read(settings)
            assert bool(switches.federations_off(settings)) is off
            assert len(caplog.records) == len(switches.faults) == faults
    assert Switches().federations_off(settings) == ""
