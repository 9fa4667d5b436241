"""What came of looking for an image: values that sources return and that the policy judges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from cache_manager.status import HookStatus, StatusError

FAILURE_TTL_S: Final = 60.0
"""How long a failure is remembered: at most one request a minute for what is broken."""

FAILURE_MAX_S: Final = 3600.0
"""The same, when the source itself says how long to leave it alone."""


@dataclass(frozen=True, slots=True)
class Located:
    """A source has the image.

    `path` is set for an image that can run from where it is (a CVMFS sandbox), `url` for one that has to be fetched:
    an object, immutable together with its `version` (an ETag, where the URL alone does not name it). `digest`
    (sha256, hexadecimal) and `size_bytes` are what a manifest promises; empty and None if there is none.
    `about_bytes` is what a server said beforehand, for refusing what is too large; it binds nobody. `note` is something
    that the job's author should know, for the message. `private` says that only who has a credential may have it.
    `pointer` is the digest to which a tag of a registry or library points: of an index, where there is one.
    """

    path: str = ""
    url: str = ""
    digest: str = ""
    size_bytes: int | None = None
    about_bytes: int | None = None
    sandbox: bool = False
    version: str = ""
    note: str = ""
    private: bool = False
    pointer: str = ""

    @property
    def object_id(self) -> str:
        """What names the bytes: the URL, and the version if it has one. May hold secrets: for digests only."""
        return f"{self.url}#{self.version}" if self.version else self.url


@dataclass(frozen=True, slots=True)
class Absent:
    """A source does not have the image. Only an authoritative, healthy one may make that a hold.

    `relayed` says that a proxy may have answered in the source's place.
    """

    why: str
    authoritative: bool = False
    relayed: bool = False


@dataclass(frozen=True, slots=True)
class Denied:
    """The end server refuses the reference that the user wrote.

    `wants_credential`: it was asked without one, and with the job's own it may say something else.
    """

    why: str
    wants_credential: bool = False


@dataclass(frozen=True, slots=True)
class Unwell:
    """A source cannot say, or cannot deliver: the status that this means, and why.

    `everything` says that it is the source as a whole that does not answer, and not this image's part of it.
    `retry_after_s` is how long the source asks to be left alone; None if it does not say. `of_credential` says that it
    is the job's credential that is of no use now, which is nothing to who has another.
    """

    status: HookStatus
    why: str
    everything: bool = False
    retry_after_s: float | None = None
    of_credential: bool = False


Answer = Located | Absent | Denied | Unwell


class FetchError(StatusError):
    """An object that could not be fetched; `retry_after_s` and `of_credential` as with Unwell."""

    def __init__(
        self, status: HookStatus, message: str, retry_after_s: float | None = None, *, of_credential: bool = False
    ) -> None:
        super().__init__(status, message)
        self.retry_after_s = retry_after_s
        self.of_credential = of_credential


def remembered_s(failure: object) -> float:
    """Return how long a failure is remembered: as long as the source says, at most FAILURE_MAX_S."""
    said = failure.retry_after_s if isinstance(failure, (Unwell, FetchError)) else None
    return FAILURE_TTL_S if said is None else min(said, FAILURE_MAX_S)


def remembered(answer: Answer, left_s: float) -> Answer:
    """Return an answer that was remembered and is trusted for so long: the wait that it speaks of is partly over."""
    if isinstance(answer, Unwell) and answer.retry_after_s is not None:
        return replace(answer, retry_after_s=left_s)
    return answer


@dataclass(frozen=True, slots=True)
class Served:
    """The job runs in the image at `path`. `origin` says in words where it came from."""

    path: str
    origin: str
    sandbox: bool = False
    key: str = ""
    size_bytes: int | None = None
    seconds: float = 0.0
    hit: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """A candidate that did not serve.

    `existing` if it showed that the image exists; `not_here` if it said no more than that it does not have it.
    `retry_after_s` is when it wants to be asked again; None if it does not say.
    """

    status: HookStatus
    why: str
    existing: bool = False
    not_here: bool = False
    retry_after_s: float | None = None


def failure_of(answer: Absent | Denied | Unwell, elsewhere: HookStatus) -> Failed:
    """Turn a source's answer into a failed attempt; `elsewhere` is the status of "not here, perhaps elsewhere"."""
    if isinstance(answer, Denied):
        return Failed(HookStatus.IMAGE_ACCESS_DENIED, answer.why, existing=True)
    if isinstance(answer, Unwell):
        return Failed(answer.status, answer.why, retry_after_s=answer.retry_after_s)
    if answer.authoritative:
        return Failed(HookStatus.IMAGE_NOT_PUBLISHED, answer.why)
    return Failed(elsewhere, answer.why, not_here=True)
