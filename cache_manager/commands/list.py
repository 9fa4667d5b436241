"""condor_image_cache list."""

from __future__ import annotations

import argparse
from typing import Final

from cache_manager import client
from cache_manager.commands.common import (
    Column,
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

SHORT_KEY: Final = 12
MAX_JOBS: Final = 4
"""So many jobs are named in the table; `--json` and `show` name all."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the entries."""
    try:
        state = client.report(socket(), "list")
    except (CommandError, client.ManagerDown, client.Refused) as error:
        return complain(error)
    if arguments.json:
        print_json(state["entries"])
        return 0
    columns = (
        "image",
        Column("key", whole=True),
        Column("format", whole=True, wide=True),
        Column("size", number=True),
        Column("files", number=True, wide=True),
        Column("fetched", whole=True, wide=True),
        Column("last used", whole=True),
        Column("kept", whole=True),
        Column("jobs", number=True),
        Column("in use by", wide=True),
    )
    rows = [
        (
            one["name"],
            one["key"][:SHORT_KEY],
            one["format"],
            human_bytes(one["size_bytes"]),
            str(one["inodes"]),
            ago(one["created_at"]),
            ago(one["last_used_at"]),
            "pin" if one["pins"] else "-",
            str(len(one["leases"])),
            _some(one["leases"]),
        )
        for one in state["entries"]
    ]
    print_table(columns, rows)
    return 0


def _some(jobs: list[str]) -> str:
    more = f" and {len(jobs) - MAX_JOBS} more" if len(jobs) > MAX_JOBS else ""
    return ", ".join(jobs[:MAX_JOBS]) + more or "-"
