"""Job ad, machine ad and the hook's header -> JobRequest.

Literals are read by a line scanner, because nearly every attribute that matters is one; an expression is evaluated
by classad2 with the machine ad as TARGET. classad2 stops silently at the first bad line, which would turn a broken ad
into "names no image": an ad of which fewer attributes were read than lines received is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from posixpath import join, normpath
from typing import Final

import classad2

from cache_manager.reference import ImageReference, ReferenceKind
from cache_manager.status import HookStatus, StatusError
from cache_manager.text import printable

_LINE = re.compile(r"^[ \t]*([A-Za-z_][A-Za-z0-9_.]*)[ \t]*=(?!=)(.*)$", re.MULTILINE)
_BLANK: Final = " \t\r"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD = re.compile(r"(?<!\d)([A-Za-z_][A-Za-z0-9_]*)[ \t]*(\(?)")
_NO_ATTRIBUTES: Final = frozenset({"true", "false", "undefined", "error", "is", "isnt", "my", "parent"})
_SIMPLE_STRING = re.compile(r'"([^"\\]*)"')
_INTEGER = re.compile(r"-?\d{1,18}")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_OF_TARGET = re.compile(r"\btarget\s*\.\s*[A-Za-z_][A-Za-z0-9_]*", re.IGNORECASE)
MAX_EXPRESSION: Final = 16 * 1024
"""Longer expressions are not evaluated: classad2 descends into them, and the stack ends before they do."""

BY_EP: Final = " (its value on this EP)"
"""Stands behind the name of an attribute that may have another value on another EP."""

_VANILLA: Final = 5


class Missing(Enum):
    """The two ways of having no value, which are not the same as an empty string."""

    UNDEFINED = "undefined"
    ERROR = "error"


Value = str | int | float | bool | Missing


class Ad:
    """A ClassAd as text. Values are looked up by name, whatever its case, and evaluated when asked for.

    Raises StatusError (HOOK_INTERNAL_ERROR) when the text is not one attribute a line.
    """

    def __init__(self, text: str, what: str) -> None:
        found = [(name, value.strip(_BLANK)) for name, value in _LINE.findall(text)]
        lines = text.count("\n") + (not text.endswith("\n")) if text else 0
        if len(found) != lines or not all(value for _, value in found):
            _refuse_other_lines(text, what, len(found))
        self._what = what
        self._values: dict[str, str] = {name.lower(): value for name, value in found}
        self._parsed: classad2.ClassAd | None = None

    def __len__(self) -> int:
        return len(self._values)

    def text_of(self, name: str) -> str:
        """Return what stands behind the attribute's `=`; empty if the ad has none."""
        return self._values.get(name.lower(), "")

    def value(self, name: str, target: Ad | None = None) -> Value:
        """Return the value of an attribute; `target` is the ad that TARGET means."""
        text = self.text_of(name)
        simple = _literal(text)
        if simple is not None:
            return simple
        try:
            tree = self._classad().lookup(name)
        except KeyError:  # its expression is too long
            return Missing.ERROR
        try:
            value = _plain(tree.eval(self._classad(), target._classad() if target else None))  # noqa: SLF001 - its own kind
        except (classad2.ClassAdException, UnicodeError, RecursionError):
            return Missing.ERROR
        return Missing.ERROR if value is Missing.UNDEFINED and self._is_circular(name.lower()) else value

    def _is_circular(self, name: str) -> bool:
        """Whether an attribute's expression comes back to it. classad2 calls that undefined, which names no image."""
        seen: set[str] = set()
        fresh = self._own_words(name)
        while fresh:
            seen |= fresh
            fresh = {word for one in fresh for word in self._own_words(one)} - seen
        return name in seen

    def _own_words(self, name: str) -> set[str]:
        """Return the attributes of this ad that an attribute's expression names."""
        text = _OF_TARGET.sub(" ", _QUOTED.sub(" ", self.text_of(name)))
        return {word.lower() for word in _NAME.findall(text)} & self._values.keys()

    def asks(self, name: str) -> bool:
        """Whether the attribute may have another value on another EP: its expression looks beyond this ad."""
        seen: set[str] = set()
        fresh = {name.lower()}
        while fresh:
            seen |= fresh
            words = {word for one in fresh for word in self._words(one)}
            if not words <= self._values.keys():
                return True
            fresh = words - seen
        return False

    def _words(self, name: str) -> set[str]:
        """Return the attributes that an attribute's expression names, of whichever ad."""
        found = _WORD.findall(_QUOTED.sub(" ", self.text_of(name)))
        return {word.lower() for word, is_function in found if not is_function} - _NO_ATTRIBUTES

    def is_true(self, name: str, target: Ad | None = None) -> bool:
        """Whether the attribute is true; a number other than 0 counts, as in HTCondor."""
        value = self.value(name, target)
        return isinstance(value, (bool, int, float)) and bool(value)

    def string(self, name: str, target: Ad | None = None) -> str:
        """Return a string attribute; empty if it is anything else."""
        value = self.value(name, target)
        return value if isinstance(value, str) else ""

    def _classad(self) -> classad2.ClassAd:
        if self._parsed is None:
            usable = {
                name: value
                for name, value in self._values.items()
                if len(value) <= MAX_EXPRESSION or _SIMPLE_STRING.fullmatch(value)
            }
            text = "".join(f"{name} = {value}\n" for name, value in usable.items())
            parsed = classad2.parseOne(text, classad2.ParserType.Old)
            if len(parsed) < len(usable):
                raise StatusError(
                    HookStatus.HOOK_INTERNAL_ERROR,
                    f"{self._what}: only {len(parsed)} of {len(self._values)} attributes can be read",
                )
            self._parsed = parsed
        return self._parsed


def _literal(text: str) -> Value | None:
    """Return the value of a literal, or None if `text` needs evaluation."""
    string = _SIMPLE_STRING.fullmatch(text)
    if string:
        return string.group(1)
    if _INTEGER.fullmatch(text):
        return int(text)
    words: dict[str, Value] = {"": Missing.UNDEFINED, "undefined": Missing.UNDEFINED, "error": Missing.ERROR}
    words |= {"true": True, "false": False}
    return words.get(text.lower())


def _plain(value: object) -> Value:
    if isinstance(value, classad2.Value):
        return Missing.ERROR if value == classad2.Value.Error else Missing.UNDEFINED
    if isinstance(value, (str, bool, int, float)):
        return value
    return Missing.ERROR


def _refuse_other_lines(text: str, what: str, found: int) -> None:
    """Blank lines are allowed; anything else that is no attribute is named with its number."""
    for number, line in enumerate(text.split("\n"), 1):
        found_here = _LINE.match(line)
        if line.strip() and not (found_here and found_here.group(2).strip(_BLANK)):
            raise StatusError(
                HookStatus.HOOK_INTERNAL_ERROR,
                f"{what}: line {number} is no attribute ({len(line)} characters, {found} attributes read)",
            )


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

    `named_by` is the attribute, with BY_EP behind it if another EP may find another value there.
    """

    image: ImageReference | None = None
    named_by: str = ""
    leave: str = ""
    original: str = ""
    job_id: str = ""
    owner: str = ""
    scratch: str = ""
    machine: Machine = field(default_factory=Machine)


def read_request(job_text: str, machine_text: str = "", scratch: str = "") -> JobRequest:
    """Read what the hook sent. Raises StatusError for an ad that cannot be read or a reference that is none."""
    if not job_text.strip():
        raise StatusError(HookStatus.HOOK_INTERNAL_ERROR, f"job ad: empty ({len(job_text)} bytes)")
    job = Ad(job_text, "job ad")
    machine_ad = Ad(machine_text, "machine ad")
    machine = _read_machine(machine_ad)
    job_id = f"{job.value('ClusterId')}.{job.value('ProcId')}" if job.text_of("ClusterId") else ""
    leave = _why_left(job, machine, machine_ad)
    image, named_by = (None, "") if leave else _named_image(job, machine_ad)
    if image and image.kind is ReferenceKind.JOB_FILE and not _brings_files(job, machine_ad):
        image = _where_submitted(image, named_by, job)
    return JobRequest(
        image=image,
        named_by=named_by,
        leave=leave,
        original=job.string("ContainerImageFullPath", machine_ad),
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


def _why_left(job: Ad, machine: Machine, target: Ad) -> str:
    """Return why the job is none of ours, in the order in which the starter decides (singularity.cpp, SpawnJob)."""
    universe = job.value("JobUniverse")
    if isinstance(universe, int) and universe != _VANILLA:
        return f"universe {universe} runs without a container"
    if job.is_true("WantDocker", target):
        return "Docker universe: the image is Docker's"
    if job.is_true("WantContainer", target) and job.is_true("WantDockerImage", target) and machine.has_docker:
        return "the EP has Docker, which runs registry images"
    return ""


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
        if not job.asks(name):
            return ImageReference.parse(text), name
        try:
            return ImageReference.parse(text), name + BY_EP
        except StatusError as error:
            raise _only_here(error.message) from None
    if wrong:
        raise wrong
    return None, ""


def _no_string(name: str, value: Value, job: Ad) -> StatusError:
    if value is Missing.ERROR:
        shown = printable(_QUOTED.sub('"..."', job.text_of(name)), 100)  # what it holds may be secret
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


def is_left_to_runtime(image: ImageReference) -> bool:
    """Whether the container runtime brings this image in by itself."""
    return image.kind is ReferenceKind.REGISTRY
