"""Rows on what a slot says of itself: each kind of EP with the same few jobs."""

from __future__ import annotations

from typing import Final

from tests.cases.ads import DOCKER, ROCKY
from tests.cases.case import SCRATCH, Case, url
from tests.contract.doubles import cvmfs_ad, image_ad, job_ad
from tests.contract.worlds import TREE

_PILOT: Final = "SINGULARITY_CAN_USE_SIF = HAS_SINGULARITY && STASHCP_VERIFIED\nHAS_SINGULARITY = true\n"

NO_SIF: Final = (
    ("says so", "HasSIF = false\n"),
    ("says so by a number", "HasSIF = 0\n"),
    ("is a pilot whose OSDF does not work", f"{_PILOT}STASHCP_VERIFIED = false\n"),
    ("was tried by the cache manager", "HasSIF = true\nImageCacheCanUseSIF = false\n"),
)
SIF: Final = (
    ("says so", "HasSIF = true\n"),
    ("does not say", "HasSIF = undefined\n"),
    ("says an error", "HasSIF = error\n"),
    ("says itself", "HasSIF = HasSIF\n"),
    ("says a string", 'HasSIF = "false"\n'),
    ("is a pilot whose OSDF works", f"{_PILOT}STASHCP_VERIFIED = true\n"),
    ("is a pilot that does not know", _PILOT),
    ("was tried by the cache manager", "HasSIF = false\nImageCacheCanUseSIF = true\n"),
    ("has not been tried", "HasSIF = true\nImageCacheCanUseSIF = undefined\n"),
    ("is a pilot's with a runtime", "HAS_SINGULARITY = true\n"),
    ("says that HTCondor found no runtime, and runs SIFs", "HasSingularity = false\nHasSIF = true\n"),
    ("says nothing", ""),
)
NO_RUNTIME: Final = (
    ("says so", "HasSingularity = false\n"),
    ("says so by an expression", "HasSingularity = SingularityVersion isnt undefined\n"),
    ("is a pilot's", "HAS_SINGULARITY = false\n"),
    ("says so of everything", "HasSingularity = false\nHasSIF = false\nHasSandboxImage = false\n"),
)

SIFS: Final = (
    *(
        Case(310, f"no SIFs: a slot that {what}", url("good.sif"), said="cannot run SIF", machine=slot)
        for what, slot in NO_SIF
    ),
    *(
        Case(0, f"SIFs: a slot that {what}", url("good.sif"), "URL has it", "entry good", machine=slot)
        for what, slot in SIF
    ),
    Case(
        0,
        "a slot without SIFs runs the sandbox",
        cvmfs_ad("htc/rocky:9"),
        "CVMFS has it",
        ROCKY,
        machine="HasSIF = false\n",
    ),
    Case(
        0,
        "a slot without SIFs runs the sandbox, if SIFs are preferred as well",
        cvmfs_ad("htc/rocky:9"),
        "CVMFS has it",
        ROCKY,
        knobs=TREE | {"IMAGE_CACHE_PREFER": "sif"},
        machine="HasSIF = false\n",
    ),
    Case(
        120,
        "a typo, on a slot without SIFs",
        cvmfs_ad("htc/rockx:9"),
        "CVMFS lacks it",
        said="did you mean",
        machine="HasSIF = false\n",
    ),
    Case(
        310,
        "a SIF that came with the job, on a slot without SIFs",
        image_ad("job.sif"),
        "file is a SIF, which does not run here",
        said="cannot run SIF",
        machine="HasSIF = false\n",
    ),
    Case(
        310,
        "a SIF on this EP, on a slot without SIFs",
        image_ad("@SITE@/local/image.sif"),
        "path is a SIF, which does not run here",
        said="cannot run SIF",
        machine="HasSIF = false\n",
    ),
    Case(
        0,
        "a directory of the job, on a slot without SIFs",
        image_ad("sub/"),
        "file is there",
        f"sandbox {SCRATCH}/sub",
        machine="HasSIF = false\n",
    ),
)

SANDBOXES: Final = (
    Case(
        0,
        "a slot without sandboxes runs the SIF",
        cvmfs_ad("htc/both:1"),
        "tree has it",
        "entry both",
        machine="HasSandboxImage = false\n",
    ),
    Case(
        0,
        "the cache manager knows better than the slot",
        cvmfs_ad("htc/both:1"),
        "tree has it",
        "entry both",
        machine="HasSandboxImage = true\nImageCacheCanUseSandbox = false\n",
    ),
    Case(
        610,
        "a slot without sandboxes, and no tree has it",
        cvmfs_ad("htc/rocky:9"),
        "tree lacks it",
        said="HTTP 404",
        machine="HasSandboxImage = false\n",
    ),
    Case(
        310,
        "a slot without sandboxes, and no trees",
        cvmfs_ad("htc/rocky:9"),
        said="cannot run image directories",
        knobs={},
        machine="HasSandboxImage = false\n",
    ),
    Case(
        310,
        "a directory of the job, on a slot without sandboxes",
        image_ad("sub/"),
        "file is a directory, which does not run here",
        said="cannot run image directories",
        machine="HasSandboxImage = false\n",
    ),
    Case(
        310,
        "a slot that runs neither",
        cvmfs_ad("htc/rocky:9"),
        said="cannot run container images",
        machine="HasSIF = false\nHasSandboxImage = false\n",
    ),
)

RUNTIMES: Final = (
    *(
        Case(310, f"no runtime: a slot that {what}", cvmfs_ad("htc/rocky:9"), said="no container runtime", machine=slot)
        for what, slot in NO_RUNTIME
    ),
    Case(
        310,
        "a registry's image without a runtime",
        image_ad("docker://busybox"),
        said="no container runtime",
        machine="HasSingularity = false\n",
    ),
    Case(
        310,
        "a default image without a runtime",
        job_ad(),
        said="no container runtime",
        machine="HasSingularity = false\n",
        knobs=TREE | {"IMAGE_CACHE_DEFAULT_IMAGE": "htc/rocky:9"},
    ),
    Case(0, "no image, no runtime", job_ad(), machine="HasSingularity = false\n"),
    Case(
        0, "Docker alone, for a registry's image", job_ad(DOCKER), machine="HasSingularity = false\nHasDocker = true\n"
    ),
    Case(
        310,
        "Docker alone, for a SIF",
        url("good.sif"),
        said="no container runtime",
        machine="HasSingularity = false\nHasDocker = true\n",
    ),
)

ROWS: Final = (*SIFS, *SANDBOXES, *RUNTIMES)
