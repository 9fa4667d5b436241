"""What happens to a published image, as steps from one catalog to the next. Pure; each step is safe to repeat."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from sync.catalog import Catalog, Image, Version
from sync.values import Failure, Resolved


class Form(StrEnum):
    """What an image is published as."""

    SANDBOX = "sandbox"
    SIF = "sif"


def resolved(catalog: Catalog, found: Resolved, now: float) -> Catalog:
    """Note what a listed name's tag points to; a name that had left the list is back."""
    image = replace(catalog.get(found.name), source=found.source, digest=found.digest, resolved_at=now, unlisted_at=0.0)
    return catalog.with_image(image)


def queued(catalog: Catalog, name: str, now: float) -> Catalog:
    """Note that what the tag points to is to be converted."""
    image = catalog.get(name)
    return catalog.with_image(replace(image, queued_at=image.queued_at or now))


def failed(catalog: Catalog, failure: Failure, digest: str, now: float) -> Catalog:
    """Note why an image is not published as its registry has it; `digest` is which, empty if it was not found out.

    What is published of it stays.
    """
    image = catalog.get(failure.name, failure.source)
    again = image.failing_at > 0 and image.failed_digest == digest
    image = replace(
        image,
        failing_at=image.failing_at or now,
        failed_at=now,
        failures=image.failures + 1 if again else 1,
        failed_digest=digest,
        error=failure.why,
        is_transient=failure.transient,
    )
    return catalog.with_image(image)


def published(catalog: Catalog, name: str, version: Version, now: float) -> Catalog:
    """Put in a new version, which is the current one of its architecture from now on."""
    image = catalog.get(name)
    others = [one for one in image.versions if (one.arch, one.version) != (version.arch, version.version)]
    image = replace(image, versions=(*others, version))
    return linked(catalog.with_image(image), name, version, now)


def linked(catalog: Catalog, name: str, version: Version, now: float) -> Catalog:
    """Have a name lead to a version that is there; it is well again, and listed."""
    image = catalog.get(name)
    versions = tuple(
        one
        if one.arch != version.arch
        else replace(one, superseded_at=0.0 if one.version == version.version else one.superseded_at or now)
        for one in image.versions
    )
    return catalog.with_image(_well(replace(image, versions=versions, queued_at=0.0, unlinked_at=0.0)))


def kept(catalog: Catalog, name: str) -> Catalog:
    """Note that a name's current versions are what its tag points to: whatever failed is over."""
    return catalog.with_image(_well(replace(catalog.get(name), queued_at=0.0)))


def unlisted(catalog: Catalog, name: str, now: float) -> Catalog:
    """Note that no line of the list names it any more; its grace begins."""
    image = catalog.get(name)
    return catalog.with_image(replace(image, unlisted_at=image.unlisted_at or now, queued_at=0.0))


def unlinked(catalog: Catalog, name: str, now: float) -> Catalog:
    """Have a name lead nowhere: all its versions are superseded."""
    image = catalog.get(name)
    versions = tuple(replace(one, superseded_at=one.superseded_at or now) for one in image.versions)
    image = replace(image, versions=versions, unlinked_at=image.unlinked_at or now)
    return _without_the_empty(catalog.with_image(image), name)


def removed(catalog: Catalog, name: str, version: Version, form: Form) -> Catalog:
    """Take away one form of a version; the version goes with its last form, a retired image with its last version."""
    image = catalog.get(name)
    key = version.arch, version.version  # `version` may be of before its other form went
    versions = tuple(_less(one, form) if (one.arch, one.version) == key else one for one in image.versions)
    image = replace(image, versions=tuple(one for one in versions if one.is_there))
    return _without_the_empty(catalog.with_image(image), name)


def without_shared(catalog: Catalog, before: float) -> Catalog:
    """Forget that versions had a sandbox which another name leads to: those that were superseded before a moment.

    Nothing is removed for them, and without their SIF nothing else is left of them.
    """
    kept = {one.sandbox for image in catalog.images.values() for one in image.current.values()}
    for image in catalog.images.values():
        for one in image.versions:
            is_old = 0 < one.superseded_at <= before and not one.has_sif
            if is_old and one.sandbox in kept and (image.unlinked_at or one.arch in image.current):
                catalog = removed(catalog, image.name, one, Form.SANDBOX)
    return catalog


def _less(version: Version, form: Form) -> Version:
    return replace(version, sandbox="") if form is Form.SANDBOX else replace(version, has_sif=False)


def _well(image: Image) -> Image:
    return replace(
        image,
        failing_at=0.0,
        failed_at=0.0,
        failures=0,
        failed_digest="",
        error="",
        is_transient=False,
        unlisted_at=0.0,
    )


def _without_the_empty(catalog: Catalog, name: str) -> Catalog:
    image = catalog.get(name)
    return catalog.without(name) if image.unlinked_at and not image.versions else catalog
