"""What an execution point can run: what the trial of the smallest images showed, and what that means. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cache_manager import probe

_TEMPORARY: Final = "temporary sandbox"
_TELLING: Final = ("fatal", "error", "fuse", "denied", "not ")
LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class Abilities:
    """What this EP can run, and why not, if it cannot. `tried`: seen, and not only concluded from what is installed."""

    runtime: str
    can_use_sif: bool
    can_use_sandbox: bool
    why_not: str = ""
    tried: bool = False


UNKNOWN: Final = Abilities("", can_use_sif=True, can_use_sandbox=True)
"""Nobody looked: nothing is refused."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended: its exit status (None: not within its time), and what it said."""

    status: int | None
    said: str = ""


def judge(assumed: Abilities, sif: Ran, sandbox: Ran) -> Abilities:
    """Return what the trials of both forms mean. A trial that did not end in time leaves what was assumed."""
    why_no_sif = _why_not(sif)
    if not why_no_sif and _TEMPORARY in sif.said.lower():
        why_no_sif = f"each job would unpack its image into a temporary sandbox: {_last_words(sif.said)}"
    why_no_sandbox = _why_not(sandbox)
    reasons = (("SIFs", why_no_sif), ("image directories", why_no_sandbox))
    return Abilities(
        assumed.runtime,
        can_use_sif=assumed.can_use_sif if sif.status is None else not why_no_sif,
        can_use_sandbox=assumed.can_use_sandbox if sandbox.status is None else not why_no_sandbox,
        why_not="; ".join(f"{what}: {why}" for what, why in reasons if why)[: 2 * LONGEST],
        tried=True,
    )


def _why_not(ran: Ran) -> str:
    if ran.status == probe.STATUS:
        return ""
    if ran.status is None:
        return "the trial did not end in time"
    return _last_words(ran.said) or f"the trial ended with status {ran.status}"


def _last_words(said: str) -> str:
    """Return the lines that tell most of what a runtime says."""
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    fatal = [line for line in lines if line.lower().startswith(("fatal", "error"))]
    telling = [line for line in lines if any(word in line.lower() for word in _TELLING)]
    chosen = (fatal[-1:] or telling[:1] or lines[-1:])[:1]
    return "".join(chosen).removeprefix("FATAL:").removeprefix("ERROR:").removeprefix("INFO:").strip()[:LONGEST]
