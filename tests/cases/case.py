"""A row of the table: a job, a slot, the state of the world, and what becomes of the job.

Three tests run each row: the policy with values (tests/unit/test_cases.py), the hook as a process
(tests/contract/test_statuses.py), and real jobs (tests/pool/test_cases.py) for the rows that have submit lines.
`@ORIGIN@`, `@SITE@` and `@PORT@` stand for the HTTP server's URL, the site's directory, and the server's port.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from cache_manager.outcome import Absent, Answer, Denied, Failed, Located, Served, Unwell, failure_of
from cache_manager.policy import SourceKind
from cache_manager.status import HookStatus
from tests.contract.doubles import REPOSITORY, image_ad
from tests.contract.worlds import TREE, World

CVMFS: Final = f"/cvmfs/{REPOSITORY}"
OWN: Final = "@ORIGIN@/own"
SCRATCH: Final = "@SITE@/execute/dir_1/scratch"

WHO: Final = {
    "CVMFS": SourceKind.CVMFS,
    "tree": SourceKind.TREE,
    "URL": SourceKind.URL,
    "federation": SourceKind.FEDERATION,
    "plug-in": SourceKind.PLUGIN,
    "registry": SourceKind.REGISTRY,
    "library": SourceKind.LIBRARY,
    "file": SourceKind.JOB_FILE,
    "path": SourceKind.LOCAL,
}
"""Who is asked, in the words of the rows: `CVMFS lacks it; tree has it`."""

_AUTHORITIES: Final = {"CVMFS", "URL", "registry", "library", "federation"}
_NOT_HERE: Final = {"CVMFS": HookStatus.CVMFS_UNAVAILABLE}

_ANSWERS: Final[Mapping[str, Answer]] = {
    "has it": Located(url="https://origin.example/x.sif"),
    "lacks it": Absent(""),
    "refuses": Denied(""),
    "is not mounted": Unwell(HookStatus.CVMFS_UNAVAILABLE, "", everything=True),
    "has a broken name": Unwell(HookStatus.CVMFS_UNAVAILABLE, ""),
    "is down": Unwell(HookStatus.SOURCE_UNREACHABLE, "", everything=True),
    "is not here": Unwell(HookStatus.NO_CONTAINER_RUNTIME, ""),
    "is not well": Unwell(HookStatus.SOURCE_UNREACHABLE, ""),
    "has enough of us": Unwell(HookStatus.SOURCE_THROTTLED, ""),
    "describes it wrongly": Unwell(HookStatus.IMAGE_CORRUPT, ""),
    "is for others": Unwell(HookStatus.ARCHITECTURE_MISMATCH, ""),
}
"""What a source says when it is asked where the image is."""

_FETCHES: Final = {
    "cannot deliver it": HookStatus.SOURCE_UNREACHABLE,
    "delivers something else": HookStatus.IMAGE_CORRUPT,
    "delivers no image": HookStatus.IMAGE_FILE_INVALID,
    "has it too large": HookStatus.IMAGE_TOO_LARGE,
    "has it for another machine": HookStatus.ARCHITECTURE_MISMATCH,
    "has it, and it does not start": HookStatus.IMAGE_UNPACK_FAILED,
    "has it, and the cache is full": HookStatus.CACHE_FULL,
    "has it, and the disk is full": HookStatus.DISK_FULL,
    "has it, and the cache is unusable": HookStatus.CACHE_UNUSABLE,
    "is late": HookStatus.DEADLINE_EXCEEDED,
    "is too slow": HookStatus.SOURCE_TOO_SLOW,
}
"""What becomes of an image that is fetched: it exists."""

_OPENED: Final = {
    ("file", "is no image"): HookStatus.IMAGE_FILE_INVALID,
    ("file", "is a SIF, which does not run here"): HookStatus.NO_CONTAINER_RUNTIME,
    ("path", "is a SIF, which does not run here"): HookStatus.NO_CONTAINER_RUNTIME,
    ("file", "is a directory, which does not run here"): HookStatus.NO_CONTAINER_RUNTIME,
    ("file", "is missing"): HookStatus.IMAGE_FILE_INVALID,
    ("file", "leads to what is not published"): HookStatus.IMAGE_NOT_PUBLISHED,
    ("path", "leads to what is not published"): HookStatus.PATH_NOT_HERE,
    ("path", "is no image"): HookStatus.PATH_NOT_HERE,
    ("path", "is missing"): HookStatus.PATH_NOT_HERE,
    ("path", "cannot be read"): HookStatus.PATH_NOT_HERE,
}
"""What the hook finds when it opens a path as the job's user."""


@dataclass(frozen=True)
class Ask:
    """A candidate and what it says."""

    who: str
    says: str

    @property
    def source(self) -> SourceKind:
        """Return the candidate's kind."""
        return WHO[self.who]

    @property
    def is_foreseen(self) -> bool:
        """Whether `explain` knows it: not what only the bytes or the job's own user can tell."""
        return self.says in _ANSWERS and self.who in {"CVMFS", "tree"}

    def attempt(self, runs: str, why: str) -> Served | Failed:
        """Return what this means to the policy; `runs` is the row's, `why` the source's words."""
        if self.says in {"has it", "is there"}:
            kind, _, place = runs.partition(" ")
            return Served(f"/cache/{place}" if kind == "entry" else place, self.who, sandbox=kind == "sandbox")
        if self.says in _FETCHES:
            return Failed(_FETCHES[self.says], why, existing=True)
        if (self.who, self.says) in _OPENED:
            return Failed(_OPENED[self.who, self.says], why)
        answer = _ANSWERS[self.says]
        assert not isinstance(answer, Located)
        if isinstance(answer, Absent):
            answer = replace(answer, authoritative=self.who in _AUTHORITIES)
        return failure_of(replace(answer, why=why), _NOT_HERE.get(self.who, HookStatus.SOURCE_UNREACHABLE))


@dataclass(frozen=True)
class Submit:
    """How a real job is made that has the row's ad, on which pool, and what it reads in its container.

    `pool` is `mounted` (CVMFS, a default image), `bare` (neither), `docker`, or `strict` (knobs that refuse).
    `files` lie beside its submit description.
    """

    pool: str
    lines: Mapping[str, str]
    reads: str = ""
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A job and what becomes of it.

    `runs` is what it runs from: `sandbox PATH`, `sif PATH`, `entry SEED` (the cached `sif(SEED)`), or nothing.
    `asks` are the candidates in their order, each with what it says; nobody if the answer needs nobody. `said` has to
    be in the message. `unwell` says that the site's CVMFS repositories are known not to answer.
    """

    code: int
    name: str
    ad: str | bytes
    asks: str = ""
    runs: str = ""
    said: str = ""
    knobs: Mapping[str, str] = field(default_factory=lambda: TREE)
    machine: str = ""
    args: tuple[str, ...] = ()
    before_start: Callable[[World], None] | None = None
    before: Callable[[World], None] | None = None
    no_manager: bool = False
    unwell: bool = False
    submit: Submit | None = None

    @property
    def asked(self) -> list[Ask]:
        """Return the candidates, taken apart."""
        return [Ask(*words.split(" ", 1)) for words in self.asks.split("; ") if words]


def url(path: str) -> str:
    """Return the ad of a job that names a URL of the test's server."""
    return image_ad(f"{OWN}/{path}")


def sandbox(name: str) -> str:
    """Return what a job runs from that gets the CVMFS sandbox of a published image."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"sandbox @SITE@/cvmfs/{REPOSITORY}/.images/{digest[:2]}/{digest[2:]}"
