"""The ONE table of hook statuses: code, name, when, and what the reader can do about it.

The number decides what HTCondor does with the job: 0 runs it, 1-299 hold it (HoldReasonCode 19, subcode = the
number), 300 and more send it back to idle. Hold only what no other execution point could run.
"""

from __future__ import annotations

from enum import Enum

HOLD_LIMIT = 300
"""Statuses below this one (and above 0) hold the job; from here on the job goes back to idle."""


class HookStatus(Enum):
    """A row of the table. `code` goes into HookStatusCode, `meaning` and `remedy` into the documentation."""

    OK = (0, "the job runs; the message says which image, from where, bytes, seconds", "")
    IMAGE_REFERENCE_INVALID = (
        110,
        "the image reference cannot be parsed: an unknown scheme, `..`, control characters",
        "correct the image in the submit file (condor_qedit + condor_release, or submit again)",
    )
    IMAGE_NOT_PUBLISHED = (
        120,
        "an authoritative and healthy source says that the image does not exist",
        "check the spelling of the name and tag; a new image has to be published first",
    )
    IMAGE_ACCESS_DENIED = (
        130,
        "the server refuses the image that the job names (401 or 403)",
        "make the image readable, or give the job a valid credential for it",
    )
    IMAGE_FILE_INVALID = (
        150,
        "the image that came with the job is missing or is no image, or the job's own URL delivers no image",
        "look at the file: it has to be a SIF or an image directory",
    )
    NO_CONTAINER_RUNTIME = (310, "no container runtime here for this image", "install apptainer on the EP")
    IMAGE_TOO_LARGE = (
        320,
        "the image is larger than this cache may ever hold",
        "raise IMAGE_CACHE_MAX_BYTES on the EP, or use a smaller image",
    )
    ARCHITECTURE_MISMATCH = (
        330,
        "the image is for another architecture or micro-architecture",
        "add the architecture to the job's requirements",
    )
    CACHE_UNUSABLE = (
        340,
        "the cache directory cannot be used (owner, mode, read-only)",
        "see ImageCacheLog on the EP, mend the directory",
    )
    IMAGE_NOT_ALLOWED = (
        350,
        "this site's allow list forbids the image, or its cache cannot keep it for one user alone (no ACLs)",
        "see IMAGE_CACHE_ALLOW on the EP; an image with a credential needs a file system with ACLs for the cache",
    )
    PATH_NOT_HERE = (
        360,
        "an absolute path that this EP does not have, or that is no image here",
        "name an image that is everywhere, or add requirements for the EPs that have the path",
    )
    HOOK_INTERNAL_ERROR = (
        399,
        "the hook or the cache manager itself failed",
        "see StarterLog and ImageCacheLog",
    )
    CACHE_MANAGER_DOWN = (
        410,
        "nobody answers on the manager's socket, and no answer is possible without it",
        "condor_master restarts the manager; see MasterLog and ImageCacheLog",
    )
    CACHE_FULL = (
        420,
        "no room in the cache even after eviction: all of it is in use",
        "raise IMAGE_CACHE_MAX_BYTES",
    )
    DISK_FULL = (430, "the file system is full below the cache's cap", "free disk on the EP")
    CVMFS_UNAVAILABLE = (
        440,
        "the CVMFS repository is absent, broken or hangs here, and no other source has the image",
        "mend CVMFS on the EP, or configure IMAGE_CACHE_SIF_SOURCES",
    )
    IMAGE_UNPACK_FAILED = (450, "the runtime could not unpack or test the image here", "see ImageCacheLog")
    DEADLINE_EXCEEDED = (
        460,
        "the hook's total time is over; the fetch goes on for the next job",
        "nothing: the next try finds the image; see IMAGE_CACHE_HOOK_DEADLINE",
    )
    IMAGE_CORRUPT = (
        510,
        "a published image does not match its size, digest or SIF header at any source",
        "tell the publisher; the image has to be published again",
    )
    SOURCE_UNREACHABLE = (
        610,
        "no source of the image answers (DNS, connection, 5xx, a proxy's 403)",
        "the job is tried again; see `condor_image_cache status` on the EP",
    )
    SOURCE_TOO_SLOW = (
        620,
        "the transfer's time budget is spent, or no byte came for too long",
        "see IMAGE_CACHE_MIN_RATE and IMAGE_CACHE_STALL_TIMEOUT on the EP",
    )
    SOURCE_THROTTLED = (
        630,
        "the source says 429, with a Retry-After beyond the deadline",
        "the job is tried again",
    )

    def __init__(self, code: int, meaning: str, remedy: str) -> None:
        """Unpack the row."""
        self.code = code
        self.meaning = meaning
        self.remedy = remedy

    @property
    def holds(self) -> bool:
        """Whether HTCondor puts the job on hold."""
        return 0 < self.code < HOLD_LIMIT

    @property
    def consequence(self) -> str:
        """What becomes of the job, in HTCondor's words: `runs`, `hold` or `idle`."""
        if self is HookStatus.OK:
            return "runs"
        return "hold" if self.holds else "idle"


class StatusError(Exception):
    """An answer other than OK, raised where it is found. The message reads `object: what is wrong (numbers)`."""

    def __init__(self, status: HookStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def table_markdown() -> str:
    """Return the table for the README."""
    rows = ["| code | name | the job | when | what to do |", "|---|---|---|---|---|"]
    rows += [
        f"| {status.code} | {status.name} | {status.consequence} | {status.meaning} | {status.remedy} |"
        for status in HookStatus
    ]
    return "\n".join(rows) + "\n"
