"""Read job ads whose values have to be evaluated: a child that may be ended for what it takes. Started by evaluator.py.

On standard input a line of JSON (the lengths of both ads, the scratch directory) and the ads; on standard output lines
of JSON: the attributes that are about to be evaluated, one by one, and at the end the request or the status.

A processor-time timer ends the process itself: classad2 does not come back to Python while it works.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from typing import Any, Final

from cache_manager.evaluated import to_json
from cache_manager.jobad import read_request
from cache_manager.status import StatusError

LIMIT_S: Final = 1.0
"""Processor time for one job's ads."""

MEMORY_BYTES: Final = 512 * 1024 * 1024
"""Of address space; the interpreter with classad2 has about 100 MB."""


def main() -> None:
    """Answer until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    source = sys.stdin.buffer
    while line := source.readline():
        head: dict[str, Any] = json.loads(line)
        job, machine = source.read(head["job"]), source.read(head["machine"])
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        answer = _answer(job, machine, head["scratch"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say(answer)


def _answer(job: bytes, machine: bytes, scratch: str) -> dict[str, Any]:
    texts = job.decode(errors="replace"), machine.decode(errors="replace")
    try:
        return {"request": to_json(read_request(*texts, scratch, lambda name: _say({"evaluates": name})))}
    except StatusError as error:
        return {"status": error.status.code, "message": error.message}


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()
