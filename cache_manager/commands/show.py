"""condor_image_cache show."""

from __future__ import annotations

import argparse
from typing import Any, Final

from cache_manager import client
from cache_manager.commands.common import (
    REF_HELP,
    Column,
    CommandError,
    add_json,
    ago,
    clock,
    complain,
    counted,
    print_json,
    print_table,
    socket,
)
from cache_manager.text import human_bytes

HELP: Final = "Show one image with its origin and history; of a name every version that is here, the newest first."
EXAMPLE: Final = "condor_image_cache show htc/rocky:9"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("ref", metavar="REF", help=REF_HELP)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the entries that are meant."""
    try:
        state = client.report(socket(), "show", refs=[arguments.ref])
    except (CommandError, client.ManagerDown, client.Refused) as error:
        return complain(error)
    if arguments.json:
        print_json(state["entries"])
        return 0
    for number, one in enumerate(state["entries"]):
        if number:
            print()
        _print(one)
    return 0


def _print(one: dict[str, Any]) -> None:
    verified = ago(one["verified_at"]) if one["verified_at"] else "not since the start of the manager"
    rows = [
        ("image", one["name"]),
        ("key", one["key"]),
        ("format", f"{one['format']}{', ' + one['architecture'] if one['architecture'] else ''}"),
        ("size", f"{human_bytes(one['size_bytes'])} ({one['size_bytes']} bytes)"),
        ("on disk", f"{human_bytes(one['disk_bytes'])}, {one['inodes']} files"),
        ("origin", one["origin"]),
        ("path", one["path"]),
        ("fetched", f"{clock(one['created_at'])} ({ago(one['created_at'])})"),
        ("last used", f"{clock(one['last_used_at'])} ({ago(one['last_used_at'])})"),
        ("used", f"{counted(one['uses'], 'time')} since the start of the manager"),
        ("read back", verified),
        ("pinned", ", ".join(one["pins"]) or "no"),
        ("in use by jobs", ", ".join(one["leases"]) or "none"),
    ]
    print_table((Column("", whole=True), ""), rows)
    print()
    history = [(clock(event["at"]), event["what"]) for event in one["history"]]
    print_table((Column("when", whole=True), "what happened"), history)
