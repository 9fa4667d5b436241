"""What an EP's admin relies on: leases, restarts, the slot ad, START, reconfiguration, users."""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from tests.pool.harness import Job, Pool, poll
from tests.pool.processes import descendants, make_directory
from tests.pool.world import SIFS, World, image_name

WAIT_SCRIPT = """#!/bin/sh
cat /IMAGE_ID
while [ ! -e "$1" ]; do sleep 0.1; done
cat /IMAGE_ID
"""


def waiting_job(pool: Pool, world: World, name: str) -> tuple[Job, Path]:
    """Return a running job in the SIF of rocky, and the file in its scratch directory that ends it."""
    script = world.directory / "wait"
    script.write_text(WAIT_SCRIPT)
    script.chmod(0o755)
    lines = {"+SingularityImage": image_name("htc/rocky:9"), "executable": str(script), "arguments": name}
    job = pool.submit(lines)[0]
    job.wait("running", 60)
    return job, name_in_scratch(pool, job, name)


def name_in_scratch(pool: Pool, job: Job, name: str) -> Path:
    """Return a path in the job's scratch directory."""
    for ad in pool.execute_directory.glob("dir_*/scratch/.job.ad"):
        if f"ClusterId = {job.cluster}\n" in ad.read_text():
            return ad.parent / name
    raise AssertionError(f"no scratch directory of {job.id}")


def leases(pool: Pool) -> list[dict[str, object]]:
    """Return the lease files."""
    found = []
    for path in (pool.directory / "image_cache" / "leases").glob("*.json"):
        try:
            found.append(json.loads(path.read_text()))
        except FileNotFoundError:  # it ended meanwhile
            continue
    return found


def lease_of(pool: Pool, job: Job) -> dict[str, object] | None:
    """Return the job's lease, if it has one."""
    return next((lease for lease in leases(pool) if lease["job_id"] == job.id), None)


def manager_pid(pool: Pool) -> int:
    """Return the pid of the manager that condor_master runs."""
    for pid in descendants(pool.master_pid):
        with suppress(OSError):  # it may end meanwhile
            if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
    return 0


def slot_attribute(pool: Pool, name: str) -> object:
    """Return an attribute of the first slot."""
    return pool.slots()[0].get(name)


def test_a_lease_lasts_as_long_as_the_jobs_starter(bare: Pool, world: World) -> None:
    """It is there while the job runs, names the starter, and is gone when the starter is."""
    job, end = waiting_job(bare, world, "end-1")
    lease = lease_of(bare, job)
    assert lease is not None
    assert f"dir_{lease['pid']}" in str(end)
    end.touch()
    job.wait()
    poll(lambda: lease_of(bare, job) is None, "the end of the lease")


def test_a_starter_that_is_killed_gives_its_lease_up(bare: Pool, world: World) -> None:
    """A kill -9 leaves nobody to say goodbye."""
    job, _ = waiting_job(bare, world, "end-2")
    lease = lease_of(bare, job)
    assert lease is not None
    os.kill(int(str(lease["pid"])), signal.SIGKILL)
    poll(lambda: lease["pid"] not in [one["pid"] for one in leases(bare)], "the end of the lease")
    bare.tool("condor_rm", job.id)


def test_a_manager_that_is_killed_comes_back_with_its_leases(bare: Pool, world: World) -> None:
    """The running job does not notice, and the next one is a hit."""
    job, end = waiting_job(bare, world, "end-3")
    before = manager_pid(bare)
    os.kill(before, signal.SIGKILL)
    poll(lambda: manager_pid(bare) not in (0, before), "another manager", 30)
    poll(lambda: bare.tool("condor_image_cache", "status", check=False).returncode == 0, "its answer")
    listed = json.loads(bare.tool("condor_image_cache", "list", "--json").stdout)
    assert job.id in [holder for entry in listed for holder in entry["leases"]]
    end.touch()
    job.wait()
    assert job.stdout == "htc/rocky:9 SIF\n" * 2
    again = bare.submit({"+SingularityImage": image_name("htc/rocky:9")})[0]
    again.wait()
    assert "cached SIF" in again.message()


def test_the_slot_ad_tells_what_the_cache_has(bare: Pool) -> None:
    """Healthy, able, and with the names of its images."""
    poll(lambda: "htc/rocky:9" in str(slot_attribute(bare, "ImageCacheImages")).split(","), "the image in the slot ad")
    ad = bare.slots()[0]
    assert ad["ImageCacheHealthy"] is True
    assert ad["ImageCacheCanUseSIF"] is True
    assert ad["ImageCacheBytes"] > 0
    assert ad["ImageCacheMaxBytes"] == 200_000_000


def test_without_a_manager_container_jobs_wait_and_others_run(bare: Pool) -> None:
    """START looks at the cache's health, and lets in again when it is back."""
    bare.tool("condor_off", "-daemon", "image_cache_manager")
    poll(lambda: slot_attribute(bare, "ImageCacheHealthy") is False, "ImageCacheHealthy = false", 30)
    container = bare.submit({"+SingularityImage": image_name("htc/rocky:9")})[0]
    plain = bare.submit({})[0]
    plain.wait()
    assert container.status == "idle"
    bare.tool("condor_on", "-daemon", "image_cache_manager")
    container.wait(timeout=60)
    assert container.stdout == "htc/rocky:9 SIF\n"


def test_condor_reconfig_makes_a_new_knob_known(bare: Pool) -> None:
    """And a value that is none leaves the old one, and says so."""

    def status() -> dict[str, object]:
        said: dict[str, object] = json.loads(bare.tool("condor_image_cache", "status", "--json", check=False).stdout)
        return said

    bare.write_config("90-later.conf", "IMAGE_CACHE_MAX_BYTES = 190 MB\n")
    bare.reconfig()
    poll(lambda: status()["max_bytes"] == 190_000_000, "the new cap")
    bare.write_config("90-later.conf", "IMAGE_CACHE_MAX_BYTES = much\n")
    bare.reconfig()
    poll(lambda: "IMAGE_CACHE_MAX_BYTES" in str(status()["reason"]), "the reason")
    assert status()["max_bytes"] == 190_000_000
    bare.write_config("90-later.conf", "")
    bare.reconfig()
    poll(lambda: status()["reason"] == "" and status()["max_bytes"] == 200_000_000, "the old configuration")


def test_explain_says_what_the_hook_will_do(bare: Pool, mounted: Pool) -> None:
    """The same job, on two EPs."""
    ad = f"JobUniverse = 5\nSingularityImage = {image_name('htc/rocky:9')}\n"
    said = bare.tool("condor_image_cache", "explain", "-", text_input=ad).stdout
    assert "chosen: it is in the cache" in said
    assert "does not answer now: published SIFs come first" in said
    said = mounted.tool("condor_image_cache", "explain", "-", text_input=ad).stdout
    assert "WantSandboxImage = true" in said


def test_a_root_pool_serves_two_users_and_the_manager_is_neither_them_nor_root(root_pool: Pool) -> None:
    """A shipped SIF lies in a directory of its owner's that the manager cannot enter: the hook looks at it."""
    ships = {"universe": "container", "container_image": "shipped.sif"}
    mine = root_pool.submit(ships, user="joe", inputs=[SIFS / "shipped.sif"])[0]
    hers = root_pool.submit({"+SingularityImage": image_name("htc/rocky:9")}, user="amy")[0]
    wrong = root_pool.submit(ships | {"container_image": "wrong.sif"}, user="amy", inputs=[wrong_sif()])[0]
    mine.wait()
    hers.wait()
    wrong.wait("held")
    assert mine.stdout == "shipped SIF\n"
    assert hers.stdout == "htc/rocky:9 SIF\n"
    assert wrong.hold is not None
    assert wrong.hold.subcode == 150
    assert "wrong.sif: no SIF: an HTML page" in wrong.hold.reason
    status = Path(f"/proc/{manager_pid(root_pool)}/status").read_text()
    assert "\nUid:\t990\t990\t990\t990\n" in status


def wrong_sif() -> Path:
    """Return a file that is called a SIF."""
    path = Path("/pool/wrong.sif")
    path.write_text("<html>not found</html>")
    return path


def test_a_path_is_opened_as_the_jobs_user_and_not_as_the_manager(root_pool: Pool) -> None:
    """His private image runs for him; for her, and where only root can read, the job goes back to idle."""
    private = make_directory(Path("/home/joe/private"), "joe", 0o700)
    hidden = make_directory(Path("/srv/hidden"), None, 0o700)
    for place in (private, hidden):
        shutil.copy2(SIFS / "shipped.sif", place / "mine.sif")
    lines = {"universe": "container", "transfer_container": "false"}
    his = root_pool.submit({**lines, "container_image": str(private / "mine.sif")}, user="joe")[0]
    hers = root_pool.submit({**lines, "container_image": str(private / "mine.sif")}, user="amy", guard=1)[0]
    roots = root_pool.submit({**lines, "container_image": str(hidden / "mine.sif")}, user="joe", guard=1)[0]
    his.wait()
    assert his.stdout == "shipped SIF\n"
    for job in (hers, roots):
        runs = poll(job.hook_runs, "the hook's answer", 30)
        assert runs[0].status == 360
        assert "mine.sif: cannot be read by the job's user here" in runs[0].message
        root_pool.tool("condor_rm", job.id, user=job.owner)
