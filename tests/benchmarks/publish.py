"""The publisher's conversions against Apptainer's, from one registry, of images made of this system's own files."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from rich.table import Table

from sync.request import Request, result_from_json
from sync.values import Converted, Variant
from tests.layers import config
from tests.pool.processes import descendants, make_directory, run_as, start_as
from tests.pool.registry import DockerRegistry, digest_of

PLACE: Final = Path("/pool/publish")
SOURCES: Final = ("/usr", "/opt", "/etc", "/bin", "/lib", "/lib64", "/sbin")
LAYERS: Final = 4
IMAGES: Final = 22
SHARED: Final = 6
SHARED_BYTES: Final = 30_000_000
OWN_BYTES: Final = 5_000_000
USER: Final = "joe"

_RUN: Final = """\
import sys
from pathlib import Path
from sync.engine.local import LocalEngine
from sync.request import Request, result_to_json
requests = [Request.from_json(line) for line in (Path(sys.argv[1]) / "requests").read_text().splitlines()]
for result in LocalEngine(Path(sys.argv[1]), 2).run(requests, lambda *_: None):
    print(result_to_json(result), flush=True)
"""


@dataclass(frozen=True)
class Spent:
    """What was needed: by the clock, of the processors, and the most memory at a time."""

    wall_s: float
    processor_s: float
    peak_bytes: int = 0


def bench_publish() -> Iterator[Table]:
    """Yield a table for one large image, and one for many that share layers."""
    try:
        with DockerRegistry(make_directory(PLACE / "registry", None)) as registry:
            yield _bench_large(registry)
            yield _bench_shared(registry)
    finally:
        shutil.rmtree(PLACE, ignore_errors=True)


def _bench_large(registry: DockerRegistry) -> Table:
    files = _files()
    total = sum(size for _, size in files)
    with ThreadPoolExecutor(2) as workers:
        layers = list(workers.map(_layer, _cut(files, total // LAYERS + 1)))
    image = _push(registry, "bench/large:1", layers)
    packed = sum(map(len, layers))
    title = f"one image: {LAYERS} layers, {packed / 1e6:.0f} MB compressed, {total / 1e6:.0f} MB unpacked"
    return _compare(registry, [image], title, {digest_of(one) for one in layers})


def _bench_shared(registry: DockerRegistry) -> Table:
    parts = _cut(_files(), OWN_BYTES)
    merged = SHARED_BYTES // OWN_BYTES
    groups = [list(chain(*parts[at : at + merged])) for at in range(IMAGES, IMAGES + SHARED * merged, merged)]
    with ThreadPoolExecutor(2) as workers:
        own = list(workers.map(_layer, parts[:IMAGES]))
        shared = list(workers.map(_layer, groups))
    images = []
    for number, mine in enumerate(own):
        layers = [*shared[: 2 + number % 2], shared[3 + number % 3], mine]
        images.append(_push(registry, f"bench/many:{number}", layers))
    title = f"{IMAGES} images that share layers, {sum(map(len, (*own, *shared))) / 1e6:.0f} MB of distinct layers"
    return _compare(registry, images, title, {digest_of(one) for one in (*own, *shared)})


def _compare(registry: DockerRegistry, images: Sequence[Request], title: str, layers: set[str]) -> Table:
    before = len(registry.fetched())
    ours = _ours(images)
    fetched = [one for one in registry.fetched()[before:] if one in layers]
    if sorted(fetched) != sorted(layers):
        raise RuntimeError(f"{len(fetched)} layers fetched, {len(layers)} are distinct")
    theirs = _theirs(images)
    table = Table("what", "s", "ratio", "processor s", "ratio", "peak memory MB", title=title)
    name = "apptainer build --sandbox, then build x.sif"
    table.add_row(name, f"{theirs.wall_s:.1f}", "1.00", f"{theirs.processor_s:.1f}", "1.00", "")
    name = f"condor_image_sync, both; {len(fetched)} of {len(layers)} layers fetched"
    ratios = (ours.wall_s / theirs.wall_s, ours.processor_s / theirs.processor_s)
    spent = (f"{ours.wall_s:.1f}", f"{ratios[0]:.3f}", f"{ours.processor_s:.1f}", f"{ratios[1]:.3f}")
    table.add_row(name, *spent, f"{ours.peak_bytes / 1e6:.0f}")
    return table


def _ours(images: Sequence[Request]) -> Spent:
    """Convert all images."""
    work = make_directory(PLACE / "work", USER)
    (work / "requests").write_text("".join(f"{one.to_json()}\n" for one in images), encoding="utf-8")
    began, processor, peak = time.perf_counter(), _processor_s(), 0
    process = start_as(USER, [sys.executable, "-c", _RUN, work], output=work / "said")
    while process.poll() is None:
        peak = max(peak, sum(map(_resident, (process.pid, *descendants(process.pid)))))
        time.sleep(0.05)
    spent = Spent(time.perf_counter() - began, _processor_s() - processor, peak)
    said = (work / "said").read_text(encoding="utf-8")
    results = [result_from_json(line) for line in said.splitlines() if line.startswith("{")]
    if len(results) != len(images) or not all(isinstance(one, Converted) for one in results):
        raise RuntimeError(said[-2000:])
    shutil.rmtree(work)
    return spent


def _theirs(images: Sequence[Request]) -> Spent:
    """Build both forms of each image with Apptainer, which keeps what it fetched in its cache."""
    place = make_directory(PLACE / "apptainer", USER)
    environment = {"APPTAINER_NOHTTPS": "1", "APPTAINER_CACHEDIR": f"{place}/cache", "APPTAINER_TMPDIR": str(place)}
    began, processor = time.perf_counter(), _processor_s()
    for one in images:
        for target in (["--sandbox", f"{place}/sandbox"], [f"{place}/image.sif"]):
            argv = ["apptainer", "-q", "build", "--force", "--fix-perms", *target, f"docker://{one.source}"]
            run_as(USER, argv, env=environment, timeout=1200)
    spent = Spent(time.perf_counter() - began, _processor_s() - processor)
    shutil.rmtree(place)
    return spent


def _push(registry: DockerRegistry, name: str, layers: Sequence[bytes]) -> Request:
    digest = registry.push(name, config(Env=["PATH=/usr/bin:/bin"]), *layers)
    return Request(name, f"{registry.host}/{name}", digest, Variant("x86_64", digest))


def _files() -> list[tuple[str, int]]:
    """Return every path of this system that makes up an image, and its bytes."""
    found = []
    for top in SOURCES:
        found.append((top, 0))
        for here, directories, names in os.walk(top) if not Path(top).is_symlink() else ():
            for name in (*directories, *names):
                one = os.lstat(f"{here}/{name}")
                found.append((f"{here}/{name}", one.st_size if name in names else 0))
    return found


def _cut(files: list[tuple[str, int]], size: int) -> list[list[str]]:
    """Cut them into groups of about so many bytes."""
    groups: list[list[str]] = [[]]
    room = size
    for path, taken in files:
        if room <= 0:
            groups.append([])
            room = size
        groups[-1].append(path)
        room -= taken
    return groups


def _layer(paths: list[str]) -> bytes:
    raw = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in paths:
            tar.add(path, path.lstrip("/"), recursive=False, filter=_readable)
    return raw.getvalue()


def _readable(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return member if member.isfile() or member.isdir() or member.issym() or member.islnk() else None


def _processor_s() -> float:
    """Return what this process's children have taken, those that were waited for."""
    spent = os.times()
    return spent.children_user + spent.children_system


def _resident(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
