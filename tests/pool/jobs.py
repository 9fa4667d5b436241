"""Jobs of a test pool: how they are described, and what their event logs and ads say of them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from tests.pool.processes import poll

Status: TypeAlias = Literal["idle", "starting", "running", "completed", "held", "removed"]

FINAL: frozenset[Status] = frozenset({"completed", "held", "removed"})
"""What a job does not leave by itself."""

_HEADER = re.compile(r"^(\d{3}) \(\d+\.\d+\.\d+\) ")
_CODES = re.compile(r"^\s*Code (\d+) Subcode (-?\d+)", re.MULTILINE)
_RETURN_VALUE = re.compile(r"Normal termination \(return value (\d+)\)")
_HOOK_RUN = re.compile(
    r"PREPARE_JOB\w* \([^)]*\) (?:succeeded|failed) "
    r"\((?:reported status|exited with status|died with (?P<signal>signal)) (?P<number>\d+)\): ?(?P<message>.*)"
)
_STATUS_AFTER: dict[int, Status] = {
    0: "idle",
    1: "running",
    4: "idle",
    5: "completed",
    7: "idle",
    9: "removed",
    12: "held",
    13: "idle",
    24: "idle",
    40: "starting",
}
_DEFAULTS = {"should_transfer_files": "yes", "when_to_transfer_output": "on_exit"}
_PRINT_IMAGE = {"executable": "/bin/cat", "arguments": "/IMAGE_ID", "transfer_executable": "false"}


class Event(NamedTuple):
    """One event of a job's log: its number and its text, head line included."""

    number: int
    text: str


class Hold(NamedTuple):
    """Why a job is held."""

    code: int
    subcode: int
    reason: str


class HookRun(NamedTuple):
    """How one run of the prepare hook ended: its status, or minus the signal that ended it, and what it said."""

    status: int
    message: str


class Tool(Protocol):
    """Runs an HTCondor command line tool against the job's pool."""

    def __call__(self, *argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run it to its end, output captured."""


def parse_events(log: str) -> list[Event]:
    """Return the complete events of a job event log."""
    found = []
    for text in log.split("\n...\n")[:-1]:
        head = _HEADER.match(text)
        if head:
            found.append(Event(int(head.group(1)), text))
    return found


@dataclass(frozen=True, slots=True)
class Job:
    """One submitted job. What it is asked about its state is read from its event log, at the cost of a small file."""

    cluster: int
    proc: int
    directory: Path
    owner: str
    tool: Tool

    @property
    def id(self) -> str:
        """`cluster.proc`, as the tools take it."""
        return f"{self.cluster}.{self.proc}"

    def events(self) -> list[Event]:
        """Return what has happened so far."""
        log = self.directory / "log"
        return parse_events(log.read_text(errors="replace")) if log.exists() else []

    @property
    def status(self) -> Status:
        """Where the job is: `starting` from the start of its input transfer (the hook follows) until it executes."""
        status: Status = "idle"
        for number, text in self.events():
            if number == 40 and status == "running":  # its output
                continue
            if number in _STATUS_AFTER:
                status = "completed" if "(1) Job terminated" in text else _STATUS_AFTER[number]
        return status

    def wait(self, states: Status | Iterable[Status] = "completed", timeout: float = 60) -> Status:
        """Wait for one of `states`; raise RuntimeError once the job is in a final state that is not among them."""
        return wait_for([self], states, timeout)[0]

    @property
    def stdout(self) -> str:
        """What the job wrote, once it has come back."""
        return _read(self.directory / "out")

    @property
    def stderr(self) -> str:
        """What the job wrote to stderr, once it has come back."""
        return _read(self.directory / "err")

    @property
    def exit_code(self) -> int | None:
        """The job's exit status; None before its end, and when a signal ended it."""
        found = [_RETURN_VALUE.search(text) for number, text in self.events() if number == 5]
        return int(found[-1].group(1)) if found and found[-1] else None

    @property
    def hold(self) -> Hold | None:
        """Why the job is held; None if it is not."""
        if self.status != "held":
            return None
        text = [text for number, text in self.events() if number == 12][-1]
        codes = _CODES.search(text)
        lines = text.splitlines()[1:]
        reason = lines[0].strip() if lines else ""
        return Hold(int(codes.group(1)), int(codes.group(2)), reason) if codes else Hold(0, 0, reason)

    def hook_runs(self) -> list[HookRun]:
        """Return the hook's runs that HTCondor told of in events 021, in order; a silent success is not among them.

        A failure is here about 10 s before the job is held or idle again: so long its slot waits for the starter.
        """
        found = [_HOOK_RUN.search(text) for number, text in self.events() if number == 21]
        return [_hook_run(match) for match in found if match]

    def messages(self) -> list[str]:
        """Return what the prepare hook said in each of `hook_runs`."""
        return [run.message for run in self.hook_runs()]

    def message(self) -> str:
        """Return what the prepare hook said last; empty if it said nothing."""
        return next(reversed(self.messages()), "")

    def ad(self) -> dict[str, Any]:
        """Return the job's ad, from the queue or else the history; expressions are strings. Costs a process or two."""
        return poll(self._ad, f"job {self.id} in the queue or the history", timeout=10)

    def _ad(self) -> dict[str, Any]:
        for argv in (("condor_q", self.id, "-json"), ("condor_history", self.id, "-limit", "1", "-json")):
            said = self.tool(*argv, check=False).stdout
            found: list[dict[str, Any]] = json.loads(said) if said.strip() else []
            if found:
                return found[0]
        return {}

    @property
    def num_shadow_starts(self) -> int:
        """How often the schedd has started a shadow for it."""
        return int(self.ad().get("NumShadowStarts", 0))

    def describe(self) -> str:
        """Return its state and its last event, for error messages."""
        events = self.events()
        return f"job {self.id} is {self.status}; last event: {events[-1].text if events else 'none'}"


def _hook_run(match: re.Match[str]) -> HookRun:
    number = int(match["number"])
    said = match["message"].strip()
    return HookRun(-number if match["signal"] else number, "" if said == "<no message>" else said)


def wait_for(jobs: Sequence[Job], states: Status | Iterable[Status] = "completed", timeout: float = 60) -> list[Status]:
    """Wait until each of `jobs` is in one of `states`; fail at once when one is in another final state."""
    wanted = {states} if isinstance(states, str) else set(states)
    pending = list(jobs)

    def all_there() -> bool:
        for job in list(pending):
            status = job.status
            if status in wanted:
                pending.remove(job)
            elif status in FINAL:
                raise RuntimeError(f"wanted {sorted(wanted)}, but {job.describe()}")
        return not pending

    try:
        poll(all_there, f"jobs in {sorted(wanted)}", timeout)
    except TimeoutError as error:
        raise TimeoutError(f"{error}; {len(pending)} missing, e.g. {pending[0].describe()}") from None
    return [job.status for job in jobs]


def describe_jobs(lines: Mapping[str, str] | str, directory: Path, count: int, guard: int) -> str:
    """Return a submit description: each job in `<directory>/<process>` with files `out`, `err` and `log`.

    Without an executable the jobs print /IMAGE_ID. `guard` > 0: a job starts at most so often.
    """
    given = _parse_lines(lines) if isinstance(lines, str) else dict(lines)
    names = {name.lower() for name in given}
    described = _DEFAULTS | ({} if "executable" in names else _PRINT_IMAGE)
    described = {name: value for name, value in described.items() if name not in names} | given
    if guard > 0:
        _add_requirement(described, f"(NumShadowStarts =?= undefined || NumShadowStarts < {guard})")
    described |= {"initialdir": f"{directory}/$(Process)", "output": "out", "error": "err", "log": "log"}
    return "".join(f"{name} = {value}\n" for name, value in described.items()) + f"queue {count}\n"


def _parse_lines(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _add_requirement(described: dict[str, str], requirement: str) -> None:
    name = next((name for name in described if name.lower() == "requirements"), "requirements")
    described[name] = f"({described[name]}) && {requirement}" if name in described else requirement


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
