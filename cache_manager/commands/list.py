"""condor_image_cache list."""

from __future__ import annotations

import argparse
import json
from typing import Final

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

HELP: Final = "Show the images in the cache, most recently used first."
EXAMPLE: Final = "condor_image_cache list"

_SHORT_DIGEST: Final = 19


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the entries."""
    try:
        state = json.loads(client.ask(socket(), "list"))
    except (CommandError, client.ManagerDown) as error:
        return complain(error)
    if arguments.json:
        print_json(state["entries"])
        return 0
    rows = [
        (
            one["name"],
            one["digest"][:_SHORT_DIGEST],
            one["format"],
            human_bytes(one["size_bytes"]),
            ago(one["last_used_at"]),
            ", ".join(one["leases"]) or "-",
        )
        for one in state["entries"]
    ]
    print_table(("image", "digest", "format", "size", "last used", "in use by jobs"), rows)
    return 0
