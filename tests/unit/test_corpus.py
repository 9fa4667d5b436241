"""Every file of tests/corpus through every parser: its own error or a value, in a bounded time, and nothing grows."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.parsers import PARSERS
from tests.unit.builders import in_child

CORPUS: Final = Path(__file__).parents[1] / "corpus"

READ_ALL: Final = f"""
import resource
from pathlib import Path
from tests.parsers import PARSERS

parse = PARSERS[sys.argv[1]]
inputs = [(path.name, path.read_bytes()) for path in sorted(Path({str(CORPUS)!r}).iterdir())]
assert inputs

def read_all(times):
    for name, data in inputs * times:
        print(name, flush=True)
        parse(data)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

first = read_all(3)
assert read_all(10) < first + 4000, "grows"
"""
"""In a process of its own, with two seconds of processor time: the last name that it printed is the one at fault."""


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_what_was_found_once_is_read_without_harm(name: str) -> None:
    """What users, servers and a damaged disk may hand us."""
    done = in_child(READ_ALL, name)
    at = done.stdout.split()[-1:]
    assert done.returncode == 0, f"{name} with {at}: {done.stderr[-1500:]} (exit status {done.returncode})"
