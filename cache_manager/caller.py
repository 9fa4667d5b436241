"""The hook at the other end of a request, as a value: whom a lease is for, and what it can be asked back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cache_manager.credential import Credential, NoCredential
from cache_manager.lease import Holder
from cache_manager.status import HookStatus, StatusError


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the hook found when it opened a path as the job's user.

    `kind` is file, directory, other, absent, denied or unwell; `head` a file's first bytes; `error` the reason; `real`
    where the path leads, every link followed (empty if the hook does not say).
    """

    kind: str
    size_bytes: int = 0
    head: bytes = b""
    error: str = ""
    real: str = ""


@dataclass(frozen=True, slots=True)
class TestResult:
    """How a test of an image ended that the hook made as the job's user: the exit status, and the last words.

    None: it did not end in time, or the runtime could not be run; it says nothing of the image.
    """

    __test__ = False  # its name makes pytest look into it
    exit_status: int | None
    said: str = ""


async def no_credentials(_names: Sequence[str]) -> Credential | NoCredential:
    """Stand for a hook that is older than the question, and for an admin, who has no job. Raises StatusError."""
    what = "needs a credential of a job's, which nobody reads here"
    raise StatusError(HookStatus.NO_CONTAINER_RUNTIME, what)


@dataclass(frozen=True, slots=True)
class Caller:
    """The hook at the other end: the starter that holds its leases, how to ask it back, when it gives up, whose it is.

    `deadline` is on the loop's clock. `test` starts an image (runtime, path) as the job's user; None where that is
    the manager's user too, or the hook is older than this question. `owner` is at whose expense it is: room, fetches
    and waits are limited by owner; empty for an admin and for the manager itself. `credential` reads the first of
    these services' credentials that the job has (no name: its only one), as the job's user.
    """

    holder: Holder | None
    probe: Callable[[str], Awaitable[ProbeResult]]
    deadline: float
    test: Callable[[str, str], Awaitable[TestResult]] | None = None
    uid: int | None = None
    """None for an admin, who acts as the manager's user."""
    owner: str = ""
    credential: Callable[[Sequence[str]], Awaitable[Credential | NoCredential]] = no_credentials
