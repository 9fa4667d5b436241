"""How the processes of HTCondor's daemons are named."""

from __future__ import annotations

from typing import Final

import pytest

from cache_manager.askers import programs

ROWS: Final[tuple[tuple[dict[str, str], set[str]], ...]] = (
    ({}, {"condor_starter"}),
    ({"STARTER": "/usr/sbin/condor_starter"}, {"condor_starter"}),
    ({"STARTER": "/opt/site/starter.sh"}, {"condor_starter", "starter.sh"}),
    ({"STARTER": "/usr/sbin/condor_starter.of_the_site"}, {"condor_starter", "condor_starter."}),
    (
        {"STARTER_LIST": "STARTER, STARTER_OLD", "STARTER": "/a/new", "STARTER_OLD": "/a/old"},
        {"condor_starter", "new", "old"},
    ),
    ({"STARTER": "", "STARTER_LIST": "STARTER_GONE"}, {"condor_starter"}),
    ({"STARTER": "/a/" + "é" * 20}, {"condor_starter", "é" * 7 + "\ufffd"}),
)


@pytest.mark.parametrize(("knobs", "names"), ROWS)
def test_a_starter_has_the_name_that_the_configuration_says(knobs: dict[str, str], names: set[str]) -> None:
    """As the kernel keeps it, and the usual one."""
    assert programs(knobs, "condor_starter", "STARTER") == names
