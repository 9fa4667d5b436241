"""condor_image_cache status."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from cache_manager import client
from cache_manager.commands.common import (
    CommandError,
    add_json,
    ago,
    complain,
    print_json,
    print_table,
    socket,
)
from cache_manager.text import human_bytes

HELP: Final = "Show the cache's cap and use, leases, fetches under way, and what fails. Exit status 1 if not healthy."
EXAMPLE: Final = "condor_image_cache status --json | jq .used_bytes"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the state of the manager."""
    try:
        state = json.loads(client.ask(socket(), "status"))
    except (CommandError, client.ManagerDown) as error:
        return complain(error)
    if arguments.json:
        print_json(state)
    else:
        _print(state)
    return 0 if state["healthy"] else 1


def _print(state: dict[str, Any]) -> None:
    health = "healthy" if state["healthy"] else "NOT HEALTHY"
    free = human_bytes(state["free_bytes"]) if state["free_bytes"] is not None else "unknown"
    used = f"{human_bytes(state['used_bytes'])} of {human_bytes(state['max_bytes'])}"
    percent = 100 * state["used_bytes"] / state["max_bytes"]
    inodes = f"{state['used_inodes']}" + (f" of {state['max_inodes']}" if state["max_inodes"] else "")
    abilities = [name for name in ("sif", "sandbox") if state[f"can_use_{name}"]]
    rows = [
        (
            "manager",
            f"{health}, version {state['version']}, pid {state['pid']}, started {ago(state['started_at'])}",
        ),
        ("reason", state["reason"]),
        ("cache", state["root"]),
        (
            "used",
            f"{used} ({percent:.0f} %), {inodes} files",
        ),
        ("disk", f"{free} free"),
        ("images", f"{state['entries']}, {state['in_use']} in use by {state['leases']} jobs"),
        ("answers", f"{state['hits']} hits, {state['misses']} misses, {state['evictions']} evictions"),
        ("fetched", human_bytes(state["fetched_bytes"])),
        ("runtime", f"{state['runtime'] or 'none'} ({', '.join(abilities) or 'nothing'})"),
        ("not run", state["why_not"]),
        ("CVMFS", " ".join(state["cvmfs_repositories"])),
        ("SIF sources", " ".join(state["sources"]) or "none"),
    ]
    print_table(("", ""), [row for row in rows if row[1]])
    if state["fetches"]:
        print()
        print_table(
            ("fetching", "from", "done", "rate", "left", "waiting"),
            [_fetch_row(one) for one in state["fetches"]],
        )
    if state["failures"]:
        print()
        print_table(("failing now",), [(one,) for one in state["failures"]])


def _fetch_row(one: dict[str, Any]) -> tuple[str, ...]:
    rate = one["bytes"] / max(one["seconds"], 0.1)
    done = human_bytes(one["bytes"]) + (f" of {human_bytes(one['of_bytes'])}" if one["of_bytes"] else "")
    left = f"{(one['of_bytes'] - one['bytes']) / rate:.0f} s" if one["of_bytes"] and rate else "?"
    name = f"{one['name']} (unpacking)" if one["unpacks"] else one["name"]
    return (name, one["from"], done, f"{human_bytes(rate)}/s", left, f"{one['waiting']} jobs")
