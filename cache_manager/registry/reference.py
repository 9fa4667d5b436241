"""How an image in a registry is named: with or without its registry, tag and digest. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cache_manager.text import printable

DOCKER_HUB: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
MAX_CHARACTERS: Final = 255
"""What a repository's name may have, its registry included."""

_HUB_ALIASES: Final = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
_HUB_HOST: Final = "registry-1.docker.io"
_OFFICIAL: Final = "library"
"""Where Docker Hub keeps the images that are named by one word."""

_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\])(?::([0-9]{{1,5}}))?")
_LAST_PORT: Final = 65535
_LONGEST: Final = 512
"""Of all that is written: no name, tag and digest take more together."""


class RegistryReferenceError(ValueError):
    """A name that is none of an image in a registry; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class RegistryReference:
    """An image in a registry. `tag` or `digest` (`sha256:…`) may be empty, never both; the digest is what counts.

    `registry` is `docker.io` for Docker Hub, however it was written; a port is a part of it.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> RegistryReference:
        """Take apart `[registry/]repository[:tag][@digest]`, as `docker pull` does. Raises RegistryReferenceError."""
        if len(text) > _LONGEST:
            raise _wrong(text, f"too long ({len(text)} characters, at most {_LONGEST})")
        name, at, digest = text.partition("@")
        if at and not _DIGEST.fullmatch(digest):
            raise _wrong(text, f"{printable(digest, 80)!r} is no digest (sha256: and 64 hexadecimal digits)")
        first, slash, rest = name.partition("/")
        if slash and _is_registry(first):
            registry, path = _registry(text, first), rest
        else:
            registry, path = DOCKER_HUB, name
        repository, colon, tag = path.partition(":")
        if colon and not _TAG.fullmatch(tag):
            raise _wrong(text, f"{printable(tag, 80)!r} is no tag (at most 128 letters, digits, and `_.-` within)")
        if registry == DOCKER_HUB and repository and "/" not in repository:
            repository = f"{_OFFICIAL}/{repository}"
        _refuse_repository(text, registry, repository)
        return cls(registry, repository, tag or ("" if at else DEFAULT_TAG), digest)

    @property
    def host(self) -> str:
        """Whom to ask: the registry's host, and its port if one is named."""
        return _HUB_HOST if self.registry == DOCKER_HUB else self.registry

    @property
    def name(self) -> str:
        """The repository with its registry, as people write it."""
        return f"{self.registry}/{self.repository}"

    @property
    def version(self) -> str:
        """What a registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag

    @property
    def published_name(self) -> str:
        """The name below a CVMFS repository: without the registry, with `library/` for Docker Hub's official images.

        An image that is named by its digest alone is published under `repository@digest`.
        """
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository}@{self.digest}"

    @property
    def scope(self) -> str:
        """The permission to read the repository, as token servers name it."""
        return f"repository:{self.repository}:pull"

    def at(self, digest: str) -> RegistryReference:
        """Return the same repository's image of this digest."""
        return RegistryReference(self.registry, self.repository, self.tag, digest)

    def __str__(self) -> str:
        """Return the whole name, which means the same everywhere."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}@{self.digest}" if self.digest else f"{self.name}{tag}"


def is_digest(text: str) -> bool:
    """Whether a text is `sha256:` and 64 hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def _wrong(text: str, what: str) -> RegistryReferenceError:
    return RegistryReferenceError(f"image {printable(text)!r}: {what}")


def _is_registry(first: str) -> bool:
    """Whether what stands before the first slash is a registry: a namespace has no dot and no port."""
    return first == "localhost" or "." in first or ":" in first


def _registry(text: str, written: str) -> str:
    found = _HOST.fullmatch(written)
    port = int(found[1] or "1") if found else 0
    if not 0 < port <= _LAST_PORT:
        raise _wrong(text, f"{printable(written, 80)!r} is no registry")
    registry = written.lower()
    return DOCKER_HUB if registry in _HUB_ALIASES else registry


def _refuse_repository(text: str, registry: str, repository: str) -> None:
    if not repository:
        raise _wrong(text, "names no repository")
    if len(registry) + 1 + len(repository) > MAX_CHARACTERS:
        raise _wrong(text, f"the name is too long ({len(registry) + 1 + len(repository)}, at most {MAX_CHARACTERS})")
    if repository != repository.lower():
        raise _wrong(text, "the repository has to be lower case")
    for part in repository.split("/"):
        if not _PART.fullmatch(part):
            shown = printable(part, 80)
            raise _wrong(text, f"{shown!r} is no part of a repository's name (letters, digits, single `._-` within)")
