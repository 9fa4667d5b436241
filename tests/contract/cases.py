"""Ads in, answer out: at least one case for each row of HookStatus that can be reached now.

`@ORIGIN@`, `@SITE@` and `@PORT@` stand for the HTTP server's URL, the site's directory, and the server's port.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.contract.doubles import REPOSITORY, cvmfs_ad, image_ad, job_ad
from tests.contract.worlds import BARE, TREE, WITH_RUNTIME, World, closed_root, hold_everything

NOT_YET: Final = {
    620: "a transfer's budget begins with 30 s of start-up, which no knob shortens: too long for a test",
}
"""Rows that no ad reaches yet, and why."""

CVMFS: Final = f"/cvmfs/{REPOSITORY}"
DOCKER: Final = 'WantContainer = true\nWantDockerImage = true\nContainerImage = "docker://busybox:latest"'
OWN: Final = "@ORIGIN@/own"


@dataclass(frozen=True)
class Case:
    """A job and what becomes of it.

    `runs` is what it runs from: `sandbox PATH`, `sif PATH`, `entry SEED` (the cached `sif(SEED)`), or nothing.
    `said` has to be in the message.
    """

    code: int
    name: str
    ad: str | bytes
    runs: str = ""
    said: str = ""
    knobs: Mapping[str, str] = field(default_factory=lambda: TREE)
    machine: str = ""
    args: tuple[str, ...] = ()
    before_start: Callable[[World], None] | None = None
    before: Callable[[World], None] | None = None
    no_manager: bool = False


def url(path: str) -> str:
    """Return the ad of a job that names a URL of the test's server."""
    return image_ad(f"{OWN}/{path}")


DEFAULTS: Final = TREE | {
    "IMAGE_CACHE_DEFAULT_IMAGE": "0%__htc/none:0 100%__htc/rocky:9",
    "IMAGE_CACHE_DEFAULT_IMAGE_GPU": "htc/tree:1",
}
ROCKY: Final = f"sandbox @SITE@/cvmfs/{REPOSITORY}/.images/@ROCKY@"

RUNS: Final = (
    Case(0, "a CVMFS path runs from its digest's directory", cvmfs_ad("htc/rocky:9"), ROCKY),
    Case(0, "a slash at the end changes nothing", image_ad(f"{CVMFS}/htc/rocky:9/"), ROCKY),
    Case(0, "doubled slashes change nothing", image_ad(f"/cvmfs//{REPOSITORY}//htc/rocky:9"), ROCKY),
    Case(0, "a dot before the image changes nothing", image_ad(f"{CVMFS}/./htc/rocky:9"), ROCKY),
    Case(0, "a dot before the repository changes nothing", image_ad(f"/cvmfs/./{REPOSITORY}/htc/rocky:9"), ROCKY),
    Case(0, "a file URL is a path", image_ad(f"file://{CVMFS}/htc/rocky:9"), ROCKY),
    Case(0, "a digest's directory may be named itself", image_ad(f"{CVMFS}/.images/@ROCKY@"), ROCKY),
    Case(0, "a container job names its image otherwise", job_ad(f'ContainerImage = "{CVMFS}/htc/rocky:9"'), ROCKY),
    Case(
        0,
        "SingularityImage comes first",
        job_ad('ContainerImage = "docker://busybox"', f'SingularityImage = "{CVMFS}/htc/rocky:9"'),
        ROCKY,
    ),
    Case(0, "names of attributes have no case", job_ad(f'singularityIMAGE = "{CVMFS}/htc/rocky:9"'), ROCKY),
    Case(0, "an expression", job_ad(f'SingularityImage = strcat("{CVMFS}/", "htc/rocky:", 3 * 3)'), ROCKY),
    Case(
        0,
        "an expression that asks the slot",
        job_ad(f'SingularityImage = ifThenElse(TARGET.Memory > 1, "{CVMFS}/htc/rocky:9", "none")'),
        ROCKY,
        machine="Memory = 4096\n",
    ),
    Case(0, "CRLF line ends", cvmfs_ad("htc/rocky:9").replace("\n", "\r\n"), ROCKY),
    Case(
        0,
        "bytes that are no UTF-8, somewhere else in the ad",
        job_ad('Environment = "NAME=M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller"').encode("latin-1")
        + f'SingularityImage = "{CVMFS}/htc/rocky:9"\n'.encode(),
        ROCKY,
    ),
    Case(0, "no image", job_ad()),
    Case(0, "an undefined image", job_ad("SingularityImage = undefined")),
    Case(0, "a Docker-universe job", job_ad("WantDocker = true", 'DockerImage = "busybox"')),
    Case(0, "a docker:// image", image_ad("docker://busybox:latest")),
    Case(0, "an image without a scheme for a registry", job_ad('DockerImage = "busybox"')),
    Case(0, "an oras:// image", image_ad("oras://ghcr.io/x/y:1")),
    Case(0, "a container job for an EP with Docker", job_ad(DOCKER), machine="HasDocker = true\n"),
    Case(0, "a scheduler-universe job", image_ad("nonsense://x").replace("JobUniverse = 5", "JobUniverse = 7")),
    Case(0, "a published SIF", cvmfs_ad("htc/tree:1"), "entry tree"),
    Case(0, "a published SIF where CVMFS is not mounted", cvmfs_ad("htc/tree:1"), "entry tree", knobs=BARE),
    Case(0, "a published SIF without a manifest", cvmfs_ad("htc/plain:1"), "entry plain", knobs=BARE),
    Case(0, "a name without a tag means latest", cvmfs_ad("htc/untagged"), "entry untagged", knobs=BARE),
    Case(0, "a pointer with CRLF", cvmfs_ad("htc/crlf:1"), "entry crlf", knobs=BARE),
    Case(
        0,
        "a tree in a directory",
        cvmfs_ad("htc/file:1"),
        "entry file",
        knobs=BARE | {"IMAGE_CACHE_SIF_SOURCES": "file://@SITE@/tree"},
    ),
    Case(
        0,
        "SIFs first, if so configured",
        cvmfs_ad("htc/both:1"),
        "entry both",
        knobs=TREE | {"IMAGE_CACHE_PREFER": "sif"},
    ),
    Case(
        0,
        "the second tree, when the first delivers something else",
        cvmfs_ad("htc/second:1"),
        "entry second",
        knobs=BARE | {"IMAGE_CACHE_SIF_SOURCES": "@ORIGIN@/broken @ORIGIN@/v2"},
    ),
    Case(0, "the job's own URL", url("good.sif"), "entry good", said="own/good.sif"),
    Case(0, "a URL with a query", url("query.sif?x=1"), "entry query"),
    Case(0, "a URL that leads to another", url("moved.sif"), "entry good"),
    Case(0, "a body in chunks", url("chunked.sif"), "entry chunked"),
    Case(0, "an image that starts here", url("good.sif"), "entry good", knobs=WITH_RUNTIME),
    Case(0, "a server that refuses HEAD (405)", url("head405.sif"), "entry head405"),
    Case(0, "a server that does not know HEAD (501)", url("head501.sif"), "entry head501"),
    Case(0, "a server that forbids HEAD: URLs are signed for one method", url("head403.sif"), "entry head403"),
    Case(0, "a server that says a length of 0 to HEAD", url("head0.sif"), "entry head0"),
    Case(0, "an HTML page the first time, the image the second", url("html_once.sif"), "entry html_once"),
    Case(0, "a SIF that came with the job", image_ad("job.sif"), "sif @SITE@/execute/dir_1/scratch/job.sif"),
    Case(0, "in a directory of the job", image_ad("./sub/job.sif"), "sif @SITE@/execute/dir_1/scratch/sub/job.sif"),
    Case(0, "a directory of the job", image_ad("sub/"), "sandbox @SITE@/execute/dir_1/scratch/sub"),
    Case(0, "a SIF on this EP", image_ad("@SITE@/local/image.sif"), "sif @SITE@/local/image.sif"),
    Case(0, "a directory on this EP", image_ad("@SITE@/local/image"), "sandbox @SITE@/local/image"),
    Case(0, "a squashfs on this EP", image_ad("@SITE@/local/image.sqfs"), "sif @SITE@/local/image.sqfs"),
    Case(0, "the default image", job_ad(), ROCKY, said="default image htc/rocky:9", knobs=DEFAULTS),
    Case(0, "a default image for slots with GPUs", job_ad(), "entry tree", machine="GPUs = 1\n", knobs=DEFAULTS),
    Case(
        0,
        "no message, if so configured",
        cvmfs_ad("htc/rocky:9"),
        ROCKY,
        knobs=TREE | {"IMAGE_CACHE_MESSAGES": "never"},
    ),
)

UNUSABLE: Final = (
    ("two dots on CVMFS", f'"{CVMFS}/../x"', "`..`"),
    ("two dots in the job's directory", '"../x.sif"', "`..`"),
    ("two dots in a URL", '"https://localhost/a/../x.sif"', "`..`"),
    ("a tab", f'"{CVMFS}/htc/ro\tcky"', "control character"),
    ("an escape character", f'"{CVMFS}/htc/ro\x1bcky"', "control character"),
    ("a next line of Unicode", f'"{CVMFS}/htc/ro\x85cky"', "control character"),
    ("a line separator of Unicode", f'"{CVMFS}/htc/ro\u2028cky"', "control character"),
    ("a newline as an escape in a URL", r'"https://localhost/a\nb.sif"', "percent-encoded"),
    ("a quote in a URL", r'"https://localhost/a\"b.sif"', "percent-encoded"),
    ("a blank in a URL", '"https://localhost/a b.sif"', "percent-encoded"),
    ("no ASCII in a URL", '"https://localhost/\N{LATIN SMALL LETTER A WITH DIAERESIS}.sif"', "percent-encoded"),
    ("10 kB", f'"/{"x" * 10_000}"', "too long (10001 bytes"),
    ("a number", "42", "is 42 and not a string"),
    ("a boolean", "true", "is True and not a string"),
    ("an error", "error", "evaluates to an error"),
    ("an expression that fails", "1 / 0", "evaluates to an error: 1 / 0"),
    ("a list", '{"a"}', ""),
    ("an empty string", '""', "empty string"),
    ("blanks", '"   "', "empty"),
    ("an unknown scheme", '"gopher://localhost/x.sif"', "unknown scheme"),
    ("a URL of nothing", '"https://"', "names nothing"),
    ("a URL without a host", '"https:///x.sif"', "host"),
    ("a URL with a port that is none", '"https://localhost:none/x.sif"', "port"),
    ("a URL with half an IPv6 address", '"https://[::1/x.sif"', ""),
    ("a slash", '"/"', "names no file"),
    ("CVMFS itself", '"/cvmfs/"', "names no image"),
    ("a CVMFS repository itself", f'"{CVMFS}/"', "names no image"),
)

HELD: Final = (
    *(Case(110, f"refused: {name}", job_ad(f"SingularityImage = {text}"), said=said) for name, text, said in UNUSABLE),
    Case(120, "CVMFS is healthy and lacks it", cvmfs_ad("htc/rockx:9"), said="did you mean htc/rocky:9"),
    Case(120, "a name that no file can have", cvmfs_ad(f"htc/{'x' * 300}"), said="not published"),
    Case(120, "an escape in a CVMFS path", cvmfs_ad(r"htc/rocky\n:9"), said="not published"),
    Case(120, "the job's own URL does not exist", url("nothing.sif"), said="HTTP 404"),
    Case(120, "the job's own URL is gone", url("gone.sif"), said="HTTP 410"),
    Case(130, "the job's own URL is forbidden", url("403.sif"), said="HTTP 403"),
    Case(130, "the job's own URL wants a password", url("401.sif"), said="HTTP 401"),
    Case(150, "the job's own URL is an HTML page", url("html.sif"), said="an HTML page"),
    Case(150, "the job's own URL is empty", url("empty.sif"), said="empty (0 bytes)"),
    Case(150, "the job's own URL is half a SIF", url("half.sif"), said="truncated SIF (4096 of 8192 bytes)"),
    Case(150, "a file that did not come with the job", image_ad("nothing.sif"), said="did not come with the job"),
    Case(150, "a text that came with the job", image_ad("text.sif"), said="magic is missing"),
    Case(150, "an empty file of the job", image_ad("empty.sif"), said="empty (0 bytes)"),
    Case(150, "half a SIF of the job", image_ad("half.sif"), said="truncated SIF"),
    Case(150, "a FIFO of the job", image_ad("fifo.sif")),
    Case(150, "a link of the job that leads to nothing", image_ad("dangling.sif"), said="did not come"),
)

LISTED: Final = TREE | {"IMAGE_CACHE_ALLOW": "htc/alma:*"}
SMALL: Final = TREE | {"IMAGE_CACHE_MAX_BYTES": "100 KB"}

IDLE: Final = (
    Case(
        310,
        "the slot has no runtime",
        cvmfs_ad("htc/rocky:9"),
        said="no container runtime",
        machine="HasSingularity = false\n",
    ),
    Case(310, "a URL that nothing here fetches", image_ad("osdf:///ospool/x.sif"), said="osdf://"),
    Case(310, "a SIF where only directories run", url("good.sif"), said="cannot run SIF", machine="HasSIF = false\n"),
    Case(
        310,
        "an expression that fails for this slot",
        job_ad('SingularityImage = strcat("/cvmfs/", error, TARGET.Nothing)'),
        said="on this EP",
    ),
    Case(320, "a manifest that promises too much", cvmfs_ad("htc/large:1"), said="larger", knobs=SMALL),
    Case(320, "a URL that says so before", url("large.sif"), said="larger", knobs=SMALL),
    Case(320, "a URL that does not say", url("large_chunked.sif"), said="larger", knobs=SMALL),
    Case(330, "a published SIF for another machine", cvmfs_ad("htc/other:1"), said="the image is for"),
    Case(330, "a URL for another machine", url("other.sif"), said="the image is for"),
    Case(340, "a root that others may write to", url("good.sif"), said="writable by others", before_start=closed_root),
    Case(350, "an image that is not on the list", cvmfs_ad("htc/rocky:9"), said="IMAGE_CACHE_ALLOW", knobs=LISTED),
    Case(350, "a file of the job with a name on the list", image_ad("htc/alma:9"), knobs=LISTED),
    Case(350, "another repository's image of that name", cvmfs_ad("htc/alma:9", "evil.example.org"), knobs=LISTED),
    Case(360, "a path that this EP lacks", image_ad("@SITE@/local/nothing.sif"), said="not on this EP"),
    Case(360, "a path that is no image", image_ad("@SITE@/local/text.sif"), said="magic is missing"),
    Case(
        399,
        "a default image that is not published: the user can mend nothing",
        job_ad(),
        said="IMAGE_CACHE_DEFAULT_IMAGE",
        knobs=TREE | {"IMAGE_CACHE_DEFAULT_IMAGE": "htc/nothing:1"},
    ),
    Case(399, "an empty ad", "", said="empty"),
    Case(399, "blank lines", "\n\n\n", said="empty"),
    Case(399, "a bad line in the middle", job_ad("this is no attribute") + "Last = 1\n", said="line 7"),
    Case(399, "a bad line where the image is", job_ad('SingularityImage "/cvmfs/x/y"'), said="line 7"),
    Case(399, "bytes", bytes(range(256)) * 4),
    Case(399, "2 MiB", job_ad(f'Large = "{"x" * (2 << 20)}"'), said="too large"),
    Case(410, "no manager", cvmfs_ad("htc/rocky:9"), said="does not answer", no_manager=True),
    Case(
        420,
        "all is in use",
        cvmfs_ad("htc/third:1"),
        said="in use",
        knobs=TREE | {"IMAGE_CACHE_MAX_BYTES": "150 KB"},
        before=hold_everything,
    ),
    Case(
        430,
        "the file system is full",
        cvmfs_ad("htc/tree:1"),
        said="IMAGE_CACHE_MIN_FREE_BYTES",
        knobs=TREE | {"IMAGE_CACHE_MIN_FREE_BYTES": "900 TB"},
    ),
    Case(440, "a repository that is not mounted", cvmfs_ad("x:1", "nowhere.example.org"), said="not mounted"),
    Case(440, "an empty mount point", cvmfs_ad("x:1", "empty.example.org"), said="the directory is empty"),
    Case(440, "no CVMFS here, and no tree has it", cvmfs_ad("htc/none:1"), said="HTTP 404", knobs=BARE),
    Case(440, "an unfinished publication", cvmfs_ad("htc/dangling:1"), said="leads to nothing", knobs={}),
    Case(440, "a link out of the repository", cvmfs_ad("htc/outside:1"), said="out of the repository", knobs={}),
    Case(440, "a link to itself", cvmfs_ad("htc/loop:1"), knobs={}),
    Case(440, "a text on CVMFS", cvmfs_ad("htc/text:1"), said="neither", knobs={}),
    Case(450, "a SIF that does not start here", url("does_not_start.sif"), said="no such loader", knobs=WITH_RUNTIME),
    Case(460, "a slow server", url("slow.sif"), said="fetch goes on", args=("--deadline", "2.3s")),
    Case(510, "half a published SIF", cvmfs_ad("htc/half:1"), said="truncated SIF"),
    Case(510, "another digest than promised", cvmfs_ad("htc/digest:1"), said="was promised"),
    Case(510, "another size than promised", cvmfs_ad("htc/size:1"), said="were promised"),
    Case(510, "an HTML page for a published SIF", cvmfs_ad("htc/html:1"), said="promised"),
    Case(510, "the manifest of another image", cvmfs_ad("htc/name:1"), said="belongs to another image", knobs=BARE),
    Case(510, "a manifest that is none", cvmfs_ad("htc/nojson:1"), said="no JSON", knobs=BARE),
    Case(610, "a server that is not well (503)", url("503.sif"), said="HTTP 503"),
    Case(610, "a server that closes early", url("cut.sif")),
    Case(610, "nobody listens", image_ad("http://127.0.0.1:1/x.sif"), said="refused"),
    Case(610, "a redirect that leads back", url("circle.sif")),
    Case(610, "a redirect that is none", url("moved_badly.sif")),
    Case(610, "a redirect to half an IPv6 address", url("moved_to_half.sif")),
    Case(610, "a redirect with bytes that are no UTF-8", url("moved_to_bytes.sif")),
    Case(610, "an HTML page for a pointer", cvmfs_ad("htc/pointer_html:1"), said="names no version", knobs=BARE),
    Case(610, "a pointer out of the tree", cvmfs_ad("htc/pointer_up:1"), said="names no version", knobs=BARE),
    Case(610, "a published SIF that is not there", cvmfs_ad("htc/missing:1"), said="latest.txt names it", knobs=BARE),
    Case(610, "CVMFS lacks what a tree has and cannot deliver", cvmfs_ad("htc/missing:1"), said="latest.txt names it"),
    Case(630, "a server that has enough", url("429.sif"), said="Retry-After: 3600"),
)

CASES: Final = (*RUNS, *HELD, *IDLE)
