"""Images that come in: against curl without any check, two hundred hooks for one, and a connection that breaks."""

from __future__ import annotations

import hashlib
import json
import os
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.table import Table

from cache_manager import client, disk
from tests.benchmarks.site import CHECKOUT, Site, site
from tests.contract.doubles import VERSION, cvmfs_ad, image_ad, sif
from tests.pool.origin import Origin
from tests.pool.processes import poll

ROUNDS: Final = 5
SIZE: Final = 2 << 30
CROWD: Final = 200
CROWD_SIZE: Final = 256 << 20
NETWORK: Final = 125_000_000
CUT_SIZE: Final = 256 << 20
CUTS: Final = 10
BLOCK: Final = 1 << 20
SMALL: Final = 16 << 20
HOOK: Final = CHECKOUT / "hooks" / "prepare-job"
PYTHON: Final = "/usr/bin/python3"


def write_sif(path: Path, size: int) -> str:
    """Write a file that is a SIF by its structure, and return its digest."""
    digest, block = hashlib.sha256(), os.urandom(BLOCK)
    with path.open("wb") as file:
        for number in range(size // BLOCK):
            piece = block if number else sif(path.name, BLOCK, end=size)
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def publish(origin: Origin, name: str, source: Path, digest: str) -> str:
    """Publish a file under a name, with its manifest; return its URL."""
    place = f"v2/{os.uname().machine}/htc__{name}__1"
    directory = origin.root / place
    directory.mkdir(parents=True)
    os.link(source, directory / VERSION)
    (directory / "latest.txt").write_text(f"{VERSION}\n", encoding="ascii")
    manifest = {"sha256": digest, "size": source.stat().st_size}
    (directory / VERSION).with_suffix(".json").write_text(json.dumps(manifest), encoding="ascii")
    return f"{origin.url}/{place}/{VERSION}"


def ask(here: Site, scratch: Path, ad: bytes) -> float:
    """Run a hook that has to serve its image, and return when it was done."""
    environment = {"PATH": "/usr/bin:/bin", "CONDOR_STARTER_PID": str(os.getpid())}
    argv = [str(HOOK), "--python", PYTHON, "--socket", here.socket]
    done = subprocess.run(argv, input=ad, capture_output=True, env=environment, cwd=scratch, check=True)
    if b"HookStatusCode = 0\n" not in done.stdout:
        raise RuntimeError(f"hook: {done.stdout!r}")
    return time.perf_counter()


@contextmanager
def world() -> Iterator[tuple[Path, Origin]]:
    """Have a directory that nginx serves."""
    with TemporaryDirectory(prefix="image-cache-transfers-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "root").mkdir()
        with Origin(directory / "nginx", directory / "root") as origin:
            yield directory, origin


def sources(origin: Origin) -> str:
    """Return the configuration of a site that takes its images from there."""
    return f"IMAGE_CACHE_SIF_SOURCES = {origin.url}/v2\n"


def job(name: str) -> bytes:
    """Return the ad of a job with a published image."""
    return cvmfs_ad(f"htc/{name}:1").encode()


def give_up(here: Site) -> None:
    """Have the cache empty again, whoever holds what is in it."""
    for _ in client.work(here.socket, "evict", refs=[one["key"] for one in entries(here)], force=True):
        pass
    poll(lambda: disk.measure(str(here.cache))[0] < SMALL, "an empty cache")


def entries(here: Site) -> list[dict[str, Any]]:
    """Return what is in the cache."""
    found: list[dict[str, Any]] = client.report(here.socket, "list")["entries"]
    return found


def bench_transfer() -> Table:
    """Fetch 2 GiB from nginx, verified and stored, turn by turn with curl that only stores them."""
    curl, ours, copies = [], [], []
    with world() as (directory, origin), site(sources(origin)) as here:
        image = directory / "image.sif"
        digest = write_sif(image, SIZE)
        for turn in range(ROUNDS):
            url = publish(origin, f"large{turn}", image, digest)
            began = time.perf_counter()
            subprocess.run(["curl", "-sf", "-o", str(directory / "copy"), url], check=True)
            curl.append(time.perf_counter() - began)
            (directory / "copy").unlink()
            began = time.perf_counter()
            ours.append(ask(here, directory, job(f"large{turn}")) - began)
            copies.append(disk.measure(str(here.cache))[0] / SIZE)
            give_up(here)
        peak = f"{here.peak_kb() / 1000:.0f}"
    table = Table("what", "median s", "min s", "MB/s", "memory MB", "copies", title=f"2 GiB from nginx, {ROUNDS} turns")
    rows = (("curl -o", curl, "", ""), ("hook: fetched, verified, stored", ours, peak, f"{max(copies):.2f}"))
    for name, values, memory, copied in rows:
        median = statistics.median(values)
        table.add_row(name, f"{median:.2f}", f"{min(values):.2f}", f"{SIZE / median / 1e6:.0f}", memory, copied)
    return table


def bench_crowd() -> Table:
    """Have 200 hooks ask for one image that is not here, at once; and one hook, for another.

    Over a network of 1 Gbit/s: on loopback it is the start of 200 processes that takes the time.
    """
    with world() as (directory, origin), site(sources(origin)) as here:
        image = directory / "image.sif"
        digest = write_sif(image, CROWD_SIZE)
        urls = {name: publish(origin, name, image, digest) for name in ("warm", "alone", "crowd")}
        origin.slow("/v2/", NETWORK)
        took = {}
        for name, hooks in (("warm", 1), ("alone", 1), ("crowd", CROWD)):
            with ThreadPoolExecutor(hooks) as pool:
                began = time.perf_counter()
                ends = list(pool.map(lambda ad: ask(here, directory, ad), [job(name)] * hooks))
            took[name] = [end - began for end in ends]
            give_up(here)
        gets = len(origin.requests(urls["crowd"].removeprefix(origin.url), "GET"))
    limit_s = 1.1 * took["alone"][0] + 1
    table = Table("hooks", "first s", "last s", "limit s", "GETs", title=f"one image of {CROWD_SIZE >> 20} MiB, cold")
    table.add_row("1", f"{took['alone'][0]:.2f}", f"{took['alone'][0]:.2f}", "", "1")
    table.add_row(f"{CROWD}", f"{min(took['crowd']):.2f}", f"{max(took['crowd']):.2f}", f"{limit_s:.2f}", f"{gets}")
    return table


class _Breaking(BaseHTTPRequestHandler):
    """Serves one file, or the rest of it; ends each but the last of its connections somewhere."""

    protocol_version = "HTTP/1.1"
    server: BreakingServer

    def do_GET(self) -> None:
        """Send what is asked for, up to the next cut."""
        size, first = len(self.server.image), 0
        asked = self.headers.get("Range", "")
        if asked:
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - first))
        self.send_header("ETag", '"one"')
        self.end_headers()
        last = self.server.cuts.pop(0) if self.server.cuts else size
        self.wfile.write(self.server.image[first : max(first, last)])
        self.server.sent_bytes += max(0, last - first)
        self.server.gets += 1
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


class BreakingServer(ThreadingHTTPServer):
    """Has an image, and cuts it at these bytes, one after the other."""

    daemon_threads = True

    def __init__(self, image: bytes, cuts: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Breaking)
        self.image = memoryview(image)
        self.cuts = cuts
        self.sent_bytes = 0
        self.gets = 0


def bench_cuts() -> Table:
    """Fetch an image over a connection that breaks ten times."""
    image = sif("cuts", CUT_SIZE)
    cuts = sorted(random.Random(6).sample(range(BLOCK, CUT_SIZE), CUTS))  # noqa: S311 - the same each time
    with BreakingServer(image, cuts) as server, TemporaryDirectory(prefix="image-cache-cuts-") as name, site() as here:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/image.sif"
            began = time.perf_counter()
            spent = ask(here, Path(name), image_ad(url).encode()) - began
        finally:
            server.shutdown()
            thread.join()
    table = Table("cuts", "GETs", "s", "bytes sent / size", "limit", title=f"{CUT_SIZE >> 20} MiB, cut at random")
    table.add_row(f"{CUTS}", f"{server.gets}", f"{spent:.2f}", f"{server.sent_bytes / CUT_SIZE:.4f}", "1.02")
    return table
