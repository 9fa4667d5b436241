"""condor_image_sync status."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cache_manager.text import human_bytes, human_time
from sync import files, opening, page, view
from sync.commands.common import CommandError, add_config, add_json, print_json, print_table, settings
from sync.memory import Forgotten, Memory
from sync.view import Row

HELP: Final = (
    "Show each image: published, queued, converting or failing, since when and why, the digests of both forms, their"
    " sizes, and where they are. --html writes one page for users, which needs nothing else, and status.json beside it."
    " Works while a run is under way. Exit status 1 if REF is not known."
)
EXAMPLE: Final = "condor_image_sync status --html /var/www/html/images"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_config(parser)
    parser.add_argument("ref", metavar="REF", nargs="?", help="a published name (htc/rocky:9), or its source")
    parser.add_argument("--html", metavar="DIR", help="write index.html and status.json there, each in one step")
    parser.add_argument("--title", default=page.TITLE, help="of the page")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the states, or write the page."""
    chosen = settings(arguments)
    memory = Memory(Path(chosen.state_directory))
    try:
        found = view.rows(memory.catalog(), memory.told(), memory.history(), opening.places(chosen))
    except Forgotten as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from None
    if arguments.ref:
        found = view.chosen(found, arguments.ref)
        if not found:
            raise CommandError(f"{arguments.ref}: not listed at the last run, and not published")
    if arguments.html:
        _write(Path(arguments.html), found, arguments.title)
    if arguments.json:
        print_json([one.to_json() for one in found])
    elif arguments.ref:
        _print_one(found)
    elif not arguments.html:
        _print(found)
    return 0


def _write(directory: Path, found: Sequence[Row], title: str) -> None:
    """Put the page and its data in place. Raises CommandError."""
    now = time.time()
    try:
        files.make_directories(directory)
        files.remove_leftovers(directory)
        document = {"generated_at": now, "images": [one.to_json() for one in found]}
        files.write_whole(directory / "status.json", json.dumps(document, indent=1).encode())
        files.write_whole(directory / page.FILE, page.render(found, now, title).encode(errors="replace"))
    except OSError as error:
        raise CommandError(f"{error.filename or directory}: {error.strerror}") from None


def _print(found: Sequence[Row]) -> None:
    rows = []
    for one in found:
        sizes = ", ".join(f"{form.arch} {human_bytes(form.sif_bytes or form.tree_bytes)}" for form in one.versions)
        rows.append([one.name, one.state, _ago(one.since), sizes, one.why])
    print_table(["image", "state", "since", "size", "why"], rows)


def _print_one(found: Sequence[Row]) -> None:
    for one in found:
        rows = [
            ["image", one.name],
            ["from", one.source],
            ["state", f"{one.state}, since {_ago(one.since)}"],
            ["why", one.why],
            ["registry has", one.digest],
            ["link", one.link],
        ]
        for form in one.versions:
            rows += [
                [f"{form.arch}", f"version {form.version}, published {_ago(form.published_at)}"],
                ["  image digest", form.digest],
                ["  index digest", form.index_digest],
                ["  sandbox", form.sandbox],
                ["  tree digest", f"{form.tree_digest} ({human_bytes(form.tree_bytes)})" if form.tree_digest else ""],
                ["  SIF", form.sif],
                ["  sha256", f"{form.sif_sha256} ({human_bytes(form.sif_bytes)})" if form.sif_sha256 else ""],
            ]
        rows += [["before", f"{_ago(past.at)}: {past.arch} {past.digest}"] for past in one.history[1:6]]
        print_table(["", ""], [row for row in rows if row[1]])


def _ago(moment: float) -> str:
    return f"{human_time(time.time() - moment)} ago"
