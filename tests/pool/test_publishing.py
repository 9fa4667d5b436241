"""The publisher with real servers: a registry, jobs that run from both forms, nginx and XRootD, full disks, kills."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.pool.demo_publish import NAME, PublishDemo, opened
from tests.pool.processes import poll
from tests.pool.publisher import REPOSITORY, PublisherMachine, push_images


@pytest.fixture(scope="module")
def demo() -> Iterator[PublishDemo]:
    """Return the demo of `make demo-publish`, with its jobs ended."""
    with ExitStack() as stack:
        one = opened(stack, Path("/pool/publishing"))
        one.publish()
        one.run_jobs()
        yield one


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[PublisherMachine]:
    """Give a publisher of its own with images in its registry, none of which is listed yet."""
    with PublisherMachine(tmp_path / "publisher", tmp_path / "v2", "small.example.org") as one:
        push_images(one.registry)
        yield one


def test_a_name_runs_from_its_sandbox_and_without_cvmfs_from_the_sif_of_the_same_digest(demo: PublishDemo) -> None:
    """The job reads the same file, and its log names where the image came from."""
    assert [row.form for row in demo.rows] == ["sandbox", "SIF, fetched", "SIF, a hit"]
    assert {row.read for row in demo.rows} == {demo.pushed.texts[NAME]}
    assert len({row.digest for row in demo.rows}) == 1


def test_the_demo_finds_nothing_to_complain_about(demo: PublishDemo) -> None:
    """What it prints below its table is checked: layers fetched once, one transaction."""
    assert len(demo.check()) == 3


def test_a_second_run_over_an_unchanged_list_changes_nothing(demo: PublishDemo) -> None:
    """No transaction, and no layer fetched."""
    machine = demo.machine
    fetched, asked = len(machine.registry.fetched()), len(machine.asked())
    assert "0 published in this run, 0 failed; now 3 published" in machine.sync("run").stdout
    assert (len(machine.registry.fetched()), len(machine.asked())) == (fetched, asked)


def test_status_tells_digests_and_both_places(demo: PublishDemo) -> None:
    """Whoever asks where an image is, gets it from the publisher's own record."""
    (row,) = json.loads(demo.machine.sync("status", NAME, "--json").stdout)
    (version,) = row["versions"]
    assert version["digest"] == demo.rows[0].digest
    assert version["sandbox"] == f"/cvmfs/{REPOSITORY}/{demo.machine.place(NAME)}"
    assert Path(version["sif"]).is_file()


def kill_while_it_publishes(machine: PublisherMachine) -> subprocess.Popen[bytes]:
    """Start a run, and kill it while cvmfs_server publishes; that goes on until it is let."""
    (machine.cvmfs / "hold").touch()
    process = machine.start_sync("run")
    poll((machine.area / "is_publishing.lock").exists, "the publication", 90)
    poll(
        lambda: '"publishing": [0,' not in (machine.directory / "state" / "transaction.json").read_text(), "its record"
    )
    process.kill()
    process.wait()
    return process


def test_a_run_that_is_killed_while_it_publishes_is_gone_on_with(machine: PublisherMachine) -> None:
    """Readers have the old or the new; nothing is converted twice, and no transaction is left."""
    machine.write_list("htc/base:1", "htc/tools:1")
    kill_while_it_publishes(machine)
    assert not (machine.client / "htc").exists()
    layers = machine.registry.fetched()
    (machine.cvmfs / "hold").unlink()
    done = machine.sync("run")
    assert "2 published in this run, 0 failed" in done.stdout
    assert [one for one in machine.registry.fetched() if one not in layers] == []
    assert (machine.client / machine.place("htc/tools:1") / "IMAGE_ID").read_text() == "htc/tools:1 of the demo\n"
    assert not (machine.area / "in_transaction.lock").exists()
    assert len(list(machine.sifs.rglob("*.sif"))) == 2


def test_the_second_sync_at_once_says_who_runs(machine: PublisherMachine) -> None:
    """By pid, host and time, with exit status 1, and the first one is not disturbed."""
    machine.write_list("htc/base:1")
    (machine.cvmfs / "hold").touch()
    with machine.start_sync("run") as first:
        poll((machine.area / "is_publishing.lock").exists, "the publication", 90)
        second = machine.sync("run", check=False)
        assert second.returncode == 1
        assert re.search(rf"condor_image_sync run is running: pid {first.pid} on pool, since \d+ s", second.stderr)
        (row,) = json.loads(machine.sync("status", "--json").stdout)
        assert (row["state"], row["why"]) == ("converting", "publishing the sandbox")
        (machine.cvmfs / "hold").unlink()
        assert first.wait(60) == 0
    assert (machine.client / "htc" / "base:1").is_symlink()


@pytest.fixture
def small_disk(machine: PublisherMachine) -> Iterator[Path]:
    """Give the repository a file system of its own, with room for little."""
    place = machine.cvmfs / "srv" / machine.repository
    kept = machine.directory / "kept"
    subprocess.run(["cp", "-a", place, kept], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "small", place], check=True)
    subprocess.run(["cp", "-a", f"{kept}/.", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_is_full_in_the_middle_leaves_readers_what_they_had(
    machine: PublisherMachine, small_disk: Path
) -> None:
    """What fits is published; what does not is told with the disk's own words; no transaction is left open."""
    machine.write_list("htc/base:1")
    machine.sync("run")
    (small_disk / "ballast").write_bytes(bytes(8_000_000))
    machine.write_list("htc/base:1", "htc/tools:1")
    done = machine.sync("run", check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stdout + done.stderr
    assert (machine.client / machine.place("htc/base:1") / "IMAGE_ID").read_text() == "htc/base:1 of the demo\n"
    assert not (machine.client / "htc" / "tools:1").is_symlink()
    assert machine.asked()[-1] == "abort"
    (small_disk / "ballast").unlink()
    layers = machine.registry.fetched()
    assert "1 published in this run, 0 failed" in machine.sync("run").stdout
    assert machine.registry.fetched() == layers
