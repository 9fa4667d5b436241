"""Who uses an entry: leases follow processes. And who is about to fill the disk: reservations."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cache_manager.entry import read_object


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, for certain: pids are used again, a pid with its start time (clock ticks since boot) is not."""

    pid: int
    start_ticks: int

    @property
    def file_name(self) -> str:
        """The name of this holder's lease file."""
        return f"{self.pid}-{self.start_ticks}.json"


@dataclass(frozen=True, slots=True)
class Lease:
    """The entries that a holder uses, on which boot of which host, since when."""

    holder: Holder
    keys: frozenset[str]
    boot_id: str
    host: str
    taken_at: float
    job_id: str = ""

    def to_json(self) -> str:
        """Return the lease as it lies under `leases`."""
        values = {
            "pid": self.holder.pid,
            "start_ticks": self.holder.start_ticks,
            "keys": sorted(self.keys),
            "boot_id": self.boot_id,
            "host": self.host,
            "taken_at": self.taken_at,
            "job_id": self.job_id,
        }
        return json.dumps(values) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Lease:
        """Read a lease file. Raises ValueError if it is none."""
        values = read_object(text)
        try:
            holder = Holder(int(values["pid"]), int(values["start_ticks"]))
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
