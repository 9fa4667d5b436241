"""From the registry to the job: a name runs from its sandbox in CVMFS, then, without CVMFS, from the SIF of its digest.

Starts Debian's docker-registry, pushes images made of Debian's files, publishes both forms of each with
condor_image_sync, and runs jobs on a real pool. What the table says was read from the job's log, inside its container,
and in the published tree.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.pool.demo import Surprise, _end
from tests.pool.harness import Job, Pool
from tests.pool.publisher import REPOSITORY, MountedRepository, PublisherMachine, Pushed, push_images
from tests.pool.world import World

NAME: Final = "htc/tools:1"
_DIGEST = re.compile(r"/\.images/([0-9a-f]{2})/([0-9a-f]{62})")
_SIF = re.compile(r"/v2/(\S+\.sif)")
WIDTH: Final = 150


@dataclass(frozen=True, slots=True)
class Row:
    """What a job got, by its own log and by what it read; `digest` is the registry's."""

    title: str
    form: str
    digest: str
    origin: str
    read: str


class PublishDemo:
    """Publishes, runs the jobs, and compares."""

    def __init__(self, world: World, machine: PublisherMachine, mount: MountedRepository, pool: Pool) -> None:
        self.world = world
        self.machine = machine
        self.mount = mount
        self.pool = pool
        self.rows: list[Row] = []
        self.pushed = Pushed({}, frozenset())
        self.said = ""

    def publish(self) -> None:
        """Push, list, and run the sync. Raises Surprise if not all is published."""
        self.pushed = push_images(self.machine.registry)
        self.machine.write_list(*self.pushed.texts)
        done = self.machine.sync("run", check=False)
        self.said = done.stdout
        if done.returncode:
            raise Surprise(f"condor_image_sync run ended with {done.returncode}:\n{done.stdout}{done.stderr[-3000:]}")

    def run_jobs(self) -> None:
        """Run one name from each of its forms."""
        self._run("CVMFS is mounted")
        self.mount.unmount()
        self._run("CVMFS is gone")
        self._run("again, CVMFS is still gone")

    def _run(self, title: str) -> None:
        job = self.pool.submit({"+SingularityImage": f'"/cvmfs/{REPOSITORY}/{NAME}"'})[0]
        job.wait(timeout=90)
        self.rows.append(self._row(title, job))

    def _row(self, title: str, job: Job) -> Row:
        message, read = job.message(), job.stdout.strip()
        sandbox, sif = _DIGEST.search(message), _SIF.search(message)
        if sandbox:
            return Row(title, "sandbox", f"sha256:{sandbox[1]}{sandbox[2]}", f"CVMFS {sandbox[0][:16]}...", read)
        if sif:
            kind = "SIF, fetched" if "fetched" in message else "SIF, a hit"
            return Row(title, kind, str(self.manifest(sif[1])["digest"]), f"the origin, {Path(sif[1]).name}", read)
        raise Surprise(f"{title}: neither a sandbox nor a published SIF: {message!r}, {job.describe()}")

    def manifest(self, sif: str) -> dict[str, Any]:
        """Return the manifest of a published SIF, whose bytes are those that it promises."""
        path = self.world.directory / "www" / "v2" / sif
        found: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != found["sha256"]:
            raise Surprise(f"{sif}: sha256 is {digest}, the manifest says {found['sha256']}")
        return found

    def check(self) -> list[str]:
        """Compare what was seen with what the demo promises; return the sentences below the table."""
        expected = ["sandbox", "SIF, fetched", "SIF, a hit"]
        if [row.form for row in self.rows] != expected:
            raise Surprise(f"forms: {[row.form for row in self.rows]}, not {expected}")
        if {row.read for row in self.rows} != {self.pushed.texts[NAME]}:
            raise Surprise(f"read inside the containers: {[row.read for row in self.rows]}")
        if len({row.digest for row in self.rows}) != 1:
            raise Surprise(f"digests differ: {[row.digest for row in self.rows]}")
        fetched = [one for one in self.machine.registry.fetched() if one in self.pushed.layers]
        if sorted(fetched) != sorted(self.pushed.layers):
            raise Surprise(f"{len(fetched)} layers fetched, {len(self.pushed.layers)} distinct")
        transactions = self.machine.asked().count("transaction")
        if transactions != 1:
            raise Surprise(f"{transactions} transactions")
        return [
            f"one name, one digest, both forms: {self.rows[0].digest}",
            f"{len(self.pushed.texts)} images share layers: each of {len(fetched)} was fetched once",
            "one CVMFS transaction published all sandboxes",
        ]


def opened(stack: ExitStack, directory: Path) -> PublishDemo:
    """Start everything below a directory."""
    world = stack.enter_context(World(directory))
    machine = stack.enter_context(PublisherMachine(directory / "publisher", directory / "www" / "v2"))
    mount = stack.enter_context(MountedRepository(machine, directory))
    pool = stack.enter_context(world.pool("ep", mount.knobs))
    return PublishDemo(world, machine, mount, pool)


def table(demo: PublishDemo) -> Table:
    """Return what was seen, a line for each job."""
    shown = Table(title=f"Jobs that name {NAME}", header_style="bold", title_style="bold", expand=True)
    for column in ("job", "got", "digest in the registry", "from", "read inside the container"):
        shown.add_column(column, overflow="fold")
    for row in demo.rows:
        shown.add_row(row.title, row.form, f"{row.digest[:25]}...", row.origin, row.read)
    return shown


def run() -> int:
    """Run the demo. Returns 0 if everything was as promised."""
    console = Console(width=WIDTH)
    began = time.monotonic()
    with ExitStack() as stack:
        demo = opened(stack, Path("/pool/demo-publish"))
        console.print(
            f"registry at {demo.machine.registry.host}, pool {demo.pool.name} with a repository in CVMFS (a double)"
        )
        try:
            demo.publish()
            console.print(demo.said, markup=False, highlight=False, end="")
            demo.run_jobs()
            sentences = demo.check()
        except (Surprise, TimeoutError, RuntimeError) as error:
            console.print(table(demo))
            demo.pool.dump(str(error))
            console.print(f"NOT AS PROMISED: {error}", style="red", markup=False)
            return 1
        console.print(table(demo))
        for sentence in sentences:
            console.print(f"* {sentence}", markup=False, highlight=False)
    console.print(
        f"published, and {len(demo.rows)} jobs, in {time.monotonic() - began:.1f} s; nothing is left running."
    )
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    sys.exit(run())
