"""An image that does not start is found out: before its first use, as the job's user, and when it goes bad later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pool.demo import BARE_KNOBS
from tests.pool.harness import Pool, poll
from tests.pool.world import SIFS, VERSION, World, image_name

WRAPPER = """#!/bin/sh
# The runtime; takes down who starts it, and how.
echo "$(id -u) $*" >>/pool/world/starts
case "$(id -u) $*" in
"1000 -s -q test -C "*) grep -q 'NOT FOR JOE' "$5" && echo 'FATAL: not for joe' >&2 && exit 255 ;;
esac
exec /usr/bin/apptainer "$@"
"""


@dataclass(frozen=True)
class Watched:
    """An EP of root's, and what its runtime was started for."""

    pool: Pool
    starts: Path

    def tests(self, image: Path) -> list[str]:
        """Return the users who tested an image for the hook (the manager and HTCondor have other options)."""
        lines = [line.split() for line in self.starts.read_text().splitlines()]
        return [words[0] for words in lines if words[1:] == ["-s", "-q", "test", "-C", str(image)]]


@pytest.fixture(scope="module")
def watched(world: World) -> Iterator[Watched]:
    """Start a pool of root's, whose runtime is watched."""
    wrapper, starts = world.directory / "runtime", world.directory / "starts"
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)
    starts.touch()
    starts.chmod(0o666)
    with world.pool("ep-watched", BARE_KNOBS | {"SINGULARITY": str(wrapper)}, user=None) as pool:
        yield Watched(pool, starts)


def damaged(sif: str) -> bytes:
    """Return a SIF that is whole by its header and its size, and does not start."""
    content = bytearray((SIFS / f"{sif}.sif").read_bytes())
    content[40960:90000] = b"\x55" * (90000 - 40960)
    return bytes(content)


def entries(pool: Pool, directory: str = "entries") -> list[Path]:
    """Return the images in the cache."""
    return sorted((pool.directory / "image_cache" / directory).glob("*/image"))


def test_an_image_is_started_once_as_a_user_who_is_not_the_caches(watched: Watched) -> None:
    """By the manager's user when it came in, by the first job's user before its first use, and then no more."""
    pool = watched.pool
    name = {"+SingularityImage": image_name("htc/rocky:9")}
    pool.submit(name, user="joe")[0].wait()
    for user in ("amy", "joe"):
        job = pool.submit(name, user=user)[0]
        job.wait()
        assert job.stdout == "htc/rocky:9 SIF\n"
    (image,) = entries(pool)
    assert watched.tests(image) == ["1000"]
    assert [line for line in watched.starts.read_text().splitlines() if line.startswith("990 -s test -C ")]


def test_what_does_not_start_as_one_user_costs_that_user_and_not_the_image(watched: Watched, world: World) -> None:
    """His job goes back to idle with the runtime's words; hers runs from the same entry."""
    marked = Path("/pool/marked.sif")
    marked.write_bytes((SIFS / "alma9.sif").read_bytes() + b"NOT FOR JOE\n")
    world.tree.publish("htc/marked:1", marked, VERSION)
    name = {"+SingularityImage": image_name("htc/marked:1")}
    his = watched.pool.submit(name, user="joe", guard=1)[0]
    run = poll(his.hook_runs, "the hook's answer", 60)[0]
    assert run.status == 450
    assert "does not start here as the job's user: FATAL: not for joe" in run.message
    hers = watched.pool.submit(name, user="amy")[0]
    hers.wait()
    assert hers.stdout == "htc/almalinux:9 SIF\n"
    assert entries(watched.pool, "quarantine") == []
    watched.pool.tool("condor_rm", his.id, user="joe")


def test_a_bad_image_is_found_out_before_a_job_runs_in_it(watched: Watched, world: World) -> None:
    """The job goes back to idle and is not held, and nothing is kept."""
    bad = Path("/pool/bad.sif")
    bad.write_bytes(damaged("alma9"))
    world.tree.publish("htc/bad:1", bad, VERSION)
    before = entries(watched.pool)
    job = watched.pool.submit({"+SingularityImage": image_name("htc/bad:1")}, guard=1)[0]
    run = poll(job.hook_runs, "the hook's answer", 60)[0]
    assert run.status == 450
    assert "htc/bad:1: " in run.message
    assert "does not start here" in run.message
    assert entries(watched.pool) == before
    watched.pool.tool("condor_rm", job.id, user="joe")


def test_an_image_that_went_bad_is_quarantined_and_fetched_again(watched: Watched, world: World) -> None:
    """Three jobs in a row that end at once make it be tested again; they then run by themselves, nobody is held."""
    pool = watched.pool
    world.tree.publish("htc/fading:1", SIFS / "web.sif", VERSION)
    name = {"+SingularityImage": image_name("htc/fading:1")}
    pool.submit(name)[0].wait()
    image = next(one for one in entries(pool) if one.read_bytes() == (SIFS / "web.sif").read_bytes())
    with image.open("r+b") as file:
        file.write(damaged("web"))
    jobs = pool.submit(name, count=3)
    for job in jobs:
        job.wait(timeout=120)
        assert job.stdout == "web SIF\n"
        assert not any(event.number == 12 for event in job.events())
    assert len(entries(pool, "quarantine")) == 1
    assert len(world.origin.requests(world.object_path("htc/fading:1"), "GET")) == 2
