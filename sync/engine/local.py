"""Conversions on this machine: a few at a time, each a process of its own, so that none takes another one along."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from sync.blobs import BlobStore
from sync.engine import order
from sync.engine.base import Report, directory_name, make_images
from sync.request import Request, RequestError, result_from_json
from sync.values import Converted, Failure

MEMORY_BYTES: Final = 480 * 2**20
"""What all conversions together take, roughly."""

_PROCESS_BYTES: Final = 80 * 2**20
"""Of it, what a conversion takes beside mksquashfs."""

_SAID_CHARACTERS: Final = 300


class LocalEngine:
    """Converts below a work directory, `workers` images at a time. What a former run left there is removed."""

    def __init__(self, work: Path, workers: int) -> None:
        self._images = work / "images"
        self._blobs = work / "blobs"
        self._workers = workers

    def run(self, requests: Sequence[Request], report: Report) -> Iterator[Converted | Failure]:
        """Yield results as `Engine.run` says it. No more than a few wait for the caller: the disk is finite."""
        shutil.rmtree(self._blobs, ignore_errors=True)
        known = list(order.described(requests))
        yield from (one for one in known if isinstance(one, Failure))
        run = _Run(order.near_each_other([one for one in known if isinstance(one, Request)]), self._workers, report)
        try:
            yield from run.results(self._images, BlobStore(self._blobs))
        finally:
            run.cancel()
            shutil.rmtree(self._blobs, ignore_errors=True)


class _Run:
    """One run: threads that take requests, and a process for each request."""

    def __init__(self, requests: Sequence[Request], workers: int, report: Report) -> None:
        self._waiting = iter(requests)
        self._count = len(requests)
        self._needed = order.Needed(requests)
        self._report = report
        memory = MEMORY_BYTES // workers - _PROCESS_BYTES
        self._memory_bytes = max(64 * 2**20, memory)
        self._results: queue.Queue[Converted | Failure | Exception] = queue.Queue(workers)
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[str]] = set()
        self._cancelled = False
        self._threads: list[threading.Thread] = []
        self._workers = workers

    def results(self, images: Path, store: BlobStore) -> Iterator[Converted | Failure]:
        """Start, and yield one result for each request."""
        make_images(images)
        for number in range(min(self._workers, self._count)):
            thread = threading.Thread(target=self._work, args=(images, store), name=f"convert-{number}")
            self._threads.append(thread)
            thread.start()
        for _ in range(self._count):
            result = self._results.get()
            if isinstance(result, Exception):
                raise result
            yield result

    def cancel(self) -> None:
        """End what has not ended; afterwards nothing of it runs, and nothing of it lies there."""
        with self._lock:
            self._cancelled = True
            for child in self._children:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
        for thread in self._threads:
            while thread.is_alive():
                with suppress(queue.Empty):  # it may wait for somebody who takes its result
                    _discard(self._results.get(timeout=0.02))

    def _work(self, images: Path, store: BlobStore) -> None:
        """Take one request after another."""
        try:
            while (request := self._next()) is not None:
                result = self._convert(request, images / directory_name(request), store)
                with self._lock:
                    done = self._needed.done(request)
                for digest in done:
                    store.forget(digest)
                self._results.put(result)
        except Exception as error:  # noqa: BLE001 - this thread's caller is the one who reads the results
            self._results.put(error)

    def _next(self) -> Request | None:
        with self._lock:
            return None if self._cancelled else next(self._waiting, None)

    def _convert(self, request: Request, directory: Path, store: BlobStore) -> Converted | Failure:
        shutil.rmtree(directory, ignore_errors=True)
        text = replace(request, memory_bytes=self._memory_bytes).to_json()
        argv = [sys.executable, "-m", "sync.convert_job", "-", str(directory), str(store.directory)]
        child = self._start(argv)
        if child is None:
            return request.failure("cancelled", transient=True)
        try:
            result = self._follow(child, request, text)
        finally:
            with self._lock:
                self._children.discard(child)
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    stream.close()
        if isinstance(result, Failure):
            shutil.rmtree(directory, ignore_errors=True)
        return result

    def _start(self, argv: list[str]) -> subprocess.Popen[str] | None:
        """Start a process in a group of its own; None if all is cancelled."""
        with self._lock:
            if self._cancelled:
                return None
            child = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._children.add(child)
            return child

    def _follow(self, child: subprocess.Popen[str], request: Request, text: str) -> Converted | Failure:
        """Give a process its request, and read what it says."""
        last = ""
        if child.stdin is None or child.stdout is None or child.stderr is None:
            raise TypeError("a child without pipes")
        with suppress(BrokenPipeError):
            child.stdin.write(text + "\n")
            child.stdin.flush()
        for line in child.stdout:
            last = line
            step = _step(line)
            if step:
                self._report(request, step)
        said = child.stderr.read()[-_SAID_CHARACTERS:]
        status = child.wait()
        try:
            return result_from_json(last)
        except RequestError:
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            return request.failure(f"the conversion ended {how}: {said.strip() or 'said nothing'}", transient=True)


def _step(line: str) -> str:
    try:
        values = json.loads(line)
    except ValueError:
        return ""
    step = values.get("step") if isinstance(values, dict) else None
    return step if isinstance(step, str) else ""


def _discard(result: Converted | Failure | Exception) -> None:
    """Remove what nobody takes any more."""
    if isinstance(result, Converted):
        shutil.rmtree(Path(result.tree_path).parent, ignore_errors=True)
