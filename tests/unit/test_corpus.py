"""Every file of tests/corpus through every parser: its own error or a value, in a bounded time, and nothing grows."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.parsers import PARSERS
from tests.unit.builders import in_child

CORPUS: Final = Path(__file__).parents[1] / "corpus"

READ_ALL: Final = f"""
from tests import replay
sys.exit(replay.main(["replay", sys.argv[1], {str(CORPUS)!r}]))
"""
"""In a process of its own, with bounded processor time: the last name that it printed is the one at fault."""

LIMIT_S: Final = 2 + len(list(CORPUS.iterdir())) // 20
"""To start, and a twentieth of a second for each file."""


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_what_was_found_once_is_read_without_harm(name: str) -> None:
    """What users, servers and a damaged disk may hand us."""
    done = in_child(READ_ALL, name, LIMIT_S)
    at = done.stdout.split()[-1:]
    assert done.returncode == 0, f"{name} with {at}: {done.stderr[-1500:]} (exit status {done.returncode})"
