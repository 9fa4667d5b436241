"""condor_image_cache evict."""

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
from cache_manager.commands.progress import say_failures
from cache_manager.text import human_bytes

HELP: Final = (
    "Give named images up: of a name every version. Never one in use or pinned, unless --force is given: then it is"
    " said who loses it. A pin stays, and holds what is fetched next under its name."
)
EXAMPLE: Final = "condor_image_cache evict htc/rocky:9"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_refs(parser)
    parser.add_argument("--force", action="store_true", help="also images in use and pinned; jobs may lose theirs")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evict, and print what went."""
    results: list[dict[str, Any]] = []
    try:
        for step in client.work(socket(), "evict", refs=arguments.refs, force=arguments.force):
            results = step.get("results", results)
    except (CommandError, client.ManagerDown, client.Refused) as error:
        return complain(error)
    if arguments.json:
        print_json(results)
        return 0 if all(one["done"] for one in results) else 1
    gone = [one for one in results if one["done"]]
    if gone:
        columns = ("evicted", Column("key", whole=True), Column("freed", number=True), "lost by")
        print_table(
            columns,
            [
                (one["name"], one["key"][:SHORT_KEY], human_bytes(one["bytes"]), ", ".join(one["holders"]) or "nobody")
                for one in gone
            ],
        )
    return say_failures(results)
