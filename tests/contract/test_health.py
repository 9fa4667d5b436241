"""What an EP says of itself: it takes no more container jobs when it fails them, and not because of what they name."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event

import pytest

from tests.contract.doubles import cvmfs_ad, image_ad, sif
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply


@dataclass(frozen=True)
class Fault:
    """What three images of two owners have in common. `@N@` is the image's number, `@ORIGIN@` the server's URL."""

    name: str
    image: str
    code: int
    healthy: bool
    knobs: tuple[tuple[str, str], ...] = ()
    deadline: str = "20s"


FAULTS = (
    Fault(
        "the disk is full",
        "@ORIGIN@/good@N@.sif",
        430,
        healthy=False,
        knobs=(("IMAGE_CACHE_MIN_FREE_BYTES", "900 TB"),),
    ),
    Fault("URLs that nothing here fetches", "s3://bucket/image@N@.sif", 310, healthy=True),
    Fault("URLs that deliver too slowly", "@ORIGIN@/slow@N@.sif", 460, healthy=True, deadline="2.2s"),
    Fault("URLs of a server that is not well", "@ORIGIN@/unwell@N@.sif", 610, healthy=True),
    Fault("names that are wrong", "/cvmfs/singularity.opensciencegrid.org/htc/wrong:@N@", 120, healthy=True),
    Fault("CVMFS repositories that do not exist", "/cvmfs/wrong@N@.example.org/x:@N@", 440, healthy=True),
    Fault("paths of other EPs", "/elsewhere/image@N@.sif", 360, healthy=True),
)


def fail(site: Site, origin: Origin, fault: Fault, owners: tuple[str, ...]) -> None:
    """Have three different images fail for these owners."""
    for number in range(3):
        image = fault.image.replace("@N@", str(number)).replace("@ORIGIN@", origin.url)
        ad = image_ad(image).replace("joe", owners[number % len(owners)])
        answer = site.run_hook(ad, "--deadline", fault.deadline)
        assert answer.code == fault.code, answer.message


@pytest.fixture
def well(shared_site: Site, origin: Origin) -> Site:
    """Return a site on which all is well; the server has good and bad images for it."""
    name = f"htc/rocky:{origin.port}"
    shared_site.cvmfs.publish(name)
    for number in range(3):
        origin.routes |= {
            f"/good{number}.sif": Reply(sif(f"{number}")),
            f"/slow{number}.sif": Reply(sif(f"{number}"), gate=Event()),
            f"/unwell{number}.sif": Reply(status=503),
        }
    shared_site.reconfigure()
    assert shared_site.run_hook(cvmfs_ad(name)).code == 0
    assert shared_site.ask("status")["healthy"]
    return shared_site


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_an_ep_closes_for_its_own_faults_and_not_for_what_jobs_name(well: Site, origin: Origin, fault: Fault) -> None:
    """Else two users with wrong names take it from all the others."""
    well.reconfigure(**dict(fault.knobs))
    fail(well, origin, fault, ("joe", "amy"))
    assert well.ask("status")["healthy"] == fault.healthy, well.ask("status")["reason"]


def test_one_owner_closes_no_ep_and_a_success_opens_it(well: Site, origin: Origin) -> None:
    """The disk is full, but a CVMFS image runs."""
    well.reconfigure(**dict(FAULTS[0].knobs))
    fail(well, origin, FAULTS[0], ("joe",))
    assert well.ask("status")["healthy"]
    fail(well, origin, FAULTS[0], ("joe", "amy"))
    assert not well.ask("status")["healthy"]
    assert well.command("status").returncode == 1
    assert "ImageCacheHealthy = false\n" in well.command("advertise").stdout
    assert well.run_hook(cvmfs_ad(f"htc/rocky:{origin.port}")).code == 0
    assert well.ask("status")["healthy"]
