"""Killed at any moment, the publisher leaves its readers the old image or the new one, and the next run goes on."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from sync.targets.directory import SandboxDirectory, SifDirectory
from sync.targets.sandboxes import Sandboxes
from sync.targets.siftree import SifTree
from sync.values import Converted
from tests.unit import publisher_site
from tests.unit.crash import Moment, Recorder, restore
from tests.unit.model import FAST
from tests.unit.publications import converted, is_image
from tests.unit.publisher_site import DAY

TEXTS: Final = ("old", "new", "other")
LINKED: Final = "/cvmfs/images.example.org"


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory where a sync costs nothing, if there is one: there are hundreds."""
    with tempfile.TemporaryDirectory(dir=FAST) as name:
        yield Path(name)


@dataclass
class Site:
    """A publisher's two places below one root, and its work directory beside it."""

    root: Path
    work: Path
    may_move: bool

    def sandboxes(self) -> Sandboxes:
        """Return the sandboxes as they are written."""
        return Sandboxes(self.root / "cvmfs", LINKED, may_move=self.may_move)

    def tree(self) -> SifTree:
        """Return the SIFs."""
        return SifTree(SifDirectory(self.root / "v2"))

    def begin(self) -> None:
        """Start, as each run does."""
        SandboxDirectory(self.root / "cvmfs", LINKED).begin()
        SifDirectory(self.root / "v2").begin()

    def publish(self, name: str, text: str, version: str) -> None:
        """Publish both forms of an image."""
        one = converted(self.work, name, text)
        target = self.sandboxes()
        target.link(name, target.add(one))
        manifest = json.dumps({"name": name, "sha256": one.sha256, "size": one.size_bytes})
        self.tree().publish(one, version, manifest.encode())

    def stored(self, one: Converted) -> str:
        """Return where an image lies."""
        return self.sandboxes().add(one)


def versions(site: Site, recorder: Recorder) -> None:
    """Publish an image, retag it, and publish it under one more name."""
    for name, text, version in (
        ("ns/image:1", "old", "20261125T000000Z"),
        ("ns/image:1", "new", "20261125T000001Z"),
        ("ns/deep/er/image:2", "new", "20261125T000000Z"),
    ):
        before = recorder.facts.get(name, frozenset())
        if before:
            recorder.must(name, text, *before)
        site.publish(name, text, version)
        recorder.must(name, text)


def retirements(site: Site, recorder: Recorder) -> None:
    """Give up a replaced version, in both forms, and then a name with all that it had."""
    for text, version in (("old", "20261125T000000Z"), ("new", "20261125T000001Z")):
        site.publish("ns/image:1", text, version)
    site.publish("ns/other:1", "other", "20261125T000000Z")
    recorder.must("ns/image:1", "new")
    target, tree = site.sandboxes(), site.tree()
    old = next(one for one in target.images() if is_image(target.root / one, "old"))
    other = target.links()["ns/other:1"]
    target.write_missing({old: 1.0})
    target.remove(old)
    target.write_missing({})
    tree.remove("x86_64", "ns/image:1", "20261125T000000Z")
    target.unlink("ns/other:1")
    tree.withdraw("x86_64", "ns/other:1")
    tree.remove("x86_64", "ns/other:1", "20261125T000000Z")
    target.remove(other)
    recorder.must("gone", "ns/other:1")


def starts(site: Site, recorder: Recorder) -> None:
    """Clear up what a killed publisher left."""
    site.publish("ns/image:1", "old", "20261125T000000Z")
    recorder.must("ns/image:1", "old")
    left = site.root / "cvmfs" / ".images" / ".new-1"
    (left / "bin").mkdir(parents=True)
    (left / "bin" / "sh").write_bytes(b"half")
    (site.root / "v2" / "x86_64" / "ns__image__1" / ".new-2").write_bytes(b"half")
    site.begin()


SCENARIOS: Final[tuple[Callable[[Site, Recorder], None], ...]] = (versions, retirements, starts)


@pytest.mark.parametrize("may_move", [True, False], ids=["moved", "copied"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__)
def test_killed_at_any_moment_readers_have_the_old_or_the_new_image(
    place: Path, scenario: Callable[[Site, Recorder], None], *, may_move: bool
) -> None:
    """Also after a power loss; and the next run has a repository in which nothing is left over."""
    site = Site(place / "site", place / "site" / "work", may_move)
    site.begin()
    recorder = Recorder(site.root)
    with recorder.watch():
        scenario(site, recorder)
    for number, moment in enumerate(recorder.all_moments()):
        one = Site(place / str(number), place / "again", may_move=False)
        restore(moment, one.root)
        judge(moment, one)
        one.begin()
        judge(moment, one)
        assert not [path for path in one.root.rglob("*") if path.name.startswith(".new-")], moment.before
        shutil.rmtree(one.root)
        recorder.looked_at += 1
    assert recorder.looked_at > 20


def judge(moment: Moment, site: Site) -> None:
    """Look as a reader does."""
    where = f"before {moment.before}{' and a power loss' if moment.power_loss else ''}"
    target = site.sandboxes()
    for name, stored in target.links().items():
        texts = [text for text in TEXTS if is_image(target.root / stored, text)]
        assert len(texts) == 1, f"{where}: {name} leads to what is no image"
        assert not moment.must(name) or texts[0] in moment.must(name), f"{where}: {name} is not what was published"
    for place in target.images():
        assert any(is_image(target.root / place, text) for text in TEXTS), f"{where}: {place} is not whole"
    for pointer in (site.root / "v2").rglob("latest.txt"):
        judge_sif(moment, pointer, where)
    assert not moment.must("gone") & set(target.links()), where
    promised = {name for name in moment.facts if name != "gone"}
    assert promised <= set(target.links()), f"{where}: a name is lost"


def judge_sif(moment: Moment, pointer: Path, where: str) -> None:
    """Look where a pointer leads: to a whole SIF with its manifest, of the version that was published last."""
    sif = pointer.parent / pointer.read_text().strip()
    manifest = json.loads(sif.with_suffix(".json").read_text())
    texts = [text for text in TEXTS if sif.read_bytes() == text.encode() * 1000]
    assert len(texts) == 1, f"{where}: {sif} is not whole"
    assert manifest["size"] == sif.stat().st_size, where
    wanted = moment.must(manifest["name"])
    assert not wanted or texts[0] in wanted, f"{where}: {pointer} leads to what was before"


def runs(site: publisher_site.Site) -> None:
    """Publish three names of two images, retag one, and let one go."""
    site.has(a="old", b="other", c="other")
    site.run()
    site.now += 3 * DAY
    site.has(a="new", b="other")
    site.run()
    site.now += 20 * DAY
    site.run()


def test_a_run_that_is_killed_at_any_moment_is_gone_on_with(place: Path) -> None:
    """Readers never see a part, and the next run ends where an undisturbed one does; nothing else is left."""
    recorder = Recorder(place / "site")
    site = publisher_site.Site(place / "site")
    with recorder.watch():
        runs(site)
    ended = look(site)
    moments = 0
    for number, moment in enumerate(recorder.all_moments()):
        one = publisher_site.Site(place / str(number))
        restore(moment, one.directory)
        reader = Site(one.directory, place, may_move=False)
        judge(moment, reader)
        one.has(a="new", b="other")
        one.now = site.now
        outcome = one.run()
        assert outcome.is_good, (moment.before, outcome)
        one.now += 30 * DAY
        assert one.run().is_good
        judge(moment, reader)
        assert look(one) == ended, moment.before
        shutil.rmtree(one.directory)
        moments += 1
    assert moments > 200


def look(site: publisher_site.Site) -> dict[str, object]:
    """Return what matters in the end: what readers get, and what takes room."""
    left = [path.name for path in site.directory.rglob("*") if path.name.startswith(".new-")]
    return {
        "sandboxes": {name: site.sandbox(name) for name in site.target.readable().links()},
        "sifs": {name: site.sif(name) for name in ("ns/a:1", "ns/b:1", "ns/c:1")},
        "images": len(site.target.readable().images()),
        "files": sorted(path.parent.name for path in (site.directory / "v2").rglob("*.sif")),
        "listed": sorted(site.shown().images),
        "states": {image.state.value for image in site.shown().images.values()},
        "work": [path.name for path in (site.directory / "work").rglob("*")],
        "missing": site.target.readable().missing_since(),
        "left": left,
    }
