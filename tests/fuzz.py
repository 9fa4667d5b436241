"""Coverage-guided fuzzing of what reads other people's bytes: `python -m tests.fuzz -max_total_time=600 tests/corpus`.

It needs atheris, and is not part of `make test`. What it finds becomes a file in tests/corpus, or a row of a table.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from tests.parsers import PARSERS


def one_input(data: bytes) -> None:
    """Give one input to every parser."""
    for parse in PARSERS.values():
        parse(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
