"""Forty images on the pool, and the same ones here: the same results. What is killed is tried again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from sync.engine.base import EngineError
from sync.engine.dag import JobOptions
from sync.engine.htcondor import HTCondorEngine
from sync.engine.local import LocalEngine
from sync.request import Request, result_from_json
from sync.values import Converted, Failure, Variant
from tests.layers import Entry, config, layer
from tests.pool.harness import Pool
from tests.pool.processes import descendants, make_directory, poll, start_as
from tests.pool.registry import DockerRegistry, digest_of

IMAGES: Final = 40
BASE: Final = layer(Entry("bin", "dir"), Entry("bin/busybox", body=Path("/usr/bin/busybox").read_bytes(), mode=0o755))
MIDDLE: Final = tuple(layer(Entry("common", body=f"{number}\n" * 1000)) for number in range(4))

_RUN: Final = """\
import sys
from pathlib import Path
from sync.engine.dag import JobOptions
from sync.engine.htcondor import HTCondorEngine
from sync.engine.local import LocalEngine
from sync.request import Request, result_to_json

kind, work = sys.argv[1], Path(sys.argv[2])
requests = [Request.from_json(line) for line in (work / "requests").read_text().splitlines()]
engine = LocalEngine(work, 2) if kind == "local" else HTCondorEngine(work, JobOptions(sys.executable, 2))
for result in engine.run(requests, lambda one, what: print("step", one.name, what, flush=True)):
    print(result_to_json(result), flush=True)
"""


@dataclass
class Images:
    """What there is to convert, and the layers of all of it."""

    requests: list[Request]
    layers: set[str]


class Publisher:
    """An ordinary user's process that converts with an engine, in a directory of its own."""

    def __init__(self, name: str, requests: list[Request], environment: dict[str, str] | None = None) -> None:
        self.work = make_directory(Path("/pool") / name, "joe")
        (self.work / "requests").write_text("".join(f"{one.to_json()}\n" for one in requests), encoding="utf-8")
        argv = ["python3", "-c", _RUN, "htcondor" if environment else "local", str(self.work)]
        self.process = start_as("joe", argv, output=self.work / "said", env=environment)

    @property
    def said(self) -> list[str]:
        """The lines that it printed."""
        return (self.work / "said").read_text(encoding="utf-8").splitlines()

    def results(self, meanwhile: Callable[[], None] = lambda: None, timeout: float = 240) -> list[Converted | Failure]:
        """Wait for its end, doing something meanwhile; return the results."""

        def ended() -> bool:
            meanwhile()
            return self.process.poll() is not None

        poll(ended, f"{self.work} converted", timeout)
        assert self.process.returncode == 0, "\n".join(self.said[-20:])
        return [result_from_json(line) for line in self.said if line.startswith("{")]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Give a registry."""
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as one:
        yield one


def push(registry: DockerRegistry, name: str, *layers: bytes) -> Request:
    """Push an image; return the request for its conversion."""
    digest = registry.push(name, config(), *layers)
    return Request(name, f"{registry.host}/{name}", digest, Variant("x86_64", digest))


@pytest.fixture(scope="module")
def images(registry: DockerRegistry) -> Images:
    """Push images of three layers each, of which only the last is an image's own."""
    found = Images([], {digest_of(one) for one in (BASE, *MIDDLE)})
    for number in range(IMAGES):
        own = layer(Entry("IMAGE_ID", body=f"{number}\n"))
        found.requests.append(push(registry, f"htc/tiny:{number}", BASE, MIDDLE[number % len(MIDDLE)], own))
        found.layers.add(digest_of(own))
    return found


@pytest.fixture(scope="module")
def slow(registry: DockerRegistry) -> Request:
    """Push an image that takes its time to be packed."""
    body = b"".join(b"%d" % (number * 7919 % 1000003) for number in range(5_000_000))
    return replace(push(registry, "htc/slow:1", layer(Entry("body", body=body))), level=19)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """Run a pool without the cache: what converts images needs none."""
    knobs = "DAGMAN_USER_LOG_SCAN_INTERVAL = 1\n"
    with Pool(Path("/pool/converters"), config=knobs, name="converters", cpus=16, memory=8192) as one:
        yield one


@pytest.fixture(scope="module")
def here(registry: DockerRegistry, images: Images) -> dict[str, Converted]:
    """Convert them on this machine; each layer is fetched once."""
    results = Publisher("local", images.requests).results()
    found = {one.name: one for one in results if isinstance(one, Converted)}
    assert len(found) == IMAGES, results
    assert sorted(one for one in registry.fetched() if one in images.layers) == sorted(images.layers)
    return found


def processes_of(top: int, word: str) -> list[int]:
    """Return the processes below one that have a word in their command line."""
    found = []
    for pid in descendants(top):
        with suppress(OSError):
            if word in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace"):
                found.append(pid)
    return found


def test_forty_images_on_the_pool_are_the_same_as_converted_here(
    pool: Pool, images: Images, here: dict[str, Converted]
) -> None:
    """The same digests, though each came back as one file; and one bad image is one failure."""
    nowhere = images.requests[0].source.replace("htc/tiny", "htc/nowhere")
    bad = replace(images.requests[0], name="htc/bad:1", source=nowhere)
    results = Publisher("forty", [*images.requests, bad], pool.environment).results()
    failures = [one for one in results if isinstance(one, Failure)]
    assert [one.name for one in failures] == ["htc/bad:1"], failures
    there = {one.name: one for one in results if isinstance(one, Converted)}
    assert there.keys() == here.keys()
    for name, one in there.items():
        wanted = here[name]
        assert (one.tree_digest, one.sha256, one.size_bytes) == (wanted.tree_digest, wanted.sha256, wanted.size_bytes)
        assert (Path(one.tree_path) / "IMAGE_ID").read_text(encoding="utf-8") == name.rpartition(":")[2] + "\n"
        assert Path(one.sif_path).stat().st_size == one.size_bytes
    assert not Path("/pool/forty/jobs").exists()


def test_a_conversion_that_is_killed_on_the_ep_is_tried_again(pool: Pool, slow: Request) -> None:
    """Once its own process, once the starter with all that is below it."""
    publisher = Publisher("killed", [slow], pool.environment)
    killed: list[int] = []

    def kill() -> None:
        running = processes_of(pool.master_pid, "sync.convert_job")
        if running and not killed:
            os.kill(running[0], signal.SIGKILL)
            killed.append(running[0])
        elif running and len(killed) == 1 and not Path(f"/proc/{killed[0]}").exists():
            starter = processes_of(pool.master_pid, "condor_starter")[0]
            os.kill(starter, signal.SIGKILL)
            killed.append(starter)

    (result,) = publisher.results(kill)
    assert len(killed) == 2
    assert isinstance(result, Converted), result
    assert any("retry 1" in line for line in publisher.said), publisher.said


def test_who_stops_reading_cancels_what_runs_here_and_nothing_is_left(images: Images, slow: Request) -> None:
    """Processes, trees, layers; what was handed over stays."""
    packing = threading.Event()
    engine = LocalEngine(Path("/pool/cancelled"), 2)
    results = engine.run(
        [images.requests[0], slow],
        lambda one, what: packing.set() if (one.name, what) == (slow.name, "packing") else None,
    )
    first = next(results)
    assert isinstance(first, Converted)
    assert packing.wait(60)
    poll(lambda: processes_of(os.getpid(), "mksquashfs"), "packing")
    assert isinstance(results, Generator)
    results.close()
    assert not processes_of(os.getpid(), "sync.convert_job")
    assert not processes_of(os.getpid(), "mksquashfs")
    assert [path.name for path in Path("/pool/cancelled/images").iterdir()] == [Path(first.tree_path).parent.name]
    assert not Path("/pool/cancelled/blobs").exists()


def test_a_conversion_that_is_killed_here_is_one_failure(images: Images, slow: Request) -> None:
    """By whatever: the kernel, when memory ends."""
    kill = threading.Event()
    engine = LocalEngine(Path("/pool/killed-here"), 2)

    def report(one: Request, what: str) -> None:
        if (one.name, what) == (slow.name, "packing") and not kill.is_set():
            kill.set()
            (child,) = [pid for pid in processes_of(os.getpid(), "sync.convert_job") if slow_one(pid)]
            os.kill(child, signal.SIGKILL)

    def slow_one(pid: int) -> bool:
        return slow.variant.digest[7:] in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")

    results = {one.name: one for one in engine.run([images.requests[0], slow], report)}
    assert isinstance(results[images.requests[0].name], Converted)
    failure = results[slow.name]
    assert isinstance(failure, Failure)
    assert failure.transient
    assert "by signal 9" in failure.why
    assert len(list(Path("/pool/killed-here/images").iterdir())) == 1


def test_an_interrupted_publisher_takes_its_jobs_from_the_queue(pool: Pool, slow: Request) -> None:
    """DAGMan's own, and those of the DAG."""
    publisher = Publisher("interrupted", [slow], pool.environment)
    poll(lambda: processes_of(pool.master_pid, "sync.convert_job"), "the job runs", 60)
    publisher.process.send_signal(signal.SIGINT)
    publisher.process.wait(60)
    assert not pool.tool("condor_q", "-allusers", "-af", "ClusterId").stdout.strip()
    poll(lambda: not processes_of(pool.master_pid, "sync.convert_job"), "nothing runs any more")
    assert not Path("/pool/interrupted/jobs").exists()


def test_the_next_publisher_ends_what_a_killed_one_left_in_the_queue(pool: Pool, slow: Request, images: Images) -> None:
    """Its jobs would take slots for results that nobody waits for."""

    def queue() -> set[str]:
        return set(pool.tool("condor_q", "-allusers", "-af", "ClusterId").stdout.split())

    killed = Publisher("killed-here-too", [slow], pool.environment)
    poll(lambda: processes_of(pool.master_pid, "sync.convert_job"), "the job runs", 60)
    killed.process.kill()
    killed.process.wait()
    left = queue()
    assert len(left) == 2  # DAGMan's own job, and the conversion
    (result,) = Publisher("killed-here-too", [images.requests[0]], pool.environment).results()
    assert isinstance(result, Converted), result
    assert not left & queue()


def test_a_publisher_that_is_killed_takes_its_conversions_along(slow: Request) -> None:
    """However it ends."""
    publisher = Publisher("dead", [slow])
    poll(lambda: any("packing" in line for line in publisher.said), "packing", 60)
    below = processes_of(publisher.process.pid, "")
    publisher.process.kill()
    publisher.process.wait()
    poll(lambda: not [pid for pid in below if Path(f"/proc/{pid}/cmdline").exists()], "nothing runs any more")


def test_a_pool_that_is_not_there_is_said_to_be_that(tmp_path: Path, images: Images) -> None:
    """No image is to blame."""
    engine = HTCondorEngine(tmp_path, JobOptions("/usr/bin/python3"))
    with pytest.raises(EngineError, match="condor_submit_dag"):
        list(engine.run(images.requests[:1], lambda *_: None))
