"""What a job asks for: which attribute names its image, and whose business it is."""

from __future__ import annotations

import pytest

from cache_manager.jobad import BY_EP, Machine, read_request
from cache_manager.status import HookStatus, StatusError
from tests.unit.builders import REPOSITORY

PLAIN = 'JobUniverse = 5\nClusterId = 12\nProcId = 3\nOwner = "joe"\n'
CVMFS_IMAGE = f"/cvmfs/{REPOSITORY}/htc/rocky:9"


@pytest.mark.parametrize(
    ("lines", "named_by", "text"),
    [
        ('SingularityImage = "/srv/s.sif"', "SingularityImage", "/srv/s.sif"),
        ('ContainerImage = "/srv/c.sif"', "ContainerImage", "/srv/c.sif"),
        ('DockerImage = "busybox:1"', "DockerImage", "docker://busybox:1"),
        ('DockerImage = "docker://busybox:1"', "DockerImage", "docker://busybox:1"),
        ('ContainerImage = "/srv/c.sif"\nSingularityImage = "/srv/s.sif"', "SingularityImage", "/srv/s.sif"),
        ('ContainerImage = "/srv/c.sif"\nDockerImage = "busybox"', "ContainerImage", "/srv/c.sif"),
        ('SingularityImage = undefined\nContainerImage = "/srv/c.sif"', "ContainerImage", "/srv/c.sif"),
        ('SingularityImage = TARGET.Nowhere\nContainerImage = "/srv/c.sif"', "ContainerImage", "/srv/c.sif"),
        ('SingularityImage = TARGET.SingularityImage\nContainerImage = "/srv/c.sif"', "ContainerImage", "/srv/c.sif"),
        ('SingularityImage = ""\nContainerImage = "/srv/c.sif"', "ContainerImage", "/srv/c.sif"),
        ('containerimage = "/srv/c.sif"', "ContainerImage", "/srv/c.sif"),
        (f'SingularityImage = "{CVMFS_IMAGE}/"', "SingularityImage", CVMFS_IMAGE),
        ('ContainerImage = ContainerFile\nContainerFile = "/srv/e.sif"', "ContainerImage", "/srv/e.sif"),
        ('ContainerImage = strcat("/srv/", TARGET.Arch, ".sif")', "ContainerImage" + BY_EP, "/srv/X86_64.sif"),
        ('ContainerImage = strcat("/srv/", Arch, ".sif")', "ContainerImage" + BY_EP, "/srv/X86_64.sif"),
    ],
)
def test_the_image_is_the_one_that_the_starter_would_take(lines: str, named_by: str, text: str) -> None:
    """SingularityImage comes first, and an attribute without a value names nothing."""
    request = read_request(f"{PLAIN}{lines}\n", 'Arch = "X86_64"\n')
    assert request.image is not None
    assert (request.named_by, request.image.text) == (named_by, text)


@pytest.mark.parametrize(
    "lines", ["", "ContainerImage = undefined", "SingularityImage = Nowhere", 'Image = "/srv/x.sif"']
)
def test_a_job_without_an_image_is_told_from_one_with_a_broken_image(lines: str) -> None:
    """Undefined means that none is named: the default applies."""
    request = read_request(f"{PLAIN}{lines}\n")
    assert (request.image, request.named_by, request.leave) == (None, "", "")


@pytest.mark.parametrize(
    ("lines", "status", "what"),
    [
        ('ContainerImage = ""', HookStatus.IMAGE_REFERENCE_INVALID, "ContainerImage"),
        ('ContainerImage = "  "', HookStatus.IMAGE_REFERENCE_INVALID, "empty"),
        ("ContainerImage = 5", HookStatus.IMAGE_REFERENCE_INVALID, "ContainerImage: is 5"),
        ("ContainerImage = true", HookStatus.IMAGE_REFERENCE_INVALID, "ContainerImage: is True"),
        ("ContainerImage = error", HookStatus.IMAGE_REFERENCE_INVALID, "ContainerImage"),
        ('SingularityImage = "x" + 1', HookStatus.IMAGE_REFERENCE_INVALID, "SingularityImage"),
        ('ContainerImage = "/srv/../x.sif"', HookStatus.IMAGE_REFERENCE_INVALID, "/srv/../x.sif"),
        ('ContainerImage = "gopher://h/x"', HookStatus.IMAGE_REFERENCE_INVALID, "gopher"),
        ('DockerImage = "   "', HookStatus.IMAGE_REFERENCE_INVALID, "docker"),
        ('ContainerImage = "x" + TARGET.Level', HookStatus.NO_CONTAINER_RUNTIME, "on this EP"),
        ('ContainerImage = "x" + target . Level', HookStatus.NO_CONTAINER_RUNTIME, "on this EP"),
        ('ContainerImage = "x" + Level', HookStatus.NO_CONTAINER_RUNTIME, "on this EP"),
    ],
)
def test_an_image_that_is_none_says_which_attribute_and_why(lines: str, status: HookStatus, what: str) -> None:
    """Empty, no string, and an error are three cases; what depends on the machine does not hold the job."""
    with pytest.raises(StatusError) as caught:
        read_request(f"{PLAIN}{lines}\n", "Level = 3\n")
    assert caught.value.status is status
    assert what in caught.value.message


@pytest.mark.parametrize(
    ("lines", "machine", "why"),
    [
        ("JobUniverse = 7", "", "universe 7"),
        ("JobUniverse = 12", "", "universe 12"),
        ('WantDocker = true\nDockerImage = "busybox"', "", "Docker universe"),
        ('WantDocker = true\nContainerImage = "docker://busybox"', "HasDocker = true\n", "Docker universe"),
        ("WantContainer = true\nWantDockerImage = true", "HasDocker = true\n", "has Docker"),
        ("WantContainer = true\nWantDockerImage = true", "HasDocker = DockerVersion isnt undefined\n", ""),
        ("WantContainer = true\nWantDockerImage = true", "HasDocker = V isnt undefined\nV = 1\n", "has Docker"),
        ("WantContainer = true\nWantDockerImage = true", "HasDocker = false\n", ""),
        ("WantContainer = true\nWantDockerImage = true", "", ""),
        ("WantDockerImage = true", "HasDocker = true\n", ""),
        ("WantContainer = true", "HasDocker = true\n", ""),
        ("WantDocker = false", "HasDocker = true\n", ""),
        ('WantDocker = "true"', "HasDocker = true\n", ""),
    ],
)
def test_jobs_that_other_runtimes_serve_are_left_alone(lines: str, machine: str, why: str) -> None:
    """As the starter decides: Docker universe, registry images where there is Docker, universes without containers."""
    request = read_request(f"{PLAIN}{lines}\n", machine)
    assert bool(request.leave or request.by_docker) == bool(why)
    assert request.by_docker == (why == "has Docker")
    assert why in request.leave or request.by_docker
    assert not (request.leave and request.image)


def test_an_image_of_a_job_that_is_not_ours_is_not_judged() -> None:
    """Docker takes names that we would refuse."""
    assert read_request(f'{PLAIN}WantDocker = true\nDockerImage = "a b"\nContainerImage = ""\n').leave


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("", Machine()),
        (
            'Name = "slot1@ep"\nHasSIF = true\nHasSingularity = true\nGPUs = 2\n',
            Machine("slot1@ep", has_sif=True, has_runtime=True, gpus=2),
        ),
        ("HasSIF = undefined\nHasSandboxImage = error\n", Machine()),
        ("HasSIF = true\nImageCacheCanUseSIF = false\n", Machine(has_sif=False)),
        ("HasSIF = false\nImageCacheCanUseSIF = undefined\n", Machine(has_sif=False)),
        (
            "SINGULARITY_CAN_USE_SIF = HAS_SINGULARITY && VERIFIED\nHAS_SINGULARITY = true\nVERIFIED = false\n",
            Machine(has_sif=False, has_runtime=True),
        ),
        ("HasSandboxImage = 1 == 1\nHAS_SINGULARITY = false\n", Machine(has_sandbox=True, has_runtime=False)),
        ('GPUs = "two"\nName = 5\n', Machine()),
    ],
)
def test_the_slot_says_what_it_can_run(machine: str, expected: Machine) -> None:
    """Expressions are evaluated, and what a slot does not say is not known, which is not the same as false."""
    assert read_request(PLAIN, machine).machine == expected


def test_what_the_manager_logs_and_shows_comes_from_the_ad() -> None:
    """Job id and owner for `list`, the whole path of an image that HTCondor transferred, the scratch directory."""
    request = read_request(
        f'{PLAIN}ContainerImage = "x.sif"\nContainerImageFullPath = "osdf:///a/x.sif"\n', "", "/exec/dir_7/scratch"
    )
    assert (request.job_id, request.owner, request.scratch) == ("12.3", "joe", "/exec/dir_7/scratch")
    assert request.original == "osdf:///a/x.sif"


@pytest.mark.parametrize("text", ["", "\n", "  \r\n\n"])
def test_an_empty_ad_is_no_job_without_an_image(text: str) -> None:
    """It would run on the bare host."""
    with pytest.raises(StatusError, match="job ad: empty") as caught:
        read_request(text)
    assert caught.value.status is HookStatus.HOOK_INTERNAL_ERROR


def test_a_machine_ad_that_cannot_be_read_sends_the_job_back() -> None:
    """Abilities that are lost would send jobs into a runtime that is not there."""
    with pytest.raises(StatusError, match="machine ad: line 2") as caught:
        read_request(PLAIN, "HasSIF = false\ngarbage\n")
    assert caught.value.status is HookStatus.HOOK_INTERNAL_ERROR
