"""Rows on what a job ad names: every form of a reference that runs, is left alone, or goes elsewhere."""

from __future__ import annotations

from itertools import product
from typing import Final

from tests.cases.case import CVMFS, OWN, SCRATCH, Case, sandbox, url
from tests.contract.doubles import REPOSITORY, cvmfs_ad, image_ad, job_ad
from tests.contract.worlds import OSDF, TREE, WITH_RUNTIME

ROCKY: Final = sandbox("htc/rocky:9")
_DIGEST: Final = ROCKY.rpartition(f"/{REPOSITORY}/")[2]
DOCKER: Final = 'WantContainer = true\nWantDockerImage = true\nContainerImage = "docker://busybox:latest"'
_GOOD: Final = f'"{CVMFS}/htc/rocky:9"'


def on_cvmfs(name: str, ad: str | bytes, machine: str = "") -> Case:
    """Return a row whose job runs from the sandbox of rocky."""
    return Case(0, name, ad, "CVMFS has it", ROCKY, machine=machine)


def left(name: str, ad: str, machine: str = "") -> Case:
    """Return a row whose job runs as it is."""
    return Case(0, name, ad, machine=machine)


CVMFS_PATHS: Final = (
    on_cvmfs("a CVMFS path runs from its digest's directory", cvmfs_ad("htc/rocky:9")),
    on_cvmfs("a slash at the end changes nothing", image_ad(f"{CVMFS}/htc/rocky:9/")),
    on_cvmfs("many slashes at the end", image_ad(f"{CVMFS}/htc/rocky:9///")),
    on_cvmfs("doubled slashes change nothing", image_ad(f"/cvmfs//{REPOSITORY}//htc/rocky:9")),
    on_cvmfs("a dot before the image changes nothing", image_ad(f"{CVMFS}/./htc/rocky:9")),
    on_cvmfs("a dot before the repository changes nothing", image_ad(f"/cvmfs/./{REPOSITORY}/htc/rocky:9")),
    on_cvmfs("a file URL is a path", image_ad(f"file://{CVMFS}/htc/rocky:9")),
    on_cvmfs("a digest's directory may be named itself", image_ad(f"{CVMFS}/{_DIGEST}")),
    Case(0, "a name that is a relative link", cvmfs_ad("htc/linked:1"), "CVMFS has it", ROCKY),
    Case(
        0,
        "an image that is a SIF on CVMFS",
        cvmfs_ad("htc/flat.sif"),
        "CVMFS has it",
        f"sif @SITE@{CVMFS}/htc/flat.sif",
    ),
)

EXPRESSIONS: Final = (
    on_cvmfs("a container job names its image otherwise", job_ad(f"ContainerImage = {_GOOD}")),
    on_cvmfs(
        "SingularityImage comes first", job_ad('ContainerImage = "docker://busybox"', f"SingularityImage = {_GOOD}")
    ),
    on_cvmfs("names of attributes have no case", job_ad(f"singularityIMAGE = {_GOOD}")),
    on_cvmfs("an expression", job_ad(f'SingularityImage = strcat("{CVMFS}/", "htc/rocky:", 3 * 3)')),
    on_cvmfs(
        "an expression that asks the slot",
        job_ad(f'SingularityImage = ifThenElse(TARGET.Memory > 1, {_GOOD}, "none")'),
        "Memory = 4096\n",
    ),
    on_cvmfs("an attribute of the job's own", job_ad("SingularityImage = MY.Mine", f"Mine = {_GOOD}")),
    on_cvmfs(
        "a registry's image where Docker is off, and an image of its own",
        job_ad(DOCKER, f"SingularityImage = {_GOOD}"),
        "HasDocker = false\n",
    ),
    on_cvmfs(
        "a vanilla job is not Docker's, whatever the EP has",
        job_ad("WantDockerImage = true", f"SingularityImage = {_GOOD}"),
        "HasDocker = true\n",
    ),
    on_cvmfs("CRLF line ends", cvmfs_ad("htc/rocky:9").replace("\n", "\r\n")),
    on_cvmfs("no newline at the end", cvmfs_ad("htc/rocky:9").removesuffix("\n")),
    on_cvmfs(
        "bytes that are no UTF-8, somewhere else in the ad",
        job_ad('Environment = "NAME=M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller"').encode("latin-1")
        + f"SingularityImage = {_GOOD}\n".encode(),
    ),
)

_NONE: Final = ("undefined", '""', "error")


def _pair(singularity: str, container: str) -> str:
    return job_ad(f"SingularityImage = {singularity}", f"ContainerImage = {container}")


NO_VALUES: Final = (
    *(on_cvmfs(f"SingularityImage is {none}, ContainerImage names one", _pair(none, _GOOD)) for none in _NONE),
    *(on_cvmfs(f"ContainerImage is {none}, SingularityImage names one", _pair(_GOOD, none)) for none in _NONE),
    *(
        Case(110, f"SingularityImage is {one}, ContainerImage is {two}", _pair(one, two), said="Image: ")
        for one, two in product(_NONE, _NONE)
        if (one, two) != ("undefined", "undefined")
    ),
    left("both are undefined", _pair("undefined", "undefined")),
)
"""Undefined names no image; empty and error are images that are none, where no other attribute names one."""

LEFT: Final = (
    left("no image", job_ad()),
    left("an undefined image", job_ad("SingularityImage = undefined")),
    left("an attribute of the slot that it does not have", job_ad("SingularityImage = TARGET.Nowhere")),
    left(
        "an expression with an attribute that only other slots have", job_ad('SingularityImage = "/srv/" + Elsewhere')
    ),
    left("a Docker-universe job", job_ad("WantDocker = true", 'DockerImage = "busybox"')),
    left(
        "a Docker-universe job with a name that only Docker takes", job_ad("WantDocker = true", 'DockerImage = "a b"')
    ),
    left("a docker:// image", image_ad("docker://busybox:latest")),
    left("docker: without slashes", image_ad("docker:busybox")),
    left("a docker:// image by its digest", image_ad(f"docker://host:5000/ns/r@sha256:{'0' * 64}")),
    left("an image without a scheme for a registry", job_ad('DockerImage = "busybox"')),
    left("an oras:// image", image_ad("oras://ghcr.io/x/y:1")),
    left("a container job for an EP with Docker", job_ad(DOCKER), "HasDocker = true\n"),
    left("an EP whose Docker is an expression", job_ad(DOCKER), "HasDocker = Version isnt undefined\nVersion = 1\n"),
    left("a container job for an EP whose Docker is off", job_ad(DOCKER), "HasDocker = false\n"),
    left(
        "a container job that Docker takes, whatever else it names",
        job_ad(DOCKER, f"SingularityImage = {_GOOD}"),
        "HasDocker = true\n",
    ),
    Case(
        0,
        "a registry's image that is on the list",
        image_ad("docker://htc/alma:9"),
        knobs=TREE | {"IMAGE_CACHE_ALLOW": "docker://htc/*"},
    ),
    left("a scheduler-universe job", image_ad("nonsense://x").replace("JobUniverse = 5", "JobUniverse = 7")),
    left("a local-universe job", image_ad("nonsense://x").replace("JobUniverse = 5", "JobUniverse = 12")),
    left("a parallel-universe job", image_ad("nonsense://x").replace("JobUniverse = 5", "JobUniverse = 11")),
)


def _fetched(name: str, ad: str, seed: str) -> Case:
    return Case(0, name, ad, "URL has it", f"entry {seed}")


URLS: Final = (
    Case(0, "the job's own URL", url("good.sif"), "URL has it", "entry good", said="own/good.sif"),
    Case(0, "a URL's image that starts here", url("good.sif"), "URL has it", "entry good", knobs=WITH_RUNTIME),
    _fetched("a URL with a query", url("query.sif?x=1"), "query"),
    _fetched("a query with more equal signs", url("query.sif?pack=auto&sig=a%3D%3D=="), "query2"),
    _fetched("a URL with a fragment", url("good.sif#here"), "good"),
    _fetched("a scheme in capitals", image_ad("HTTP://127.0.0.1:@PORT@/own/good.sif"), "good"),
    _fetched("a credential that is not needed", image_ad(f"box+{OWN}/good.sif"), "good"),
    _fetched("a credential's name with an underscore", image_ad(f"my_box.read+{OWN}/good.sif"), "good"),
    _fetched("a URL that leads to another", url("moved.sif"), "good"),
    _fetched("a body in chunks", url("chunked.sif"), "chunked"),
    _fetched("a server that refuses HEAD (405)", url("head405.sif"), "head405"),
    _fetched("a server that does not know HEAD (501)", url("head501.sif"), "head501"),
    _fetched("a server that forbids HEAD: URLs are signed for one method", url("head403.sif"), "head403"),
    _fetched("a server that says a length of 0 to HEAD", url("head0.sif"), "head0"),
    _fetched("an HTML page the first time, the image the second", url("html_once.sif"), "html_once"),
)

ELSEWHERE: Final = (
    *(
        Case(
            310,
            f"no plug-in here brings {text}",
            image_ad(text),
            "plug-in is not here",
            said="no transfer plug-in here",
        )
        for text in ("s3://bucket/x.sif", "davs://host.example/x.sif")
    ),
    *(
        Case(310, f"takes the job's own credential: {text}", image_ad(text), said="the job's own credential")
        for text in ("box://folder/x.sif", "mine+ftp://host.example/x.sif")
    ),
)


_IN_FEDERATION: Final = (
    "osdf:///ospool/uc-shared/good.sif",
    "osdf://ospool/uc-shared/good.sif",
    "osdf:/ospool/uc-shared/good.sif",
    "osdf:///ospool/uc-shared/good.sif?directread",
    "stash:///ospool/uc-shared/good.sif",
    "stash:/ospool/uc-shared/good.sif",
    "pelican://127.0.0.1:@PORT@/ospool/uc-shared/good.sif",
    "igwn+osdf:///ospool/uc-shared/good.sif",
    "my_igwn.read+pelican://127.0.0.1:@PORT@/ospool/uc-shared/good.sif",
)

FEDERATION: Final = tuple(
    Case(0, f"an object of a federation: {text}", image_ad(text), "federation has it", "entry good", knobs=OSDF)
    for text in _IN_FEDERATION
)


def _opened(name: str, image: str, who: str, runs: str) -> Case:
    return Case(0, name, image_ad(image), f"{who} is there", runs)


FILES: Final = (
    _opened("a SIF that came with the job", "job.sif", "file", f"sif {SCRATCH}/job.sif"),
    _opened("in a directory of the job", "./sub/job.sif", "file", f"sif {SCRATCH}/sub/job.sif"),
    _opened("a directory of the job", "sub/", "file", f"sandbox {SCRATCH}/sub"),
    _opened("a link of the job that leads into CVMFS", "on_cvmfs.sif", "file", f"sandbox {SCRATCH}/on_cvmfs.sif"),
    _opened("a link of the job to an image of CVMFS, which is mounted elsewhere", "elsewhere.sif", "file", ROCKY),
    _opened("a link on this EP to an image of CVMFS, which is mounted elsewhere", "@SITE@/local/rocky", "path", ROCKY),
    _opened("a SIF on this EP", "@SITE@/local/image.sif", "path", "sif @SITE@/local/image.sif"),
    _opened("a file URL on this EP", "file://@SITE@/local/image.sif", "path", "sif @SITE@/local/image.sif"),
    _opened("a directory on this EP", "@SITE@/local/image", "path", "sandbox @SITE@/local/image"),
    _opened("a slash at the end of a path", "@SITE@/local/image/", "path", "sandbox @SITE@/local/image"),
    _opened("a squashfs on this EP", "@SITE@/local/image.sqfs", "path", "sif @SITE@/local/image.sqfs"),
    _opened(
        "a link on this EP that leads into CVMFS", "@SITE@/local/on_cvmfs", "path", "sandbox @SITE@/local/on_cvmfs"
    ),
    Case(
        0,
        "the last part of a path that HTCondor transferred",
        job_ad(
            'ContainerImage = "job.sif"',
            'ContainerImageFullPath = "/home/joe/job.sif"',
            'ContainerImageSource = "cedar"',
        ),
        "file is there",
        f"sif {SCRATCH}/job.sif",
    ),
)


def _shared(name: str, how: str, *lines: str, runs: str = "sif @SITE@/local/image.sif", domain: str = "a") -> Case:
    where = (f'ShouldTransferFiles = "{how}"', 'FileSystemDomain = "A"', 'Iwd = "@SITE@/local"')
    asks = "path is there" if runs else "path is missing"
    return Case(
        0 if runs else 360, name, job_ad(*where, *lines), asks, runs, machine=f'FileSystemDomain = "{domain}"\n'
    )


SHARED: Final = (
    _shared("a job that transfers nothing runs where it was submitted", "NO", 'ContainerImage = "image.sif"'),
    _shared("so does one of the same file system", "IF_NEEDED", 'SingularityImage = "./image.sif"'),
    _shared(
        "condor_submit took the path from its image, expecting a transfer",
        "IF_NEEDED",
        'ContainerImage = "image.sif"',
        'ContainerImageFullPath = "../local/image.sif"',
    ),
    _shared("its file is not here", "NO", 'ContainerImage = "nothing.sif"', runs=""),
    Case(
        0,
        "condor_submit took a URL from its image, expecting a transfer",
        job_ad(
            'ShouldTransferFiles = "NO"',
            'Iwd = "@SITE@/local"',
            'ContainerImage = "good.sif"',
            f'ContainerImageFullPath = "{OWN}/good.sif"',
        ),
        "URL has it",
        "entry good",
    ),
    Case(
        0,
        "another file system: the file came with the job",
        job_ad(
            'ShouldTransferFiles = "IF_NEEDED"', 'FileSystemDomain = "A"', 'Iwd = "/x"', 'ContainerImage = "job.sif"'
        ),
        "file is there",
        f"sif {SCRATCH}/job.sif",
        machine='FileSystemDomain = "b"\n',
    ),
)

ROWS: Final = (
    *CVMFS_PATHS,
    *EXPRESSIONS,
    *NO_VALUES,
    *LEFT,
    *URLS,
    *ELSEWHERE,
    *FEDERATION,
    *FILES,
    *SHARED,
)
