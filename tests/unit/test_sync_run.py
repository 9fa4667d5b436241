"""A whole run: each image in both forms; what fails, fails by itself; what was begun is gone on with."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache_manager.disk import Room
from sync.catalog import State
from sync.engine.base import Report
from sync.imagelist_yaml import Fault
from sync.request import Request
from sync.values import Converted, Failure
from tests.unit.publications import REPOSITORY, digest_of, is_image
from tests.unit.publisher_site import DAY, NOW, Site, with_cvmfs


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Give a publisher with plain directories."""
    return Site(tmp_path)


def test_an_image_is_published_in_both_forms_of_one_digest(site: Site) -> None:
    """The manifest and the catalog say so."""
    site.has(a="one")
    assert site.run().is_good
    assert (site.sandbox("ns/a:1"), site.sif("ns/a:1")) == ("one", "one")
    version = site.shown().images["ns/a:1"].current["x86_64"]
    manifest = json.loads((site.directory / "v2" / "x86_64" / "ns__a__1" / f"{version.version}.json").read_text())
    assert manifest["digest"] == version.digest == digest_of("one x86_64")
    assert manifest["index_digest"] == digest_of("one")
    assert manifest["sandbox"] == version.sandbox == site.target.readable().links()["ns/a:1"]
    assert manifest["sha256"] == version.sha256
    assert manifest["tree_digest"] == version.tree_digest
    assert site.state("ns/a:1") is State.PUBLISHED


def test_an_unchanged_list_changes_nothing(site: Site) -> None:
    """No conversion, no version, no transaction."""
    site.has(a="one", b="two")
    site.run()
    before = sorted(str(path) for path in site.directory.rglob("*.sif"))
    site.now += DAY
    site.engine.asked.clear()
    assert site.run().is_good
    assert site.engine.asked == []
    assert sorted(str(path) for path in site.directory.rglob("*.sif")) == before
    assert list((site.directory / "work").iterdir()) == [site.directory / "work" / "converted"]


def test_names_of_one_digest_are_converted_once(site: Site) -> None:
    """And share their sandbox; each has its own SIF."""
    site.has(a="one", b="one")
    assert site.run().is_good
    assert len(site.engine.asked) == 1
    assert len(site.target.readable().images()) == 1
    assert (site.sif("ns/a:1"), site.sif("ns/b:1")) == ("one", "one")
    assert json.loads(next((site.directory / "v2").glob("*/ns__b__1/2*.json")).read_text())["name"] == "ns/b:1"


def test_the_manifest_of_a_name_that_comes_later_tells_of_the_sandbox_that_is_there(site: Site) -> None:
    """Its own conversion made another tree, with another name in it, which is not published."""
    real = site.engine.run

    def as_named(requests: Sequence[Request], report: Report) -> Iterator[Converted | Failure]:
        for one in real(requests, report):
            yield replace(one, tree_digest=digest_of(one.name)[7:]) if isinstance(one, Converted) else one

    site.engine.run = as_named  # type: ignore[method-assign]
    site.has(a="one")
    site.run()
    site.now += DAY
    site.has(a="one", b="one")
    assert site.run().is_good
    manifests = [json.loads(path.read_text()) for path in sorted((site.directory / "v2").glob("*/*/2*.json"))]
    assert [one["name"] for one in manifests] == ["ns/a:1", "ns/b:1"]
    assert len({one["sandbox"] for one in manifests}) == 1
    assert {one["tree_digest"] for one in manifests} == {digest_of("ns/a:1")[7:]}
    assert {one.tree_digest for image in site.shown().images.values() for one in image.versions} == {
        digest_of("ns/a:1")[7:]
    }


def test_a_clock_that_was_set_back_has_nothing_converted_again_and_again(tmp_path: Path) -> None:
    """An image that was published without its SIF gets it once."""
    site = Site(tmp_path)
    site.has(a="one")
    whole = site.settings
    site.settings = replace(whole, sif_directory="")
    site.run()
    site.settings = whole
    site.now -= DAY
    assert site.run().is_good
    site.engine.asked.clear()
    assert site.run().is_good
    assert site.engine.asked == []
    assert (site.sandbox("ns/a:1"), site.sif("ns/a:1")) == ("one", "one")


def test_each_architecture_has_its_sif_and_cvmfs_the_first_of_them(site: Site, tmp_path: Path) -> None:
    """A name is one link there."""
    site = Site(tmp_path / "both", architectures="[x86_64, aarch64]")
    site.tags = {"ns/a:1": {"aarch64": "arm", "x86_64": "intel"}}
    assert site.run().is_good
    assert site.sandbox("ns/a:1") == "intel"
    assert (site.sif("ns/a:1"), site.sif("ns/a:1", "aarch64")) == ("intel", "arm")
    assert len(site.target.readable().images()) == 1


def test_one_image_that_fails_keeps_no_other_from_being_published(site: Site) -> None:
    """Neither in its registry nor in its conversion; both are told, with why."""
    site.has(a="one", b="two", c="three")
    site.engine.fails["ns/b:1"] = "a layer has the wrong digest"
    site.unresolved["ns/d:1"] = "is private"
    outcome = site.run()
    assert not outcome.is_good
    assert sorted(outcome.published) == ["ns/a:1", "ns/c:1"]
    assert {one.name: one.why for one in outcome.failures} == {
        "ns/b:1": "a layer has the wrong digest",
        "ns/d:1": "is private",
    }
    assert (site.state("ns/b:1"), site.state("ns/d:1")) == (State.FAILING, State.FAILING)
    assert site.shown().images["ns/b:1"].error == "a layer has the wrong digest"


def test_what_fails_now_stays_as_it_was(site: Site) -> None:
    """And is well again once it succeeds."""
    site.has(a="old")
    site.run()
    site.now += DAY
    site.has(a="new")
    site.engine.fails["ns/a:1"] = "is a bomb"
    site.run()
    assert (site.sandbox("ns/a:1"), site.sif("ns/a:1")) == ("old", "old")
    assert site.shown().images["ns/a:1"].failures == 1
    site.now += DAY
    site.engine.fails.clear()
    assert site.run().is_good
    assert (site.sandbox("ns/a:1"), site.sif("ns/a:1")) == ("new", "new")
    assert site.shown().images["ns/a:1"].error == ""


def test_a_failure_for_one_architecture_is_not_forgotten_for_the_success_of_another(tmp_path: Path) -> None:
    """The image is not as its registry has it."""
    site = Site(tmp_path, architectures="[x86_64, aarch64]")
    site.tags = {"ns/a:1": {"x86_64": "intel", "aarch64": "arm"}}
    real = site.engine.run

    def half(requests: Sequence[Request], report: Report) -> Iterator[Converted | Failure]:
        for request in requests:
            if request.variant.arch == "aarch64":
                yield Failure(request.name, request.source, "no room")
        yield from real([one for one in requests if one.variant.arch == "x86_64"], report)

    site.engine.run = half  # type: ignore[method-assign]
    assert not site.run().is_good
    assert site.sif("ns/a:1") == "intel"
    assert site.state("ns/a:1") is State.FAILING


def test_what_was_converted_and_not_published_is_not_converted_again(site: Site) -> None:
    """A target that is down costs no second conversion."""
    site.has(a="one", b="two")
    blocked = site.directory / "v2" / "x86_64" / "ns__b__1"
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    outcome = site.run()
    assert sorted(outcome.published) == ["ns/a:1"]
    assert [one.name for one in outcome.failures] == ["ns/b:1"]
    assert site.state("ns/b:1") is State.FAILING
    blocked.unlink()
    site.engine.asked.clear()
    site.now += DAY
    again = site.run()
    assert again.is_good
    assert again.resumed == 1
    assert site.engine.asked == []
    assert (site.sandbox("ns/b:1"), site.sif("ns/b:1")) == ("two", "two")


def test_a_conversion_that_nobody_wants_any_more_is_thrown_away(site: Site) -> None:
    """As is whatever else lies in the work directory."""
    site.has(a="one")
    blocked = site.directory / "v2" / "x86_64" / "ns__a__1"
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    site.run()
    (site.directory / "work" / "half" / "tree").mkdir(parents=True)
    site.has()
    site.run()
    assert [path.name for path in (site.directory / "work").rglob("*")] == ["converted"]


def test_a_work_directory_that_is_somebody_elses_is_left_alone(site: Site) -> None:
    """A wrong word in sync.yaml removes nothing."""
    site.has(a="one")
    thesis = site.directory / "work" / "thesis"
    thesis.parent.mkdir()
    thesis.touch()
    with pytest.raises(OSError, match="holds what no publisher put there"):
        site.run()
    assert thesis.exists()


@pytest.mark.parametrize("before", ["sync_file_system", "place_link"])
def test_a_publisher_that_ends_while_it_moves_a_sandbox_is_gone_on_with(
    site: Site, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Wherever it ends, what was converted is in the work directory, or published."""
    site.has(a="one")

    def end(path: Path, *_: str) -> None:
        if "work" not in path.name:
            raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(f"sync.files.{before}", end)
        with pytest.raises(SystemExit):
            site.run()
    assert site.run().is_good
    assert (site.sandbox("ns/a:1"), site.sif("ns/a:1")) == ("one", "one")
    assert site.engine.asked == ["ns/a:1"]


def test_a_name_that_cannot_be_published_leaves_others_of_its_digest_well(site: Site) -> None:
    """Only a conversion's failure is that of all who waited for it."""
    site.has(a="one", b="one")
    (site.directory / "cvmfs" / "ns" / "a:1" / "in the way").mkdir(parents=True)
    outcome = site.run()
    assert list(outcome.published) == ["ns/b:1"]
    assert [one.name for one in outcome.failures] == ["ns/a:1"]
    assert (site.state("ns/a:1"), site.state("ns/b:1")) == (State.FAILING, State.PUBLISHED)


def test_a_name_that_left_the_list_is_unlinked_and_goes_after_its_grace(site: Site) -> None:
    """The sandbox after two days, the SIF after ten, then nothing is known of it."""
    site.has(a="one", b="two")
    site.run()
    site.has(a="one")
    site.now += DAY
    assert site.run().is_good
    assert (site.sandbox("ns/b:1"), site.sif("ns/b:1")) == ("", "")
    assert len(site.target.readable().images()) == 2
    assert len(list((site.directory / "v2").rglob("*.sif"))) == 2
    site.now += 2.1 * DAY
    site.run()
    assert len(site.target.readable().images()) == 1
    assert len(list((site.directory / "v2").rglob("*.sif"))) == 2
    site.now += 8 * DAY
    site.run()
    assert [path.parent.name for path in (site.directory / "v2").rglob("*.sif")] == ["ns__a__1"]
    assert not (site.directory / "v2" / "x86_64" / "ns__b__1").exists()
    assert set(site.shown().images) == {"ns/a:1"}
    assert (site.sandbox("ns/a:1"), site.sif("ns/a:1")) == ("one", "one")


def test_a_name_that_is_listed_again_is_linked_to_what_is_still_there(site: Site) -> None:
    """No conversion; sandbox and pointer are back."""
    site.has(a="one")
    site.run()
    site.has()
    site.now += DAY
    site.run()
    site.has(a="one")
    site.engine.asked.clear()
    site.now += DAY
    assert site.run().is_good
    assert site.engine.asked == []
    assert (site.sandbox("ns/a:1"), site.sif("ns/a:1")) == ("one", "one")


def test_a_list_with_broken_lines_takes_no_name_away(site: Site) -> None:
    """Somebody's slip must not unpublish what others use."""
    site.has(a="one", b="two")
    site.run()
    site.has(a="one")
    site.run(faults=(Fault(1, 1, "x y", "is no reference"),))
    assert site.sandbox("ns/b:1") == "two"


def test_a_run_removes_no_more_than_it_may(tmp_path: Path) -> None:
    """The rest goes with the next ones."""
    site = Site(tmp_path, max_removals="2")
    site.has(**{f"i{number}": f"text {number}" for number in range(5)})
    site.run()
    site.has()
    site.run()
    left = [5]
    for _ in range(6):
        site.now += 30 * DAY
        site.run()
        left.append(len(site.target.readable().images()) + len(list((site.directory / "v2").rglob("*.sif"))))
    assert left == [5, 8, 6, 4, 2, 0, 0]


def test_what_a_former_publisher_left_is_taken_over(site: Site) -> None:
    """Listed names become ours; others are unlinked, and their images go when the former record says so."""
    site.target.begin()
    target = site.target.readable()
    places = {name: f".images/{name * 2}/{name * 62}" for name in "abc"}
    for place in places.values():
        (target.root / place).mkdir(parents=True)
    target.link("ns/a:1", places["a"])
    target.link("old/name:1", places["b"])
    target.write_missing({places["c"]: NOW - 1.9 * DAY})
    site.has(a="one")
    assert site.run().is_good
    assert site.sandbox("ns/a:1") == "one"
    assert set(target.links()) == {"ns/a:1"}
    assert target.missing_since() == {places["a"]: NOW, places["b"]: NOW, places["c"]: NOW - 1.9 * DAY}
    site.now += 0.2 * DAY
    site.run()
    assert set(target.missing_since()) == {places["a"], places["b"]}
    assert places["c"] not in target.images()
    record = json.loads((target.root / ".missing_links.json").read_text())
    assert set(record["missing_links"]) == {f"/cvmfs/{REPOSITORY}/{places[one]}" for one in "ab"}


def test_all_images_of_a_run_are_published_in_one_transaction(tmp_path: Path) -> None:
    """And a run that changes nothing has none."""
    site, server = with_cvmfs(tmp_path)
    site.has(**{f"i{number}": f"text {number}" for number in range(7)})
    assert site.run().is_good
    assert server.asked() == ["mkfs", "transaction", "publish"]
    assert is_image(server.resolve("ns/i3:1"), "text 3")
    site.run()
    assert server.asked() == ["mkfs", "transaction", "publish"]


def test_a_batch_for_which_there_is_no_room_is_halved(tmp_path: Path) -> None:
    """What fits is published, what does not fails by itself, with the numbers."""
    site, server = with_cvmfs(tmp_path)
    site.target = type(server.repository())(server.place, server.record, lambda _: Room(80_000, 1000))
    site.has(**{f"i{number}": f"text {number}" for number in range(4)}, large="x" * 100_000)
    outcome = site.run()
    assert [one.name for one in outcome.failures] == ["ns/large:1"]
    assert "too little room" in outcome.failures[0].why
    assert sorted(outcome.published) == [f"ns/i{number}:1" for number in range(4)]
    assert server.asked().count("abort") == 0


def test_a_disk_that_is_full_in_the_middle_aborts_and_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers see nothing of it but what was published in the end."""
    site, server = with_cvmfs(tmp_path)
    real = os.sendfile
    room = [14_000]

    def sendfile(out: int, into: int, offset: int | None, count: int) -> int:
        sent = real(out, into, offset, count)
        room[0] -= sent
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sent

    def count_anew(asked: Callable[..., object]) -> Callable[..., object]:
        def run(*words: str) -> object:
            room[0] = 14_000
            return asked(*words)

        return run

    repository: Any = site.target
    monkeypatch.setattr(repository, "_run", count_anew(repository._run))
    monkeypatch.setattr(os, "sendfile", sendfile)
    site.has(a="a" * 5000, b="b" * 5000, c="c" * 5000)
    assert site.run().is_good
    assert server.asked()[1:] == ["transaction", "abort", "transaction", "publish", "transaction", "publish"]
    assert {len(site.sandbox(f"ns/{name}:1")) for name in "abc"} == {5000}


def test_a_transaction_of_somebody_else_fails_every_image_and_is_left_alone(tmp_path: Path) -> None:
    """Nothing is halved for that, and nothing converted again."""
    site, server = with_cvmfs(tmp_path)
    site.has(a="one", b="two")
    real = site.engine.run

    def meanwhile(requests: Sequence[Request], report: Report) -> Iterator[Converted | Failure]:
        subprocess.run([server.command, "transaction", REPOSITORY], check=True)
        yield from real(requests, report)

    site.engine.run = meanwhile  # type: ignore[method-assign]
    outcome = site.run()
    assert len(outcome.failures) == 2
    assert "did not open" in outcome.failures[0].why
    assert server.lock.exists()
    subprocess.run([server.command, "abort", REPOSITORY], check=True)
    site.engine.asked.clear()
    site.engine.run = real  # type: ignore[method-assign]
    assert site.run().is_good
    assert site.engine.asked == []


def test_what_happens_to_each_image_is_told_as_it_happens(site: Site) -> None:
    """In its order."""
    site.has(a="one")
    site.run()
    assert site.told == [
        "ns/a:1: unpacking",
        "ns/a:1: converted",
        "ns/a:1: publishing the sandbox",
        "ns/a:1: publishing the SIF",
        "ns/a:1: published (x86_64)",
    ]
    assert site.memory.told() == {}


def test_each_publication_is_remembered(site: Site) -> None:
    """Whoever asks which digest a name had last week is told."""
    for text in ("one", "two", "one"):
        site.has(a=text)
        site.run()
        site.now += DAY
    history = site.memory.history()["ns/a:1"]
    assert [one.digest for one in history] == [digest_of("one x86_64"), digest_of("two x86_64")]
    assert site.sif("ns/a:1") == "one"  # it was still there, and is linked again
