"""The files of a DAG of conversions, as HTCondor reads and writes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from cache_manager.text import printable

STATUS_FILE: Final = "dag.status"
RESULT: Final = "result"
ERRORS: Final = "errors"
REQUEST: Final = "request.json"

_STATUS_EVERY_S: Final = 2
_PACKING_MB: Final = 256
_NODE = re.compile(r'\[\s*Type\s*=\s*"NodeStatus";(.*?)\]', re.DOTALL)
_DAG = re.compile(r"DagStatus\s*=\s*(\d+)")
_FIELD = re.compile(r'(\w+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\n]*);')
_CLUSTER = re.compile(r"submitted to cluster (\d+)")


class NodeState(IntEnum):
    """As DAGMan numbers them; what is not listed is on its way."""

    SUBMITTED = 3
    DONE = 5
    ERROR = 6


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How jobs are described: the interpreter on the execution points, retries of each, and lines of the site's own."""

    python: str
    retries: int = 2
    lines: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Node:
    """A job: its name in the DAG, its directory, what is transferred, and how much room it needs."""

    name: str
    directory: str
    inputs: tuple[str, ...]
    disk_bytes: int
    about: str


@dataclass(frozen=True, slots=True)
class Status:
    """What DAGMan wrote last: the state and the retries of each node, and whether all has ended."""

    states: Mapping[str, int]
    retries: Mapping[str, int]
    has_ended: bool


def submit_description(node: Node, options: JobOptions) -> str:
    """Return a job's submit file. A job that is held counts as failed: nobody looks after it."""
    lines = {
        "universe": "vanilla",
        "executable": options.python,
        "transfer_executable": "False",
        "arguments": f"-m sync.convert_job {REQUEST}",
        "initialdir": node.directory,
        "output": RESULT,
        "error": ERRORS,
        "should_transfer_files": "YES",
        "when_to_transfer_output": "ON_EXIT",
        "transfer_input_files": ", ".join(node.inputs),
        "transfer_output_files": "image.sif",
        "request_cpus": "1",
        "request_memory": f"{_PACKING_MB + 128} MB",
        "request_disk": f"{max(1, node.disk_bytes >> 10)} KB",
        "periodic_remove": "JobStatus == 5",
        "batch_name": "condor_image_sync",
        "description": f'"{printable(node.about).replace(chr(34), "")}"',
        **options.lines,
    }
    return "".join(f"{name} = {value}\n" for name, value in lines.items()) + "queue\n"


def dag_description(nodes: Sequence[Node], options: JobOptions) -> str:
    """Return the DAG's file. Jobs of neighbours are submitted in their order."""
    jobs = (f"JOB {one.name} {one.directory}/submit\nRETRY {one.name} {options.retries}\n" for one in nodes)
    return f"{''.join(jobs)}NODE_STATUS_FILE {STATUS_FILE} {_STATUS_EVERY_S} ALWAYS-UPDATE\n"


def cluster_of(said: str) -> str:
    """Return the number of DAGMan's own job, by what condor_submit_dag says; empty if that is not in it."""
    found = _CLUSTER.search(said)
    return found[1] if found else ""


def status_of(text: str) -> Status:
    """Read the status file."""
    states, retries = {}, {}
    for body in _NODE.findall(text):
        values = {name: value.strip().strip('"') for name, value in _FIELD.findall(body)}
        name = values.get("Node", "")
        states[name] = _number(values.get("NodeStatus"))
        retries[name] = _number(values.get("RetryCount"))
    overall = _DAG.search(text)
    return Status(states, retries, overall is not None and int(overall[1]) in {NodeState.DONE, NodeState.ERROR})


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
