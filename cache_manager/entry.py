"""An image in the cache, as a value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from cache_manager.layout import is_key

_TOO_MUCH: Final = 2**63


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A published image. Its key is `<sha256 of the artefact>.<format>`; all that a record says stays, but its owner.

    `name` is how the first job named it, `origin` the object's URL without a query. `size_bytes` is the artefact's;
    `disk_bytes` and `inodes` are what it takes on disk, measured once in staging. `public` entries may be advertised.
    `closed` ones came with a credential of a job's: only users who were admitted may read them.
    `owner` is who brought it in, whose share of the cache it counts against; empty once another owner has used it: from
    then on it is everybody's.
    """

    key: str
    name: str
    origin: str
    size_bytes: int
    disk_bytes: int
    inodes: int
    created_at: float
    architecture: str = ""
    public: bool = True
    closed: bool = False
    owner: str = ""
    last_used_at: float = field(default=0.0, compare=False)

    @property
    def digest(self) -> str:
        """The artefact's digest, sha256 in hexadecimal."""
        return self.key.partition(".")[0]

    @property
    def format(self) -> str:
        """`sif` or `sandbox`."""
        return self.key.partition(".")[2]

    @property
    def shown(self) -> str:
        """The name for tables and programs, which others than the owner of a credential may read."""
        return self.name if self.public else "(private)"

    def to_json(self) -> str:
        """Return the record that lies beside the image; last use is the record's mtime."""
        values = asdict(self)
        del values["last_used_at"]
        return json.dumps(values, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, last_used_at: float) -> CacheEntry:
        """Read a record. Raises ValueError if it is none."""
        values = read_object(text)
        known: dict[str, Any] = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        known["last_used_at"] = last_used_at
        try:
            entry = cls(**known)
        except TypeError as error:
            raise ValueError(str(error)) from None
        texts = (entry.key, entry.name, entry.origin, entry.architecture, entry.owner)
        counts = (entry.size_bytes, entry.disk_bytes, entry.inodes)
        if (
            not all(isinstance(one, str) for one in texts)
            or not all(type(one) is int and 0 <= one < _TOO_MUCH for one in counts)
            or not isinstance(entry.created_at, (int, float))
            or not 0 <= entry.created_at < _TOO_MUCH
            or not isinstance(entry.public, bool)
            or not isinstance(entry.closed, bool)
            or not is_key(entry.key)
        ):
            raise ValueError("a field that cannot be meant")
        return entry


def read_object(text: str) -> dict[str, Any]:
    """Read a JSON object of a file of ours, which may be damaged. Raises ValueError."""
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - a wrong content, not a wrong call
    return values
