"""sync.yaml, the publisher's only configuration: every option with its meaning, unit and default. Pure.

Sizes take B, KB, MB, GB, TB and KiB, MiB, GiB, TiB; times take s, m, h, d; a plain number is bytes or seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

import yaml

from cache_manager.quantities import parse_time
from cache_manager.text import printable
from sync import options
from sync.options import Compression, Registry
from sync.yamltext import refuse_excess

_T = TypeVar("_T")

_NOT_IN_WORK: Final = frozenset(
    {"image_list", "cvmfs_directory", "sif_directory", "sif_credentials_file", "state_directory"}
)


class SettingsError(ValueError):
    """sync.yaml cannot be used; the text names every option that is wrong, one a line."""


def _option(path: str, default: str, parse: Callable[[str], _T], meaning: str) -> Any:  # noqa: ANN401 - as dataclasses.field
    def fresh() -> _T:
        return parse(default)

    return field(default_factory=fresh, metadata={"path": path, "default": default, "parse": parse, "meaning": meaning})


@dataclass(frozen=True)
class Settings:
    """The publisher's configuration. What is not written in sync.yaml has its default."""

    image_list: str = _option(
        "image_list", "", options.file_or_url, "the list of images: an absolute path, or an http(s) URL"
    )
    cvmfs_repository: str = _option(
        "cvmfs.repository",
        "",
        options.repository,
        "CVMFS repository that gets the sandboxes, e.g. `images.example.org`: published with cvmfs_server here",
    )
    cvmfs_directory: str = _option(
        "cvmfs.directory", "", options.path, "instead of a repository: a plain directory of the same layout"
    )
    cvmfs_mount: str = _option(
        "cvmfs.mount",
        "",
        options.path,
        "where readers see cvmfs.directory, e.g. `/cvmfs/images.example.org`: links name it; default: where it is",
    )
    sif_directory: str = _option(
        "sif.directory", "", options.path, "directory that gets the SIFs, e.g. what an OSDF origin exports"
    )
    sif_url: str = _option(
        "sif.url", "", options.url, "instead of a directory: a URL below which SIFs are put (HTTP PUT, WebDAV)"
    )
    sif_credentials_file: str = _option(
        "sif.credentials_file",
        "",
        options.path,
        "file with `user:password`, or a bearer token, for sif.url; mode 0600",
    )
    sif_command: tuple[str, ...] = _option(
        "sif.command",
        "",
        options.words,
        "instead of a directory: a command, run once for each file, `{source}` in its words is the file here and"
        " `{destination}` its path below the tree; with `{action}` (`put`, `delete`) it also removes what is old",
    )
    sif_public_url: str = _option(
        "sif.public_url",
        "",
        options.public_url,
        "where readers find the SIFs, e.g. `osdf:///ospool/images/v2`, for the status page; default: where they go",
    )
    architectures: tuple[str, ...] = _option(
        "architectures",
        "x86_64",
        options.architectures,
        "which to publish where an image has them, named as `uname -m` does; the first is the one that CVMFS gets",
    )
    workers: int = _option("workers", "2", options.some, "conversions at a time, each on one processor")
    engine: str = _option(
        "engine",
        "local",
        options.one_of("local", "htcondor"),
        "where images are converted: `local`, on this machine, or `htcondor`, as jobs of its pool",
    )
    htcondor_python: str = _option(
        "htcondor.python",
        "",
        options.path,
        "interpreter on the execution points that has this package, for `engine: htcondor`; default: the one that runs"
        " here, at the same path",
    )
    htcondor_requirements: str = _option(
        "htcondor.requirements", "", options.line, "expression for which execution points convert, e.g. `HasConverters`"
    )
    htcondor_retries: int = _option(
        "htcondor.retries", "2", options.count, "how often a conversion that was killed or failed is tried again"
    )
    registries: Mapping[str, Registry] = _option(
        "registries", "", options.registries, "options for one registry, by its host (and port)"
    )
    links_grace_s: float = _option(
        "grace.links", "0", parse_time, "how long a name that left the list is still published"
    )
    sandboxes_grace_s: float = _option(
        "grace.sandboxes", "2d", parse_time, "how long a sandbox that no name has any more is kept for its last jobs"
    )
    sifs_grace_s: float = _option(
        "grace.sifs", "10d", parse_time, "the same for SIFs, which pilots may fetch that long after they looked"
    )
    max_removals: int = _option(
        "max_removals",
        "50",
        options.count,
        "sandboxes and SIFs that one run removes, and names that it unlinks, at most: a list may be cut off",
    )
    size_limit_bytes: int = _option(
        "size_limit",
        "10 GB",
        options.room,
        "compressed size up to which an image is published, for each architecture; the list may have waivers",
    )
    max_tags: int = _option("max_tags", "500", options.some, "tags that one line with `*` may stand for")
    compression: Compression = _option(  # noqa: RUF009 - a field with a default_factory
        "compression",
        "zstd-3",
        options.compression,
        "of the SIFs: `zstd-1` to `zstd-19`, or `gzip` for runtimes and kernels without zstd",
    )
    batch: int = _option("batch", "20", options.some, "images that are published in one CVMFS transaction")
    authoritative: tuple[str, ...] = _option(
        "authoritative",
        "",
        options.namespaces,
        "namespaces (`htc`, `library`; `*`: all) of which nobody else publishes images: what is not in the list"
        " does not exist, and a job that names it is held",
    )
    registry_patience_s: float = _option(
        "registry_patience",
        "2m",
        options.patience,
        "how long a run waits, in all, for a registry that says `later` or does not answer",
    )
    state_directory: str = _option(
        "state_directory",
        "/var/lib/condor_image_sync",
        options.path,
        "what is remembered from run to run, and the lock",
    )
    work_directory: str = _option(
        "work_directory",
        "/var/lib/condor_image_sync/work",
        options.path,
        "where images are converted; at each start all goes but what was converted and not published yet",
    )

    @classmethod
    def from_yaml(cls, text: str) -> Settings:
        """Read sync.yaml. Raises SettingsError with all faults, each with its option's path."""
        try:
            refuse_excess(text)
            document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a BaseLoader: it makes nothing but text, lists, dicts
        except yaml.YAMLError as error:
            raise SettingsError(_yaml_fault(error)) from None
        except (ValueError, RecursionError) as error:
            raise SettingsError(str(error)) from None
        if not isinstance(document, dict):
            raise SettingsError("is no mapping (`option: value` lines)")
        given, faults = _flat(document)
        values: dict[str, Any] = {}
        for one in fields(cls):
            path = one.metadata["path"]
            raw = given.pop(path, "")
            try:
                values[one.name] = one.metadata["parse"](raw if raw not in ("", None) else one.metadata["default"])
            except ValueError as error:
                faults += [f"{path}: {line}" for line in str(error).splitlines()]
        faults += [f"{path}: is no option ({_similar(path)})" for path in given]
        faults += _contradictions(values)
        if faults:
            raise SettingsError("\n".join(faults))
        return cls(**values)

    def registry(self, host: str) -> Registry:
        """Return the options for a registry, those of a registry without any if it has none."""
        return self.registries.get(host, Registry())


class _Loader(yaml.BaseLoader):
    """Makes text of every value, so `3.10` stays what was written, and refuses a key that is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - as it is there
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value.__hash__ is None or key.value in seen:
                problem = f"{key.value!r} is there twice, or no name"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_fault(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return printable(str(error))


def _flat(document: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values by path, and the sections that are none."""
    sections = {path.partition(".")[0] for path in _paths() if "." in path}
    flat: dict[str, Any] = {}
    faults = []
    for key, value in document.items():
        if key not in sections:
            flat[key] = value
        elif isinstance(value, dict):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        elif value:
            faults.append(f"{key}: is no section ({', '.join(path for path in _paths() if path.startswith(key))})")
    return flat, faults


def _paths() -> Iterator[str]:
    return (one.metadata["path"] for one in fields(Settings))


def _similar(path: str) -> str:
    """Return what may have been meant."""
    near = options.nearest(path, _paths())
    return f"did you mean {near}?" if near else "see the example file"


def _contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """Say which options exclude or need each other; one that could not be read says nothing."""
    missing = object()
    get = values.get
    if get("image_list", missing) == "":
        yield "image_list: is missing"
    if get("cvmfs_repository") and get("cvmfs_directory"):
        yield "cvmfs: has both a repository and a directory"
    if sum(bool(get(name)) for name in ("sif_directory", "sif_url", "sif_command")) > 1:
        yield "sif: has more than one of directory, url and command"
    targets = ("cvmfs_repository", "cvmfs_directory", "sif_directory", "sif_url", "sif_command")
    if not any(get(name, missing) for name in targets):
        yield "cvmfs, sif: nothing says where to publish"
    yield from _in_the_work_directory(values)
    if get("sif_credentials_file") and not get("sif_url", missing):
        yield "sif.credentials_file: is only for sif.url"


def _in_the_work_directory(values: Mapping[str, Any]) -> Iterator[str]:
    """Say what would go with what former runs left in the work directory."""
    work = values.get("work_directory", "")
    for one in fields(Settings):
        place = values.get(one.name, "")
        if work and one.name in _NOT_IN_WORK and PurePosixPath(place).is_relative_to(work):
            yield f"work_directory: {one.metadata['path']} lies in it, and would be removed with what former runs left"


def options_documented() -> Iterator[tuple[str, str, str]]:
    """Yield path, default and meaning of each option, those of a registry behind `registries.HOST`."""
    for one in fields(Settings):
        yield one.metadata["path"], one.metadata["default"], one.metadata["meaning"]
        if one.name == "registries":
            for name, (default, meaning) in options.REGISTRY_OPTIONS.items():
                yield f"registries.HOST.{name}", default, meaning
