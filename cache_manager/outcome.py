"""What came of looking for an image: values that sources return and that the policy judges."""

from __future__ import annotations

from dataclasses import dataclass

from cache_manager.status import HookStatus


@dataclass(frozen=True, slots=True)
class Located:
    """A source has the image.

    `path` is set for an image that can run from where it is (a CVMFS sandbox), `url` for one that has to be fetched:
    an object, immutable together with its `version` (an ETag, where the URL alone does not name it). `digest`
    (sha256, hexadecimal) and `size_bytes` are what a manifest promises; empty and None if there is none.
    `about_bytes` is what a server said beforehand, for refusing what is too large; it binds nobody. `note` is something
    that the job's author should know, for the message.
    """

    path: str = ""
    url: str = ""
    digest: str = ""
    size_bytes: int | None = None
    about_bytes: int | None = None
    sandbox: bool = False
    version: str = ""
    note: str = ""

    @property
    def object_id(self) -> str:
        """What names the bytes: the URL, and the version if it has one. May hold secrets: for digests only."""
        return f"{self.url}#{self.version}" if self.version else self.url


@dataclass(frozen=True, slots=True)
class Absent:
    """A source does not have the image. Only an authoritative, healthy one may make that a hold."""

    why: str
    authoritative: bool = False


@dataclass(frozen=True, slots=True)
class Denied:
    """The end server refuses the reference that the user wrote."""

    why: str


@dataclass(frozen=True, slots=True)
class Unwell:
    """A source cannot say, or cannot deliver: the status that this means, and why.

    `everything` says that it is the source as a whole that does not answer, and not this image's part of it.
    """

    status: HookStatus
    why: str
    everything: bool = False


Answer = Located | Absent | Denied | Unwell


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
    """

    status: HookStatus
    why: str
    existing: bool = False
    not_here: bool = False


def failure_of(answer: Absent | Denied | Unwell, elsewhere: HookStatus) -> Failed:
    """Turn a source's answer into a failed attempt; `elsewhere` is the status of "not here, perhaps elsewhere"."""
    if isinstance(answer, Denied):
        return Failed(HookStatus.IMAGE_ACCESS_DENIED, answer.why, existing=True)
    if isinstance(answer, Unwell):
        return Failed(answer.status, answer.why)
    if answer.authoritative:
        return Failed(HookStatus.IMAGE_NOT_PUBLISHED, answer.why)
    return Failed(elsewhere, answer.why, not_here=True)
