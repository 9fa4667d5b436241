"""Rows whose job is held: what no other EP could run."""

from __future__ import annotations

from typing import Final

from tests.cases.case import CVMFS, Case, url
from tests.contract.doubles import cvmfs_ad, image_ad, job_ad
from tests.contract.worlds import OSDF

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
    ("a number with an exponent", "1.5e3", "is 1500.0 and not a string"),
    ("a boolean", "true", "is True and not a string"),
    ("an error", "error", "evaluates to an error"),
    ("an expression that fails", "1 / 0", "evaluates to an error: 1 / 0"),
    ("an attribute that names itself", "SingularityImage", "evaluates to an error"),
    ("a list", '{"a"}', ""),
    ("an empty string", '""', "empty string"),
    ("blanks", '"   "', "empty"),
    ("an unknown scheme", '"gopher://localhost/x.sif"', "unknown scheme"),
    ("an instance", '"instance://mine"', "unknown scheme"),
    ("a URL of nothing", '"https://"', "names nothing"),
    ("an osdf URL of nothing", '"osdf:///"', "names nothing"),
    ("a pelican URL without a federation", '"pelican:///ospool/x.sif"', "host"),
    ("an object that is a directory", '"osdf:///ospool/x?recursive"', "`recursive`"),
    ("an object that is to be packed", '"osdf:///ospool/x.sif?pack=auto"', "`pack`"),
    ("a URL without a host", '"https:///x.sif"', "host"),
    ("a URL with a port that is none", '"https://localhost:none/x.sif"', "port"),
    ("a URL with half an IPv6 address", '"https://[::1/x.sif"', ""),
    ("a slash", '"/"', "names no file"),
    ("CVMFS itself", '"/cvmfs/"', "names no image"),
    ("a CVMFS repository itself", f'"{CVMFS}/"', "names no image"),
)

NOT_PUBLISHED: Final = (
    Case(
        120,
        "an expression that is the same everywhere",
        job_ad(f'SingularityImage = strcat("{CVMFS}/", MY.Mine)', 'Mine = "htc/rockx:9"'),
        "CVMFS lacks it; tree lacks it",
        said="did you mean",
    ),
    Case(
        120,
        "CVMFS is healthy and lacks it",
        cvmfs_ad("htc/rockx:9"),
        "CVMFS lacks it; tree lacks it",
        said="did you mean htc/rocky:9",
    ),
    Case(120, "a site without trees", cvmfs_ad("htc/rockx:9"), "CVMFS lacks it", said="did you mean", knobs={}),
    Case(
        120,
        "SIFs first, so configured",
        cvmfs_ad("htc/rockx:9"),
        "tree lacks it; CVMFS lacks it",
        said="did you mean",
        knobs={"IMAGE_CACHE_SIF_SOURCES": "@ORIGIN@/v2", "IMAGE_CACHE_PREFER": "sif"},
    ),
    Case(
        120,
        "a tag that does not exist",
        cvmfs_ad("htc/rocky:10"),
        "CVMFS lacks it; tree lacks it",
        said="did you mean htc/rocky:9",
    ),
    Case(
        120,
        "a typo in the name of a container job",
        job_ad(f'ContainerImage = "{CVMFS}/htc/rocki:9"'),
        "CVMFS lacks it; tree lacks it",
        said="check the spelling",
    ),
    Case(
        120,
        "another repository is healthy and lacks it",
        cvmfs_ad("x/z:1", "other.example.org"),
        "CVMFS lacks it",
        said="not published",
    ),
    Case(120, "a directory of images", cvmfs_ad("htc"), "CVMFS lacks it; tree lacks it", said="not published"),
    Case(
        120,
        "a name that no file can have",
        cvmfs_ad(f"htc/{'x' * 300}"),
        "CVMFS lacks it; tree lacks it",
        said="not published",
    ),
    Case(
        120,
        "an escape in a CVMFS path",
        cvmfs_ad(r"htc/rocky\n:9"),
        "CVMFS lacks it; tree lacks it",
        said="not published",
    ),
    Case(120, "the job's own URL does not exist", url("nothing.sif"), "URL lacks it", said="HTTP 404"),
    Case(
        120,
        "the origin of a federation lacks it",
        image_ad("osdf:///ospool/uc-shared/nothing.sif"),
        "federation lacks it",
        said="HTTP 404",
        knobs=OSDF,
    ),
    Case(120, "the job's own URL is gone", url("gone.sif"), "URL lacks it", said="HTTP 410"),
)

OWN_IMAGES: Final = (
    Case(130, "the job's own URL is forbidden", url("403.sif"), "URL refuses", said="HTTP 403"),
    Case(
        130,
        "an object of a federation for who has a token",
        image_ad("osdf:///igwn/secret.sif"),
        "federation refuses",
        said="use_oauth_services",
        knobs=OSDF,
    ),
    Case(130, "the job's own URL wants a password", url("401.sif"), "URL refuses", said="HTTP 401"),
    *(
        Case(150, f"the job's own URL is {what}", url(file), "URL delivers no image", said=said)
        for what, file, said in (
            ("an HTML page", "html.sif", "an HTML page"),
            ("empty", "empty.sif", "empty (0 bytes)"),
            ("half a SIF", "half.sif", "object 3 (file system) ends at 8192, the file at 4096"),
        )
    ),
    *(
        Case(150, f"{what} that came with the job", image_ad(file), "file is no image", said=said)
        for what, file, said in (
            ("a text", "text.sif", "magic is missing"),
            ("an empty file", "empty.sif", "empty (0 bytes)"),
            ("half a SIF", "half.sif", "truncated SIF"),
            ("a FIFO", "fifo.sif", ""),
        )
    ),
    Case(
        150,
        "a file that did not come with the job",
        image_ad("nothing.sif"),
        "file is missing",
        said="did not come with the job (No such file or directory): `container_image` or `transfer_input_files`",
    ),
    Case(
        150,
        "a path that lacks its first slash",
        image_ad(f"{CVMFS[1:]}/htc/rocky:9"),
        "file is missing",
        said=f"did you mean {CVMFS}/htc/rocky:9?",
    ),
    Case(
        150,
        "a published name without its repository",
        image_ad("htc/rocky:9"),
        "file is missing",
        said="is named by its path, /cvmfs/<repository>/htc/rocky:9",
    ),
    Case(
        120,
        "a link of the job to an image that is not published",
        image_ad("unpublished.sif"),
        "file leads to what is not published",
        said="leads to /cvmfs/",
    ),
    Case(
        150, "a link of the job that leads to nothing", image_ad("dangling.sif"), "file is missing", said="did not come"
    ),
    Case(
        150,
        "a job of another file system lacks its file",
        job_ad(
            'ShouldTransferFiles = "IF_NEEDED"',
            'FileSystemDomain = "a"',
            'Iwd = "/x"',
            'ContainerImage = "nothing.sif"',
        ),
        "file is missing",
        said="did not come",
        machine='FileSystemDomain = "b"\n',
    ),
)

ROWS: Final = (
    *(Case(110, f"refused: {name}", job_ad(f"SingularityImage = {text}"), said=said) for name, text, said in UNUSABLE),
    *NOT_PUBLISHED,
    *OWN_IMAGES,
)
