"""The marker of a cache root, and whether the manager that wrote it is dead. Pure.

The manager writes `manager.json` at its start and touches it while it runs. It stays when the manager ends: it is how
a directory that a dead pilot left is known to be a cache of ours.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from cache_manager.entry import read_object
from cache_manager.lease import Holder

KIND: Final = "htcondor-image-cache"

BEAT_S: Final = 60.0
"""How often a manager touches its marker."""

DEAD_S: Final = 86400.0
"""A manager that was silent for so long is dead, wherever it ran."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pid means something: a host, one boot of it, and a pid namespace (containers share host and boot)."""

    host: str
    boot_id: str
    pid_namespace: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Who has, or had, a cache root."""

    place: Place
    manager: Holder
    version: str

    def to_json(self) -> str:
        """Return the marker's text."""
        values = {"kind": KIND, "version": self.version, **asdict(self.place), **asdict(self.manager)}
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Heartbeat:
        """Read a marker. Raises ValueError if it is none of ours."""
        values = read_object(text)
        try:
            if values["kind"] != KIND:
                raise ValueError(f"no marker of ours: {str(values['kind'])[:40]!r}")
            place = Place(str(values["host"]), str(values["boot_id"]), str(values["pid_namespace"]))
            return cls(place, Holder(int(values["pid"]), int(values["start_ticks"])), str(values["version"]))
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"no marker of ours: {error!r}") from None


def why_alive(beat: Heartbeat, beaten_at: float, here: Place, *, runs: bool, now: float) -> str:
    """Return why the manager may still be alive, empty if it is dead for certain.

    `runs` says whether this very process is seen here; that means nothing where the place is another one.
    """
    same = beat.place == here and all((here.host, here.boot_id, here.pid_namespace))
    if same and runs:
        return f"its manager runs (pid {beat.manager.pid})"
    if same:
        return ""
    silent_s = now - beaten_at
    if silent_s > DEAD_S:
        return ""
    return f"its manager may run elsewhere ({beat.place.host}, last heard of {max(0.0, silent_s) / 3600:.1f} h ago)"
