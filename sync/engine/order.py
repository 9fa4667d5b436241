"""What images consist of, before they are converted: which share layers, and when a layer is no longer needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Final

from cache_manager.registry.client import RegistryClient
from sync.pull import Puller, PullError, client_for
from sync.request import Request
from sync.values import Failure

_AT_A_TIME: Final = 8


def described(requests: Sequence[Request]) -> Iterator[Request | Failure]:
    """Yield each request with its manifest, or why it cannot be had, in the order of the requests."""
    with client_for(requests) as client, ThreadPoolExecutor(_AT_A_TIME, "manifest") as threads:
        yield from threads.map(partial(_with_manifest, client), requests)


def _with_manifest(client: RegistryClient, request: Request) -> Request | Failure:
    try:
        return replace(request, manifest=Puller(client, request).manifest())
    except PullError as error:
        return request.failure(str(error), transient=error.transient)


def near_each_other(requests: Sequence[Request]) -> list[Request]:
    """Return them so that images with the same lower layers follow each other."""
    return sorted(requests, key=lambda one: (layers_of(one), one.name))


def layers_of(request: Request) -> tuple[str, ...]:
    """Return the digests of an image's layers, the lowest first."""
    return tuple(layer.digest for layer in request.manifest.layers) if request.manifest is not None else ()


class Needed:
    """Counts who still needs a layer."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._left = Counter(digest for one in requests for digest in set(layers_of(one)))

    def done(self, request: Request) -> list[str]:
        """Return the layers that nobody needs any more now that this image is done."""
        mine = set(layers_of(request))
        self._left.subtract(mine)
        return sorted(digest for digest in mine if self._left[digest] <= 0)
