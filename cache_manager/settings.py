"""Every knob: meaning, unit, default, and how its text is read. HTCondor's configuration is the only configuration.

Sizes take B, KB, MB, GB, TB and KiB, MiB, GiB, TiB; times take s, m, h, d; a plain number is bytes or seconds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from cache_manager.quantities import parse_size, parse_time
from cache_manager.reference import ImageReference, ReferenceKind
from cache_manager.status import StatusError
from cache_manager.text import printable, without_secrets

PREFIX: Final = "IMAGE_CACHE_"

OTHER_KNOBS: Final = (
    "IMAGE_CACHE_MANAGER",
    "IMAGE_CACHE_MANAGER_ARGS",
    "IMAGE_CACHE_MANAGER_USERID",
    "IMAGE_CACHE_MANAGER_ENVIRONMENT",
    "IMAGE_CACHE_HOOK_PREPARE_JOB",
    "IMAGE_CACHE_HOOK_PREPARE_JOB_ARGS",
)
"""What HTCondor itself reads with our prefix."""

LEAST_MEMORY_BYTES: Final = 256_000_000
"""The container runtime reserves half of that before it begins."""

_T = TypeVar("_T")
_WEIGHTED = re.compile(r"(\d{1,3})%__(\S+)")
_PLUGIN_WORD = re.compile(r"[A-Za-z][A-Za-z0-9+.,-]*=/\S+")
_URL_BASE = re.compile(r"(?:https?|file|osdf|stash|pelican)://\S+")


class SettingsError(ValueError):
    """The configuration cannot be used; the text names every knob that is wrong."""


def _room(text: str) -> int:
    size = parse_size(text)
    if size == 0:
        raise ValueError("is no room for any image (0 bytes)")
    return size


def _patience(text: str) -> float:
    seconds = parse_time(text)
    if seconds == 0:
        raise ValueError("is no time at all (0 s)")
    return seconds


def _memory(text: str) -> int:
    size = parse_size(text)
    if size < LEAST_MEMORY_BYTES:
        raise ValueError(f"is less than unpacking takes (256 MB): {text!r}")
    return size


def _some(text: str) -> int:
    number = _count(text)
    if number == 0:
        raise ValueError("is nothing to work with (0)")
    return number


def _count(text: str) -> int:
    if not text.strip().isdigit():
        raise ValueError(f"is no whole number: {text!r}")
    return int(text)


def _percent(text: str) -> int:
    value = _count(text.removesuffix("%"))
    if not 1 <= value <= 100:  # noqa: PLR2004 - percent
        raise ValueError(f"is no percentage from 1 to 100: {text!r}")
    return value


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip().lower() not in words:
            raise ValueError(f"is none of {', '.join(words)}: {text!r}")
        return text.strip().lower()

    return parse


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _path(text: str) -> str:
    if text and not text.startswith("/"):
        raise ValueError(f"is no absolute path: {text!r}")
    return text.rstrip("/") or text


def _shown(word: str) -> str:
    """Return a word of the configuration without what may be secret: what is wrong is advertised."""
    return printable(without_secrets(word).rpartition("@")[2].partition("?")[0])


def _bases(text: str) -> tuple[str, ...]:
    for word in _words(text):
        if not _URL_BASE.fullmatch(word):
            raise ValueError(f"is no base URL (https://, osdf://, file://): {_shown(word)!r}")
    return _words(text)


def _plugins(text: str) -> tuple[tuple[str, str], ...]:
    """Read which transfer plug-in is for which scheme."""
    found: dict[str, str] = {}
    for word in text.split():
        schemes, _, path = word.partition("=")
        if not _PLUGIN_WORD.fullmatch(word):
            raise ValueError(f"is no list of schemes=/path: {word!r}")
        found |= dict.fromkeys(schemes.lower().split(","), path)
    return tuple(found.items())


def _federation(text: str) -> str:
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or url != f"{parts.scheme}://{parts.netloc}" or "@" in url:
        raise ValueError(f"is no discovery URL, like https://osg-htc.org: {_shown(url)!r}")
    return url


def _library(text: str) -> str:
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if url and (not usable or parts.query or parts.fragment or "@" in url or not _URL_BASE.fullmatch(url)):
        raise ValueError(f"is no URL of a library, like https://library.example.org: {_shown(url)!r}")
    return url


def _pelican(text: str) -> str:
    word = text.strip()
    if word.lower() in {"native", "client"}:
        return word.lower()
    path = word.removeprefix("unix://")
    if path == word or not path.startswith("/") or not path.strip("/"):
        raise ValueError(f"is none of native, client, unix:///path: {word!r}")
    return word


def _images(text: str) -> tuple[tuple[int, ImageReference], ...]:
    """Read `htc/rocky:9` or `70%__htc/rocky:9 30%__htc/almalinux:9`."""
    images = []
    for word in text.split():
        weighted = _WEIGHTED.fullmatch(word)
        weight, name = (int(weighted.group(1)), weighted.group(2)) if weighted else (100, word)
        try:
            image = ImageReference.parse_configured(name)
        except StatusError as error:
            raise ValueError(error.message) from None
        if image.kind in {ReferenceKind.JOB_FILE, ReferenceKind.REGISTRY}:
            raise ValueError(f"{_shown(word)!r} is {image.kind.value}, which this EP does not have for every job")
        images.append((weight, image))
    if images and not any(weight for weight, _ in images):
        raise ValueError("gives no image a weight above 0%")
    return tuple(images)


def _knob(name: str, default: str, parse: Callable[[str], _T], meaning: str) -> Any:  # noqa: ANN401 - as dataclasses.field
    def fresh() -> _T:
        return parse(default)

    return field(default_factory=fresh, metadata={"knob": name, "default": default, "parse": parse, "meaning": meaning})


@dataclass(frozen=True)
class Settings:
    """The configuration of one moment; a request keeps the one that it began with."""

    root: str = _knob("DIR", "$(LOCAL_DIR)/image_cache", _path, "root of the cache; not under EXECUTE")
    socket: str = _knob("SOCKET", "$(IMAGE_CACHE_DIR)/socket", _path, "Unix socket of the manager, of any length")
    log: str = _knob("LOG", "$(LOG)/ImageCacheLog", _path, "the manager's log (rotated)")
    max_bytes: int = _knob("MAX_BYTES", "20 GB", _room, "cap on everything under the root, also while fetching")
    max_inodes: int = _knob("MAX_INODES", "0", _count, "the same for files; 0: no cap")
    min_free_bytes: int = _knob(
        "MIN_FREE_BYTES", "2 GB", parse_size, "left free on the file system, whatever the cap says"
    )
    high_watermark: int = _knob(
        "HIGH_WATERMARK", "90", _percent, "percent of the cap at which background eviction starts"
    )
    low_watermark: int = _knob("LOW_WATERMARK", "80", _percent, "percent of the cap at which it stops")
    min_age_s: float = _knob("MIN_AGE", "2m", parse_time, "younger entries are not evicted")
    prefer: str = _knob(
        "PREFER",
        "auto",
        _one_of("auto", "cvmfs", "sif"),
        "which form first: `cvmfs`, `sif`, or `auto` (CVMFS, unless its repository is known to be unwell)",
    )
    cvmfs_base: str = _knob("CVMFS_BASE", "/cvmfs", _path, "where CVMFS repositories are mounted")
    cvmfs_repositories: tuple[str, ...] = _knob(
        "CVMFS_REPOSITORIES",
        "singularity.opensciencegrid.org",
        _words,
        "repositories whose images are also published as SIFs",
    )
    sif_sources: tuple[str, ...] = _knob(
        "SIF_SOURCES",
        "",
        _bases,
        "base URLs of publication trees, in order: `osdf:///ospool/images/v2 https://host/v2 file:///srv/v2`",
    )
    federation: str = _knob(
        "FEDERATION", "https://osg-htc.org", _federation, "discovery URL of the federation of `osdf://` and `stash://`"
    )
    pelican: str = _knob(
        "PELICAN",
        "native",
        _pelican,
        "who asks data federations: `native` (the manager), `client` (the `pelican` command on PATH), or first the "
        "Pelican cache of this machine at `unix:///path`",
    )
    site: str = _knob("SITE", "", str.strip, "this site's name in IMAGE_CACHE_EXCEPTIONS")
    exceptions: str = _knob(
        "EXCEPTIONS",
        "",
        _path,
        "CSV of `Site,percent,message`: on so many percent of the site's EPs data federations are not asked",
    )
    default_image: tuple[tuple[int, ImageReference], ...] = _knob(
        "DEFAULT_IMAGE",
        "",
        _images,
        "image for jobs that name none, also weighted: `70%__htc/rocky:9 30%__htc/almalinux:9`; stable for a slot",
    )
    default_image_gpu: tuple[tuple[int, ImageReference], ...] = _knob(
        "DEFAULT_IMAGE_GPU", "", _images, "the same for slots with GPUs; empty: as the others"
    )
    tag_ttl_s: float = _knob("TAG_TTL", "15m", parse_time, "how long the resolution of a tag is trusted")
    hook_deadline_s: float = _knob(
        "HOOK_DEADLINE",
        "20m",
        _patience,
        "total time of the hook, waiting included; the fetch goes on after it, and is dropped only when nobody has come"
        " for it for as long once more and less than half of it is here",
    )
    min_rate_bytes: int = _knob(
        "MIN_RATE",
        "1 MB",
        parse_size,
        "a transfer may take its size / MIN_RATE, plus STALL_TIMEOUT for each place that is tried",
    )
    stall_timeout_s: float = _knob(
        "STALL_TIMEOUT",
        "60s",
        _patience,
        "no byte for so long ends an attempt, at its start and later; what came is kept, and gone on with",
    )
    scrub_rate_bytes: int = _knob(
        "SCRUB_RATE", "5 MB", parse_size, "bytes a second at which images are read back in the background; 0: never"
    )
    owner_share: int = _knob(
        "OWNER_SHARE", "50%", _percent, "an owner above this share of the cap evicts their own entries first"
    )
    owner_fetches: int = _knob(
        "OWNER_FETCHES", "16", _some, "images that are fetched for one owner at a time, of 64 for all; others wait"
    )
    allow: tuple[str, ...] = _knob("ALLOW", "*", _words, "globs of the image references that may run")
    library: str = _knob(
        "LIBRARY",
        "",
        _library,
        "URL of the library that `library://` images without a host are in; empty: there is none",
    )
    convert_memory_bytes: int = _knob(
        "CONVERT_MEMORY", "512 MB", _memory, "memory of each process that unpacks an image; 256 MB at least"
    )
    convert_cpus: int = _knob(
        "CONVERT_CPUS", "1", _some, "processors for unpacking, at the lowest priority, one image at a time"
    )
    docker: str = _knob(
        "DOCKER",
        "leave",
        _one_of("leave", "cache"),
        "`docker://` jobs on an EP with Docker: `leave` them to Docker or `cache` them; Docker-universe jobs are "
        "always left alone",
    )
    plain_registries: tuple[str, ...] = _knob(
        "PLAIN_REGISTRIES",
        "",
        _words,
        "registries (`host:port`) that are asked without TLS; one on this machine is found out",
    )
    messages: str = _knob(
        "MESSAGES",
        "always",
        _one_of("always", "fallback", "never"),
        "when a job that runs gets a message into its log (event 021): `always`, `fallback`, `never`",
    )
    binds: str = _knob("BINDS", "", str, "what `config` adds to containers' mounts; empty: /cvmfs if mounted")
    next_hook: str = _knob(
        "NEXT_HOOK", "", _path, "the site's former prepare-job hook: run after ours, its attributes merged"
    )
    next_plugin: tuple[tuple[str, str], ...] = _knob(
        "NEXT_PLUGIN",
        "",
        _plugins,
        "transfer plug-ins that were there before ours, for all but images: `http,https=/path/to/plugin osdf=/path`",
    )
    runtime: str = _knob(
        "RUNTIME",
        "",
        _path,
        "the container runtime; empty: $(SINGULARITY), or apptainer or singularity on PATH",
    )

    @classmethod
    def from_knobs(cls, knobs: Mapping[str, str]) -> Settings:
        """Build from the values of HTCondor's configuration, macros expanded. Raises SettingsError with all faults.

        A knob that is missing or empty has its default; `knobs` also brings LOCAL_DIR and LOG.
        """
        values: dict[str, Any] = {}
        faults = []
        for one in fields(cls):
            name = PREFIX + one.metadata["knob"]
            text = knobs.get(name, "").strip() or _default_text(one.metadata["default"], knobs)
            try:
                values[one.name] = one.metadata["parse"](text)
            except ValueError as error:
                faults.append(f"{name}: {error}")
        if values.get("low_watermark", 0) > values.get("high_watermark", 100):
            faults.append(
                f"{PREFIX}LOW_WATERMARK: is above the high one ({values['low_watermark']} > {values['high_watermark']})"
            )
        if faults:
            raise SettingsError("; ".join(faults))
        return cls(**values)

    @property
    def owner_bytes(self) -> int:
        """What one owner may have before others' entries are evicted for them."""
        return self.max_bytes * self.owner_share // 100

    def allows(self, image: ImageReference) -> bool:
        """Whether the site's allow list lets this image run.

        A published name stands for the site's own repositories alone, and a file that came with the job is `./name`:
        `htc/*` allows neither another repository's image of that name nor a file in a directory `htc`.
        """
        names = {image.text, image.short}
        if image.kind is ReferenceKind.JOB_FILE:
            names = {f"./{image.path}"}
        elif image.repository and image.repository not in self.cvmfs_repositories:
            names = {image.text}
        return any(fnmatchcase(name, glob) for name in names for glob in self.allow)

    def default_for(self, slot: str, gpus: int) -> ImageReference | None:
        """Return the image for a job that names none. The choice among weighted ones is the slot's, and stays."""
        images = (self.default_image_gpu if gpus else ()) or self.default_image
        total = sum(weight for weight, _ in images)
        if not total:
            return None
        point = int.from_bytes(hashlib.sha256(slot.encode()).digest()[:8], "big") % total
        for weight, image in images:
            point -= weight
            if point < 0:
                return image
        return images[-1][1]


def socket_path(knobs: Mapping[str, str]) -> str:
    """Return where the manager listens, also when other knobs are wrong: admins want to ask it then too."""
    knob = next(one for one in fields(Settings) if one.name == "socket")
    text = knobs.get("IMAGE_CACHE_SOCKET", "").strip() or _default_text(knob.metadata["default"], knobs)
    return text.rstrip("/")


def unknown_knobs(knobs: Mapping[str, str]) -> list[str]:
    """Return what looks like a knob of ours and is none: probably a typing error."""
    known = {*knob_names(), *OTHER_KNOBS}
    return [name for name in sorted(knobs) if name.startswith(PREFIX) and name not in known]


def knob_names() -> tuple[str, ...]:
    """Return the full names of all knobs."""
    return tuple(PREFIX + one.metadata["knob"] for one in fields(Settings))


def _default_text(default: str, knobs: Mapping[str, str]) -> str:
    """Expand the macros that defaults are written with."""
    local = knobs.get("LOCAL_DIR") or "/var"
    root = knobs.get("IMAGE_CACHE_DIR", "").strip().rstrip("/") or f"{local}/image_cache"
    expanded = default.replace("$(IMAGE_CACHE_DIR)", root)
    expanded = expanded.replace("$(LOCAL_DIR)", local)
    return expanded.replace("$(LOG)", knobs.get("LOG") or "/var/log/condor")


def table_markdown() -> str:
    """Return the table of knobs for the README."""
    rows = ["| knob | default | meaning |", "|---|---|---|"]
    for one in fields(Settings):
        default = one.metadata["default"]
        shown = f"`{default}`" if default else "(empty)"
        rows.append(f"| {PREFIX}{one.metadata['knob']} | {shown} | {one.metadata['meaning']} |")
    return "\n".join(rows) + "\n"
