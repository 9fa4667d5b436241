"""condor_image_cache pin."""

from __future__ import annotations

import argparse
from typing import Final

from cache_manager import client
from cache_manager.commands.common import Column, CommandError, add_json, add_refs, complain, print_json, print_table
from cache_manager.commands.list import SHORT_KEY
from cache_manager.commands.prefetch import brought_in
from cache_manager.commands.progress import say_failures
from cache_manager.text import human_bytes

HELP: Final = (
    "Keep images, also when no job uses them and over restarts; one that is not here is fetched first. A pinned name"
    " holds the version that was last served under it: a newer one that is fetched takes the pin over. A pinned key"
    " holds that image alone."
)
EXAMPLE: Final = "condor_image_cache pin htc/rocky:9"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_refs(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pin, and print what each pin holds."""
    try:
        results = brought_in("pin", arguments)
    except (CommandError, client.ManagerDown, client.Refused) as error:
        return complain(error)
    if arguments.json:
        print_json(results)
        return 0 if all(one["done"] for one in results) else 1
    rows = [
        (one["reference"], one["key"][:SHORT_KEY], human_bytes(one["bytes"] or 0)) for one in results if one["done"]
    ]
    if rows:
        print_table(("pinned", Column("key", whole=True), Column("size", number=True)), rows)
    return say_failures(results)
