"""What a site notices: jobs of one user that fail, an access point's settings, a former hook, a late hang."""

from __future__ import annotations

import json
from pathlib import Path

from tests.pool.demo import BARE_KNOBS
from tests.pool.harness import Pool, poll
from tests.pool.repository import Mount
from tests.pool.world import World, image_name

AP_CONFIGURATION = Path("/src/condor_config.d/access-point/60-image-cache-ap.conf")
DEAD = {"+SingularityImage": '"http://127.0.0.1:9/dead.sif"'}


def test_ten_jobs_of_one_user_with_a_dead_url_leave_everyone_else_running(bare: Pool) -> None:
    """They go back to idle; the EP stays open, and others' jobs run."""
    dead = bare.submit(DEAD, count=10)
    poll(lambda: all(job.messages() for job in dead), "every job's answer", 60)
    assert bare.slots()[0]["ImageCacheHealthy"] is True
    other = bare.submit({"+SingularityImage": image_name("htc/rocky:9")})[0]
    other.wait()
    assert other.stdout == "htc/rocky:9 SIF\n"
    assert {run.status for job in dead for run in job.hook_runs()} == {610}
    bare.tool("condor_rm", *[job.id for job in dead])


def test_an_access_points_settings_slow_a_failing_job_down_and_hold_it_in_the_end(world: World) -> None:
    """It does not match the EP again at once, and its author is told after so many tries, with the last reason."""
    pool = world.pool("ep-and-ap", BARE_KNOBS)
    quick = "SYSTEM_ON_VACATE_COOL_DOWN = 4\nIMAGE_CACHE_MAX_TRIES = 2\nPERIODIC_EXPR_INTERVAL = 1\n"
    pool.write_config("60-image-cache-ap.conf", AP_CONFIGURATION.read_text())
    pool.write_config("61-quick.conf", quick)
    with pool:
        job = pool.submit(DEAD)[0]
        poll(lambda: "JobCoolDownExpiration" in job.ad(), "the job's cool-down", 60)
        job.wait("held", 90)
        assert len(job.hook_runs()) == 2
        assert job.hold is not None
        assert job.hold.subcode == 610
        assert "the image was not available on 2 tries, the last: " in job.hold.reason
        assert "http://127.0.0.1:9/dead.sif: " in job.hold.reason


def test_the_sites_former_hook_runs_after_ours_on_the_pool(world: World) -> None:
    """Its attributes are merged into the job's ad."""
    former = script(world, "former-hook", "echo 'Arguments = \"/IMAGE_ID /IMAGE_ID\"'")
    with world.pool("ep-next-hook", {"IMAGE_CACHE_NEXT_HOOK": str(former)}) as pool:
        job = pool.submit({"+SingularityImage": image_name("htc/rocky:9")})[0]
        job.wait()
    first, second = job.stdout.splitlines()
    assert first == second
    assert first.startswith("htc/rocky:9")


def test_a_repository_that_hangs_after_the_answer_keeps_that_job_and_no_other(world: World) -> None:
    """HTCondor's own test of the image hangs with it, which nobody can end; other jobs get the SIF, none is held.

    The former hook, which runs after our answer, makes the repository hang.
    """
    with Mount(world) as mount:
        hang = json.dumps({"hang": True})
        former = script(world, "hang-hook", f"echo '{hang}' >{mount.directory}/faults")
        (mount.directory / "faults").chmod(0o666)
        knobs = {"IMAGE_CACHE_CVMFS_BASE": str(mount.base), "IMAGE_CACHE_NEXT_HOOK": str(former)}
        with world.pool("ep-late-hang", knobs) as pool:
            first = pool.submit({"+SingularityImage": image_name("htc/rocky:9")})[0]
            poll(lambda: "hangs (no answer" in pool.log("ImageCacheLog"), "the hang being found out", 60)
            second = pool.submit({"+SingularityImage": image_name("htc/rocky:9")})[0]
            second.wait()
            assert second.stdout == "htc/rocky:9 SIF\n"
            assert first.status == "running"
            mount.behave()
            first.wait()
            assert first.stdout == "htc/rocky:9 sandbox\n"


def script(world: World, name: str, command: str) -> Path:
    """Return a hook that reads its input and runs a command."""
    path = world.directory / name
    path.write_text(f"#!/bin/sh\ncat >/dev/null\n{command}\n")
    path.chmod(0o755)
    return path
