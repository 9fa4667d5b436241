"""`make bench`: the hook as a whole process, and the manager under load. Medians, and ratios within this run."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from cache_manager import client, protocol
from tests.benchmarks.attacks import bench_attacks
from tests.benchmarks.publish import bench_publish
from tests.benchmarks.publisher import bench_publisher
from tests.benchmarks.reliability import bench_reliability
from tests.benchmarks.scale import bench_leases, bench_scale
from tests.benchmarks.site import CHECKOUT, Site, job_ad, site
from tests.benchmarks.transfers import bench_crowd, bench_cuts, bench_transfer

ROUNDS: Final = 50
CLIENTS: Final = 64
REQUESTS: Final = 20_000
SOAK: Final = 100_000
PYTHON: Final = "/usr/bin/python3"
HOOK: Final = CHECKOUT / "hooks" / "prepare-job"
SLOT_ATTRIBUTES: Final = 190


def bench_hook(here: Site) -> Table:
    """Compare the warm hook with the bare interpreter, turn by turn."""
    scratch = here.directory / "scratch"
    scratch.mkdir(exist_ok=True)
    machine = scratch / ".machine.ad"
    machine.write_bytes(b"".join(b'Attribute%d = "value"\n' % number for number in range(SLOT_ATTRIBUTES)))
    environment = {"PATH": "/usr/bin:/bin", "_CONDOR_MACHINE_AD": str(machine), "CONDOR_STARTER_PID": str(os.getpid())}
    hook = [str(HOOK), "--python", PYTHON, "--socket", here.socket]
    bare_job = b"ClusterId = 1\nProcId = 0\nJobUniverse = 5\n"
    programs: dict[str, tuple[list[str], bytes]] = {
        "python3 -IS -c pass": ([PYTHON, "-IS", "-c", "pass"], b""),
        "hook, SIF in the cache": (hook, job_ad()),
        "hook, no image named": (hook, bare_job),
        "hook, no manager (degraded)": ([*hook[:-1], "/nonexistent/socket"], bare_job),
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(ROUNDS + 3):
        for name, (argv, ad) in programs.items():
            began = time.perf_counter()
            done = subprocess.run(argv, input=ad, capture_output=True, env=environment, cwd=scratch, check=True)
            spent = time.perf_counter() - began
            if name.startswith("hook") and b"HookStatusCode = 0\n" not in done.stdout:
                raise RuntimeError(f"{name}: {done.stdout!r}")
            if turn >= 3:  # the first ones warm up
                times[name].append(spent)
    base = statistics.median(times["python3 -IS -c pass"])
    table = Table("what", "median ms", "min ms", "max ms", "times the interpreter", title=f"the hook, {ROUNDS} turns")
    for name, values in times.items():
        median = statistics.median(values)
        cells = [median, min(values), max(values)]
        table.add_row(name, *(f"{value * 1000:.1f}" for value in cells), f"{median / base:.2f}")
    return table


async def _load(path: str, request: bytes, count: int) -> list[float]:
    """Return the seconds of each of `count` requests, asked by CLIENTS at a time."""
    times: list[float] = []
    left = iter(range(count))

    async def one_client() -> None:
        for _ in left:
            began = time.perf_counter()
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request)
            header = protocol.parse_header(await reader.readline())
            body = await reader.readexactly(header.length)
            writer.close()
            if b"HookStatusCode = 0\n" not in body:
                raise RuntimeError(f"answer: {body!r}")
            times.append(time.perf_counter() - began)

    await asyncio.gather(*(one_client() for _ in range(CLIENTS)))
    return times


def bench_manager(here: Site) -> Table:
    """Ask the manager over its socket, with a job ad of 150 attributes and 64 clients."""
    job = job_ad()
    machine = b"".join(b'Attribute%d = "value"\n' % number for number in range(SLOT_ATTRIBUTES))
    table = Table(
        "what", "answers/s", "median ms", "p99 ms", "memory MB before", "after", title=f"the manager, {CLIENTS} clients"
    )
    cases: Sequence[tuple[str, bytes, bytes, int]] = (
        ("job ad of 150 attributes", job, b"", REQUESTS),
        (f"and a slot ad of {SLOT_ATTRIBUTES}", job, machine, REQUESTS),
        (f"soak: {SOAK:,} requests", job, b"", SOAK),
    )
    asyncio.run(_load(here.socket, protocol.frame(job, job=len(job), left=60), 2000))  # warms up
    for name, ad, slot, count in cases:
        request = protocol.frame(ad + slot, job=len(ad), left=60, starter=os.getppid())
        before = here.resident_kb()
        began = time.perf_counter()
        times = sorted(asyncio.run(_load(here.socket, request, count)))
        rate = count / (time.perf_counter() - began)
        table.add_row(
            name,
            f"{rate:.0f}",
            f"{statistics.median(times) * 1000:.1f}",
            f"{times[int(len(times) * 0.99)] * 1000:.1f}",
            f"{before / 1000:.1f}",
            f"{here.resident_kb() / 1000:.1f}",
        )
    return table


def main() -> int:
    """Print the tables."""
    console = Console(width=110)
    with site() as here:
        client.ask(here.socket, "status")
        console.print(bench_hook(here))
        console.print(bench_manager(here))
        console.print(bench_attacks(here))
    for bench in (bench_transfer, bench_crowd, bench_cuts):
        console.print(bench())
    console.print(bench_scale())
    console.print(bench_leases())
    console.print(bench_publisher())
    for table in bench_publish():
        console.print(table)
    console.print(bench_reliability())
    load = Path("/proc/loadavg").read_text(encoding="ascii").split()[0]
    console.print(f"{os.cpu_count()} cores, load {load}, Python {sys.version.split()[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
