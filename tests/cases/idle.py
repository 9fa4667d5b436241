"""Rows whose job goes back to idle: another EP, or this one later, may run it."""

from __future__ import annotations

from typing import Final

from tests.cases.case import CVMFS, OWN, Case, url
from tests.contract.doubles import cvmfs_ad, image_ad, job_ad
from tests.contract.worlds import TREE, WITH_RUNTIME, closed_root, hold_everything

LISTED: Final = TREE | {"IMAGE_CACHE_ALLOW": "htc/alma:*"}
HASTY: Final = TREE | {"IMAGE_CACHE_STALL_TIMEOUT": "1s"}
SMALL: Final = TREE | {"IMAGE_CACHE_MAX_BYTES": "100 KB"}
LACKED: Final = "CVMFS lacks it; tree "

ON_THIS_EP: Final = (
    Case(
        310,
        "an expression that fails for this slot",
        job_ad('SingularityImage = strcat("/cvmfs/", error, TARGET.Nothing)'),
        said="on this EP",
    ),
    Case(
        310,
        "an expression that is empty for this slot",
        job_ad('SingularityImage = ifThenElse(TARGET.Memory > 1, "", "/x")'),
        said="on this EP",
        machine="Memory = 2\n",
    ),
    Case(
        310,
        "an expression that is no string for this slot",
        job_ad("SingularityImage = TARGET.Memory"),
        said="on this EP",
        machine="Memory = 2\n",
    ),
    Case(
        310,
        "an expression that is no reference for this slot",
        job_ad('SingularityImage = strcat("gopher://", TARGET.Arch)'),
        said="on this EP",
        machine='Arch = "X86_64"\n',
    ),
    Case(
        310,
        "an expression that names what is not published for this slot",
        job_ad(f'SingularityImage = strcat("{CVMFS}/htc/rocky:", TARGET.Level)'),
        "CVMFS lacks it; tree lacks it",
        said="on another EP the job's expression may name another image",
        machine='Level = "10"\n',
    ),
    Case(
        310,
        "an expression that asks the slot by another attribute of the job",
        job_ad(f'SingularityImage = strcat("{OWN}/", Mine)', "Mine = Level"),
        "URL lacks it",
        said="on another EP",
        machine='Level = "nothing.sif"\n',
    ),
)

WITH_CREDENTIALS: Final = tuple(
    Case(
        310, f"a URL with a credential, which is {what} without", image_ad(f"box+{OWN}/{file}"), asks, said="credential"
    )
    for what, file, asks in (
        ("forbidden", "403.sif", "URL refuses"),
        ("not there", "nothing.sif", "URL lacks it"),
        ("a page for logging in", "html.sif", "URL delivers no image"),
    )
)

FETCHES: Final = (
    Case(320, "a URL that says so before", url("large.sif"), "URL has it too large", said="larger", knobs=SMALL),
    Case(320, "a URL that does not say", url("large_chunked.sif"), "URL has it too large", said="larger", knobs=SMALL),
    Case(330, "a URL for another machine", url("other.sif"), "URL has it for another machine", said="the image is for"),
    Case(
        340,
        "a root that others may write to",
        url("good.sif"),
        "URL has it, and the cache is unusable",
        said="writable by others",
        before_start=closed_root,
    ),
    Case(
        420,
        "all is in use",
        cvmfs_ad("htc/third:1"),
        f"{LACKED}has it, and the cache is full",
        said="in use",
        knobs=TREE | {"IMAGE_CACHE_MAX_BYTES": "250 KB"},
        before=hold_everything,
    ),
    Case(
        430,
        "the file system is full",
        cvmfs_ad("htc/tree:1"),
        f"{LACKED}has it, and the disk is full",
        said="IMAGE_CACHE_MIN_FREE_BYTES",
        knobs=TREE | {"IMAGE_CACHE_MIN_FREE_BYTES": "900 TB"},
    ),
    Case(
        450,
        "a SIF that does not start here",
        url("does_not_start.sif"),
        "URL has it, and it does not start",
        said="no such loader",
        knobs=WITH_RUNTIME,
    ),
    Case(610, "a federation that is down", image_ad("osdf:///ospool/x.sif"), "federation is down", said="refused"),
    Case(
        610,
        "another federation, which is down",
        image_ad("pelican://127.0.0.1:1/ospool/x.sif"),
        "federation is down",
        said="pelican-configuration",
    ),
    Case(460, "a slow server", url("slow.sif"), "URL is late", said="fetch goes on", args=("--deadline", "2.3s")),
    Case(610, "nobody listens", image_ad("http://127.0.0.1:1/x.sif"), "URL is down", said="refused"),
    *(
        Case(610, name, url(file), "URL is not well", said=said)
        for name, file, said in (
            ("a server that is not well (503)", "503.sif", "HTTP 503"),
            ("a server that closes early", "cut.sif", ""),
            ("a proxy that forbids it", "proxy403.sif", "HTTP 403"),
            ("a redirect that leads back", "circle.sif", ""),
            ("a redirect that is none", "moved_badly.sif", ""),
            ("a redirect to half an IPv6 address", "moved_to_half.sif", ""),
            ("a redirect with bytes that are no UTF-8", "moved_to_bytes.sif", ""),
        )
    ),
    Case(620, "a server that stalls", url("slow.sif"), "URL is too slow", said="no byte for 1 s", knobs=HASTY),
    Case(630, "a server that has enough", url("429.sif"), "URL has enough of us", said="Retry-After: 3600"),
)

SITES: Final = (
    Case(350, "an image that is not on the list", cvmfs_ad("htc/rocky:9"), said="IMAGE_CACHE_ALLOW", knobs=LISTED),
    Case(
        350, "a file of the job with a name on the list", image_ad("htc/alma:9"), said="IMAGE_CACHE_ALLOW", knobs=LISTED
    ),
    Case(
        350,
        "another repository's image of that name",
        cvmfs_ad("htc/alma:9", "evil.example.org"),
        said="IMAGE_CACHE_ALLOW",
        knobs=LISTED,
    ),
    Case(
        350,
        "a registry's image that is not on the list",
        image_ad("docker://htc/alma:9"),
        said="IMAGE_CACHE_ALLOW",
        knobs=LISTED,
    ),
    Case(
        360, "a path that this EP lacks", image_ad("@SITE@/local/nothing.sif"), "path is missing", said="not on this EP"
    ),
    Case(
        360, "a path that is no image", image_ad("@SITE@/local/text.sif"), "path is no image", said="magic is missing"
    ),
    Case(
        360,
        "a link on this EP to an image that is not published",
        image_ad("@SITE@/local/cvmfs_elsewhere"),
        "path leads to what is not published",
        said="leads to /cvmfs/",
    ),
    Case(
        360, "a path below a file", image_ad("@SITE@/local/image.sif/x.sif"), "path is missing", said="not on this EP"
    ),
    Case(
        360,
        "a path that leads into the cache",
        image_ad("@SITE@/image_cache/entries/x.sif"),
        "path is no image",
        said="this EP's image cache",
    ),
)

OURSELVES: Final = (
    Case(399, "an empty ad", "", said="empty"),
    Case(399, "blank lines", "\n\n\n", said="empty"),
    Case(399, "a bad line in the middle", job_ad("this is no attribute") + "Last = 1\n", said="line 7"),
    Case(399, "a bad line where the image is", job_ad('SingularityImage "/cvmfs/x/y"'), said="line 7"),
    Case(399, "bytes", bytes(range(256)) * 4, said="job ad"),
    Case(
        399,
        "an image that is no UTF-8",
        image_ad("M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller.sif").encode("latin-1"),
        said="no UTF-8",
    ),
    Case(399, "2 MiB", job_ad(f'Large = "{"x" * (2 << 20)}"'), said="too large"),
    Case(
        399,
        "a bad line in the slot's ad",
        cvmfs_ad("htc/rocky:9"),
        said="machine ad: line 2",
        machine="HasSIF = true\ngarbage\n",
    ),
    Case(410, "no manager", cvmfs_ad("htc/rocky:9"), said="does not answer", no_manager=True),
)

ROWS: Final = (*ON_THIS_EP, *WITH_CREDENTIALS, *FETCHES, *SITES, *OURSELVES)
