"""Conversions as jobs of an HTCondor pool: a DAG in which every image is a job that is tried again when it fails.

A job brings one file back, the SIF. The sandbox is made of it here, and both are held against the digests that the job
computed while it unpacked the image. Execution points need this package, at the path that is configured, and
squashfs-tools; no shared file system.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from cache_manager.text import printable
from sync.convert import SIF, TREE
from sync.convert_job import IMAGE
from sync.engine import dag, order
from sync.engine.base import EngineError, Report, directory_name, make_images
from sync.engine.dag import JobOptions, Node, NodeState
from sync.request import Request, RequestError, mismatch, result_from_json
from sync.unsquash import UnsquashError, restore
from sync.values import Converted, Failure

_POLL_S: Final = 0.5
_ALIVE_EVERY_S: Final = 30.0
"""How often it is asked whether DAGMan's own job is still there: its status file does not say."""

_TOOL_S: Final = 300.0
_GONE_S: Final = 120.0
_SCHEDULER: Final = 7
"""The universe of DAGMan's own job."""

_UNPACKED: Final = 6
"""So much more room than its compressed layers does an image need, with both forms."""
_LEAST_BYTES: Final = 2**30


class HTCondorEngine:
    """Converts below a work directory, as jobs of the pool that HTCondor's configuration names here."""

    def __init__(self, work: Path, options: JobOptions) -> None:
        self._images = work / "images"
        self._all_jobs = work / "jobs"
        self._jobs = self._all_jobs
        self._options = options

    def run(self, requests: Sequence[Request], report: Report) -> Iterator[Converted | Failure]:
        """Yield results as `Engine.run` says it."""
        known = list(order.described(requests))
        yield from (one for one in known if isinstance(one, Failure))
        sound = order.near_each_other([one for one in known if isinstance(one, Request)])
        if not sound:
            return
        self._end_former()
        # one that could not be ended may go on: what its jobs bring is not to lie where this one's do
        self._jobs = self._all_jobs / os.urandom(8).hex()
        make_images(self._images)
        left = {f"image{number}": one for number, one in enumerate(sound)}
        cluster = self._submit(left)
        try:
            yield from self._results(cluster, left, report)
        finally:
            if left:
                _remove(cluster)
            shutil.rmtree(self._all_jobs, ignore_errors=True)

    def _end_former(self) -> None:
        """Take what a publisher that was killed left in the queue and here."""
        for directory in self._all_jobs.iterdir() if self._all_jobs.is_dir() else ():
            place = str(directory).replace("\\", "\\\\").replace('"', '\\"')
            constraint = f'JobUniverse == {_SCHEDULER} && Iwd == "{place}"'
            for cluster in _tool("condor_q", "-constraint", constraint, "-af", "ClusterId").stdout.split():
                _remove(cluster)
        shutil.rmtree(self._all_jobs, ignore_errors=True)

    def _submit(self, requests: dict[str, Request]) -> str:
        """Write and submit the DAG; return the number of DAGMan's job. Raises EngineError."""
        nodes = [self._prepare(name, request) for name, request in requests.items()]
        (self._jobs / "images.dag").write_text(dag.dag_description(nodes, self._options), encoding="utf-8")
        done = _tool("condor_submit_dag", "-force", "-notification", "never", "images.dag", cwd=self._jobs)
        cluster = dag.cluster_of(done.stdout)
        if done.returncode or not cluster:
            raise EngineError(f"condor_submit_dag: {printable((done.stderr or done.stdout).strip(), 300)}")
        return cluster

    def _prepare(self, name: str, request: Request) -> Node:
        directory = self._jobs / name
        directory.mkdir(parents=True)
        inputs, secret = [dag.REQUEST], request.access.credentials_file
        if secret:
            inputs.append(secret)
            request = replace(request, access=replace(request.access, credentials_file=Path(secret).name))
        (directory / dag.REQUEST).write_text(request.to_json(), encoding="utf-8")
        compressed = request.manifest.size_bytes if request.manifest is not None else 0
        room = max(_LEAST_BYTES, _UNPACKED * compressed)
        node = Node(name, str(directory), tuple(inputs), room, f"{request.name} ({request.variant.arch})")
        (directory / "submit").write_text(dag.submit_description(node, self._options), encoding="utf-8")
        return node

    def _results(self, cluster: str, left: dict[str, Request], report: Report) -> Iterator[Converted | Failure]:
        """Yield what comes back, and take it from `left`."""
        asked_at, told = time.monotonic(), dict.fromkeys(left, "")
        while left:
            text = ""
            with suppress(FileNotFoundError):  # DAGMan has not begun
                text = (self._jobs / dag.STATUS_FILE).read_text(encoding="utf-8", errors="replace")
            status = dag.status_of(text)
            for name, request in list(left.items()):
                state = status.states.get(name, 0)
                if state in {NodeState.DONE, NodeState.ERROR}:
                    del left[name]
                    yield self._merged(name, request)
                    continue
                step = _step(state, status.retries.get(name, 0))
                if told[name] != step:
                    told[name] = step
                    report(request, step)
            if left and (status.has_ended or time.monotonic() - asked_at > _ALIVE_EVERY_S):
                asked_at = time.monotonic()
                if not _is_there(cluster):
                    raise EngineError(f"DAGMan's job {cluster} is gone, with {len(left)} images not converted")
            if left:
                time.sleep(_POLL_S)

    def _merged(self, name: str, request: Request) -> Converted | Failure:
        """Return a job's result, with both forms where they belong on this machine."""
        job, target = self._jobs / name, self._images / directory_name(request)
        try:
            result = result_from_json(_last_line(job / dag.RESULT))
        except RequestError:
            said = printable(_last_line(job / dag.ERRORS), 300) or "and said nothing"
            tried = self._options.retries + 1
            return request.failure(f"its job ended without a result {tried} times: {said}", transient=True)
        if wrong := mismatch(request, result):
            return request.failure(f"its job's result {wrong}", transient=True)
        if isinstance(result, Failure):
            return result
        shutil.rmtree(target, ignore_errors=True)
        try:
            target.mkdir(parents=True)
            (job / IMAGE).replace(target / SIF)
            restore(target / SIF, target / TREE, result)
        except (UnsquashError, OSError) as error:
            shutil.rmtree(target, ignore_errors=True)
            return request.failure(str(error), transient=True)
        return replace(result, tree_path=str(target / TREE), sif_path=str(target / SIF))


def _step(state: int, retries: int) -> str:
    step = "running" if state == NodeState.SUBMITTED else "waiting"
    return f"{step}, retry {retries}" if retries else step


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def _is_there(cluster: str) -> bool:
    """Whether DAGMan's job is in the queue; also where the queue does not answer."""
    done = _tool("condor_q", cluster, "-af", "JobStatus")
    return done.returncode != 0 or done.stdout.strip() not in {"", "3", "4", "5"}


def _remove(cluster: str) -> None:
    """Take the DAG and its jobs from the queue, and wait until they are gone."""
    _tool("condor_rm", cluster)
    deadline = time.monotonic() + _GONE_S
    constraint = f"ClusterId == {cluster} || DAGManJobId == {cluster}"
    while time.monotonic() < deadline:
        done = _tool("condor_q", "-allusers", "-constraint", constraint, "-af", "ClusterId")
        if done.returncode == 0 and not done.stdout.strip():
            return
        time.sleep(_POLL_S)


def _tool(*argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of HTCondor's tools. Raises EngineError if it is not there, or hangs."""
    try:
        return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=_TOOL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{argv[0]}: {error}") from None
