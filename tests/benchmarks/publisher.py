"""The publisher: how long a look at an unchanged list takes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

from rich.table import Table

from cache_manager.registry.client import RegistryClient
from sync import plan, transitions
from sync.catalog import Catalog, Version
from sync.imagelist import ImageList
from sync.resolve import Resolver, connect
from sync.settings import Settings
from sync.step import Verb
from sync.values import Variant
from tests.benchmarks.site import CHECKOUT
from tests.benchmarks.slow_registry import LATENCY_S, digest_of

TAGS = 1000
REPOSITORIES = 400


@contextmanager
def slow_registry() -> Iterator[str]:
    """Give the host of a registry that answers late."""
    argv = [sys.executable, "-m", "tests.benchmarks.slow_registry"]
    with subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def published(host: str, now: float) -> tuple[ImageList, Catalog, dict[str, tuple[Variant, ...]]]:
    """Return a list, the catalog in which all of it is published, and what is known of its digests."""
    names = [f"ns/image-{number % REPOSITORIES}:{number}" for number in range(TAGS)]
    images = ImageList.parse("".join(f"{host}/{name}\n" for name in names).encode())
    catalog = Catalog()
    known: dict[str, tuple[Variant, ...]] = {}
    for number, entry in enumerate(images.entries):
        index = digest_of(f"/v2/{entry.reference.repository}/manifests/{entry.reference.tag}")
        child = f"sha256:{number:064x}"
        known[index] = (Variant("x86_64", child, 10**9),)
        version = Version("x86_64", "20261101T000000Z", index, child, now - 1e5, has_sif=True)
        catalog = transitions.published(catalog, entry.name, version, now)
    return images, catalog, known


def bench_publisher() -> Table:
    """Measure a pass in which nothing changed."""
    now = time.time()
    settings = Settings(image_list="/list", sif_directory="/sif")
    with slow_registry() as host:
        images, catalog, known = published(host, now)
        began = time.perf_counter()
        client: RegistryClient = connect(settings)
        found = Resolver(client, settings, known).resolve(images)
        resolved_s = time.perf_counter() - began
        steps = plan.decide(found, catalog, settings, now)
        planned_s = time.perf_counter() - began - resolved_s
        client.close()
        with urlopen(f"http://{host}/counts") as answer:
            asked = json.load(answer)
    if len(steps.of(Verb.KEEP)) != TAGS or asked != {"HEAD": TAGS}:
        raise RuntimeError(f"{steps.counts()}, asked: {asked}, {next(iter(found.failures.values()), '')}")
    table = Table(
        "what", "measured", "limit", title=f"the publisher: {TAGS:,} unchanged tags, {LATENCY_S * 1000:.0f} ms away"
    )
    table.add_row("resolved, with one HEAD each", f"{resolved_s:.1f} s", "10 s")
    table.add_row("planned", f"{planned_s * 1000:.0f} ms", "")
    return table
