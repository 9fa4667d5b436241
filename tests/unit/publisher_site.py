"""A publisher with its registry, engine and clock, whose runs a test looks at."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from sync import catalog as catalogs
from sync import plan as plans
from sync.catalog import Catalog, State
from sync.engine.base import Report
from sync.imagelist_yaml import Fault
from sync.ledger import Ledger
from sync.memory import Memory
from sync.pending import Pending
from sync.publisher import Publisher
from sync.request import Request
from sync.resolution import Resolution
from sync.retirement import Retirement
from sync.run import Outcome, Run
from sync.settings import Settings
from sync.step import Action
from sync.targets.base import SandboxTarget
from sync.targets.directory import SandboxDirectory, SifDirectory
from sync.targets.siftree import SifTree
from sync.values import Converted, Failure, Resolved, Variant
from tests.unit.publications import REPOSITORY, Server, converted, digest_of

DAY: Final = 86_400.0
NOW: Final = 1_800_000_000.0


class Engine:
    """Converts at once, and fails for the names that it is told."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.asked: list[str] = []
        self.fails: dict[str, str] = {}
        self.texts: dict[str, str] = {}

    def run(self, requests: Sequence[Request], report: Report) -> Iterator[Converted | Failure]:
        """See Engine."""
        for request in requests:
            self.asked.append(request.name)
            report(request, "unpacking")
            if request.name in self.fails:
                yield Failure(request.name, request.source, self.fails[request.name])
            else:
                text = self.texts[request.variant.digest]
                one = converted(self.work, request.name, text, request.variant.arch)
                yield replace(one, source=request.source)


class Site:
    """A publisher with both targets, its registry, and a clock that stands still."""

    def __init__(self, directory: Path, target: SandboxTarget | None = None, **options: str) -> None:
        self.directory = directory
        lines = [f"{key}: {value}" for key, value in options.items()]
        text = "\n".join(
            [
                "image_list: /list",
                f"cvmfs: {{directory: {directory}/cvmfs}}",
                f"sif: {{directory: {directory}/v2}}",
                f"state_directory: {directory}/state",
                f"work_directory: {directory}/work",
                *lines,
            ]
        )
        self.settings = Settings.from_yaml(text)
        self.memory = Memory(directory / "state")
        self.target = target or SandboxDirectory(directory / "cvmfs", f"/cvmfs/{REPOSITORY}")
        self.tree = SifTree(SifDirectory(directory / "v2"))
        self.engine = Engine(directory / "work")
        self.now = NOW
        self.tags: dict[str, dict[str, str]] = {}
        """What the registry has: by name and architecture the text of its image."""
        self.unresolved: dict[str, str] = {}
        self.told: list[str] = []

    def has(self, **tags: str) -> None:
        """Have the registry have these, for one architecture: `a="old"` is `ns/a:1`."""
        self.tags = {f"ns/{name}:1": {"x86_64": text} for name, text in tags.items()}

    def resolution(self, faults: tuple[Fault, ...] = ()) -> Resolution:
        """Return what a look at the list finds."""
        found = {}
        for name, archs in self.tags.items():
            variants = tuple(Variant(arch, digest_of(f"{text} {arch}"), 100) for arch, text in archs.items())
            self.engine.texts |= {one.digest: archs[one.arch] for one in variants}
            found[name] = Resolved(name, f"docker.io/{name}", digest_of(next(iter(archs.values()))), variants)
        failures = {name: Failure(name, f"docker.io/{name}", why) for name, why in self.unresolved.items()}
        return Resolution(resolved=found, failures=failures, faults=faults)

    def run(self, faults: tuple[Fault, ...] = ()) -> Outcome:
        """Run as the command does."""
        self.memory.begin()
        self.target.begin()
        self.tree.store.begin()
        listed = self.resolution(faults)
        ledger = Ledger(self.memory, self.memory.catalog(), lambda: self.now)
        ledger.take_in_begun()
        plan = plans.decide(listed, ledger.catalog, self.settings, self.now)
        ledger.save(plans.note(listed, plan, ledger.catalog, self.now))

        def tell(name: str, what: str) -> None:
            self.told.append(f"{name}: {what}")

        return Run(
            settings=self.settings,
            ledger=ledger,
            engine=self.engine,
            pending=Pending(self.directory / "work"),
            publisher=Publisher(ledger, self.target, self.tree, tell),
            retirement=Retirement(ledger, self.target, self.tree),
            requests=_request,
            tell=tell,
        ).go(listed, plan)

    def sandbox(self, name: str) -> str:
        """Return the text of the image that a name leads to in the repository; empty if it leads nowhere."""
        root = self.target.readable().root
        place = self.target.readable().links().get(name, "")
        return (root / place / "IMAGE_ID").read_text() if place else ""

    def sif(self, name: str, arch: str = "x86_64") -> str:
        """Return the text of the SIF that a pointer leads to; empty if there is none."""
        directory = self.directory / "v2" / arch / name.replace("/", "__").replace(":", "__")
        if not (directory / "latest.txt").exists():
            return ""
        sif = directory / (directory / "latest.txt").read_text().strip()
        manifest = json.loads(sif.with_suffix(".json").read_text())
        assert manifest["size"] == sif.stat().st_size
        return sif.read_text()[: sif.stat().st_size // 1000]

    def shown(self) -> Catalog:
        """Return the catalog that readers see."""
        return catalogs.parse((self.directory / "v2" / "catalog.json").read_text())

    def state(self, name: str) -> State:
        """Return what readers are told of an image."""
        return self.shown().images[name].state


def _request(action: Action) -> Request:
    assert action.variant is not None
    assert action.resolved is not None
    return Request(action.name, action.source, action.resolved.digest, action.variant)


def with_cvmfs(tmp_path: Path, **options: str) -> tuple[Site, Server]:
    """Give a publisher with a repository in the double of CVMFS."""
    server = Server(tmp_path / "server")
    subprocess.run([server.command, "mkfs", REPOSITORY], check=True)
    return Site(tmp_path, server.repository(), **options), server
