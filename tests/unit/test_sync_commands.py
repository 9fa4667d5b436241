"""The publisher's commands as processes: one at a time, killed at any moment, and cleaning up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sync import transitions
from sync.__main__ import main
from sync.catalog import Catalog, Version
from sync.files import TEMPORARY
from sync.lock import Busy, only_publisher
from sync.memory import Memory
from sync.targets.directory import SandboxDirectory, SifDirectory
from sync.targets.siftree import SifTree
from sync.values import Converted, Resolved
from tests.unit.publications import converted

DAY = 86_400.0
OLD = "20200101T000000Z"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Give a configuration with plain directories."""
    path = tmp_path / "sync.yaml"
    path.write_text(
        f"image_list: {tmp_path}/list\ncvmfs: {{directory: {tmp_path}/cvmfs}}\nsif: {{directory: {tmp_path}/v2}}\n"
        f"state_directory: {tmp_path}/state\nwork_directory: {tmp_path}/work\n"
    )
    return path


def publish(tmp_path: Path, one: Converted, version: str, *, superseded_at: float) -> None:
    """Have an image published, as a run did it."""
    memory = Memory(tmp_path / "state")
    memory.begin()
    target, tree = SandboxDirectory(tmp_path / "cvmfs"), SifTree(SifDirectory(tmp_path / "v2"))
    target.begin()
    place = target.readable().add(one)
    target.readable().link(one.name, place)
    tree.publish(one, version, b"{}")
    found = Version("x86_64", version, one.index_digest, one.variant.digest, 1.0, has_sif=True, sandbox=place)
    catalog = transitions.resolved(memory.catalog(), Resolved(one.name, one.source, one.index_digest), 1.0)
    catalog = transitions.published(catalog, one.name, found, 1.0)
    if superseded_at:
        catalog = transitions.unlinked(transitions.unlisted(catalog, one.name, superseded_at), one.name, superseded_at)
        target.readable().unlink(one.name)
        tree.withdraw("x86_64", one.name)
    memory.save(catalog)


def test_cleanup_removes_what_nothing_leads_to_and_says_so_before(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run changes nothing; what is led to stays."""
    publish(tmp_path, converted(tmp_path / "w", "ns/gone:1"), OLD, superseded_at=2.0)
    publish(tmp_path, converted(tmp_path / "w", "ns/here:1"), OLD, superseded_at=0.0)
    before = sorted(tmp_path.joinpath("v2").rglob("*"))
    assert main(["cleanup", "--dry-run", "--json", "--config", str(config)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["form"], one["done"]) for one in told["items"]] == [
        ("ns/gone:1", "sandbox", False),
        ("ns/gone:1", "sif", False),
    ]
    assert sorted(tmp_path.joinpath("v2").rglob("*")) == before
    assert main(["cleanup", "--config", str(config)]) == 0
    assert "removed 2 item(s)" in capsys.readouterr().out
    assert [path.parent.name for path in tmp_path.joinpath("v2").rglob("*.sif")] == ["ns__here__1"]
    assert len(SandboxDirectory(tmp_path / "cvmfs").readable().images()) == 1
    assert set(Memory(tmp_path / "state").catalog().images) == {"ns/here:1"}
    assert main(["cleanup", "--config", str(config)]) == 0
    assert "removed 0 item(s)" in capsys.readouterr().out


def test_the_second_publisher_says_who_runs(tmp_path: Path, config: Path) -> None:
    """With pid, host and since when; and leaves everything as it is."""
    argv = [sys.executable, "-m", "sync", "cleanup", "--config", str(config)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with only_publisher(tmp_path / "state", "run", 1.0):
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    host = os.uname().nodename
    assert f"condor_image_sync run is running: pid {os.getpid()} on {host}, since" in done.stderr
    assert subprocess.run(argv, env=environment, check=False).returncode == 0


@pytest.mark.parametrize("target", ["cvmfs", "v2"])
def test_a_publisher_with_another_state_and_the_same_target_leaves_what_the_first_has_begun(
    tmp_path: Path, config: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Either target is enough; by whatever path it is named."""
    begun = tmp_path / target / f"{TEMPORARY}0123"
    begun.parent.mkdir()
    begun.write_bytes(b"half of it")
    (tmp_path / "alias").symlink_to(begun.parent)
    with only_publisher(tmp_path / "elsewhere", "run", 1.0, [tmp_path / "alias"]):
        for command in ("cleanup", "run"):
            assert main([command, "--config", str(config)]) == 1
            assert f"condor_image_sync run is running: pid {os.getpid()} on" in capsys.readouterr().err
        assert begun.read_bytes() == b"half of it"
    assert main(["cleanup", "--config", str(config)]) == 0
    assert not begun.exists()


def test_the_lock_of_a_killed_publisher_is_free(tmp_path: Path) -> None:
    """Whatever it wrote about itself."""
    hold = (
        "import sys, time; from pathlib import Path; from sync.lock import only_publisher\n"
        "with only_publisher(Path(sys.argv[1]), 'run', 1.0):\n    print('held', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Busy, match=f"pid {process.pid} on"), only_publisher(tmp_path, "cleanup", 2.0):
            pass
        process.send_signal(signal.SIGKILL)
    with only_publisher(tmp_path, "cleanup", 3.0):
        pass


def test_a_catalog_that_cannot_be_read_ends_the_run_before_anything_is_changed(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is published or removed as if there had been nothing."""
    Memory(tmp_path / "state").begin()
    (tmp_path / "state" / "catalog.json").write_text("{")
    assert main(["cleanup", "--config", str(config)]) == 1
    assert "catalog.json: no JSON" in capsys.readouterr().err


def test_a_torn_history_and_a_killed_runs_progress_are_left_out(tmp_path: Path) -> None:
    """They are for people, and hold nothing up."""
    memory = Memory(tmp_path)
    memory.begin()
    line = json.dumps({"at": 1.0, "name": "a", "arch": "x86_64", "digest": "d", "version": OLD})
    (tmp_path / "history.jsonl").write_text(f"{line}\n{{\n[1]\n{line[:30]}")
    assert [one.digest for one in memory.history()["a"]] == ["d"]
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    record = {"pid": int(dead.stdout), "host": os.uname().nodename, "images": {"a": ["unpacking", 1.0]}}
    (tmp_path / "progress.json").write_text(json.dumps(record))
    assert memory.told() == {}


def test_versions_that_a_killed_run_began_go_one_day(tmp_path: Path, config: Path) -> None:
    """Nobody else knows that their files may be there; the current version stays."""
    publish(tmp_path, converted(tmp_path / "w", "ns/here:1"), "20200101T000001Z", superseded_at=0.0)
    memory = Memory(tmp_path / "state")
    orphan = tmp_path / "v2" / "x86_64" / "ns__here__1" / f"{OLD}.sif"
    orphan.write_bytes(b"half")
    memory.begin_versions([("ns/here:1", "x86_64", OLD)])
    assert main(["cleanup", "--config", str(config)]) == 0
    assert orphan.exists()
    catalog = memory.catalog()
    assert {one.version for one in catalog.images["ns/here:1"].versions} == {OLD, "20200101T000001Z"}
    assert set(catalog.images["ns/here:1"].current) == {"x86_64"}
    memory.save(_long_ago(catalog))
    assert main(["cleanup", "--config", str(config)]) == 0
    assert not orphan.exists()
    assert {one.version for one in memory.catalog().images["ns/here:1"].versions} == {"20200101T000001Z"}


def _long_ago(catalog: Catalog) -> Catalog:
    """Have what was superseded have been so for long."""
    image = catalog.images["ns/here:1"]
    versions = tuple(replace(one, superseded_at=one.superseded_at and 1.0) for one in image.versions)
    return catalog.with_image(replace(image, versions=versions))
