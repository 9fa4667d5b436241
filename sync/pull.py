"""Fetch what an image consists of: its manifest, its configuration, its layers into the run's store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cache_manager.registry.client import RegistryClient
from cache_manager.registry.failure import Kind, RegistryError
from cache_manager.registry.manifest import Descriptor, Manifest
from cache_manager.registry.reference import RegistryReference, RegistryReferenceError
from cache_manager.registry.tokens import Credential
from sync import credentials
from sync.blobs import BlobStore
from sync.layers import LAYER_TYPES
from sync.request import Access, Request

_AT_A_TIME: Final = 3
"""Layers of one image that are fetched at a time, while the first ones are unpacked."""


class PullError(Exception):
    """What the image consists of cannot be had; the text says why, `transient` whether trying later may help."""

    def __init__(self, why: str, *, transient: bool = False) -> None:
        super().__init__(why)
        self.transient = transient


class Puller:
    """Fetches one image. Methods raise PullError, credentials' error as that, and OSError.

    `client` may be shared, so that a registry which asks to be left alone is, by all; it is closed by who made it.
    `check` is called while bytes come, and raises whatever ends the work.
    """

    def __init__(self, client: RegistryClient, request: Request, check: Callable[[], None] = lambda: None) -> None:
        try:
            self._reference = RegistryReference.parse(request.source).at(request.variant.digest)
            self._credential = _credential(request.access)
        except (RegistryReferenceError, credentials.CredentialsError) as error:
            raise PullError(str(error)) from None
        self._known = request.manifest
        self._check = check
        self._client = client

    def manifest(self) -> Manifest:
        """Return the image's manifest, asked for unless it is known."""
        if self._known is not None:
            return self._known
        try:
            found = self._client.manifest(self._reference, self._credential)
        except RegistryError as error:
            raise _failed(error) from None
        if not isinstance(found, Manifest):
            raise PullError(f"{self._reference.digest[:19]}... is an index of images, no image")
        return found

    def config(self, manifest: Manifest) -> bytes:
        """Return the image's configuration."""
        try:
            return self._client.small_blob(self._reference, manifest.config, self._credential)
        except RegistryError as error:
            raise _failed(error) from None

    def layers(self, manifest: Manifest, store: BlobStore) -> Iterator[Path]:
        """Yield each layer's file as soon as it and those below it are there; the next ones are fetched meanwhile."""
        for layer in manifest.layers:
            if layer.media_type not in LAYER_TYPES:
                raise PullError(f"layer {layer.digest[:19]}... is of type {layer.media_type!r}, which is not published")
        with ThreadPoolExecutor(_AT_A_TIME, "fetch") as threads:
            coming = [threads.submit(store.get, layer, self._fetch) for layer in manifest.layers]
            try:
                for one in coming:
                    yield one.result()
            except RegistryError as error:
                raise _failed(error) from None
            finally:
                for one in coming:
                    one.cancel()

    def _fetch(self, blob: Descriptor, write: Callable[[bytes], object]) -> None:
        def checked(piece: bytes) -> None:
            self._check()
            write(piece)

        self._client.blob(self._reference, blob, checked, self._credential)


@contextmanager
def client_for(requests: Sequence[Request]) -> Iterator[RegistryClient]:
    """Give a client that knows which of the images' registries are asked without TLS."""
    plain = [request.source.partition("/")[0] for request in requests if request.access.insecure]
    client = RegistryClient(plain_http=plain)
    try:
        yield client
    finally:
        client.close()


def _credential(access: Access) -> Credential | None:
    if not access.credentials_file:
        return None
    found = credentials.read(access.credentials_file)
    return Credential(found.user, found.secret)


def _failed(error: RegistryError) -> PullError:
    return PullError(error.message, transient=error.kind in {Kind.UNREACHABLE, Kind.THROTTLED})
