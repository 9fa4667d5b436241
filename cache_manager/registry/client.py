"""A client of registries (OCI distribution v2). Every failure is a RegistryError.

Docker Hub, ghcr, Harbor, docker-registry and the like; may be used by any number of threads at once.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cache_manager.registry import manifest as manifests
from cache_manager.registry import ratelimit
from cache_manager.registry.exchange import Answer, Question, Servers, Waits
from cache_manager.registry.failure import Kind, RegistryError
from cache_manager.registry.links import LinkError, next_page
from cache_manager.registry.manifest import ACCEPT, Descriptor, Index, Manifest, ManifestError
from cache_manager.registry.ratelimit import RateLimit
from cache_manager.registry.reference import RegistryReference, is_digest
from cache_manager.registry.tokens import Access, Credential, Tokens
from cache_manager.text import printable

MAX_TAGS: Final = 100_000
MAX_PAGES: Final = 1000
MAX_PAGE_BYTES: Final = 16 * 2**20
MAX_WORDS_BYTES: Final = 64 * 1024
RESUMES: Final = 10
"""So often a transfer that was cut is taken up again, if something came each time."""

LONGEST_REST_S: Final = 3600.0
"""For so long a registry is left alone at most, whatever it asks for."""

_PAGE: Final = 1000
_OK: Final = 200
_PARTIAL: Final = 206
_UNAUTHORIZED: Final = 401
_DENIED: Final = frozenset({401, 403})
_GONE: Final = frozenset({404, 410})
_THROTTLED: Final = 429
_NO_HEAD: Final = frozenset({405, 501})
_SERVER_ERRORS: Final = 500


@dataclass(frozen=True, slots=True)
class Head:
    """What a tag points to now: an index or an image's manifest."""

    digest: str
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """An image for one machine. `index_digest` is that of what was named: the manifest's own if there is no index."""

    index_digest: str
    manifest: Manifest


class RegistryClient:
    """Asks registries. A credential is given with each question; it goes to that registry and its token server only."""

    def __init__(self, waits: Waits = Waits(), plain_http: Iterable[str] = ()) -> None:  # noqa: B008 - immutable
        """Take the hosts (`host:port`) that are asked without TLS; this machine's own need not be named."""
        self._servers = Servers(waits, frozenset(plain_http))
        self._tokens = Tokens(self._servers)
        self._limits: dict[str, RateLimit] = {}
        self._rests: dict[_Rest, float] = {}

    def close(self) -> None:
        """End the connections that are kept."""
        self._servers.close()

    def limit(self, registry: str) -> RateLimit | None:
        """Return what a registry (`docker.io`) said last of how much may be asked; None if it said nothing."""
        return self._limits.get(registry)

    def head(self, reference: RegistryReference, credential: Credential | None = None) -> Head:
        """Return what the reference points to, without fetching it: no registry counts that. Raises RegistryError."""
        access = Access(reference, credential)
        path = f"manifests/{reference.version}"
        with self._ask("HEAD", access, path, {"Accept": ACCEPT}) as answer:
            refused = answer.status in _NO_HEAD
            if not refused:
                _refuse(answer, access)
            digest = answer.headers.get("Docker-Content-Digest", "")
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if refused or not is_digest(digest):
            found = self.manifest(reference, credential)
            return Head(found.digest, media_type)
        if reference.digest and digest != reference.digest:
            raise RegistryError(Kind.WRONG, f"{reference}: the registry says that it is {digest}")
        return Head(digest, media_type)

    def manifest(self, reference: RegistryReference, credential: Credential | None = None) -> Index | Manifest:
        """Return the manifest or index that the reference points to. Raises RegistryError."""
        access = Access(reference, credential)
        path = f"manifests/{reference.version}"
        with self._ask("GET", access, path, {"Accept": ACCEPT}) as answer:
            _refuse(answer, access)
            body = answer.read(manifests.MAX_BYTES, str(reference))
            said = answer.headers.get("Docker-Content-Digest", "")
            content_type = answer.headers.get("Content-Type", "")
        digest = manifests.digest_of(body)
        promised = reference.digest or (said if is_digest(said) else digest)
        if digest != promised:
            raise RegistryError(Kind.WRONG, f"{reference}: a manifest of digest {digest} came, {promised} was promised")
        try:
            return manifests.parse(body, content_type)
        except ManifestError as error:
            raise RegistryError(Kind.WRONG, f"{reference}: {error}") from None

    def image(self, reference: RegistryReference, machine: str, credential: Credential | None = None) -> Image:
        """Return the image for a machine, as `uname -m` says. Raises RegistryError, ArchitectureError."""
        found = self.manifest(reference, credential)
        if isinstance(found, Manifest):
            return Image(found.digest, found)
        child = manifests.choose(found, machine)
        image = self.manifest(reference.at(child.digest), credential)
        if isinstance(image, Index):
            raise RegistryError(Kind.WRONG, f"{reference}: its index names an index for {child.platform}")
        return Image(found.digest, image)

    def tags(self, reference: RegistryReference, credential: Credential | None = None) -> list[str]:
        """Return all tags of the repository. Raises RegistryError, also for more than MAX_TAGS."""
        access = Access(reference, credential)
        found: list[str] = []
        path = f"tags/list?n={_PAGE}"
        for _ in range(MAX_PAGES):
            with self._ask("GET", access, path, {}) as answer:
                _refuse(answer, access)
                found += _tags(answer.read(MAX_PAGE_BYTES, f"{reference.name}: its tags"), reference)
                link = answer.headers.get("Link", "")
                try:
                    follows = next_page(answer.url, link)
                except LinkError as error:
                    raise RegistryError(Kind.WRONG, f"{reference.name}: its tags: {error}") from None
            if not follows:
                return found
            if len(found) > MAX_TAGS:
                break
            path = follows
        raise RegistryError(Kind.WRONG, f"{reference.name}: more than {len(found)} tags")

    def blob(
        self,
        reference: RegistryReference,
        blob: Descriptor,
        write: Callable[[bytes], object],
        credential: Credential | None = None,
    ) -> None:
        """Give the bytes of a blob to `write`, taking the transfer up again where it was cut. Raises RegistryError.

        The digest is known at the end only: what was written is nothing before this returns. What `write` raises ends
        the transfer.
        """
        access = Access(reference, credential)
        digest = hashlib.sha256()
        came = 0
        for resume in range(RESUMES + 1):
            before = came
            try:
                for piece in self._blob_from(access, blob, came):
                    came += len(piece)
                    if came > blob.size_bytes:
                        raise _wrong_blob(access, blob, f"more than its {blob.size_bytes} bytes came")
                    digest.update(piece)
                    write(piece)
                if came == blob.size_bytes:
                    break
                cut = RegistryError(Kind.UNREACHABLE, f"{reference}: ended early ({came} of {blob.size_bytes} bytes)")
            except RegistryError as error:
                cut = error
            if cut.kind is not Kind.UNREACHABLE or came == before or resume == RESUMES:
                raise cut
        if f"sha256:{digest.hexdigest()}" != blob.digest:
            raise _wrong_blob(access, blob, f"sha256:{digest.hexdigest()} came ({came} bytes)")

    def _blob_from(self, access: Access, blob: Descriptor, came: int) -> Iterator[bytes]:
        """Yield what follows the bytes that came already."""
        headers = {"Range": f"bytes={came}-"} if came else {}
        with self._ask("GET", access, f"blobs/{blob.digest}", headers) as answer:
            _refuse(answer, access, _PARTIAL if came else _OK)
            partly = answer.status == _PARTIAL
            if partly and not answer.headers.get("Content-Range", "").startswith(f"bytes {came}-"):
                raise _wrong_blob(access, blob, f"another part came than the one from {came}")
            known = 0 if partly else came  # a server may know no ranges
            for piece in answer.pieces:
                if known < len(piece):
                    yield piece[known:]
                known = max(0, known - len(piece))

    def small_blob(self, reference: RegistryReference, blob: Descriptor, credential: Credential | None = None) -> bytes:
        """Return a blob that is read into memory: an image's configuration. Raises RegistryError."""
        if blob.size_bytes > manifests.MAX_BYTES:
            raise RegistryError(Kind.WRONG, f"{reference}: a configuration of {blob.size_bytes} bytes")
        parts: list[bytes] = []
        self.blob(reference, blob, parts.append, credential)
        return b"".join(parts)

    @contextmanager
    def _ask(self, method: str, access: Access, path: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        """Give the answer for a path of the repository, or for a whole URL, let in as the registry wants it."""
        reference = access.reference
        counted = method == "GET" and path.startswith("manifests/")
        rest = (reference.host, counted, access.credential)
        self._refuse_resting(rest)
        top = self._servers.top(reference.host)
        url = path if path.startswith(f"{top}/") else f"{top}/v2/{reference.repository}/{path}"
        secret = self._tokens.known(access)
        for attempt in (1, 2):
            with self._servers.ask(Question(method, url, str(reference), headers, secret)) as answer:
                self._note(answer, reference, rest)
                demand = answer.headers.get("WWW-Authenticate", "")
                if answer.status != _UNAUTHORIZED or not demand or attempt == 2:  # noqa: PLR2004 - let in by now
                    yield answer
                    return
            secret = self._tokens.meet(demand, access, plain=top.startswith("http:"))

    def _note(self, answer: Answer, reference: RegistryReference, rest: _Rest) -> None:
        """Remember what a registry says of how much may be asked."""
        now = time.time()
        limit = ratelimit.read(answer.headers, now)
        if limit is not None:
            self._limits[reference.registry] = limit
        wait_s = ratelimit.wait_s(answer.headers, now)
        if answer.status == _THROTTLED and wait_s is not None:
            self._rests[rest] = time.monotonic() + min(wait_s, LONGEST_REST_S)

    def _refuse_resting(self, rest: _Rest) -> None:
        left_s = self._rests.get(rest, 0.0) - time.monotonic()
        if left_s > 0:
            why = f"{rest[0]}: asked for no more requests for a time (HTTP 429)"
            raise RegistryError(Kind.THROTTLED, why, status=_THROTTLED, retry_after_s=left_s)
        self._rests.pop(rest, None)


_Rest = tuple[str, bool, Credential | None]
"""Who is left alone: a registry, for manifests or for all else, by whom."""


def _refuse(answer: Answer, access: Access, *also: int) -> None:
    """Raise RegistryError for an answer that is a refusal."""
    status = answer.status
    if status in {_OK, *also}:
        return
    if status in _DENIED and not answer.relayed:
        raise access.refused(f"the registry refuses it: {_said(answer)}", status)
    kind = Kind.UNREACHABLE if status >= _SERVER_ERRORS or answer.relayed else Kind.WRONG
    after_s = ratelimit.wait_s(answer.headers, time.time())
    if status in _GONE and not answer.relayed:
        kind = Kind.GONE
    elif status == _THROTTLED:
        kind = Kind.THROTTLED
    raise RegistryError(kind, f"{access.reference}: {_said(answer)}", status=status, retry_after_s=after_s)


def _said(answer: Answer) -> str:
    """Return what a registry says of a refusal, on one line."""
    words = f"HTTP {answer.status} {printable(answer.reason, 40)}".rstrip()
    try:
        values = json.loads(answer.read(MAX_WORDS_BYTES, "refusal"))
        first = values["errors"][0]
        said = f"{first['code']}: {first['message']}"
    except (RegistryError, ValueError, RecursionError, LookupError, TypeError):
        return words
    return f"{words}: {printable(said, 200)}"


def _wrong_blob(access: Access, blob: Descriptor, what: str) -> RegistryError:
    return RegistryError(Kind.WRONG, f"{access.reference}: blob {blob.digest[:19]}...: {what}")


def _tags(body: bytes, reference: RegistryReference) -> list[str]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        values = None
    found = values.get("tags") if isinstance(values, dict) else None
    if found is None and isinstance(values, dict) and "tags" in values:
        return []  # a repository whose tags were all taken away
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise RegistryError(Kind.WRONG, f"{reference.name}: its tags are no list of names ({len(body)} bytes)")
    return found
