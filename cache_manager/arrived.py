"""What came in: is it the image that was promised, or layers of which one is made; and what a failure means."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from cache_manager import archive, sif
from cache_manager.archive import Archive, ArchiveError
from cache_manager.outcome import Absent, Denied, FetchError, Located, Unwell
from cache_manager.sources.base import SourceError
from cache_manager.sources.transport import shown
from cache_manager.staging import Staging
from cache_manager.status import HookStatus, StatusError


@dataclass(frozen=True, slots=True)
class Came:
    """What was fetched, and is whole; `archive` if it has to be converted."""

    digest: str
    architecture: str
    archive: Archive | None = None


class MismatchError(sif.SifError):
    """What came is not what was promised of it: somebody between changed it, whoever named it."""


def checked(located: Located, digest: str, staging: Staging, *, may_be_archive: bool) -> Came:
    """Return what came in. Raises SifError or ArchiveError, with numbers, if it is not the image, and StatusError.

    A job may name an archive of layers; who publishes SIFs may not.
    """
    if located.size_bytes is not None and located.size_bytes != staging.size_bytes:
        raise MismatchError(f"{staging.size_bytes} bytes came, {located.size_bytes} were promised")
    if located.digest and located.digest != digest:
        size = f"({staging.size_bytes} bytes)"
        raise MismatchError(f"sha256 {digest[:16]}... came, {located.digest[:16]}... was promised {size}")
    try:
        architecture, layers = _looked_at(staging, may_be_archive=may_be_archive)
    except (sif.SifError, ArchiveError):
        _refuse_other_than_promised(located, staging)  # then it says nothing of what the server has
        raise
    here = platform.machine()
    if architecture not in {"", here}:
        what = f"the image is for {architecture}, this EP is {here}"
        raise StatusError(HookStatus.ARCHITECTURE_MISMATCH, what)
    _refuse_other_than_promised(located, staging)
    return Came(digest, architecture, layers)


def _looked_at(staging: Staging, *, may_be_archive: bool) -> tuple[str, Archive | None]:
    """Return for which architecture it is, and the layers if it is an archive. Raises SifError, ArchiveError."""
    if may_be_archive and staging.size_bytes >= archive.BLOCK and archive.is_archive(staging.read(0, archive.BLOCK)):
        layers = archive.look(staging.read, staging.size_bytes)
        return layers.architecture, layers
    return sif.parse(staging.read, staging.size_bytes).architecture, None


def _refuse_other_than_promised(located: Located, staging: Staging) -> None:
    """Raise MismatchError for what has another sum than its server says, where nobody else knows one."""
    wrong = "" if located.digest else staging.differs()
    if wrong:
        raise MismatchError(f"{wrong} ({staging.size_bytes} bytes)")


def no_image(located: Located, wrong: sif.SifError | ArchiveError, staging: Staging, *, own_url: bool) -> StatusError:
    """Return what it means that something else came, complete and twice.

    The user can mend what the URL names, but not that other bytes come than its server has.
    """
    users = own_url and not isinstance(wrong, MismatchError)
    status = HookStatus.IMAGE_FILE_INVALID if users else HookStatus.IMAGE_CORRUPT
    why = f"{shown(located.url)}: {wrong}, twice"
    if isinstance(wrong, (sif.TruncatedError, ArchiveError)) and not staging.end_is_told:
        # perhaps the network's doing, and not what the server has
        return StatusError(HookStatus.SOURCE_UNREACHABLE, f"{why}; the server did not say how long it is")
    return StatusError(status, why)


def status_of(error: SourceError, *, own_url: bool) -> StatusError:
    """Return what a source's failure means for the job; `own_url` says that the job itself named the object."""
    answer = error.answer
    if isinstance(answer, Denied):
        status = HookStatus.IMAGE_ACCESS_DENIED if own_url else HookStatus.SOURCE_UNREACHABLE
    elif isinstance(answer, Absent):
        status = HookStatus.IMAGE_NOT_PUBLISHED if answer.authoritative else HookStatus.SOURCE_UNREACHABLE
    else:
        status = answer.status
    if isinstance(answer, Unwell):
        return FetchError(status, answer.why, answer.retry_after_s, of_credential=answer.of_credential)
    return FetchError(status, answer.why, of_credential=isinstance(answer, Denied))
