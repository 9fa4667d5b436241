"""An image in a registry (docker://, oras://): its tag resolved to a digest, its layers brought in as one archive.

What is public is asked for without a credential, also for a job that has one. The registry that a job names is the
authority for that image: who may have it, and whether there is one, is its word.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from cache_manager.credential import Credential
from cache_manager.memory import Memory
from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.registry import packing
from cache_manager.registry import tokens as registry_tokens
from cache_manager.registry.client import RegistryClient
from cache_manager.registry.dockerconfig import DockerConfigError, password_for
from cache_manager.registry.exchange import Waits
from cache_manager.registry.failure import Kind, RegistryError
from cache_manager.registry.manifest import ArchitectureError, Manifest, architecture_of
from cache_manager.registry.reference import RegistryReference, RegistryReferenceError
from cache_manager.settings import Settings
from cache_manager.sources.base import Sink, SourceError
from cache_manager.sources.transport import Patience
from cache_manager.status import HookStatus
from cache_manager.text import human_bytes, printable

SCHEME: Final = "docker://"
MANIFESTS: Final = 1000
KEPT_S: Final = 86400.0

_STATUS: Final = {
    Kind.THROTTLED: HookStatus.SOURCE_THROTTLED,
    Kind.UNREACHABLE: HookStatus.SOURCE_UNREACHABLE,
    Kind.WRONG: HookStatus.IMAGE_CORRUPT,
}


@dataclass(eq=False)
class Registries:
    """What all who ask know of registries: connections, tokens, limits, and manifests. For threads."""

    _client: RegistryClient | None = None
    _made_for: tuple[object, ...] = ()
    manifests: Memory[tuple[str, str], Manifest] = field(default_factory=lambda: Memory(MANIFESTS))

    def client(self, settings: Settings) -> RegistryClient:
        """Return the client of this configuration."""
        wanted = (settings.plain_registries, settings.stall_timeout_s)
        if self._client is None or self._made_for != wanted:
            waits = Waits(stall_s=settings.stall_timeout_s)
            self._client, self._made_for = RegistryClient(waits, settings.plain_registries), wanted
        return self._client


@dataclass(frozen=True, slots=True)
class Registry:
    """Images in registries as one user may have them, for machines of one architecture (`uname -m`).

    `before` is what the same tag pointed to when it was read last: while it points there, nothing more is asked.
    """

    client: RegistryClient
    known: Registries
    arch: str
    patience: Patience
    credential: Credential | None = None
    before: Located | None = None
    clock: Callable[[], float] = time.time

    def locate(self, image: ImageReference) -> Answer:
        """Say which image for this architecture a tag points to now. Registries do not count that question."""
        try:
            reference = RegistryReference.parse(image.path)
            return self._located(reference, self._password(reference))
        except RegistryReferenceError as error:
            return Unwell(HookStatus.IMAGE_REFERENCE_INVALID, str(error))
        except ArchitectureError as error:
            return Unwell(HookStatus.ARCHITECTURE_MISMATCH, str(error))
        except RegistryError as error:
            return self._answer(error, reference)
        except SourceError as error:
            return error.answer

    def confirm(self, located: Located) -> None:
        """Ask whether this user would get the image now. Raises SourceError."""
        reference = _of(located)
        try:
            self.client.head(reference, self._password(reference))
        except RegistryError as error:
            raise SourceError(self._answer(error, reference)) from None

    def transfer(self, located: Located, sink: Sink) -> None:
        """Fetch the image: the SIF itself if it is one, else an archive of its layers. Raises SourceError."""
        reference = _of(located)
        try:
            self._bring(reference, self._password(reference), sink)
        except RegistryError as error:
            raise SourceError(self._answer(error, reference)) from None

    def _located(self, reference: RegistryReference, password: registry_tokens.Credential | None) -> Located:
        digest = self.client.head(reference, password).digest
        if self.before is not None and self.before.pointer == digest:
            return replace(self.before, private=self.credential is not None)
        exact = reference.at(digest)
        found = self.client.image(exact, self.arch, password)
        manifest = found.manifest
        if manifest.digest == found.index_digest and manifest.sif is None:  # no index told for whom it is
            machine = architecture_of(self.client.small_blob(exact, manifest.config, password))
            if machine not in {"", self.arch}:
                raise ArchitectureError(f"not for {self.arch}; there is: {printable(machine, 40)}")
        self.known.manifests.put((reference.name, manifest.digest), manifest, self.clock() + KEPT_S)
        sif = manifest.sif
        return Located(
            url=f"{SCHEME}{reference.name}@{manifest.digest}",
            size_bytes=sif.size_bytes if sif else None,
            about_bytes=manifest.size_bytes,
            version=manifest.digest,
            private=self.credential is not None,
            pointer=digest,
        )

    def _bring(self, reference: RegistryReference, password: registry_tokens.Credential | None, sink: Sink) -> None:
        manifest = self.known.manifests.get((reference.name, reference.digest), self.clock())
        if manifest is None:
            found = self.client.manifest(reference, password)
            if not isinstance(found, Manifest):
                raise RegistryError(Kind.WRONG, f"{reference}: is an index by now")
            manifest = found
        if manifest.sif:
            parts: tuple[packing.Part, ...] = (packing.Part(b"", manifest.sif),)
        else:
            parts = packing.parts_of(manifest)
        size_bytes = sum(part.size_bytes for part in parts)
        sink.expect(size_bytes)
        paced = _Paced(sink, str(reference), size_bytes, self.patience)
        for part in parts:
            sink.write(part.before)
            if part.blob:
                self.client.blob(reference, part.blob, paced.write, password)
            sink.write(part.after)

    def _password(self, reference: RegistryReference) -> registry_tokens.Credential | None:
        """Return what the job has for a registry; None if it was not asked for. Raises SourceError."""
        if self.credential is None:
            return None
        name = self.credential.name
        try:
            found = password_for(self.credential.secret, reference.registry)
        except DockerConfigError as error:
            raise SourceError(Denied(f"the credential {name!r} of the job: {error}")) from None
        if found is None:
            raise SourceError(Denied(f"the credential {name!r} of the job has nothing for {reference.registry}"))
        return registry_tokens.Credential(*found)

    def _answer(self, error: RegistryError, reference: RegistryReference) -> Absent | Denied | Unwell:
        why = error.message.removeprefix(f"{reference}: ")  # the job's own words for it come before
        if error.kind is Kind.GONE:
            return Absent(why, authoritative=True)
        if error.kind is Kind.PRIVATE:
            return Denied(why, wants_credential=self.credential is None)
        status = _STATUS[error.kind]
        return Unwell(status, why, everything=error.everything, retry_after_s=error.retry_after_s)


@dataclass(slots=True)
class _Paced:
    """Keeps a transfer to its time."""

    sink: Sink
    name: str
    size_bytes: int
    patience: Patience
    began: float = field(default_factory=time.monotonic)

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises SourceError when the time is over."""
        self.sink.write(data)
        spent_s, budget_s = time.monotonic() - self.began, self.patience.budget_s(self.size_bytes)
        if spent_s > budget_s:
            came = self.sink.size_bytes
            rate = f"{human_bytes(came / spent_s)}/s"
            what = f"too slow ({human_bytes(came)} in {spent_s:.0f} s, {rate}; its time was {budget_s:.0f} s)"
            raise SourceError(Unwell(HookStatus.SOURCE_TOO_SLOW, f"{self.name}: {what}"))


def _of(located: Located) -> RegistryReference:
    """Return the reference of an exact image."""
    return RegistryReference.parse(located.url.removeprefix(SCHEME))
