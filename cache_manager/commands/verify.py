"""condor_image_cache verify."""

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
    counted,
    print_json,
    print_table,
    socket,
)
from cache_manager.commands.list import SHORT_KEY
from cache_manager.commands.progress import progress_lines, speed
from cache_manager.text import human_bytes

HELP: Final = (
    "Read images back against their digests, all if none is named; of an unpacked image the files and bytes are"
    " counted. What differs goes into quarantine, and is fetched again by the next job. Exit status 1 then."
)
EXAMPLE: Final = "condor_image_cache verify"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_refs(parser, "*")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Have the images read, and print what was found."""
    answer: dict[str, Any] = {}
    try:
        with progress_lines(wanted=not arguments.json) as lines:
            for answer in client.work(socket(), "verify", refs=arguments.refs):
                if "name" in answer:
                    numbers = (answer["bytes"], answer["of_bytes"])
                    lines.show("reading back", speed(*numbers, answer["seconds"]), *numbers)
    except (CommandError, client.ManagerDown, client.Refused) as error:
        return complain(error)
    results = answer["results"]
    if arguments.json:
        print_json({name: answer[name] for name in ("results", "bytes", "seconds")})
    else:
        _print(answer)
    return 0 if all(one["whole"] for one in results) else 1


def _print(answer: dict[str, Any]) -> None:
    results = answer["results"]
    rows = [
        (
            one["name"],
            one["key"][:SHORT_KEY],
            human_bytes(one["bytes"]),
            f"{human_bytes(one['bytes'] / max(one['seconds'], 0.001))}/s",
            "whole" if one["whole"] else f"QUARANTINED: {one['why']}",
        )
        for one in results
    ]
    columns = ("image", Column("key", whole=True), Column("read", number=True), Column("rate", number=True), "is")
    print_table(columns, rows)
    wrong = sum(not one["whole"] for one in results)
    rate = human_bytes(answer["bytes"] / max(answer["seconds"], 0.001))
    print(
        f"\n{counted(len(results), 'image')}, {wrong} in quarantine now; {human_bytes(answer['bytes'])} read"
        f" in {answer['seconds']:.1f} s ({rate}/s)"
    )
