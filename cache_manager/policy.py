"""The whole policy on one page: which sources may serve a job, in which order, and what their answers mean.

Pure: `explain` prints exactly what `rank` and `verdict` return.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from cache_manager.abilities import UNKNOWN, Abilities
from cache_manager.credential import Credential
from cache_manager.jobad import BY_EP, HAS_DOCKER, JobRequest
from cache_manager.library import LibraryReference
from cache_manager.outcome import Failed, Served
from cache_manager.reference import DOCKER_CREDENTIAL, FEDERATION_SCHEMES, ImageReference, ReferenceKind
from cache_manager.registry.reference import RegistryReference, RegistryReferenceError
from cache_manager.settings import Settings
from cache_manager.status import HookStatus
from cache_manager.text import fair, human_bytes, shorten, without_secrets
from cache_manager.updatead import MESSAGE_BYTES


class SourceKind(Enum):
    """Who can serve an image."""

    CVMFS = "CVMFS sandbox"
    TREE = "published SIF"
    URL = "SIF at the job's URL"
    FEDERATION = "SIF in the data federation"
    PLUGIN = "SIF that a transfer plug-in brings"
    REGISTRY = "image in a registry"
    LIBRARY = "SIF in a library"
    JOB_FILE = "file that came with the job"
    LOCAL = "path on this EP"


JOBS_OWN: Final = frozenset(
    {SourceKind.URL, SourceKind.FEDERATION, SourceKind.PLUGIN, SourceKind.REGISTRY, SourceKind.LIBRARY}
)
"""Who brings what jobs name themselves."""

HAS_TAGS: Final = frozenset({SourceKind.REGISTRY, SourceKind.LIBRARY})
"""Where a name says which image it means today, and who has it says so with authority."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place to ask for an image. `base` is the tree's URL; `repository` the CVMFS repository.

    `formats` are those that run here; where that is the sandbox alone, a SIF has to be unpacked. `credential` is the
    job's, once the place asked for one.
    """

    source: SourceKind
    image: ImageReference
    base: str = ""
    repository: str = ""
    formats: tuple[str, ...] = ("sif", "sandbox")
    credential: Credential | None = None

    @property
    def is_jobs_own(self) -> bool:
        """Whether the job itself names the object: its author can mend it, and nobody else vouches for it."""
        return self.source in JOBS_OWN

    @property
    def unpack(self) -> bool:
        """Whether what is fetched has to be unpacked."""
        return "sif" not in self.formats


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the hook answers; `image` is None for a job that runs as it is."""

    status: HookStatus
    message: str
    image: Served | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the order of sources: a kind of source at one place, and the kinds of references that it serves.

    `unfit` says why it serves none of this image's kind here; `off` why it is switched off although it might.
    """

    source: SourceKind
    serves: frozenset[ReferenceKind]
    place: str = ""
    unfit: str = ""
    off: str = ""

    def candidate(self, image: ImageReference) -> Candidate:
        """Return this place as one to ask for an image."""
        if self.source is SourceKind.CVMFS:
            return Candidate(self.source, image, repository=self.place)
        return Candidate(self.source, image, base=self.place)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates in the order in which they are asked; or the verdict that needs nobody to be asked."""

    image: ImageReference | None
    candidates: tuple[Candidate, ...] = ()
    skipped: tuple[str, ...] = ()
    verdict: Verdict | None = None
    order: tuple[Row, ...] = ()
    passed_over: tuple[Failed, ...] = ()
    """What is switched off here: it counts as asked in vain, so that the job's message tells of it."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the policy knows of this EP at this moment. `unwell` are CVMFS repositories known not to answer.

    `federations_off` is why no data federation is asked here; empty if they are.
    """

    settings: Settings
    unwell: frozenset[str] = frozenset()
    abilities: Abilities = UNKNOWN
    federations_off: str = ""


NAME_BYTES: Final = 400
"""A message gives an image's name no more than that, of MESSAGE_BYTES in all."""

_FRAME_BYTES: Final = 160
"""What stands around name and reasons in a message, at most."""

_PUBLISHED: Final = frozenset({ReferenceKind.CVMFS, ReferenceKind.NAME})
WITH_CREDENTIAL: Final = frozenset({"box", "gdrive", "onedrive"})
"""HTCondor's plug-ins for these bring nothing without the job's own credential."""

PRECEDENCE: Final = (
    # The failure that came closest to serving the job tells most. "Not published" comes after every failure that
    # shows that the image exists, and before every failure that says nothing about it.
    HookStatus.IMAGE_ACCESS_DENIED,
    HookStatus.IMAGE_FILE_INVALID,
    HookStatus.CACHE_UNUSABLE,
    HookStatus.IMAGE_NOT_ALLOWED,
    HookStatus.ARCHITECTURE_MISMATCH,
    HookStatus.IMAGE_TOO_LARGE,
    HookStatus.DISK_FULL,
    HookStatus.CACHE_FULL,
    HookStatus.IMAGE_UNPACK_FAILED,
    HookStatus.IMAGE_CORRUPT,
    HookStatus.SOURCE_TOO_SLOW,
    HookStatus.IMAGE_NOT_PUBLISHED,
    HookStatus.DEADLINE_EXCEEDED,
    HookStatus.SOURCE_THROTTLED,
    HookStatus.SOURCE_UNREACHABLE,
    HookStatus.CVMFS_UNAVAILABLE,
    HookStatus.PATH_NOT_HERE,
    HookStatus.NO_CONTAINER_RUNTIME,
    HookStatus.HOOK_INTERNAL_ERROR,
)


def rank(request: JobRequest, site: Site) -> Ranking:
    """Return who is asked for the job's image, in order, or the answer that needs nobody."""
    settings, machine = site.settings, request.machine
    to_docker = f"{HAS_DOCKER} (IMAGE_CACHE_DOCKER = leave)" if request.by_docker and settings.docker == "leave" else ""
    left = request.leave or to_docker
    if left:
        return Ranking(None, verdict=Verdict(HookStatus.OK, ""), skipped=(left,))
    image = request.image or settings.default_for(machine.name, machine.gpus)
    if image is None:
        why = "the job names no image and IMAGE_CACHE_DEFAULT_IMAGE is empty"
        return Ranking(None, verdict=Verdict(HookStatus.OK, ""), skipped=(why,))
    if not settings.allows(image):
        message = f"{image.short}: not allowed here (IMAGE_CACHE_ALLOW = {' '.join(settings.allow)})"
        return Ranking(image, verdict=Verdict(HookStatus.IMAGE_NOT_ALLOWED, message))
    if machine.has_runtime is False and machine.has_sif is not True and machine.has_sandbox is not True:
        message = f"{image.short}: this EP has no container runtime (the slot says HasSingularity = false)"
        return Ranking(image, verdict=Verdict(HookStatus.NO_CONTAINER_RUNTIME, message))
    settled = _settled(image, site) if image.kind is ReferenceKind.REGISTRY else None
    return settled or _rank_image(image, request, site)


def _settled(image: ImageReference, site: Site) -> Ranking | None:
    """Return the answer for an image in a registry that needs nobody to be asked; None if there is none."""
    if image.has_secret:
        what = f"takes no user, password and query; a private image needs the job's credential {DOCKER_CREDENTIAL!r}"
        return Ranking(image, verdict=Verdict(HookStatus.IMAGE_REFERENCE_INVALID, f"{image.short}: {what}"))
    try:
        RegistryReference.parse(image.path)
    except RegistryReferenceError as error:
        return Ranking(image, verdict=Verdict(HookStatus.IMAGE_REFERENCE_INVALID, f"{image.short}: {error}"))
    if not site.abilities.runtime:
        why = "there is nothing here that converts images: it is left to the starter's container runtime"
        return Ranking(image, verdict=Verdict(HookStatus.OK, ""), skipped=(why,))
    return None


def order(site: Site, image: ImageReference | None = None) -> tuple[Row, ...]:
    """Return the order of sources as the knobs have it, for an image: who comes first is asked first.

    Both forms of a published name are in it: the CVMFS sandbox, and the SIF in each tree.
    """
    settings = site.settings
    foreign = bool(image and image.repository and image.repository not in settings.cvmfs_repositories)
    repositories = (image.repository,) if image and image.repository else settings.cvmfs_repositories
    sandboxes = [Row(SourceKind.CVMFS, _PUBLISHED, repository) for repository in repositories]
    sifs = [Row(SourceKind.TREE, _PUBLISHED, base, off=_off(base, site)) for base in settings.sif_sources]
    if foreign:
        elsewhere = f"{repositories[0]} is not in IMAGE_CACHE_CVMFS_REPOSITORIES: its images have no SIFs"
        sifs = [Row(SourceKind.TREE, _PUBLISHED, unfit=elsewhere)]
    elif not sifs:
        sifs = [Row(SourceKind.TREE, _PUBLISHED, unfit="IMAGE_CACHE_SIF_SOURCES is empty: no published SIFs")]
    published = [*sifs, *sandboxes] if _sif_comes_first(site, repositories, sifs) else [*sandboxes, *sifs]
    return (
        *published,
        Row(SourceKind.URL, frozenset({ReferenceKind.HTTP})),
        Row(SourceKind.FEDERATION, frozenset({ReferenceKind.FEDERATION}), off=site.federations_off),
        Row(SourceKind.REGISTRY, frozenset({ReferenceKind.REGISTRY})),
        _library(image, settings),
        Row(SourceKind.PLUGIN, frozenset({ReferenceKind.PLUGIN}), unfit=_wants_credential(image)),
        Row(SourceKind.JOB_FILE, frozenset({ReferenceKind.JOB_FILE})),
        Row(SourceKind.LOCAL, frozenset({ReferenceKind.PATH})),
    )


def _sif_comes_first(site: Site, repositories: Sequence[str], sifs: Sequence[Row]) -> bool:
    if site.settings.prefer == "auto":  # a tree that is of no use must not keep a repository waiting
        return any(not row.unfit and not row.off for row in sifs) and set(repositories) <= site.unwell
    return site.settings.prefer == "sif"


def _off(base: str, site: Site) -> str:
    return site.federations_off if base.partition("://")[0] in FEDERATION_SCHEMES else ""


def _library(image: ImageReference | None, settings: Settings) -> Row:
    """Return the place of the library that an image names, or of the site's."""
    place, unfit = settings.library, ""
    if image is not None and image.kind is ReferenceKind.LIBRARY:
        if image.scheme == "library":
            place = LibraryReference.parse(image.path).server(settings.library)
            unfit = "" if place else "names no library's host, and IMAGE_CACHE_LIBRARY is empty"
        else:
            unfit = f"nothing here brings {image.scheme}:// images"
    return Row(SourceKind.LIBRARY, frozenset({ReferenceKind.LIBRARY}), place, unfit=unfit)


def _wants_credential(image: ImageReference | None) -> str:
    """Return why no plug-in is asked for an image: with a job's credential it could be nobody else's."""
    if image is None or not (image.token or image.scheme in WITH_CREDENTIAL):
        return ""
    return (
        f"{image.scheme}:// takes the job's own credential, which plug-ins get from HTCondor alone: let it transfer "
        "the image (transfer_container = true)"
    )


def _rank_image(image: ImageReference, request: JobRequest, site: Site) -> Ranking:
    rows = order(site, image)
    mine = [row for row in rows if image.kind in row.serves]
    skipped = [row.unfit for row in mine if row.unfit]
    if image.kind in _PUBLISHED and site.settings.prefer == "auto" and mine[0].source is SourceKind.TREE:
        repositories = " ".join(row.place for row in mine if row.source is SourceKind.CVMFS)
        skipped.append(f"CVMFS {repositories} does not answer now: published SIFs come first")
    passed_over = [Failed(HookStatus.SOURCE_UNREACHABLE, _why_off(row)) for row in mine if row.off]
    formats = _formats(request, site)
    usable = []
    for candidate in (row.candidate(image) for row in mine if not row.unfit and not row.off):
        unable = _unable(candidate, formats, site.abilities)
        if unable:
            skipped.append(unable)
        else:
            usable.append(replace(candidate, formats=formats))
    ranking = Ranking(image, tuple(usable), tuple(skipped), order=rows, passed_over=tuple(passed_over))
    if usable:
        return ranking
    if passed_over:
        return replace(ranking, verdict=verdict(image, passed_over))
    message = f"{image.short}: {'; '.join(skipped) or 'no source is configured for it'}"
    return replace(ranking, verdict=Verdict(HookStatus.NO_CONTAINER_RUNTIME, message))


def _why_off(row: Row) -> str:
    where = f" {without_secrets(row.place)}" if row.place else ""
    return f"{row.source.value}{where}: {row.off}"


def _formats(request: JobRequest, site: Site) -> tuple[str, ...]:
    """Return what this EP runs, the first choice first.

    HTCondor's word on directories is a trial like ours, as who starts the jobs; its HasSIF counts as well where it is
    false, but says true also where each job would unpack its SIF. What we did not try refuses nothing.
    """
    machine, able = request.machine, site.abilities if site.abilities.tried else UNKNOWN
    has_sandbox = able.can_use_sandbox if machine.has_sandbox is None else machine.has_sandbox
    has_sif = able.can_use_sif and machine.has_sif is not False
    return tuple(one for one, runs in (("sif", has_sif), ("sandbox", has_sandbox)) if runs)


def _unable(candidate: Candidate, formats: tuple[str, ...], abilities: Abilities) -> str:
    """Return why this EP cannot run what the candidate has, not even unpacked; empty if it can, or does not say."""
    because = f" ({abilities.why_not})" if abilities.tried and abilities.why_not else ""
    if not formats:
        return f"{candidate.source.value}: this EP cannot run container images{because}"
    if candidate.source is SourceKind.CVMFS and "sandbox" not in formats:
        return f"{candidate.source.value}: this EP cannot run image directories{because}"
    is_sif = candidate.source is SourceKind.TREE or candidate.is_jobs_own
    if is_sif and "sif" not in formats and not abilities.runtime:
        return f"{candidate.source.value}: this EP cannot run SIF files, and has nothing to unpack them"
    return ""


def refused(candidate: Candidate, *, directory: bool) -> str:
    """Return why this EP cannot run an image that it may not unpack, being another's; empty if it can."""
    if ("sandbox" if directory else "sif") in candidate.formats:
        return ""
    if directory:
        return "is a directory, and this EP cannot run image directories"
    return "is a SIF, and this EP cannot run SIF files: it unpacks only images that it fetches itself, from an URL"


def verdict(
    image: ImageReference,
    attempts: Sequence[Served | Failed],
    messages: str = "always",
    named_by: str = "job",
) -> Verdict:
    """Judge what came of the candidates, in the order in which they were asked; the last may have served."""
    last = attempts[-1] if attempts else None
    failures = [attempt for attempt in attempts if isinstance(attempt, Failed)]
    if isinstance(last, Served):
        text = _success(image, last, failures, named_by)
        wanted = messages == "always" or (messages == "fallback" and bool(failures))
        return Verdict(HookStatus.OK, text if wanted else "", last)
    if not failures:
        return Verdict(HookStatus.HOOK_INTERNAL_ERROR, f"{image.short}: nobody was asked (0 candidates)")
    # "does not have it" from a place that need not have it says less than any other failure
    telling = [failure for failure in failures if not failure.not_here] or failures
    statuses = {failure.status for failure in telling}
    if any(failure.existing for failure in failures):
        # it exists somewhere, whatever an authority says: another EP may get it from there
        statuses.discard(HookStatus.IMAGE_NOT_PUBLISHED)
    status = min(statuses, key=PRECEDENCE.index)
    main = next(failure for failure in telling if failure.status is status)
    others = [failure.why for failure in failures if failure is not main]
    advice = f" -- {status.remedy}" if status.holds and status.remedy else ""
    head = shorten(image.short, NAME_BYTES)
    why, also = _told(main.why, others, NAME_BYTES + len(advice))
    if named_by == "default" and status.holds:
        # the user can mend nothing, and another EP has another default image
        message = f"default image {head} of this EP (IMAGE_CACHE_DEFAULT_IMAGE): {why}{also}"
        return Verdict(HookStatus.HOOK_INTERNAL_ERROR, message)
    elsewhere = _why_elsewhere(image, named_by) if status.holds else ""
    if elsewhere:
        return Verdict(HookStatus.NO_CONTAINER_RUNTIME, f"{head}: {why}; {elsewhere}{also}")
    return Verdict(status, f"{head}: {why}{advice}{also}")


def _told(main: str, others: Sequence[str], taken_bytes: int) -> tuple[str, str]:
    """Return the reasons, shortened so that none of them is cut off for the length of another."""
    room = MESSAGE_BYTES - taken_bytes - _FRAME_BYTES - len("; ") * len(others)
    main, *others = fair([main, *others], room)
    return main, f" [also tried: {'; '.join(others)}]" if others else ""


def _why_elsewhere(image: ImageReference, named_by: str) -> str:
    """Return why another EP may run what cannot be had here; empty if none could."""
    if named_by.endswith(BY_EP):
        return "on another EP the job's expression may name another image"
    if image.token and image.kind not in {ReferenceKind.FEDERATION, ReferenceKind.PLUGIN}:
        return "asked for without the job's credential, which this EP does not use"
    return ""


def _success(image: ImageReference, served: Served, failures: Sequence[Failed], named_by: str) -> str:
    size = f", {human_bytes(served.size_bytes)}" if served.size_bytes is not None else ""
    time = "" if served.hit else f", {served.seconds:.1f} s"
    default = "default image " if named_by == "default" else ""
    whys = fair([failure.why for failure in failures], MESSAGE_BYTES // 2)
    instead = f" [instead of: {'; '.join(whys)}]" if failures else ""
    note = f" ({served.note})" if served.note else ""
    return f"{default}{image.short}: {served.origin}{size}{time}{note}{instead}"
