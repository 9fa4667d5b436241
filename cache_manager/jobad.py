"""Job ad, machine ad and the hook's header -> JobRequest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from posixpath import join, normpath
from typing import Final

from cache_manager.ads import QUOTED, Ad, Missing, Value, evaluate_at_once
from cache_manager.reference import PLUGIN_SCHEMES, ImageReference, ReferenceKind
from cache_manager.status import HookStatus, StatusError
from cache_manager.text import printable

HAS_DOCKER: Final = "the EP has Docker, which runs registry images"

BY_EP: Final = " (its value on this EP)"
"""Stands behind the name of an attribute that may have another value on another EP."""

_VANILLA: Final = 5


@dataclass(frozen=True, slots=True)
class Machine:
    """What the slot says of itself. An ability that it does not mention is None."""

    name: str = ""
    has_docker: bool = False
    has_sif: bool | None = None
    has_sandbox: bool | None = None
    has_runtime: bool | None = None
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a job asks for. `image` is None if it names none; `leave` says why the job is not ours, if so.

    `named_by` is the attribute, with BY_EP behind it if another EP may find another value there. `by_docker` says that
    Docker would run the job on this EP, if it is left to it.
    """

    image: ImageReference | None = None
    named_by: str = ""
    leave: str = ""
    by_docker: bool = False
    original: str = ""
    job_id: str = ""
    owner: str = ""
    scratch: str = ""
    machine: Machine = field(default_factory=Machine)


def read_request(
    job_text: str, machine_text: str = "", scratch: str = "", evaluating: Callable[[str], None] = evaluate_at_once
) -> JobRequest:
    """Read what the hook sent. Raises StatusError for an ad that cannot be read or a reference that is none.

    `evaluating` is called before an attribute is evaluated, and may raise.
    """
    if not job_text.strip():
        raise StatusError(HookStatus.HOOK_INTERNAL_ERROR, f"job ad: empty ({len(job_text)} bytes)")
    job = Ad(job_text, "job ad", evaluating)
    machine_ad = Ad(machine_text, "machine ad", evaluating)
    machine = _read_machine(machine_ad)
    job_id = f"{job.value('ClusterId')}.{job.value('ProcId')}" if job.text_of("ClusterId") else ""
    leave, by_docker = _why_left(job, machine_ad), _is_for_docker(job, machine, machine_ad)
    image, named_by = None, ""
    if not leave:
        try:
            image, named_by = _named_image(job, machine_ad)
        except StatusError as error:
            if not by_docker:
                raise
            leave = f"{HAS_DOCKER}; {error.message}"  # what Docker runs is for Docker to judge
    if image and image.kind is ReferenceKind.JOB_FILE and not _brings_files(job, machine_ad):
        image = _where_submitted(image, named_by, job)
    return JobRequest(
        image=image,
        named_by=named_by,
        leave=leave,
        by_docker=by_docker,
        original=_brought_from(job, machine_ad, image),
        job_id=job_id,
        owner=job.string("Owner"),
        scratch=scratch,
        machine=machine,
    )


def _read_machine(ad: Ad) -> Machine:
    def ability(*names: str) -> bool | None:
        for name in names:
            value = ad.value(name)
            if isinstance(value, (bool, int, float)):
                return bool(value)
        return None

    gpus = ad.value("GPUs")
    return Machine(
        name=ad.string("Name"),
        has_docker=ad.is_true("HasDocker"),
        has_sif=ability("ImageCacheCanUseSIF", "HasSIF", "SINGULARITY_CAN_USE_SIF"),
        has_sandbox=ability("ImageCacheCanUseSandbox", "HasSandboxImage"),
        has_runtime=ability("HasSingularity", "HAS_SINGULARITY"),
        gpus=gpus if isinstance(gpus, int) else 0,
    )


def _why_left(job: Ad, target: Ad) -> str:
    """Return why the job is none of ours, in the order in which the starter decides (singularity.cpp, SpawnJob)."""
    universe = job.value("JobUniverse")
    if isinstance(universe, int) and universe != _VANILLA:
        return f"universe {universe} runs without a container"
    if job.is_true("WantDocker", target):
        return "Docker universe: the image is Docker's"
    return ""


def _is_for_docker(job: Ad, machine: Machine, target: Ad) -> bool:
    """Whether the starter would have Docker run the job."""
    return machine.has_docker and job.is_true("WantContainer", target) and job.is_true("WantDockerImage", target)


def _named_image(job: Ad, target: Ad) -> tuple[ImageReference | None, str]:
    """Return the image and the attribute that names it, as the starter chooses: the first that is a string.

    One that is none is an error only where no other names an image.
    """
    wrong: StatusError | None = None
    for name in ("SingularityImage", "ContainerImage", "DockerImage"):
        value = job.value(name, target)
        if value is Missing.UNDEFINED:
            continue
        if not isinstance(value, str) or not value:
            wrong = wrong or _no_string(name, value, job)
            continue
        if "\ufffd" in value:
            raise StatusError(HookStatus.HOOK_INTERNAL_ERROR, f"{name}: {printable(value)!r} is no UTF-8")
        text = f"docker://{value}" if name == "DockerImage" and "://" not in value else value
        schemes = _plugin_schemes(target)
        if not job.asks(name):
            return ImageReference.parse(text, plugin_schemes=schemes), name
        try:
            return ImageReference.parse(text, plugin_schemes=schemes), name + BY_EP
        except StatusError as error:
            raise _only_here(error.message) from None
    if wrong:
        raise wrong
    return None, ""


def _plugin_schemes(target: Ad) -> frozenset[str]:
    """Return the schemes that some transfer plug-in brings: those of HTCondor's own, and what this slot says it has."""
    said = target.string("HasFileTransferPluginMethods").lower().split(",")
    return PLUGIN_SCHEMES | {word.strip() for word in said if word.strip()}


def _no_string(name: str, value: Value, job: Ad) -> StatusError:
    if value is Missing.ERROR:
        shown = printable(QUOTED.sub('"..."', job.text_of(name)), 100)  # what it holds may be secret
        message = f"{name}: its expression evaluates to an error: {shown}"
    elif isinstance(value, str):
        message = f"{name}: names an image by an empty string (0 bytes)"
    else:
        message = f"{name}: is {value} and not a string, so it names no image"
    return _only_here(message) if job.asks(name) else StatusError(HookStatus.IMAGE_REFERENCE_INVALID, message)


def _only_here(message: str) -> StatusError:
    """Return the answer to a job whose image has no value on this EP, and may have one on another."""
    return StatusError(HookStatus.NO_CONTAINER_RUNTIME, f"{message} (on this EP)")


def _brings_files(job: Ad, target: Ad) -> bool:
    """Whether HTCondor transfers the job's files here, as the starter decides; else it runs where it was submitted."""
    how = job.string("ShouldTransferFiles").upper()
    if how == "IF_NEEDED":
        domains = [ad.string("FileSystemDomain").lower() for ad in (job, target)]
        return not domains[0] or domains[0] != domains[1]
    return how != "NO"


def _where_submitted(image: ImageReference, named_by: str, job: Ad) -> ImageReference:
    """Return what a relative path means to a job whose files are not transferred: a path below its own directory.

    condor_submit leaves the last part alone in ContainerImage, of an image that it expected to be transferred.
    """
    path, whole = image.path, job.string("ContainerImageFullPath")
    if named_by == "ContainerImage" and whole.rpartition("/")[2] == path:
        if "://" in whole:
            return ImageReference.parse(whole)
        path = whole
    place = normpath(join(job.string("Iwd"), path))
    return ImageReference.parse(place) if place.startswith("/") else image


def _brought_from(job: Ad, target: Ad, image: ImageReference | None) -> str:
    """Return from where HTCondor brings a file that comes with the job: the whole reference, or a URL of that name."""
    whole = job.string("ContainerImageFullPath", target)
    if whole or image is None or image.kind is not ReferenceKind.JOB_FILE:
        return whole
    inputs = [one.strip() for one in job.string("TransferInput", target).split(",")]
    urls = [one for one in inputs if "://" in one and one.partition("?")[0].rpartition("/")[2] == image.path]
    return urls[0] if len(urls) == 1 else ""


def for_transfer(request: JobRequest, url: str) -> JobRequest:
    """Return the request of a transfer plug-in, which is told a URL. Raises StatusError for what is none."""
    image = ImageReference.parse(url)
    if not image.scheme:
        message = f"transfer of {printable(url)!r}: is no URL"
        raise StatusError(HookStatus.IMAGE_REFERENCE_INVALID, message)
    return replace(request, image=image, named_by="transfer")
