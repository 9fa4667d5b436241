"""What happens to images, as it is remembered and shown: publications, and what a run does now. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Publication:
    """That an image was published: when, for which architecture, and which digest the registry had for it."""

    at: float
    name: str
    arch: str
    digest: str
    version: str


@dataclass(frozen=True, slots=True)
class Doing:
    """What a run does with an image, and since when."""

    what: str
    since: float
