"""condor_image_cache explain."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cache_manager import client, reports, scan
from cache_manager.broker import Broker
from cache_manager.cache import Cache
from cache_manager.commands.common import (
    CommandError,
    add_json,
    complain,
    print_json,
    print_table,
    settings_and_knobs,
    socket,
)
from cache_manager.layout import CacheLayout
from cache_manager.protocol import Header
from cache_manager.reader import Reader
from cache_manager.settings import Settings
from cache_manager.status import HookStatus
from cache_manager.store import Store

HELP: Final = (
    "Show how a job ad would be answered, step by step, without fetching: what was asked, each source and why it was"
    " or was not chosen, the update ad, the status. Asks the running manager; without one, looks for itself."
)
EXAMPLE: Final = "condor_q -long 12.0 | condor_image_cache explain -"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("file", metavar="FILE", help="a job ad, one attribute a line; - for standard input")
    parser.add_argument("--machine-ad", metavar="FILE", help="the slot's ad, if it matters (condor_status -long)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the decision."""
    try:
        job = _read(arguments.file)
        machine = _read(arguments.machine_ad) if arguments.machine_ad else b""
        path = socket()
    except CommandError as error:
        return complain(error)
    job = job if job.endswith(b"\n") or not job else job + b"\n"
    try:
        found = json.loads(client.ask(path, "explain", job + machine, job=len(job)))
        found["by"] = "the running manager"
    except client.ManagerDown as down:
        try:
            settings, knobs = settings_and_knobs()
            found = asyncio.run(_by_itself(settings, knobs.get("FILETRANSFER_PLUGINS", ""), job, machine))
        except CommandError as error:
            return complain(error)
        found["by"] = f"this command (no manager: {down})"
    if arguments.json:
        print_json(found)
    else:
        _print(found)
    return 0


def _read(name: str) -> bytes:
    """Return an ad. Raises CommandError: an empty one is a job that left the queue, and nothing to decide on."""
    try:
        found = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}: a file with an ad is wanted, as in `{EXAMPLE}`") from None
    if not found.strip():
        shown = "standard input" if name == "-" else name
        raise CommandError(f"{shown}: no ad ({len(found)} bytes): is the job still in the queue?")
    return found


async def _by_itself(settings: Settings, plugins: str, job: bytes, machine: bytes) -> dict[str, Any]:
    """Look at the sources and at the disk, without a manager and without changing anything."""
    store = Store(CacheLayout(PurePosixPath(settings.root)))
    cache = Cache(store, lambda: settings, lambda: None)
    try:
        found = scan.everything(store.layout)
    except PermissionError as error:
        raise CommandError(f"{error.filename}: {error.strerror}: ask as root or as the manager's user") from None
    cache.entries = {one.entry.key: one.entry for one in found.entries if one.entry is not None}
    cache.objects.load({name: record for name, record in found.objects.items() if record is not None})
    cache.read_only = True
    broker, reader = Broker(cache, lambda: settings), Reader()
    broker.switches.read(settings)
    broker.locator.plugins.configure(plugins)
    try:
        header = Header(len(job + machine), {"job": str(len(job))})
        return await reports.explain(broker, reader.request("", header, job + machine))
    finally:
        reader.close()
        broker.locator.close()


def _print(found: dict[str, Any]) -> None:
    status = next(one for one in HookStatus if one.code == found["status"])
    rows = [
        ("asked", found["asked"] or "no image"),
        ("named by", found["named_by"] or "-"),
        ("decided by", found["by"]),
        ("status", f"{status.code} {status.name}: the job {_becomes(status)}"),
    ]
    print_table(("", ""), rows)
    if found.get("order"):
        rows = [(str(number), *row.values()) for number, row in enumerate(found["order"], 1)]
        print("\nthe order of sources:")
        print_table(("", "source", "place", "serves", "not here, because"), rows)
    if found["steps"]:
        print()
        print_table(("source", "answer"), [(step["source"], step["answer"]) for step in found["steps"]])
    print("\nthe hook would print:")
    print("".join(f"  {line}\n" for line in found["ad"].splitlines()), end="")


def _becomes(status: HookStatus) -> str:
    return {"runs": "runs", "hold": "is held", "idle": "goes back to idle"}[status.consequence]
