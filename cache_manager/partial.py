"""A fetch that a manager did not end: what is here of which object, for the next one to go on with."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cache_manager.entry import read_object


@dataclass(frozen=True, slots=True)
class Partial:
    """The begin of an object.

    `name` is a digest of what names the object, which may hold secrets. `etag` is the strong one of these bytes; empty
    where a digest that is known beforehand will prove them. `size_bytes` is how much is here: the file's size, which
    is true as long as the machine (`boot_id`) was not started anew.
    """

    nonce: str
    name: str
    of_bytes: int
    etag: str
    boot_id: str
    size_bytes: int = 0

    def to_json(self) -> str:
        """Return the file's text."""
        values = {"name": self.name, "of_bytes": self.of_bytes, "etag": self.etag, "boot_id": self.boot_id}
        return json.dumps(values, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, nonce: str, size_bytes: int) -> Partial:
        """Read a record. Raises ValueError if it is none."""
        values = read_object(text)
        name, of_bytes, etag, boot_id = (values.get(key) for key in ("name", "of_bytes", "etag", "boot_id"))
        if not (isinstance(name, str) and isinstance(etag, str) and isinstance(boot_id, str)):
            raise ValueError("no partial image: a name is missing")  # noqa: TRY004 - of text, not of an argument
        if type(of_bytes) is not int or not 0 < size_bytes <= of_bytes:
            raise ValueError(f"no partial image: {size_bytes} of {of_bytes!r} bytes")
        return cls(nonce, name, of_bytes, etag, boot_id, size_bytes)
