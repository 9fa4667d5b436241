"""Rows on jobs that name no image, where the site has a default image."""

from __future__ import annotations

from typing import Final

from tests.cases.ads import ROCKY
from tests.cases.case import Case
from tests.cases.published import NO_CVMFS
from tests.contract.doubles import job_ad
from tests.contract.worlds import TREE

DEFAULTS: Final = TREE | {
    "IMAGE_CACHE_DEFAULT_IMAGE": "0%__htc/none:0 100%__htc/rocky:9",
    "IMAGE_CACHE_DEFAULT_IMAGE_GPU": "htc/tree:1",
}
_GPU: Final = ("CVMFS lacks it; tree has it", "entry tree", "default image htc/tree:1")
_CPU: Final = ("CVMFS has it", ROCKY, "default image htc/rocky:9")


def default(code: int, name: str, image: str, asks: str, said: str, **knobs: str) -> Case:
    """Return a row for a job that names no image on an EP whose default image is no good."""
    chosen = TREE | {"IMAGE_CACHE_DEFAULT_IMAGE": image} | {f"IMAGE_CACHE_{knob}": knobs[knob] for knob in knobs}
    return Case(code, f"a default image {name}", job_ad(), asks, said=said, knobs=chosen)


ROWS: Final = (
    Case(0, "the default image", job_ad(), *_CPU, DEFAULTS),
    Case(0, "a default image for slots with GPUs", job_ad(), *_GPU, DEFAULTS, "GPUs = 1\n"),
    Case(0, "as many GPUs as an expression says", job_ad(), *_GPU, DEFAULTS, "GPUs = TotalGPUs - 1\nTotalGPUs = 2\n"),
    Case(0, "a slot that says that it has no GPU", job_ad(), *_CPU, DEFAULTS, "GPUs = 0\n"),
    Case(0, "a slot whose GPUs are undefined", job_ad(), *_CPU, DEFAULTS, "GPUs = undefined\n"),
    Case(
        0,
        "the default image for both undefined",
        job_ad("SingularityImage = undefined", "ContainerImage = undefined"),
        *_CPU,
        DEFAULTS,
    ),
    Case(
        0,
        "a Docker-universe job gets no default image",
        job_ad("WantDocker = true", 'DockerImage = "busybox"'),
        knobs=DEFAULTS,
    ),
    Case(0, "a job of another universe gets no default image", job_ad().replace("= 5", "= 7"), knobs=DEFAULTS),
    default(
        399,
        "that is not published: the user can mend nothing",
        "htc/nothing:1",
        "CVMFS lacks it; tree lacks it",
        "IMAGE_CACHE_DEFAULT_IMAGE",
    ),
    default(399, "by a URL that is gone", "@ORIGIN@/own/gone.sif", "URL lacks it", "HTTP 410"),
    default(399, "by a URL that is forbidden", "@ORIGIN@/own/403.sif", "URL refuses", "HTTP 403"),
    default(610, "by a URL that is not well", "@ORIGIN@/own/503.sif", "URL is not well", "HTTP 503"),
    default(360, "that this EP does not have", "/nonexistent/x.sif", "path is missing", "not on this EP"),
    default(310, "that no plug-in here brings", "s3://bucket/x.sif", "plug-in is not here", "s3://"),
    default(610, "in a federation that is down", "osdf:///ospool/x.sif", "federation is down", "refused"),
    default(350, "that the site does not allow", "htc/rocky:9", "", "IMAGE_CACHE_ALLOW", ALLOW="osg/*"),
    default(
        440,
        "without CVMFS, and no tree has it",
        "htc/none:1",
        f"{NO_CVMFS}; tree lacks it",
        "HTTP 404",
        CVMFS_BASE="/nonexistent",
    ),
)
