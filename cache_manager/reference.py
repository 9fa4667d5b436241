"""Every form in which a user may name an image. This is the only place that takes a reference apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from cache_manager.library import LibraryReference, LibraryReferenceError
from cache_manager.status import HookStatus, StatusError
from cache_manager.text import printable, without_secrets

MAX_BYTES: Final = 4096
"""Longer references are refused: no path (PATH_MAX) and no server takes them."""

REGISTRY_SCHEMES: Final = frozenset({"docker", "oras"})
LIBRARY_SCHEMES: Final = frozenset({"library", "shub"})
HTTP_SCHEMES: Final = frozenset({"http", "https"})
FEDERATION_SCHEMES: Final = frozenset({"osdf", "stash", "pelican"})
PLUGIN_SCHEMES: Final = frozenset({"ftp", "s3", "gs", "gdrive", "box", "onedrive", "data", "dav", "davs"})
"""What HTCondor's own file-transfer plug-ins bring; an EP may advertise more."""

DOCKER_CREDENTIAL: Final = "docker"
"""The service whose credential is a Docker configuration (config.json)."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)://")
_SHORT_SCHEME = re.compile(r"(docker|osdf|stash):(?!//)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NOT_IN_URL = re.compile(r"[^\x21-\x7e]|[\"\\<>^`{|}]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*(?::[A-Za-z0-9_][A-Za-z0-9._-]*)?")


class ReferenceKind(Enum):
    """What a reference is, which decides who can serve it."""

    CVMFS = "a path in a CVMFS repository"
    NAME = "the name of a published image"
    PATH = "an absolute path"
    JOB_FILE = "a file that came with the job"
    HTTP = "an http(s) URL"
    FEDERATION = "an object in a data federation"
    REGISTRY = "an image in a registry"
    LIBRARY = "an image in a library"
    PLUGIN = "a URL for a file-transfer plug-in"


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image as somebody named it.

    `text` is what was written, without trailing slashes. `scheme` is lower case and without a token's name, empty
    for paths and names; `token` is that name. `repository` is set for CVMFS references; `path` is the rest: the
    published name for CVMFS and NAME, the path for files, all after `scheme://` for URLs.
    """

    text: str
    kind: ReferenceKind
    scheme: str = ""
    token: str = ""
    repository: str = ""
    path: str = ""

    @property
    def published_name(self) -> str:
        """The name under which a publisher may offer this image in both forms; empty if it has none."""
        return self.path if self.kind in {ReferenceKind.CVMFS, ReferenceKind.NAME} else ""

    @property
    def url(self) -> str:
        """The URL without the name of a credential in front of its scheme; what was written, if it is no URL."""
        return f"{self.scheme}://{self.path}" if self.scheme else self.text

    @property
    def short(self) -> str:
        """A name for messages and the slot ad: the published name, or what was written, without what may be secret.

        The query of a URL may be a signature, its user part a password.
        """
        if self.published_name or not self.scheme:
            return self.published_name or self.text
        if self.kind is ReferenceKind.REGISTRY and not self.has_secret:  # its `@` is a digest's
            return self.text.partition("?")[0]
        return without_secrets(self.text).partition("?")[0].partition("#")[0]

    @property
    def has_secret(self) -> bool:
        """Whether it holds what may be a credential."""
        if self.kind is ReferenceKind.REGISTRY:
            return "@" in self.path.rpartition("/")[0] or "?" in self.path
        return without_secrets(self.url) != self.url

    @property
    def credential_names(self) -> tuple[str, ...]:
        """The services whose credential is meant, the likeliest first; none if the reference names none.

        A scheme has no underscores: a dot may stand for one, and the other way round. What a user has for registries
        is in one file.
        """
        if self.kind is ReferenceKind.REGISTRY:
            return (DOCKER_CREDENTIAL,)
        names = (self.token.replace(".", "_"), self.token, self.token.replace("_", "."))
        return tuple(dict.fromkeys(names)) if self.token else ()

    @classmethod
    def parse(cls, text: str, *, plugin_schemes: frozenset[str] = PLUGIN_SCHEMES) -> ImageReference:
        """Take apart what a job names. Raises StatusError (IMAGE_REFERENCE_INVALID) with the place that is wrong."""
        _refuse_unusable(text)
        found = _SCHEME.match(text) or _SHORT_SCHEME.match(text)
        if found:
            return _parse_url(text, found.group(1), text[found.end() :], plugin_schemes)
        clean = text.rstrip("/") if text.strip("/") else text
        _refuse_dots(text, clean)
        parts = [part for part in clean.split("/") if part not in {"", "."}]
        if not parts:
            raise _invalid(text, "names no file")
        if not clean.startswith("/"):
            return cls(clean, ReferenceKind.JOB_FILE, path="/".join(parts))
        if parts[0] == "cvmfs":
            if len(parts) < 3:  # noqa: PLR2004 - cvmfs, repository, image
                raise _invalid(text, "names no image below /cvmfs/<repository>/")
            return cls(clean, ReferenceKind.CVMFS, repository=parts[1], path="/".join(parts[2:]))
        return cls(clean, ReferenceKind.PATH, path="/" + "/".join(parts))

    @classmethod
    def parse_configured(cls, text: str) -> ImageReference:
        """Take apart what an admin names: as `parse`, and a bare `htc/rocky:9` is a published name."""
        if _NAME.fullmatch(text):
            return cls(text, ReferenceKind.NAME, path=text)
        return cls.parse(text)


def _invalid(text: str, what: str) -> StatusError:
    shown = printable(without_secrets(text))
    return StatusError(HookStatus.IMAGE_REFERENCE_INVALID, f"image {shown!r}: {what}")


def _refuse_unusable(text: str) -> None:
    """Refuse what no kind of reference may be."""
    size = len(text.encode(errors="surrogateescape"))
    if not text.strip():
        raise _invalid(text, f"empty ({size} bytes)")
    if size > MAX_BYTES:
        raise _invalid(text, f"too long ({size} bytes, at most {MAX_BYTES})")
    control = _CONTROL.search(text)
    if control:
        raise _invalid(text, f"control character {control.group()!r} at position {control.start() + 1}")


def _refuse_dots(text: str, path: str) -> None:
    if ".." in path.split("/"):
        raise _invalid(text, "`..` is not allowed in the path of an image")


def _refuse_host(text: str, rest: str) -> None:
    """Refuse a URL that has no host, or a port that is none: nobody can ever fetch it."""
    try:
        parts = urlsplit(f"https://{rest}")  # a token's name in front of the scheme confuses it
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise _invalid(text, "no usable host and port") from None
    if not usable:
        raise _invalid(text, "names no host")


def _refuse_in_federation(text: str, rest: str) -> None:
    """Refuse what a federation has, and what is no image; and what its director would refuse."""
    path, _, query = rest.partition("#")[0].partition("?")
    if "@" in path.lstrip("/").partition("/")[0]:
        raise _invalid(text, "a data federation takes no user and no password")
    asked = {key for key, _ in parse_qsl(query, keep_blank_values=True)}
    for key in ("recursive", "pack"):
        if key in asked:
            raise _invalid(text, f"`{key}` brings directories, and an image is one file")
    if {"directread", "prefercached"} <= asked:
        raise _invalid(text, "`directread` and `prefercached` exclude each other")


def _refuse_in_library(text: str, rest: str) -> None:
    """Refuse what no library has."""
    try:
        LibraryReference.parse(rest)
    except LibraryReferenceError as error:
        raise _invalid(text, str(error)) from None


def _parse_url(text: str, prefix: str, rest: str, plugin_schemes: frozenset[str]) -> ImageReference:
    bad = _NOT_IN_URL.search(text)
    if bad:
        raise _invalid(text, f"character {bad.group()!r} at position {bad.start() + 1} has to be percent-encoded")
    token, _, scheme = prefix.rpartition("+")
    scheme = scheme.lower()
    path = rest.partition("?")[0].partition("#")[0]
    _refuse_dots(text, path)
    if not path.strip("/"):
        raise _invalid(text, f"names nothing after {prefix}:")
    if scheme == "file":
        local = "/" + path.lstrip("/") if path.startswith("/") else ""
        if not local:
            raise _invalid(text, "a file URL has the form file:///path")
        return ImageReference.parse(local)
    if scheme in HTTP_SCHEMES or scheme == "pelican":
        _refuse_host(text, rest)
    if scheme in FEDERATION_SCHEMES:
        _refuse_in_federation(text, rest)
    if scheme == "library":
        _refuse_in_library(text, rest)
    kinds = (
        (REGISTRY_SCHEMES, ReferenceKind.REGISTRY),
        (LIBRARY_SCHEMES, ReferenceKind.LIBRARY),
        (HTTP_SCHEMES, ReferenceKind.HTTP),
        (FEDERATION_SCHEMES, ReferenceKind.FEDERATION),
        (plugin_schemes, ReferenceKind.PLUGIN),
    )
    for schemes, kind in kinds:
        if scheme in schemes:
            return ImageReference(text, kind, scheme=scheme, token=token, path=rest)
    raise _invalid(text, f"unknown scheme {scheme!r}")
