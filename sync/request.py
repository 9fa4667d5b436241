"""What a conversion is told, as a value that travels to other processes and machines. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from cache_manager.registry.manifest import Manifest, parse
from cache_manager.text import printable
from sync.values import Converted, Failure, Variant

_GIB: Final = 2**30


class RequestError(ValueError):
    """The text is no request and no result; it says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the image's registry is reached. `credentials_file` is a path: what is in it never travels with a request.

    `insecure` is http instead of https.
    """

    insecure: bool = False
    credentials_file: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may take when it is unpacked; beyond, it is refused as a bomb.

    `max_inodes` is of names: each takes some 400 bytes of memory while an image is unpacked. `max_ratio` is of unpacked
    to compressed bytes, and counts only above `small_bytes`. `time_s` is for one conversion.
    """

    max_bytes: int = 200 * _GIB
    max_inodes: int = 1_000_000
    max_ratio: int = 200
    small_bytes: int = _GIB
    time_s: float = 6 * 3600.0

    def allowed_bytes(self, compressed_bytes: int) -> int:
        """Return what layers of that size together may become."""
        return min(self.max_bytes, max(self.small_bytes, self.max_ratio * compressed_bytes))


@dataclass(frozen=True, slots=True)
class Request:
    """One image for one architecture, to be made into both forms.

    `compression` is that of the SIF's file system, `zstd` or `gzip`, `level` None for its default. `memory_bytes` is
    what the packing may take. `manifest` is that of the variant's digest, if it was fetched already.
    """

    name: str
    source: str
    index_digest: str
    variant: Variant
    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)
    compression: str = "zstd"
    level: int | None = 3
    memory_bytes: int = 256 * 2**20
    manifest: Manifest | None = None

    def to_json(self) -> str:
        """Return the request as one line; its manifest travels as it came, so that it is read as the registry's was."""
        values = asdict(replace(self, manifest=None))
        if self.manifest is not None:
            values["manifest"] = {"type": self.manifest.media_type, "body": self.manifest.body.decode("latin-1")}
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Read what `to_json` wrote. Raises RequestError."""
        try:
            values = json.loads(text)
            parts = {"variant": Variant, "access": Access, "limits": Limits}
            built = {name: kind(**values[name]) for name, kind in parts.items()}
            return cls(**(values | built | {"manifest": _manifest(values["manifest"])}))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RequestError(f"no request for a conversion: {error}") from None

    def failure(self, why: str, *, transient: bool = False) -> Failure:
        """Return that this conversion failed; the image's name is put before the reason."""
        return Failure(self.name, self.source, f"{self.name} ({self.variant.arch}): {why}", transient)


def _manifest(values: dict[str, Any] | None) -> Manifest | None:
    if values is None:
        return None
    found = parse(values["body"].encode("latin-1"), values["type"])
    if not isinstance(found, Manifest):
        raise RequestError("its manifest is an index")
    return found


def result_to_json(result: Converted | Failure) -> str:
    """Return how a conversion ended, as one line."""
    kind = "converted" if isinstance(result, Converted) else "failure"
    return json.dumps({kind: asdict(result)}, sort_keys=True)


def result_from_json(text: str) -> Converted | Failure:
    """Read what `result_to_json` wrote. Raises RequestError."""
    try:
        values: dict[str, Any] = json.loads(text)
        if "failure" in values:
            return Failure(**values["failure"])
        found = values["converted"]
        return Converted(**(found | {"variant": Variant(**found["variant"])}))
    except (ValueError, TypeError, KeyError) as error:
        raise RequestError(f"no result of a conversion: {error}") from None


def mismatch(request: Request, result: Converted | Failure) -> str:
    """Say what in a result is of another request than this one; empty: nothing is."""
    if result.name != request.name:
        return f"is of {printable(result.name, 300)}"
    if isinstance(result, Failure):
        return ""
    mine, found = request.variant, result.variant
    if (found.arch, found.digest) == (mine.arch, mine.digest):
        return ""
    is_of = printable(f"{found.digest} for {found.arch}", 150)
    return f"is {is_of}, and was to be {mine.digest} for {mine.arch}"
