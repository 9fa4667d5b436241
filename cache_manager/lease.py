"""Who uses an entry: leases follow processes. And who is about to fill the disk: reservations."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Final

from cache_manager.entry import read_object

BOUND_S: Final = 86_400.0
"""A lease that its own user could keep for ever, or whose end nobody can see, ends so long after it was taken."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, for certain: pids are used again, a pid with its start time (clock ticks since boot) is not.

    Where the start time cannot be read (hidepid), or the process is in a pid namespace that we do not see (pid 0), it
    is known by its job's directory instead: by its path and inode. An inode of 0 is a directory that we do not see
    either. `bounded` holders hold nothing longer than BOUND_S.
    """

    pid: int
    start_ticks: int
    directory: str = ""
    inode: int = 0
    bounded: bool = field(default=False, compare=False)

    @property
    def file_name(self) -> str:
        """The name of this holder's lease file."""
        if not self.directory:
            return f"{self.pid}-{self.start_ticks}.json"
        place = hashlib.sha256(self.directory.encode(errors="backslashreplace")).hexdigest()[:16]
        return f"{self.pid}-{self.inode}-{place}.json"


@dataclass(frozen=True, slots=True)
class Lease:
    """The entries that a holder uses, on which boot of which host, since when."""

    holder: Holder
    keys: frozenset[str]
    boot_id: str
    host: str
    taken_at: float
    job_id: str = ""

    def is_over(self, now: float) -> bool:
        """Whether it has lasted as long as it may, whatever its holder does."""
        return self.holder.bounded and abs(now - self.taken_at) >= BOUND_S

    def to_json(self) -> str:
        """Return the lease as it lies under `leases`. Keys are only ever added: another version reads it too."""
        values: dict[str, object] = {
            "pid": self.holder.pid,
            "start_ticks": self.holder.start_ticks,
            "keys": sorted(self.keys),
            "boot_id": self.boot_id,
            "host": self.host,
            "taken_at": self.taken_at,
            "job_id": self.job_id,
        }
        if self.holder.directory:
            one = self.holder
            values |= {"directory": one.directory, "inode": one.inode, "bounded": one.bounded}
        return json.dumps(values) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Lease:
        """Read a lease file. Raises ValueError if it is none."""
        values = read_object(text)
        try:
            holder = Holder(
                int(values["pid"]),
                int(values["start_ticks"]),
                str(values.get("directory", "")),
                int(values.get("inode", 0)),
                bool(values.get("bounded", False)),
            )
            return cls(
                holder,
                frozenset(str(key) for key in values["keys"]),
                str(values["boot_id"]),
                str(values["host"]),
                float(values["taken_at"]),
                str(values.get("job_id", "")),
            )
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"no lease: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room that a fetch may fill: bytes and files that count as used before they are written."""

    nonce: str
    size_bytes: int
    inodes: int
    owner: str = ""
