"""An image in the cache, as a value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from cache_manager.layout import is_key


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A published image. Its key is `<sha256 of the artefact>.<format>`; what a record says never changes.

    `name` is how the first job named it, `origin` the object's URL without a query. `size_bytes` is the artefact's;
    `disk_bytes` and `inodes` are what it takes on disk, measured once in staging. `public` entries may be advertised.
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
    last_used_at: float = field(default=0.0, compare=False)

    @property
    def digest(self) -> str:
        """The artefact's digest, sha256 in hexadecimal."""
        return self.key.partition(".")[0]

    @property
    def format(self) -> str:
        """`sif` or `sandbox`."""
        return self.key.partition(".")[2]

    def to_json(self) -> str:
        """Return the record that lies beside the image; last use is the record's mtime."""
        values = asdict(self)
        del values["last_used_at"]
        return json.dumps(values, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, last_used_at: float) -> CacheEntry:
        """Read a record. Raises ValueError if it is none."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("no JSON object")  # noqa: TRY004 - a wrong content, not a wrong call
        known: dict[str, Any] = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        known["last_used_at"] = last_used_at
        try:
            entry = cls(**known)
        except TypeError as error:
            raise ValueError(str(error)) from None
        numbers = (entry.size_bytes, entry.disk_bytes, entry.inodes, entry.created_at)
        if not is_key(entry.key) or not all(isinstance(number, (int, float)) and number >= 0 for number in numbers):
            raise ValueError("a key or a number that is none")
        return entry
