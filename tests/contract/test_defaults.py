"""The image for jobs that name none: a slot's choice among weighted ones is its own, and stays."""

from __future__ import annotations

from tests.contract.conftest import StartSite
from tests.contract.doubles import job_ad


def test_each_slot_has_its_default_image_and_keeps_it(make_site: StartSite) -> None:
    """Eight slots, two images: both are used, and no slot changes its mind, also not after a restart."""
    site = make_site(IMAGE_CACHE_DEFAULT_IMAGE="50%__htc/rocky:9 50%__htc/alma:9").start()
    real = {str(site.cvmfs.publish(f"htc/{name}:9")) for name in ("rocky", "alma")}
    slots = [f'Name = "slot1_{number}@ep.example.org"\n' for number in range(8)]
    before = [site.run_hook(job_ad(), machine_ad=slot).image for slot in slots]
    assert set(before) == real
    site.restart()
    assert [site.run_hook(job_ad(), machine_ad=slot).image for slot in slots] == before


def test_a_job_that_names_an_image_never_gets_the_default(make_site: StartSite) -> None:
    """Nor does one that is Docker's, or one for which there is no container at all."""
    site = make_site(IMAGE_CACHE_DEFAULT_IMAGE="htc/rocky:9").start()
    site.cvmfs.publish("htc/rocky:9")
    assert site.run_hook(job_ad('SingularityImage = "nothing.sif"')).code == 150
    assert site.run_hook(job_ad("WantDocker = true", 'DockerImage = "busybox"')).is_untouched
    assert site.run_hook(job_ad().replace("JobUniverse = 5", "JobUniverse = 7")).is_untouched
    assert site.run_hook(job_ad('ContainerImage = "docker://busybox"')).is_untouched
