"""What the hook opened as the job's user, judged: an image, none, or a link to one that is published. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from cache_manager import policy, sif
from cache_manager.caller import ProbeResult
from cache_manager.outcome import Failed, Served
from cache_manager.policy import Candidate, SourceKind
from cache_manager.reference import ImageReference
from cache_manager.status import HookStatus, StatusError


def leads_to(found: ProbeResult) -> ImageReference | None:
    """Return the image of a CVMFS repository to which a link leads that cannot be followed here; None if it is none.

    CVMFS may be mounted elsewhere, or not at all, and the image be published in another form.
    """
    if found.kind not in {"absent", "unwell"} or not found.real.startswith("/cvmfs/"):
        return None
    try:
        image = ImageReference.parse(found.real)
    except StatusError:
        return None
    return image if image.repository else None


def came_from(candidate: Candidate, found: ProbeResult, original: str, root: str) -> ImageReference | None:
    """Return the URL from which HTCondor was to bring a file, where there is a link into the cache, or nothing.

    Our transfer plug-in puts the link there, and nothing where the image cannot be had. The link itself is nobody's
    word: a user may have made it. What the job names is asked for again, so the answer is an image that it may have.
    """
    if candidate.source is not SourceKind.JOB_FILE or not original.partition("://")[1]:
        return None
    if found.kind != "absent" and not _is_below(found.real, root):
        return None
    try:
        image = ImageReference.parse(original)
    except StatusError:
        return None
    return image if image.scheme else None


def _is_below(path: str, root: str) -> bool:
    return f"{path}/".startswith(f"{root}/")


def judge(candidate: Candidate, found: ProbeResult, scratch: str, root: str) -> Served | Failed:
    """Return what a path is for the job whose directory is `scratch`; `root` is the cache's.

    A path that leads into the cache is nobody's to name: it would be run without a lease, and may be another's.
    """
    shipped = candidate.source is SourceKind.JOB_FILE
    path = candidate.image.path
    if _is_below(path, root) or _is_below(found.real, root):
        return Failed(
            HookStatus.PATH_NOT_HERE, "lies in this EP's image cache, from which images are run by name alone"
        )
    wrong = _why_no_image(found, shipped=shipped)
    if shipped and found.kind == "absent":
        wrong += f": {_meant(path)}"
    if wrong:
        # a file system of this EP that fails says nothing of the file
        users = shipped and found.kind != "unwell"
        return Failed(HookStatus.IMAGE_FILE_INVALID if users else HookStatus.PATH_NOT_HERE, wrong)
    unable = policy.refused(candidate, directory=found.kind == "directory")
    if unable:
        return Failed(HookStatus.NO_CONTAINER_RUNTIME, unable)
    if shipped:
        path = str(PurePosixPath(scratch) / path)
    where = "that came with the job" if shipped else "on this EP"
    if found.kind == "directory":
        return Served(path, f"directory {where}", sandbox=True)
    return Served(path, f"file {where}", size_bytes=found.size_bytes, hit=True)


def _meant(path: str) -> str:
    """Return what the author of a job may have meant by a relative path where nothing lies."""
    if path.startswith("cvmfs/"):
        return f"did you mean /{path}?"
    brings = "`container_image` or `transfer_input_files` has to bring it"
    if ":" in path:  # as a published name has it, and hardly a file
        return f"{brings}; a published image is named by its path, /cvmfs/<repository>/{path}"
    return brings


def _why_no_image(found: ProbeResult, *, shipped: bool) -> str:
    """Return why what the hook opened is no image; empty if it is one."""
    if found.kind == "absent":
        return f"{'did not come with the job' if shipped else 'not on this EP'} ({found.error or 'no such file'})"
    if found.kind == "denied":
        return f"cannot be read by the job's user here ({found.error})"
    if found.kind not in {"file", "directory"}:
        return f"cannot be opened ({found.error or found.kind})"
    if found.kind == "directory" or found.head.startswith(sif.SQUASHFS_MAGIC):
        return ""  # the runtime takes a bare squashfs as well
    try:
        sif.parse_header(found.head, found.size_bytes)
    except sif.SifError as error:
        return str(error)
    return ""
