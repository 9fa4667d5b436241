"""How the values of sync.yaml are read: from the text, the list or the section that YAML has there. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from cache_manager.quantities import parse_size, parse_time
from cache_manager.text import printable, without_secrets

ARCHITECTURES: Final = ("x86_64", "aarch64", "ppc64le", "s390x", "riscv64", "armv7l", "i686")
"""What an image may be for, as `uname -m` says it."""

_OTHER_NAMES: Final = {"amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64", "386": "i686", "arm": "armv7l"}
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")
_FQRN = re.compile(r"[a-z0-9][a-z0-9-]*(?:\.[a-z0-9][a-z0-9-]*)+")
_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*")
_SHOWN_URL = re.compile(r"[a-z][a-z0-9+.-]*:///?[\x21-\x7e]+")
_ZSTD = re.compile(r"zstd(?:-([0-9]{1,2}))?")
_ZSTD_LEVELS: Final = range(1, 20)
_ZSTD_DEFAULT: Final = 3


@dataclass(frozen=True, slots=True)
class Compression:
    """How a SIF's file system is compressed; `level` is None where there is none to choose."""

    algorithm: str
    level: int | None = None


@dataclass(frozen=True, slots=True)
class Registry:
    """What is known of one registry beforehand.

    `credentials_file` is the path of a file with `user:password`; `insecure` means http instead of https;
    `connections` is how many requests it gets at a time.
    """

    credentials_file: str = ""
    insecure: bool = False
    connections: int = 10


REGISTRY_OPTIONS: Final = {
    "credentials_file": ("", "file with `user:password` for pulling, mode 0600; `verify` never uses it"),
    "insecure": ("false", "`true`: http instead of https"),
    "connections": ("10", "requests at a time"),
}
"""Default and meaning of each option of a registry."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is a list or a section, where one value is wanted")  # noqa: TRY004 - told with all other faults
    return value.strip()


def line(value: object) -> str:
    """Read one line of text."""
    text = _text(value)
    if not text.isprintable():
        raise ValueError(f"is more than a line: {printable(text)!r}")
    return text


def words(value: object) -> tuple[str, ...]:
    """Read a YAML list, or words with blanks between."""
    if isinstance(value, list):
        if not all(isinstance(one, str) and one.strip() for one in value):
            raise ValueError("is a list of something else than words")
        return tuple(value)
    return tuple(_text(value).split())


def path(value: object) -> str:
    """Read an absolute path."""
    text = _text(value)
    if text and (not text.startswith("/") or ".." in text.split("/")):
        raise ValueError(f"is no absolute path: {printable(text)!r}")
    return text.rstrip("/") or text


def url(value: object) -> str:
    """Read an http(s) URL without credentials in it."""
    text = _text(value)
    if not text:
        return ""
    shown = printable(without_secrets(text))
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"is no http(s) URL: {shown!r}")
    if parts.username is not None or parts.query:
        raise ValueError(f"holds what may be a credential: {shown!r}; those are in files")
    return text.rstrip("/")


def public_url(value: object) -> str:
    """Read a URL of any scheme, which is only shown."""
    text = _text(value)
    if text and (not _SHOWN_URL.fullmatch(text) or without_secrets(text) != text):
        raise ValueError(f"is no URL without credentials: {printable(without_secrets(text))!r}")
    return text.rstrip("/")


def file_or_url(value: object) -> str:
    """Read where the list is. A query is allowed: forges have them."""
    text = _text(value)
    if "://" not in text:
        return path(text)
    url(text.partition("?")[0])
    return text


def repository(value: object) -> str:
    """Read the name of a CVMFS repository."""
    text = _text(value)
    if text and not _FQRN.fullmatch(text):
        raise ValueError(f"is no name of a CVMFS repository: {printable(text)!r}")
    return text


def count(value: object) -> int:
    """Read a whole number."""
    text = _text(value)
    if not (text.isascii() and text.isdigit()) or len(text) > 9:  # noqa: PLR2004 - more is no count of anything here
        raise ValueError(f"is no whole number: {printable(text)!r}")
    return int(text)


def some(value: object) -> int:
    """Read a whole number above 0."""
    number = count(value)
    if number == 0:
        raise ValueError("is nothing to work with (0)")
    return number


def room(value: object) -> int:
    """Read a size above 0."""
    size = parse_size(_text(value))
    if size == 0:
        raise ValueError("is no room for any image (0 bytes)")
    return size


def patience(value: object) -> float:
    """Read a time above 0."""
    seconds = parse_time(_text(value))
    if seconds == 0:
        raise ValueError("is no time at all (0 s)")
    return seconds


def boolean(value: object) -> bool:
    """Read yes or no, as YAML 1.1 and 1.2 write them."""
    text = _text(value).lower()
    if text in {"true", "yes", "on"}:
        return True
    if text in {"false", "no", "off", ""}:
        return False
    raise ValueError(f"is neither true nor false: {printable(text)!r}")


def one_of(*known: str) -> Callable[[object], str]:
    """Return what reads one of some words."""

    def parse(value: object) -> str:
        text = _text(value).lower()
        if text not in known:
            raise ValueError(f"is none of {', '.join(known)}: {printable(text)!r}")
        return text

    return parse


def architectures(value: object) -> tuple[str, ...]:
    """Read architectures as `uname -m` names them."""
    given = words(value)
    for one in given:
        if one not in ARCHITECTURES:
            other = _OTHER_NAMES.get(one.lower())
            hint = f"here it is {other}" if other else f"known: {', '.join(ARCHITECTURES)}"
            raise ValueError(f"{printable(one)!r} is no architecture as `uname -m` names it ({hint})")
    if len(set(given)) < len(given):
        raise ValueError("names an architecture twice")
    if not given:
        raise ValueError("names no architecture")
    return given


def namespaces(value: object) -> tuple[str, ...]:
    """Read the first parts of published names."""
    given = words(value)
    for one in given:
        if one != "*" and not _NAMESPACE.fullmatch(one):
            raise ValueError(f"{printable(one)!r} is no namespace (`htc`; `*`: all)")
    return given


def compression(value: object) -> Compression:
    """Read `zstd-3` or `gzip`."""
    text = _text(value).lower()
    if text == "gzip":
        return Compression("gzip")
    found = _ZSTD.fullmatch(text)
    level = int(found.group(1) or _ZSTD_DEFAULT) if found else 0
    if level not in _ZSTD_LEVELS:
        raise ValueError(f"is neither zstd-1 to zstd-19 nor gzip: {printable(text)!r}")
    return Compression("zstd", level)


def registries(value: object) -> Mapping[str, Registry]:
    """Read the section `registries`. Raises ValueError with a line for each fault."""
    if value in ("", None):
        return MappingProxyType({})
    if not isinstance(value, dict):
        raise ValueError("is no section (`host: {credentials_file: /path}`)")  # noqa: TRY004 - told with all other faults
    found, faults = {}, []
    for host, given in value.items():
        if not _HOST.fullmatch(host):
            faults.append(f"{printable(host)!r} is no host")
            continue
        try:
            found[host.lower()] = _registry(given)
        except ValueError as error:
            faults += [f"{host}.{line}" for line in str(error).splitlines()]
    if faults:
        raise ValueError("\n".join(faults))
    return MappingProxyType(found)


def _registry(given: object) -> Registry:
    if not isinstance(given, dict):
        raise ValueError("is no section (`{credentials_file: /path}`)")  # noqa: TRY004 - told with all other faults
    parsers: dict[str, Callable[[object], Any]] = {
        "credentials_file": path,
        "insecure": boolean,
        "connections": some,
    }
    values, faults = {}, []
    for name, text in given.items():
        if name not in parsers:
            faults.append(f"{printable(name)}: is no option (known: {', '.join(parsers)})")
            continue
        try:
            values[name] = parsers[name](text)
        except ValueError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise ValueError("\n".join(faults))
    return Registry(**values)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return which of `known` may have been meant; empty if none is near."""
    return next(iter(difflib.get_close_matches(word, list(known), 1)), "")
