"""Rows of jobs as condor_submit makes them, which run on real pools as well.

What the ads have of an image is what `condor_submit -dry-run` of HTCondor 25.14.1 writes: tests/pool/test_cases.py
compares. The table of what HTCondor does with each kind of job is here with all its lines.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tests.cases.case import CVMFS, OWN, SCRATCH, Case, Submit, sandbox
from tests.cases.submitting import (
    LOCAL,
    NO_CVMFS,
    STAYS,
    container,
    registry,
    row,
    runs,
    says,
    shipped,
    vanilla,
)
from tests.contract.doubles import job_ad
from tests.contract.worlds import BARE, WITH_RUNTIME

OTHER_SIF: Final = "htc/rocky:9 SIF, newer"
ALMA: Final = "htc/almalinux:9 sandbox"
_PUBLISHED: Final = f"{NO_CVMFS}; tree has it"

RUN: Final = (
    runs(
        row(0, "+SingularityImage on CVMFS", *vanilla("mounted", f"{CVMFS}/htc/both:1", ALMA), "CVMFS has it"),
        sandbox("htc/both:1"),
    ),
    runs(
        row(0, "+SingularityImage without CVMFS", *vanilla("bare", f"{CVMFS}/htc/tree:1", OTHER_SIF), _PUBLISHED),
        "entry tree",
    ),
    runs(
        row(
            0,
            "a container on CVMFS",
            *container("mounted", f"{CVMFS}/htc/both:1", "WantSandboxImage", ALMA),
            "CVMFS has it",
        ),
        sandbox("htc/both:1"),
    ),
    runs(
        row(
            0,
            "a container on CVMFS with a slash at its end",
            *container("mounted", f"{CVMFS}/htc/both:1/", "WantSandboxImage", ALMA),
            "CVMFS has it",
        ),
        sandbox("htc/both:1"),
    ),
    runs(
        row(
            0,
            "a container on CVMFS where it is not mounted",
            *container("bare", f"{CVMFS}/htc/tree:1", "WantSandboxImage", OTHER_SIF),
            _PUBLISHED,
        ),
        "entry tree",
    ),
    runs(
        row(
            0,
            "a SIF on the EP",
            *container("bare", "@SITE@/local/image.sif", "WantSIF", "htc/almalinux:9 SIF"),
            "path is there",
        ),
        "sif @SITE@/local/image.sif",
    ),
    runs(
        row(
            0,
            "a directory on the EP",
            *container("bare", "@SITE@/local/image", "WantSandboxImage", ALMA),
            "path is there",
        ),
        "sandbox @SITE@/local/image",
    ),
    runs(
        row(0, "a SIF that comes with the job", *shipped("bare", "job.sif", "shipped SIF"), "file is there"),
        f"sif {SCRATCH}/job.sif",
    ),
    runs(
        row(0, "a URL that stays one", *container("bare", f"{OWN}/good.sif", "WantSIF", "web SIF"), "URL has it"),
        "entry good",
        "own/good.sif",
    ),
    runs(
        row(0, "a URL with a query", *vanilla("bare", f"{OWN}/query.sif?x=1", "web SIF"), "URL has it"), "entry query"
    ),
    runs(
        row(
            0,
            "a URL that HTCondor transfers",
            Submit("strict", {"universe": "container", "container_image": f"{OWN}/job.sif"}, "web SIF"),
            job_ad(
                "WantContainer = true",
                'ContainerImage = "job.sif"',
                f'ContainerImageFullPath = "{OWN}/job.sif"',
                'ContainerImageSource = "http"',
                f'TransferInput = "{OWN}/job.sif"',
                "WantSIF = true",
            ),
            "file is there",
        ),
        f"sif {SCRATCH}/job.sif",
    ),
    runs(
        row(
            0,
            "+SingularityImage is the last part of a file's path",
            Submit(
                "bare",
                {"+SingularityImage": '"job.sif"', "transfer_input_files": "job.sif"},
                "shipped SIF",
                ("job.sif",),
            ),
            job_ad('SingularityImage = "job.sif"', 'TransferInput = "job.sif"'),
            "file is there",
        ),
        f"sif {SCRATCH}/job.sif",
    ),
    runs(
        row(
            0,
            "a container with a +SingularityImage of its own",
            Submit(
                "mounted",
                {
                    "universe": "container",
                    "container_image": "/nowhere/x.sif",
                    "+SingularityImage": f'"{CVMFS}/htc/both:1"',
                }
                | STAYS,
                ALMA,
            ),
            job_ad(
                "WantContainer = true",
                'ContainerImage = "/nowhere/x.sif"',
                f'SingularityImage = "{CVMFS}/htc/both:1"',
                "WantSIF = true",
                *LOCAL,
            ),
            "CVMFS has it",
        ),
        sandbox("htc/both:1"),
    ),
    runs(
        row(
            0,
            "an expression that asks the slot",
            Submit("mounted", {"+SingularityImage": f'strcat("{CVMFS}/htc/both:", TARGET.SlotID)'}, ALMA),
            job_ad(f'SingularityImage = strcat("{CVMFS}/htc/both:",TARGET.SlotID)'),
            "CVMFS has it",
        ),
        sandbox("htc/both:1"),
    ),
    runs(
        row(
            0,
            "files that need no transfer: the directory of the submission",
            Submit(
                "bare",
                {"universe": "container", "container_image": "image.sif", "should_transfer_files": "if_needed"},
                "shipped SIF",
                ("image.sif",),
            ),
            job_ad(
                "WantContainer = true",
                'ContainerImage = "image.sif"',
                'ContainerImageFullPath = "image.sif"',
                'ContainerImageSource = "cedar"',
                'TransferInput = "image.sif"',
                "WantSIF = true",
                'ShouldTransferFiles = "IF_NEEDED"',
                'FileSystemDomain = "test"',
                'Iwd = "@SITE@/local"',
            ),
            "path is there",
        ),
        "sif @SITE@/local/image.sif",
    ),
    runs(
        row(0, "no image: the default", Submit("mounted", {}, ALMA), job_ad(), "CVMFS has it"),
        sandbox("htc/almalinux:9"),
        "default image",
    ),
)

UNTOUCHED: Final = (
    row(0, "no image, no default", Submit("bare", {}, "the execution point itself"), job_ad()),
    row(0, "docker:// with Docker", *registry("docker", "docker://busybox", "WantDockerImage")),
    row(
        0,
        "docker_image of a container with Docker",
        Submit("docker", {"universe": "container", "docker_image": "busybox"}),
        job_ad("WantContainer = true", "WantDockerImage = true", 'DockerImage = "busybox"'),
    ),
    row(
        0,
        "the Docker universe",
        Submit("docker", {"universe": "docker", "docker_image": "busybox"}),
        job_ad("WantDocker = true", 'DockerImage = "busybox"'),
    ),
)

HELD: Final = (
    says(row(110, "an unknown scheme", *vanilla("bare", "gopher://localhost/x.sif")), "unknown scheme"),
    says(row(110, "an empty +SingularityImage", *vanilla("mounted", "")), "empty string"),
    says(
        row(120, "a typo", *vanilla("mounted", f"{CVMFS}/htc/almalinux:99"), "CVMFS lacks it; tree lacks it"),
        "did you mean htc/almalinux:9",
    ),
    says(row(120, "a URL that does not exist", *vanilla("bare", f"{OWN}/nothing.sif"), "URL lacks it"), "HTTP 404"),
    says(
        row(130, "a URL that is forbidden", *container("bare", f"{OWN}/403.sif", "WantSIF"), "URL refuses"),
        "HTTP 403",
    ),
    says(
        row(150, "a text that comes with the job", *shipped("bare", "text.sif"), "file is no image"),
        "magic is missing",
    ),
    says(row(150, "a URL of a page", *vanilla("bare", f"{OWN}/html.sif"), "URL delivers no image"), "an HTML page"),
)

_FEDERATION: Final = (
    "osdf:///ospool/submitted.sif",
    "stash:/ospool/submitted.sif",
    "pelican://127.0.0.1:1/ospool/submitted.sif",
    "my_igwn.read+osdf:///igwn/submitted.sif",
)


def _faulty(code: int, image: str, fault: str, said: str) -> Case:
    name = f"a published SIF: {fault}"
    return says(row(code, name, *vanilla("bare", f"{CVMFS}/htc/{image}:1"), f"{NO_CVMFS}; tree {fault}"), said)


IDLE: Final = (
    *(
        says(row(610, text, *container("bare", text, "WantSIF"), "federation is down"), "pelican-configuration")
        for text in _FEDERATION
    ),
    says(row(310, "a URL with a credential", *vanilla("bare", f"box+{OWN}/403.sif"), "URL refuses"), "credential"),
    replace(_faulty(320, "large", "has it too large", "larger"), knobs=BARE | {"IMAGE_CACHE_MAX_BYTES": "100 KB"}),
    _faulty(330, "other", "has it for another machine", "the image is for"),
    says(row(350, "an image that is not allowed", *vanilla("strict", f"{CVMFS}/osg/x:1")), "IMAGE_CACHE_ALLOW"),
    says(
        row(360, "a path that this EP lacks", *container("bare", "/nowhere/x.sif", "WantSIF"), "path is missing"),
        "not on this EP",
    ),
    says(
        row(399, "a default image that is none", Submit("strict", {}), job_ad(), "CVMFS lacks it; tree lacks it"),
        "IMAGE_CACHE_DEFAULT_IMAGE",
    ),
    says(
        row(
            430,
            "a full disk",
            *vanilla("strict", f"{CVMFS}/htc/tree:1"),
            "CVMFS lacks it; tree has it, and the disk is full",
        ),
        "IMAGE_CACHE_MIN_FREE_BYTES",
    ),
    _faulty(440, "none", "lacks it", "HTTP 404"),
    replace(_faulty(450, "dead", "has it, and it does not start", "does not start here"), knobs=WITH_RUNTIME | BARE),
    replace(
        says(
            row(460, "a tree that is slow", *vanilla("strict", f"{CVMFS}/htc/slow:1"), "CVMFS lacks it; tree is late"),
            "fetch goes on",
        ),
        args=("--deadline", "2.5s"),
    ),
    _faulty(510, "half", "delivers something else", "truncated SIF"),
    says(row(610, "a URL that is not well", *vanilla("bare", f"{OWN}/503.sif"), "URL is not well"), "HTTP 503"),
    says(row(630, "a URL of a busy server", *vanilla("bare", f"{OWN}/429.sif"), "URL has enough of us"), "HTTP 429"),
)

ROWS: Final = (*RUN, *UNTOUCHED, *HELD, *IDLE)
