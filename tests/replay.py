"""Known inputs through one parser, again and again: `python -m tests.replay PARSER DIRECTORY...`.

Each input is named before it is read: of a process that died, the last name is the one at fault.
"""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.parsers import PARSERS

GROWTH_KB: Final = 4000
"""Less than that is how the interpreter's memory is cut up."""


def resident_kb() -> int:
    """Return what this process has in memory now: at its imports it may have had more."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() // 1024


def grown_kb(parser: str, directories: Sequence[Path]) -> int:
    """Return by how much ten readings of all inputs made the process larger, after three that warm it up."""
    parse = PARSERS[parser]
    inputs = [path for directory in directories for path in sorted(directory.iterdir())]
    if not inputs:
        raise ValueError(f"{directories}: no inputs")

    def read_all(times: int) -> int:
        for path in inputs * times:
            print(path.name, flush=True)  # noqa: T201 - see above
            parse(path.read_bytes())
        gc.collect()
        return resident_kb()

    first = read_all(3)
    return read_all(10) - first


def main(argv: Sequence[str]) -> int:
    """Fail where the process grew."""
    grown = grown_kb(argv[1], [Path(word) for word in argv[2:]])
    sys.stderr.write(f"grew by {grown} kB\n")
    return int(grown >= GROWTH_KB)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
