"""condor_image_cache prefetch."""

from __future__ import annotations

import argparse
from typing import Any, Final

from cache_manager import client
from cache_manager.commands.common import (
    Column,
    CommandError,
    add_json,
    add_refs,
    complain,
    print_json,
    print_table,
    socket,
)
from cache_manager.commands.list import SHORT_KEY
from cache_manager.commands.progress import progress_lines, say_failures, speed
from cache_manager.text import human_bytes

HELP: Final = (
    "Bring images in before jobs ask, all at a time, also where CVMFS has them. Exit status 1 if any failed. When this"
    " is interrupted, the fetches go on."
)
EXAMPLE: Final = "condor_image_cache prefetch htc/rocky:9 htc/tensorflow:2.15"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_refs(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Have the images fetched, and print what came of it."""
    try:
        results = brought_in("prefetch", arguments)
    except (CommandError, client.ManagerDown, client.Refused) as error:
        return complain(error)
    if arguments.json:
        print_json(results)
        return 0 if all(one["done"] for one in results) else 1
    rows = [
        (one["ref"], one["key"][:SHORT_KEY], human_bytes(one["bytes"] or 0), "was here" if one["hit"] else _spent(one))
        for one in results
        if one["done"]
    ]
    if rows:
        columns = ("image", Column("key", whole=True), Column("size", number=True), Column("fetched", whole=True))
        print_table(columns, rows)
    return say_failures(results)


def brought_in(verb: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the results of a verb that fetches, showing progress. Raises CommandError, ManagerDown, Refused."""
    results: list[dict[str, Any]] = []
    with progress_lines(wanted=not arguments.json) as lines:
        for step in client.work(socket(), verb, refs=arguments.refs):
            for one in step.get("progress", []):
                numbers = (one["bytes"], one["of_bytes"])
                words = speed(*numbers, one["seconds"]) if one["state"] == "fetching" else one["state"]
                lines.show(one["ref"], words, *numbers)
            results = step.get("results", results)
    return results


def _spent(one: dict[str, Any]) -> str:
    rate = human_bytes((one["bytes"] or 0) / max(one["seconds"], 0.001))
    return f"in {one['seconds']:.1f} s ({rate}/s)"
