"""The demo: real jobs on two real execution points, one with CVMFS and one without, and a table of what became of them.

Every line of the table was observed: what the job read inside its container, what HTCondor wrote into its log.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.pool.harness import Job, Pool, poll, wait_for
from tests.pool.origin import Request
from tests.pool.world import CVMFS_REPOSITORY, IMAGES, SANDBOXES, SIFS, VERSION, World, image_name

INVOKED: Final = re.compile(r"(\d\d:\d\d:\d\d\.\d+) PREPARE_JOB \(.*?\) invoked")
EXITED: Final = re.compile(r"(\d\d:\d\d:\d\d\.\d+) HookClient \S+ \(pid \d+\) exited")
JOB_ID: Final = re.compile(r"universe job with ID: (\d+\.\d+)")
LONG_DIGEST: Final = re.compile(r"([0-9a-f]{6})[0-9a-f]{20,}")
ANSWER: Final = re.compile(r"answer (?P<job>\S+) .*?: (?P<status>\d+) \S+ in (?P<seconds>[\d.]+) s")
MOUNTED_KNOBS: Final = {"IMAGE_CACHE_DEFAULT_IMAGE": "htc/almalinux:9", "IMAGE_CACHE_BINDS": "/cvmfs"}
BARE_KNOBS: Final = {"IMAGE_CACHE_CVMFS_BASE": "/nowhere/cvmfs"}
PICTURE: Final = Path("/out/demo.svg")
WIDTH: Final = 150

RETAG_SCRIPT: Final = """#!/bin/sh
cat /IMAGE_ID
while [ ! -e /cvmfs/singularity.opensciencegrid.org/retagged ]; do sleep 0.1; done
cat /IMAGE_ID
"""
EXIT_SCRIPT: Final = """#!/bin/sh
cat /IMAGE_ID
echo "only this" >&2
exit 7
"""


class Surprise(Exception):  # noqa: N818 - what the demo promises and did not see
    """Something was not as the demo says that it is."""


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of job: what it asks for, what it has to read inside its container, its submit lines and files."""

    title: str
    asked: str
    expected: str
    lines: dict[str, str]
    inputs: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    title: str
    job: Job
    asked: str
    expected: str


def by_name(name: str) -> dict[str, str]:
    """Return the submit line that names a published image."""
    return {"+SingularityImage": image_name(name)}


class Demo:
    """Submits, watches, and tells."""

    def __init__(self, world: World, mounted: Pool, bare: Pool) -> None:
        self.world = world
        self.mounted = mounted
        self.bare = bare
        self.rows: list[tuple[Pool, Row]] = []
        self.requests: list[Request] = []
        """What the origin was asked until the demo's jobs had ended."""

    def count(self, name: str, file: str = f"{VERSION}.sif") -> int:
        """Return how often a published image's file was asked for with GET."""
        path = self.world.object_path(name, file)
        return sum(one.path == path and one.method == "GET" for one in self.requests)

    def expect(self, *, true: bool, what: str) -> None:
        """Raise Surprise unless it is so."""
        if not true:
            raise Surprise(what)

    def add(self, pool: Pool, case: Case) -> Job:
        """Submit a job and give it a line in the table."""
        job = pool.submit(case.lines, inputs=case.inputs)[0]
        self.rows.append((pool, Row(case.title, job, case.asked, case.expected)))
        return job

    def submit_all(self) -> None:
        """Send every kind of job to both execution points."""
        self.down = self.bare.submit(by_name("htc/down:1"))[0]  # first: HTCondor takes its time before a second try
        self._submit_where_cvmfs_is()
        self._submit_where_it_is_not()
        self.rows.append((self.bare, Row("its origin is down", self.down, "htc/down:1", "")))

    def _submit_where_cvmfs_is(self) -> None:
        name, sandbox, pool = "htc/rocky:9", "htc/rocky:9 sandbox", self.mounted
        retag = by_name(name) | {"executable": self._script("retag", RETAG_SCRIPT), "arguments": ""}
        self.retagged = self.add(pool, Case("CVMFS is healthy; retagged meanwhile", name, sandbox, retag))
        self.add(pool, Case("names no image: the default", "(nothing)", "htc/almalinux:9 sandbox", {}))
        self.typo = self.add(pool, Case("a typo in the name", "htc/rocki:9", "", by_name("htc/rocki:9")))
        self.add(pool, Case('+HookKeyword = "none"', name, sandbox, by_name(name) | {"+HookKeyword": '"none"'}))
        own = by_name(name) | {"executable": self._script("own", EXIT_SCRIPT), "arguments": ""}
        self.own = self.add(pool, Case("its own stderr and exit code 7", name, sandbox, own))
        path = f"{IMAGES}/sif/alma9.sif"
        here = {"universe": "container", "container_image": path, "transfer_container": "false"}
        self.add(pool, Case("container universe, absolute path", path, "htc/almalinux:9 SIF", here))

    def _submit_where_it_is_not(self) -> None:
        pool = self.bare
        self.first = self.add(
            pool, Case("no CVMFS: its published SIF", "htc/rocky:9", "htc/rocky:9 SIF", by_name("htc/rocky:9"))
        )
        self.ten = pool.submit(by_name("htc/cold:1"), count=10)
        self.rows.append((pool, Row("ten jobs at once, cold (the last)", self.ten[-1], "htc/cold:1", "htc/cold:1 SIF")))
        ships = {"universe": "container", "container_image": "shipped.sif"}
        self.add(pool, Case("ships its SIF", "shipped.sif", "shipped SIF", ships, [SIFS / "shipped.sif"]))
        url = f"{self.world.origin.url}/web.sif"
        self.add(pool, Case("an http URL", url, "web SIF", {"+SingularityImage": f'"{url}"'}))
        self.add(pool, Case("names no image, no default: untouched", "(nothing)", "the execution point itself", {}))

    def _script(self, name: str, text: str) -> str:
        path = self.world.directory / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def watch(self) -> None:
        """Wait for each job's end, and look at what only a running pool shows."""
        self._retag_and_visit()
        wait_for([self.first], timeout=60)
        self.add(self.bare, Case("the same again: a hit", "htc/rocky:9", "htc/rocky:9 SIF", by_name("htc/rocky:9")))
        poll(lambda: len(self.down.messages()) > 1, "the second try of the job whose origin is down", 60)
        finished = [row.job for _, row in self.rows if row.job not in (self.typo, self.down)]
        wait_for([*finished, *self.ten], timeout=60)
        self.typo.wait("held", 30)
        self.requests = self.world.origin.requests()

    def _retag_and_visit(self) -> None:
        self.retagged.wait("running", 60)
        said = self.mounted.ssh_to_job(self.retagged, "cat /IMAGE_ID").stdout.strip()
        self.expect(true=said == "htc/rocky:9 sandbox", what=f"condor_ssh_to_job saw {said!r}")
        self.world.cvmfs.retag("htc/rocky:9", SANDBOXES / "rocky9-new")
        (self.world.cvmfs.root / "retagged").touch()

    def check(self) -> list[str]:
        """Compare what was seen with what the demo promises; returns the sentences below the table."""
        for _, row in self.rows:
            seen = row.job.stdout.strip()
            wanted = f"{row.expected}\n{row.expected}" if row.job is self.retagged else row.expected
            self.expect(true=seen == wanted, what=f"{row.title}: read {seen!r}, not {wanted!r}: {row.job.describe()}")
        hold = self.typo.hold
        self.expect(true=hold is not None and (hold.code, hold.subcode) == (19, 120), what=f"typo: {hold}")
        self.expect(true=(self.own.stderr, self.own.exit_code) == ("only this\n", 7), what="stderr or exit code differ")
        for name in ("htc/cold:1", "htc/rocky:9"):
            self.expect(true=self.count(name) == 1, what=f"{name}: {self.count(name)} GETs")
        tries, asked = len(self.down.messages()), self.count("htc/down:1", "latest.txt")
        self.expect(true=asked == 1 and tries > 1, what=f"down: {asked} requests, {tries} tries")
        return [
            f"ten jobs for one cold image: {self.count('htc/cold:1')} GET at the origin",
            f"the origin that is down: {tries} tries of the job, {asked} request (at most one a minute)",
            "condor_ssh_to_job into the first job: landed in its container",
            f"the typo's HoldReason: {hold.reason.replace(self.world.origin.url, 'http://origin') if hold else ''}",
        ]


def table(demo: Demo) -> Table:
    """Return what was seen, a line for each job."""
    shown = Table(title="What became of the jobs", header_style="bold", title_style="bold", expand=True)
    for column in ("job", "asked for", "got", "from", "status", "hook s", "read inside the container"):
        shown.add_column(column, overflow="fold")
    answers = {pool.name: _answers(pool) for pool in (demo.mounted, demo.bare)}
    for pool, row in demo.rows:
        status, seconds = answers[pool.name].get(row.job.id, ("?", "?"))
        got, origin = _got_and_from(row.job, demo)
        read = " / ".join(row.job.stdout.split("\n")).strip(" /") or ("(held)" if row.job is demo.typo else "(idle)")
        style = {"0": "", "120": "red"}.get(status, "yellow")
        asked = row.asked.replace(demo.world.origin.url, "http://origin")
        shown.add_row(row.title, asked, got, origin, status, seconds, read, style=style)
    return shown


def _answers(pool: Pool) -> dict[str, tuple[str, str]]:
    """Return status and seconds of each job's last answer: by the starter's clock, or else by the manager's."""
    found = {}
    for line in pool.log("ImageCacheLog").splitlines():
        match = ANSWER.search(line)
        if match:
            found[match["job"]] = (match["status"], match["seconds"])
    for job, seconds in _hook_seconds(pool).items():
        if job in found:
            found[job] = (found[job][0], f"{seconds:.3f}")
    return found


def _hook_seconds(pool: Pool) -> dict[str, float]:
    """Return how long the starter waited for the hook of each job: launcher, interpreter and manager together."""
    found = {}
    for log in pool.log_directory.glob("StarterLog.slot1_*"):
        for starter in log.read_text(errors="replace").split("STARTING UP")[1:]:
            began, ended, job = INVOKED.search(starter), EXITED.search(starter), JOB_ID.search(starter)
            if began and ended and job:
                found[job[1]] = (_clock(ended[1]) - _clock(began[1])) % 86400
    return found


def _clock(text: str) -> float:
    hours, minutes, seconds = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _got_and_from(job: Job, demo: Demo) -> tuple[str, str]:
    """Return the form of the image and where it came from, in the words of the job's own log."""
    message = job.message()
    text = message.partition(": ")[2].replace(demo.world.origin.url, "http://origin")
    text = LONG_DIGEST.sub(lambda found: f"{found[1]}...", text).replace(CVMFS_REPOSITORY, "/cvmfs/...")
    if not message:
        return "-", "as HTCondor started it"
    if job in (demo.typo, demo.down):
        return "-", text.partition(" -- ")[0].partition(" (")[0]
    for start, got in (("CVMFS ", "sandbox"), ("SIF fetched from ", "SIF, fetched"), ("cached SIF of ", "SIF, a hit")):
        if text.startswith(start):
            return got, text.removeprefix(start).partition(",")[0]
    return "SIF", text.partition(",")[0]


def publish(world: World) -> None:
    """Fill the publishers' places."""
    world.cvmfs.publish("htc/rocky:9", SANDBOXES / "rocky9")
    world.cvmfs.publish("htc/almalinux:9", SANDBOXES / "alma9")
    for name, sif in (("htc/rocky:9", "rocky9"), ("htc/cold:1", "cold"), ("htc/down:1", "alma9")):
        world.tree.publish(name, SIFS / f"{sif}.sif", VERSION)
    (world.directory / "www" / "web.sif").write_bytes((SIFS / "web.sif").read_bytes())
    world.origin.fail(world.object_path("htc/down:1", ""), 503)


def run() -> int:
    """Run the demo. Returns 0 if everything was as promised."""
    console = Console(record=True, width=WIDTH)
    began = time.monotonic()
    directory = Path("/pool/demo")
    with ExitStack() as stack:
        world = stack.enter_context(World(directory))
        publish(world)
        mounted = world.pool("ep-with-cvmfs", MOUNTED_KNOBS)
        bare = world.pool("ep-without-cvmfs", BARE_KNOBS)
        with ThreadPoolExecutor() as threads:
            for pool in threads.map(stack.enter_context, (mounted, bare)):
                console.print(f"{pool.name}: HTCondor runs, with the cache manager under condor_master")
        demo = Demo(world, mounted, bare)
        try:
            demo.submit_all()
            demo.watch()
            sentences = demo.check()
        except (Surprise, TimeoutError, RuntimeError) as error:
            console.print(table(demo))
            for pool in (mounted, bare):
                pool.dump(str(error))
            console.print(f"NOT AS PROMISED: {error}", style="red", markup=False)
            return 1
        console.print(table(demo))
        for sentence in sentences:
            console.print(f"* {sentence}", markup=False, highlight=False)
    console.print(f"{len(demo.rows) + 9} jobs in {time.monotonic() - began:.1f} s; nothing is left running.")
    if PICTURE.parent.is_dir():
        console.save_svg(str(PICTURE), title="make demo")
    return 0


def _end(number: int, _frame: FrameType | None) -> None:
    """Leave by the context managers when interrupted."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    sys.exit(run())
