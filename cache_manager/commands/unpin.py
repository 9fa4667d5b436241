"""condor_image_cache unpin."""

from __future__ import annotations

import argparse
from typing import Final

from cache_manager import client
from cache_manager.commands.common import Column, CommandError, add_json, add_refs, complain, print_json, print_table
from cache_manager.commands.list import SHORT_KEY
from cache_manager.commands.prefetch import brought_in
from cache_manager.commands.progress import say_failures

HELP: Final = "Keep images no longer: they stay until their room is needed. A key ends all pins that hold it."
EXAMPLE: Final = "condor_image_cache unpin htc/rocky:9"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_refs(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Unpin, and print which pins ended."""
    try:
        results = brought_in("unpin", arguments)
    except (CommandError, client.ManagerDown, client.Refused) as error:
        return complain(error)
    if arguments.json:
        print_json(results)
        return 0 if all(one["done"] for one in results) else 1
    rows = [(one["reference"], one["key"][:SHORT_KEY]) for one in results if one["done"]]
    if rows:
        print_table(("no longer pinned", Column("key", whole=True)), rows)
    return say_failures(results)
