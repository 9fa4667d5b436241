"""The file-transfer plug-in, with an access point as it comes: images by URL are linked, all else is passed on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.pool.demo import BARE_KNOBS
from tests.pool.harness import Pool, poll, run_as, wait_for
from tests.pool.processes import make_directory
from tests.pool.test_execution_point import lease_of, leases, name_in_scratch
from tests.pool.world import SIFS, World

PLUGIN: Final = Path(__file__).with_name("http_plugin")
LOOK: Final = """#!/bin/sh
cat /IMAGE_ID
[ $# -lt 1 ] || cat "$1"
while [ -e wait ]; do sleep 0.1; done
"""


@pytest.fixture(scope="module")
def site() -> Iterator[World]:
    """Serve images below the root, and a text."""
    with World(Path("/pool/by-url")) as world:
        www = world.directory / "www"
        for name, sif in (("web", "web"), ("alma9", "alma9"), ("private", "rocky9")):
            shutil.copyfile(SIFS / f"{sif}.sif", www / f"{name}.sif")
        (www / "data.txt").write_text("data of the job\n")
        script = world.directory / "look"
        script.write_text(LOOK)
        script.chmod(0o755)
        yield world


@pytest.fixture(scope="module")
def pool(site: World) -> Iterator[Pool]:
    """Run an execution point of root's whose transfer plug-in for http was a simple one."""
    knobs = BARE_KNOBS | {"FILETRANSFER_PLUGINS": str(PLUGIN), "IMAGE_CACHE_HOOK_DEADLINE": "30s"}
    with site.pool("ep-plugin", knobs, user=None) as pool:
        yield pool


def by_url(site: World, name: str) -> dict[str, str]:
    """Return a container job as users write it, which looks into its image and waits while there is a file `wait`."""
    image = f"{site.origin.url}/{name}"
    return {"universe": "container", "container_image": image, "executable": str(site.directory / "look")}


def test_ten_jobs_of_two_owners_cost_one_get_and_none_of_their_disk(pool: Pool, site: World) -> None:
    """Each runs the cached SIF; HTCondor counts no bytes received for it, nor does it bring the link back."""
    first = [pool.submit(by_url(site, "web.sif"), user=user, count=5) for user in ("joe", "amy")]
    jobs = [job for five in first for job in five]
    wait_for(jobs)
    assert [job.stdout for job in jobs] == ["web SIF\n"] * 10
    assert [one.method for one in site.origin.requests("/web.sif")].count("GET") == 1
    size = (SIFS / "web.sif").stat().st_size
    for job in jobs:
        ad = job.ad()
        assert ad["BytesRecvd"] < size
        assert ad["DiskUsage_RAW"] * 1024 < size
        assert "web.sif: cached SIF of http://" in job.message()
        assert not (job.directory / "web.sif").exists()


def test_the_job_has_a_link_and_its_starter_the_lease(pool: Pool, site: World) -> None:
    """The plug-in's own parent is a starter's child that ends with the transfer."""
    waits = site.directory / "wait"
    waits.touch()
    lines = by_url(site, "web.sif") | {"transfer_input_files": str(waits)}
    job = pool.submit(lines, user="amy")[0]
    job.wait("running")
    image = name_in_scratch(pool, job, "web.sif")
    lease = lease_of(pool, job)
    assert image.is_symlink()
    assert image.resolve() == pool.directory / "image_cache" / "entries" / image.resolve().parent.name / "image"
    assert lease is not None
    assert f"dir_{lease['pid']}/" in str(image)
    image.with_name("wait").unlink()
    job.wait()
    poll(lambda: lease_of(pool, job) is None, "the end of the lease")


def test_a_file_that_is_no_image_is_brought_by_the_plugin_before_ours(pool: Pool, site: World) -> None:
    """Beside an image, and alone."""
    data = f"{site.origin.url}/data.txt"
    lines = by_url(site, "web.sif") | {"transfer_input_files": data, "arguments": "data.txt"}
    both = pool.submit(lines, user="joe")[0]
    plain = {"transfer_input_files": data, "executable": "/bin/cat", "arguments": "data.txt"}
    alone = pool.submit(plain | {"transfer_executable": "false"}, user="joe")[0]
    wait_for([both, alone])
    assert both.stdout == "web SIF\ndata of the job\n"
    assert alone.stdout == "data of the job\n"


def test_a_server_that_is_down_sends_the_job_back_to_idle(pool: Pool, site: World) -> None:
    """HTCondor alone would hold it, whatever the plug-in's exit status: the hook says what becomes of the job."""
    site.origin.fail("/down.sif", 503)
    job = pool.submit(by_url(site, "down.sif"), user="joe", guard=1)[0]
    poll(job.hook_runs, "the hook's answer", 60)
    assert [run.status for run in job.hook_runs()] == [610]
    assert "down.sif" in job.message()
    poll(lambda: job.status == "idle", "the job being idle")
    pool.tool("condor_rm", job.id)
    site.origin.restore()


def test_an_image_that_does_not_exist_holds_the_job_with_our_reason(pool: Pool, site: World) -> None:
    """As HTCondor's own plug-ins do."""
    job = pool.submit(by_url(site, "nowhere.sif"), user="joe")[0]
    job.wait("held")
    assert job.hold is not None
    assert (job.hold.code, job.hold.subcode) == (13, 256)
    assert "image cache: 120: " in job.hold.reason


def test_a_private_image_by_url_is_linked_for_who_may_have_it(pool: Pool, site: World) -> None:
    """Another user's job that names it gets neither a link nor the image where the server refuses it to them."""
    lines = by_url(site, "private.sif?sig=s3cr3t")
    mine = pool.submit(lines, user="joe")[0]
    mine.wait()
    assert mine.stdout == "htc/rocky:9 SIF\n"
    site.origin.fail("/private.sif", 403)
    hers = pool.submit(lines, user="amy")[0]
    hers.wait("held")
    assert hers.hold is not None
    assert "image cache: 130: " in hers.hold.reason
    site.origin.restore()


def test_the_plugin_of_a_process_that_is_in_no_job_gets_no_image_and_no_lease(pool: Pool, site: World) -> None:
    """However it names the directories of one: what it gets is what the plug-in before ours may bring."""
    place = make_directory(Path("/pool/dir_1/scratch"), "joe")
    url = f"{site.origin.url}/web.sif"
    (place / ".job.ad").write_text(f'ContainerImage = "web.sif"\nContainerImageFullPath = "{url}"\n')
    (place / "in").write_text(f'[ Url = "{url}"; LocalFileName = "{place}/web.sif" ]')
    env = pool.environment | {"_CONDOR_JOB_AD": str(place / ".job.ad")}
    argv = ["/usr/bin/env", "-C", str(place), "image_cache_plugin", "-infile", "in", "-outfile", "out"]
    run_as("joe", argv, env=env)
    assert (place / "web.sif").is_file()
    assert not (place / "web.sif").is_symlink()
    assert "under no starter" in pool.log("ImageCacheLog")
    assert not leases(pool)


def test_htcondors_own_plugins_bring_images_to_the_cache(site: World) -> None:
    """Debian's plug-in for dav, once for two jobs; its plug-in for data, of the first protocol, brings no image."""
    plugins = "/usr/libexec/condor/curl_plugin, /usr/libexec/condor/data_plugin"
    with site.pool("ep-real-plugins", BARE_KNOBS | {"FILETRANSFER_PLUGINS": plugins}, user=None) as pool:
        url = site.origin.url.replace("http://", "dav://")
        image = {"+SingularityImage": f'"{url}/web.sif"'}
        before = len(site.origin.requests("/web.sif", "GET"))
        for user, said in (("joe", "SIF fetched from dav://"), ("amy", "cached SIF of dav://")):
            job = pool.submit(image, user=user, guard=2)[0]
            job.wait()
            assert job.stdout == "web SIF\n"
            assert said in job.message()
        assert len(site.origin.requests("/web.sif", "GET")) == before + 1
        data = pool.submit({"+SingularityImage": '"data://,hello"'}, user="joe")[0]
        data.wait("held")
        assert data.hold is not None
        assert data.hold.subcode == 150
        assert "data://,hello: no SIF" in data.hold.reason


def test_without_a_manager_the_plugin_before_ours_brings_the_image(pool: Pool, site: World) -> None:
    """It dies while the job is on its way: the image is a file of the job's, in which the hook lets it run."""
    pool.write_config("99-test.conf", "START = true\nHasSIF = true\n")
    pool.reconfig()
    pool.tool("condor_off", "-daemon", "image_cache_manager")
    poll(lambda: not (pool.directory / "image_cache" / "socket").exists(), "the end of the manager")
    try:
        job = pool.submit(by_url(site, "alma9.sif"), user="joe", guard=2)[0]
        job.wait()
    finally:
        pool.tool("condor_on", "-daemon", "image_cache_manager")
    assert job.stdout == "htc/almalinux:9 SIF\n"
    assert "the image cache manager is down" in job.message()
