"""Half an hour of inputs that nobody thought of, for each parser its part: `python -m tests.benchmarks.fuzzing`.

The time for all of them is IMAGE_CACHE_FUZZ_SECONDS. Two things are looked at: libFuzzer makes inputs from what the
parser was seen to do with those before, and ends at a crash, a hang or memory without end; then all inputs that were
kept, and tests/corpus, are read thirteen times by a process without a fuzzer, which may not grow.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.parsers import PARSERS

SECONDS: Final = float(os.environ.get("IMAGE_CACHE_FUZZ_SECONDS", "1800"))
HANG_S: Final = 5
"""An input that takes longer is a finding."""
MEMORY_MB: Final = 1024

CHECKOUT: Final = Path(__file__).parents[2]
CORPUS: Final = CHECKOUT / "tests" / "corpus"
FINDINGS: Final = CHECKOUT / "build" / "fuzz"
RECORD: Final = CHECKOUT / "docs" / "fuzz.json"


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What became of one parser."""

    parser: str
    inputs: int = 0
    """So many were read."""
    per_s: int = 0
    kept: int = 0
    """So many did something new."""
    slowest_s: int = 0
    first_mb: int = 0
    peak_mb: int = 0
    """Memory of parser and fuzzer, which keeps inputs."""
    grown_kb: int = 0
    """Memory of the parser alone."""
    finding: str = ""
    """What went wrong; empty if nothing did."""


def read_said(parser: str, said: str) -> Fuzzed:
    """Return what libFuzzer tells of its run; nothing of what it did not come to."""

    def number(pattern: str) -> int:
        found = re.search(pattern, said)
        return int(found[1]) if found else 0

    return Fuzzed(
        parser,
        inputs=number(r"stat::number_of_executed_units: *(\d+)"),
        per_s=number(r"stat::average_exec_per_sec: *(\d+)"),
        kept=number(r"stat::new_units_added: *(\d+)"),
        slowest_s=number(r"stat::slowest_unit_time_sec: *(\d+)"),
        first_mb=number(r"INITED .*rss: (\d+)Mb"),
        peak_mb=number(r"stat::peak_rss_mb: *(\d+)"),
    )


def fuzz(parser: str, seconds: float) -> Fuzzed:
    """Fuzz one parser for some seconds."""
    with tempfile.TemporaryDirectory(prefix="image-cache-fuzz-") as kept:
        options = [
            f"-max_total_time={max(1, round(seconds))}",
            f"-timeout={HANG_S}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-artifact_prefix={FINDINGS}/{parser}-",
            "-print_final_stats=1",
        ]
        status, said = _run("tests.fuzz", parser, *options, kept, str(CORPUS), patience_s=seconds + 120)
        found = read_said(parser, said)
        if status or not found.inputs:
            return replace(found, finding=said[-3000:] or f"exit status {status}")
        status, said = _run("tests.replay", parser, kept, str(CORPUS), patience_s=seconds + 600)
        grew = re.search(r"grew by (-?\d+) kB", said)
        return replace(found, grown_kb=int(grew[1]) if grew else 0, finding=said[-3000:] if status else "")


def _run(module: str, *words: str, patience_s: float) -> tuple[int, str]:
    """Return a module's exit status and what it said."""
    argv = [sys.executable, "-m", module, *words]
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(argv, cwd=CHECKOUT, stdout=said, stderr=said, timeout=patience_s, check=False)
            status = done.returncode
        except subprocess.TimeoutExpired:
            said.write(f"\n{module} {words[0]}: not done after {patience_s:.0f} s\n".encode())
            status = 1
        said.seek(0)
        return status, said.read().decode(errors="replace")


def table_of(all_fuzzed: Sequence[Fuzzed]) -> Table:
    """Return what became of all of them."""
    columns = ("parser", "inputs", "inputs/s", "kept", "slowest s", "memory MB", "grew kB", "finding")
    table = Table(*columns, title=f"fuzzing, {SECONDS:.0f} s: an input may take {HANG_S} s and {MEMORY_MB} MB")
    for one in all_fuzzed:
        numbers = (f"{one.inputs:,}", f"{one.per_s:,}", str(one.kept), str(one.slowest_s))
        memory = (f"{one.first_mb} to {one.peak_mb}", str(one.grown_kb))
        table.add_row(one.parser, *numbers, *memory, "YES" if one.finding else "none")
    return table


def main() -> int:
    """Fuzz as many at a time as there are processors, and print a table; fail where something was found."""
    shutil.rmtree(FINDINGS, ignore_errors=True)
    FINDINGS.mkdir(parents=True)
    workers = os.cpu_count() or 1
    each_s = SECONDS * workers / len(PARSERS)
    with ThreadPoolExecutor(workers) as pool:
        all_fuzzed = list(pool.map(lambda name: fuzz(name, each_s), PARSERS))
    console = Console(width=110)
    console.print(table_of(all_fuzzed))
    findings = [one for one in all_fuzzed if one.finding]
    for one in findings:
        console.print(f"{one.parser}: the input is in {FINDINGS}:\n{one.finding}", markup=False)
    if findings:
        return 1
    inputs = sum(one.inputs for one in all_fuzzed)
    counted = {"inputs": inputs, "parsers": len(all_fuzzed), "seconds": round(SECONDS)}
    RECORD.write_text(json.dumps(counted, sort_keys=True) + "\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
