"""condor_image_cache status."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final

from cache_manager import client
from cache_manager.commands.common import (
    Column,
    CommandError,
    add_json,
    ago,
    complain,
    counted,
    print_json,
    print_table,
    socket,
)
from cache_manager.commands.list import SHORT_KEY
from cache_manager.text import human_bytes, human_time

HELP: Final = (
    "Show the cache's cap and use, leases, pins, fetches under way, the sources' health, and what failed last. Exit"
    " status 1 if not healthy."
)
EXAMPLE: Final = "condor_image_cache status --json | jq .used_bytes"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the state of the manager."""
    try:
        state = client.report(socket(), "status")
    except (CommandError, client.ManagerDown, client.Refused) as error:
        return complain(error)
    if arguments.json:
        print_json(state)
    else:
        _print(state)
    return 0 if state["healthy"] else 1


def _print(state: dict[str, Any]) -> None:
    rows = [*_manager_rows(state), *_cache_rows(state)]
    print_table((Column("", whole=True), ""), [row for row in rows if row[1]])
    for columns, lines in (_sources(state), _fetches(state), _pins(state), _quarantine(state), _failures(state)):
        if lines:
            print()
            print_table(columns, lines)
    said = {one["why"] for one in state["source_health"]}
    failing = [(one,) for one in state["failures"] if one not in said]
    if failing:
        print()
        print_table(("failing now",), failing)


Table = tuple[tuple[str | Column, ...], Sequence[tuple[str, ...]]]


def _manager_rows(state: dict[str, Any]) -> list[tuple[str, str]]:
    health = "healthy" if state["healthy"] else "NOT HEALTHY"
    abilities = [name for name in ("sif", "sandbox") if state[f"can_use_{name}"]]
    return [
        ("manager", f"{health}, version {state['version']}, pid {state['pid']}, started {ago(state['started_at'])}"),
        ("reason", state["reason"]),
        ("runtime", f"{state['runtime'] or 'none'} ({', '.join(abilities) or 'nothing'})"),
        ("not run", state["why_not"]),
        ("cache", state["root"]),
    ]


def _cache_rows(state: dict[str, Any]) -> list[tuple[str, str]]:
    percent = 100 * state["used_bytes"] / state["max_bytes"]
    used = f"{human_bytes(state['used_bytes'])} of {human_bytes(state['max_bytes'])} ({percent:.0f} %)"
    reserved = f", {human_bytes(state['reserved_bytes'])} of it being fetched" if state["reserved_bytes"] else ""
    cap = f" of {state['max_inodes']}" if state["max_inodes"] else ", no cap"
    free = "unknown"
    if state["free_bytes"] is not None:
        free = f"{human_bytes(state['free_bytes'])} and {state['free_inodes']} files free"
        free += f", of which {human_bytes(state['min_free_bytes'])} stay free" if state["min_free_bytes"] else ""
    pins = f", {counted(len(state['pins']), 'pin')} ({human_bytes(state['pinned_bytes'])})" if state["pins"] else ""
    return [
        ("used", used + reserved),
        ("files", f"{state['used_inodes']}{cap}"),
        ("disk", free),
        ("images", f"{state['entries']}, {state['in_use']} in use by {counted(state['leases'], 'job')}{pins}"),
        ("answers", f"hits {state['hits']}, misses {state['misses']}"),
        ("fetched", human_bytes(state["fetched_bytes"])),
        ("evicted", f"{counted(state['evictions'], 'image')}, {human_bytes(state['evicted_bytes'])}"),
        ("read back", _scrub(state["scrub"])),
    ]


def _scrub(scrub: dict[str, Any]) -> str:
    found = f"; {scrub['findings']} FOUND TO DIFFER" if scrub["findings"] else ""
    if not scrub["rate_bytes"]:
        return f"off (IMAGE_CACHE_SCRUB_RATE = 0){found}"
    text = f"{human_bytes(scrub['read_bytes'])} read, {counted(scrub['unread'], 'image')} to be read"
    if scrub["reading"]:
        done, of = human_bytes(scrub["done_bytes"]), human_bytes(scrub["of_bytes"])
        text += f", now {scrub['reading']} ({done} of {of} at {human_bytes(scrub['rate_bytes'])}/s)"
    elif scrub["oldest_verified_at"]:
        text += f", the oldest look {ago(scrub['oldest_verified_at'])}"
    return text + found


def _sources(state: dict[str, Any]) -> Table:
    rows = [(one["kind"], one["name"], "well" if one["well"] else one["why"]) for one in state["source_health"]]
    return (Column("source", whole=True), "where", "is"), rows


def _fetches(state: dict[str, Any]) -> Table:
    columns = (
        "fetching",
        Column("done", number=True),
        Column("of", number=True),
        Column("rate", number=True),
        Column("left", number=True),
        Column("waiting", whole=True),
        Column("from", wide=True),
    )
    return columns, [_fetch_row(one) for one in state["fetches"]]


def _fetch_row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{one['name']} (unpacking)" if one["unpacks"] else one["name"],
        human_bytes(one["bytes"]),
        human_bytes(one["of_bytes"]) if one["of_bytes"] else "?",
        f"{human_bytes(one['rate_bytes'])}/s",
        "?" if one["left_s"] is None else human_time(one["left_s"]),
        counted(one["waiting"], "job"),
        one["from"],
    )


def _pins(state: dict[str, Any]) -> Table:
    columns = (Column("pinned"), Column("key", whole=True), Column("size", number=True), Column("since", whole=True))
    return columns, [
        (
            one["reference"],
            one["key"][:SHORT_KEY],
            human_bytes(one["disk_bytes"]) if one["here"] else "not here",
            ago(one["pinned_at"]),
        )
        for one in state["pins"]
    ]


def _quarantine(state: dict[str, Any]) -> Table:
    columns = ("in quarantine", Column("key", whole=True), Column("size", number=True), "why")
    return columns, [
        (one["name"], one["key"][:SHORT_KEY], human_bytes(one["disk_bytes"]), one["why"])
        for one in state["in_quarantine"]
    ]


def _failures(state: dict[str, Any]) -> Table:
    columns = (Column("failed last", whole=True), Column("job", whole=True), Column("status", whole=True), "image")
    return columns, [
        (ago(one["at"]), one["job"] or "?", f"{one['status']} {one['name']}", one["image"])
        for one in state["last_failures"]
    ]
