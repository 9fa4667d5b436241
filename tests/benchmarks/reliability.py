"""A thousand kills of a manager under load, and a start at each moment of a crash: counted for the README."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Final

from rich.table import Table

from tests.contract.harness import Site
from tests.contract.kills import KNOBS, Siege, serve
from tests.contract.origin import Origin
from tests.unit.test_crash import moments

KILLS: Final = int(os.environ.get("IMAGE_CACHE_TEST_KILLS", "1000"))
RECORD: Final = "reliability.json"


def bench_reliability() -> Table:
    """Kill and start; raises AssertionError with the seed at the first thing that is not as it was promised."""
    with tempfile.TemporaryDirectory(prefix="image-cache-kills-") as name, Origin() as origin:
        serve(origin)
        knobs = KNOBS | {"IMAGE_CACHE_SIF_SOURCES": f"{origin.url}/v2"}
        with Site(Path(name), knobs) as site:
            siege = Siege(site.start(), origin)
            for seed in range(KILLS):
                siege.round(seed)
    logging.disable(logging.ERROR)  # each moment has its complaint
    found = {"kills": siege.kills, "jobs": siege.answered, "moments": moments()}
    out = Path(os.environ.get("IMAGE_CACHE_TEST_OUT", "/out"))
    if out.is_dir():
        (out / RECORD).write_text(json.dumps(found, sort_keys=True) + "\n", encoding="ascii")
    table = Table("what", "how often", title="reliability: what was lost, partial, or counted wrong: nothing")
    table.add_row("kill -9 of the manager under load", f"{siege.kills:,}")
    table.add_row("jobs that got their image across kills", f"{siege.answered:,}")
    table.add_row("starts on what a crash or a power loss left, at each file operation", f"{found['moments']:,}")
    return table
