"""Coverage-guided fuzzing of one parser: `python -m tests.fuzz PARSER [libFuzzer's options] DIRECTORY...`.

It needs atheris, which `tests/run fuzz` installs; `tests.benchmarks.fuzzing` runs it for all parsers. What it finds
becomes a file in tests/corpus, or a row of a table.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from tests.parsers import PARSERS


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], PARSERS[sys.argv[1]])
    atheris.Fuzz()
