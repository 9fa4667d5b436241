"""A JobRequest as JSON, for the pipe between the manager and the child that evaluates expressions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cache_manager.jobad import JobRequest, Machine
from cache_manager.reference import ImageReference, ReferenceKind


def to_json(request: JobRequest) -> dict[str, Any]:
    """Return the values of a request."""
    values = asdict(request)
    if request.image is not None:
        values["image"]["kind"] = request.image.kind.name
    return values


def from_json(values: dict[str, Any]) -> JobRequest:
    """Return the request. Raises ValueError for values that are none."""
    try:
        image, machine = values["image"], Machine(**values["machine"])
        if image is not None:
            image = ImageReference(**(image | {"kind": ReferenceKind[image["kind"]]}))
        return JobRequest(**(values | {"image": image, "machine": machine}))
    except (KeyError, TypeError) as error:
        raise ValueError(f"no request: {error!r}") from None
