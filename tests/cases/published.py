"""Rows on published images: two forms, several places, preferences, and what goes wrong with them."""

from __future__ import annotations

from typing import Final

from tests.cases.ads import ROCKY
from tests.cases.case import Case, sandbox
from tests.contract.doubles import cvmfs_ad
from tests.contract.worlds import BARE, TREE

BOTH: Final = sandbox("htc/both:1")
NO_CVMFS: Final = "CVMFS is not mounted"
SMALL: Final = {"IMAGE_CACHE_MAX_BYTES": "100 KB"}
SIF_FIRST: Final = TREE | {"IMAGE_CACHE_PREFER": "sif"}
CVMFS_FIRST: Final = TREE | {"IMAGE_CACHE_PREFER": "cvmfs"}


def trees(*names: str, cvmfs: bool = False) -> dict[str, str]:
    """Return the knobs of a site with these trees of the test's server."""
    bases = (name if "://" in name else f"@ORIGIN@/{name}" for name in names)
    return (TREE if cvmfs else BARE) | {"IMAGE_CACHE_SIF_SOURCES": " ".join(bases)}


def bare(name: str, image: str, seed: str) -> Case:
    """Return a row for an EP without CVMFS, with one tree that has the image."""
    return Case(0, name, cvmfs_ad(image), f"{NO_CVMFS}; tree has it", f"entry {seed}", knobs=BARE)


def bare_fault(code: int, name: str, image: str, says: str, said: str) -> Case:
    """Return a row for an EP without CVMFS, with one tree that does not help."""
    return Case(code, name, cvmfs_ad(image), f"{NO_CVMFS}; tree {says}", said=said, knobs=BARE)


NOBODY: Final = "http://127.0.0.1:1/v2"

FORMS: Final = (
    Case(0, "a published SIF", cvmfs_ad("htc/tree:1"), "CVMFS lacks it; tree has it", "entry tree"),
    bare("a published SIF where CVMFS is not mounted", "htc/tree:1", "tree"),
    bare("a published SIF without a manifest", "htc/plain:1", "plain"),
    bare("a name without a tag means latest", "htc/untagged", "untagged"),
    bare("a pointer with CRLF", "htc/crlf:1", "crlf"),
    Case(
        0,
        "a tree in a directory",
        cvmfs_ad("htc/file:1"),
        f"{NO_CVMFS}; tree has it",
        "entry file",
        knobs=trees("file://@SITE@/tree"),
    ),
    Case(0, "auto: CVMFS where it is well", cvmfs_ad("htc/both:1"), "CVMFS has it", BOTH),
    Case(
        0,
        "auto: SIFs first where it is known not to be",
        cvmfs_ad("htc/tree:1"),
        "tree has it",
        "entry tree",
        knobs=BARE,
        unwell=True,
    ),
    Case(0, "cvmfs: CVMFS first", cvmfs_ad("htc/both:1"), "CVMFS has it", BOTH, knobs=CVMFS_FIRST),
    Case(
        0,
        "cvmfs: CVMFS first, known not to be well as it is",
        cvmfs_ad("htc/tree:1"),
        f"{NO_CVMFS}; tree has it",
        "entry tree",
        knobs=BARE | {"IMAGE_CACHE_PREFER": "cvmfs"},
        unwell=True,
    ),
    Case(0, "sif: SIFs first", cvmfs_ad("htc/both:1"), "tree has it", "entry both", knobs=SIF_FIRST),
    Case(
        0,
        "sif: CVMFS has what the tree lacks",
        cvmfs_ad("htc/rocky:9"),
        "tree lacks it; CVMFS has it",
        ROCKY,
        "instead of",
        SIF_FIRST,
    ),
    Case(
        0,
        "sif: CVMFS has what the tree cannot deliver",
        cvmfs_ad("htc/rescued:1"),
        "tree delivers something else; CVMFS has it",
        sandbox("htc/rescued:1"),
        "instead of",
        SIF_FIRST,
    ),
    Case(
        0,
        "an image of another repository has one form, whatever is preferred",
        cvmfs_ad("x/y:1", "other.example.org"),
        "CVMFS has it",
        "sandbox @SITE@/cvmfs/other.example.org/x/y:1",
        knobs=SIF_FIRST,
    ),
    Case(
        0,
        "no message, if so configured",
        cvmfs_ad("htc/rocky:9"),
        "CVMFS has it",
        ROCKY,
        knobs=TREE | {"IMAGE_CACHE_MESSAGES": "never"},
    ),
    Case(
        0,
        "a message for a fallback alone",
        cvmfs_ad("htc/tree:1"),
        "CVMFS lacks it; tree has it",
        "entry tree",
        "instead of",
        TREE | {"IMAGE_CACHE_MESSAGES": "fallback"},
    ),
)

SEVERAL: Final = (
    Case(
        430,
        "no CVMFS, and no disk for what the second tree has",
        cvmfs_ad("htc/tree:1"),
        f"{NO_CVMFS}; tree is down; tree has it, and the disk is full",
        said="IMAGE_CACHE_MIN_FREE_BYTES",
        knobs=trees(NOBODY, "v2") | {"IMAGE_CACHE_MIN_FREE_BYTES": "900 TB"},
    ),
    Case(
        0,
        "the second tree, when the first delivers something else",
        cvmfs_ad("htc/second:1"),
        f"{NO_CVMFS}; tree delivers something else; tree has it",
        "entry second",
        knobs=trees("broken", "v2"),
    ),
    Case(
        0,
        "the fourth tree, when one is down, one is not well and one has enough of us",
        cvmfs_ad("htc/tree:1"),
        f"{NO_CVMFS}; tree is down; tree is not well; tree has enough of us; tree has it",
        "entry tree",
        knobs=trees(NOBODY, "ill", "busy", "v2"),
    ),
    Case(
        0,
        "the second tree, when the first forbids everything",
        cvmfs_ad("htc/tree:1"),
        f"{NO_CVMFS}; tree lacks it; tree has it",
        "entry tree",
        knobs=trees("closed", "v2"),
    ),
    Case(
        120,
        "the authority lacks it; what trees cannot say is no reason to wait",
        cvmfs_ad("htc/tree:1"),
        "CVMFS lacks it; tree is down; tree is not well",
        said="not published",
        knobs=trees(NOBODY, "ill", cvmfs=True),
    ),
    Case(
        510,
        "one tree lacks it, the other delivers something else",
        cvmfs_ad("htc/second:1"),
        f"{NO_CVMFS}; tree lacks it; tree delivers something else",
        said="promised",
        knobs=trees("closed", "broken"),
    ),
    Case(
        510,
        "CVMFS lacks what a tree has and damages",
        cvmfs_ad("htc/second:1"),
        "CVMFS lacks it; tree delivers something else; tree is down",
        said="promised",
        knobs=trees("broken", NOBODY, cvmfs=True),
    ),
    Case(
        320,
        "CVMFS lacks what a tree has and this cache cannot hold",
        cvmfs_ad("htc/large:1"),
        "CVMFS lacks it; tree is down; tree has it too large",
        said="larger",
        knobs=trees(NOBODY, "v2", cvmfs=True) | SMALL,
    ),
    Case(
        610,
        "no CVMFS, one tree is down, the other lacks it",
        cvmfs_ad("htc/none:1"),
        f"{NO_CVMFS}; tree is down; tree lacks it",
        said="refused",
        knobs=trees(NOBODY, "v2"),
    ),
    Case(
        630,
        "one tree has enough of us, the other is not well",
        cvmfs_ad("htc/tree:1"),
        f"{NO_CVMFS}; tree is not well; tree has enough of us",
        said="Retry-After: 3600",
        knobs=trees("ill", "busy"),
    ),
)

FAULTS: Final = (
    Case(
        320,
        "a manifest that promises too much",
        cvmfs_ad("htc/large:1"),
        "CVMFS lacks it; tree has it too large",
        said="larger",
        knobs=TREE | SMALL,
    ),
    Case(
        330,
        "a published SIF for another machine",
        cvmfs_ad("htc/other:1"),
        "CVMFS lacks it; tree has it for another machine",
        said="the image is for",
    ),
    Case(440, "a repository that is not mounted", cvmfs_ad("x:1", "nowhere.example.org"), NO_CVMFS, said="not mounted"),
    Case(440, "an empty mount point", cvmfs_ad("x:1", "empty.example.org"), NO_CVMFS, said="the directory is empty"),
    bare_fault(440, "no CVMFS here, and no tree has it", "htc/none:1", "lacks it", "HTTP 404"),
    *(
        Case(440, name, cvmfs_ad(f"htc/{image}:1"), "CVMFS has a broken name", said=said, knobs={})
        for name, image, said in (
            ("an unfinished publication", "dangling", "leads to nothing"),
            ("a link out of the repository", "outside", "out of the repository"),
            ("a link to itself", "loop", "CVMFS repository"),
            ("a text on CVMFS", "text", "neither"),
        )
    ),
    *(
        Case(510, name, cvmfs_ad(f"htc/{image}:1"), "CVMFS lacks it; tree delivers something else", said=said)
        for name, image, said in (
            ("half a published SIF", "half", "truncated SIF"),
            ("another digest than promised", "digest", "was promised"),
            ("another size than promised", "size", "were promised"),
            ("an HTML page for a published SIF", "html", "promised"),
        )
    ),
    bare_fault(510, "the manifest of another image", "htc/name:1", "describes it wrongly", "belongs to another image"),
    bare_fault(510, "a manifest that is none", "htc/nojson:1", "describes it wrongly", "no JSON"),
    bare_fault(610, "an HTML page for a pointer", "htc/pointer_html:1", "is not well", "names no version"),
    bare_fault(610, "a pointer out of the tree", "htc/pointer_up:1", "is not well", "names no version"),
    bare_fault(610, "a published SIF that is not there", "htc/missing:1", "cannot deliver it", "latest.txt names it"),
    Case(
        610,
        "CVMFS lacks what a tree has and cannot deliver",
        cvmfs_ad("htc/missing:1"),
        "CVMFS lacks it; tree cannot deliver it",
        said="latest.txt names it",
    ),
)

ROWS: Final = (*FORMS, *SEVERAL, *FAULTS)
