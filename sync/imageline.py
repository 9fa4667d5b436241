"""One image of the list: what a community writes on a line, and what is said to one who wrote it wrong. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final

from cache_manager.layout import tree_name
from cache_manager.registry.reference import RegistryReference, RegistryReferenceError
from cache_manager.text import printable

_GLOB = re.compile(r"[*?\[\]]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HUB_PAGE = re.compile(r"https?://hub\.docker\.com/(?:r/|_/)?(\S+)")
_TAG_GLOB = re.compile(r"[A-Za-z0-9_.*?\[\]!-]{1,128}")
_STAND_IN: Final = "x"


@dataclass(frozen=True, slots=True)
class Entry:
    """An image that is listed, from line `line` to `last_line` (the first is 1).

    `reference.tag` may be a pattern (`is_glob`), which then stands for all tags that it fits. `architectures` (empty:
    all that are configured) and `size_limit_bytes` (None: the configured one) are what the list says of it alone.
    """

    line: int
    last_line: int
    reference: RegistryReference
    architectures: tuple[str, ...] = ()
    size_limit_bytes: int | None = None

    @property
    def is_glob(self) -> bool:
        """Whether its tag is a pattern."""
        return not self.reference.digest and _GLOB.search(self.reference.tag) is not None

    @property
    def name(self) -> str:
        """The name under which it is published."""
        return self.reference.published_name

    @property
    def source(self) -> str:
        """The whole name in its registry."""
        return str(self.reference)

    @property
    def tree_name(self) -> str:
        """Its directory in a tree of SIFs."""
        return tree_name(self.name)

    def fits(self, tag: str) -> bool:
        """Whether its pattern stands for a tag."""
        return fnmatchcase(tag, self.reference.tag)

    def stands_for(self, source: str) -> bool:
        """Whether its pattern stands for a whole name in a registry."""
        repository, _, tag = source.rpartition(":")
        return self.is_glob and repository == self.reference.name and self.fits(tag)

    def with_tag(self, tag: str) -> Entry:
        """Return what its pattern stands for: this one tag."""
        return replace(self, reference=RegistryReference(self.reference.registry, self.reference.repository, tag))


def parse_reference(text: str) -> RegistryReference:
    """Read an image as it is written in a list. Raises ValueError with what is wrong, and with what may help."""
    _refuse_characters(text)
    _refuse_urls(text)
    if " " in text or "\t" in text:
        inline = re.search(r"\s#", text)
        raise ValueError("a comment needs a line of its own" if inline else "blanks: there is one image a line")
    if text.startswith("/cvmfs/"):
        raise ValueError("names where an image is published: write where it comes from, as for `docker pull`")
    name, at, _ = text.partition("@")
    repository, colon, tag = _tag_apart(name)
    if colon and not tag:
        raise ValueError("ends with `:`: a tag is missing, or the colon is too much")
    if not _GLOB.search(name):
        return _exact(text)
    if _GLOB.search(repository):
        raise ValueError("`*` may stand in the tag only: `name:*`")
    if at:
        raise ValueError("names a digest, which is one image: `*` says nothing there")
    if not _TAG_GLOB.fullmatch(tag):
        raise ValueError(f"{printable(tag)!r} fits no tag (at most 128 letters, digits, and `_.-*?[]`)")
    return replace(_exact(f"{repository}:{_STAND_IN}"), tag=tag)


def _tag_apart(name: str) -> tuple[str, str, str]:
    """Return what is before the tag's colon, the colon, and the tag; a registry's port is no tag."""
    head, slash, last = name.rpartition("/")
    repository, colon, tag = last.partition(":")
    return f"{head}{slash}{repository}", colon, tag


def _exact(text: str) -> RegistryReference:
    try:
        return RegistryReference.parse(text)
    except RegistryReferenceError as error:
        why = str(error).partition("': ")[2] or str(error)
    repository, colon, tag = _tag_apart(text.partition("@")[0])
    lower = f"{repository.lower()}{colon}{tag}"
    if lower != text and repository != repository.lower():
        try:
            RegistryReference.parse(lower)
        except RegistryReferenceError:
            pass
        else:
            why += f"; did you mean {printable(lower)}?"
    raise ValueError(why)


def _refuse_characters(text: str) -> None:
    for column, character in enumerate(text, 1):
        if not (character.isascii() and (character.isprintable() or character == "\t")):
            raise ValueError(f"character U+{ord(character):04X} at position {column}: only plain ASCII is allowed")


def _refuse_urls(text: str) -> None:
    page = _HUB_PAGE.match(text)
    if page:
        raise ValueError(f"is a web page; did you mean {printable(page[1].rstrip('/').removesuffix('/tags'))}?")
    found = _SCHEME.match(text)
    if not found:
        return
    rest = printable(text[found.end() :].partition("?")[0])
    if found[1].lower() == "docker":
        raise ValueError(f"leave `docker://` out: {rest}")
    if found[1].lower() in {"http", "https"}:
        raise ValueError(f"leave `{found[1]}://` out: an image is host/name:tag")
    raise ValueError(f"`{found[1]}://` is no registry: only images of registries are published")
