"""condor_image_cache cleanup."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from filelock import Timeout

from cache_manager import client, pilots, processes, upkeep
from cache_manager.cleanup import Kind, Wishes
from cache_manager.commands.common import (
    Column,
    CommandError,
    add_json,
    ago,
    as_argument,
    complain,
    counted,
    print_json,
    print_table,
    settings_and_knobs,
)
from cache_manager.quantities import parse_size, parse_time
from cache_manager.settings import Settings
from cache_manager.status import StatusError
from cache_manager.text import human_bytes

HELP: Final = (
    "Free what nobody needs: partial fetches, orphans, what is in quarantine, images beyond the policy, and, when"
    " asked, old images and caches that dead pilots of this user left. Never an image in use or pinned. Asks the"
    " manager; without one, takes the cache's lock and works on the files. Exit status 1 if --to-bytes is not reached."
)
EXAMPLE: Final = "condor_image_cache cleanup --dry-run --older-than 7d --to-bytes 20GB"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("--dry-run", action="store_true", help="print what would be freed, and change nothing")
    parser.add_argument(
        "--older-than", metavar="TIME", type=as_argument(parse_time), help="images not used for so long: 7d, 12h"
    )
    parser.add_argument(
        "--to-bytes", metavar="SIZE", type=as_argument(parse_size), help="images, least recently used first: 20GB"
    )
    parser.add_argument(
        "--stale-pilots",
        metavar="DIR",
        help="caches below DIR whose manager is dead: on this boot of this host, or silent for 24 h",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Clean up, and print what was freed."""
    try:
        settings, _ = settings_and_knobs()
        left = _stale_pilots(arguments.stale_pilots, settings, dry_run=arguments.dry_run)
        done = _own(settings, Wishes(arguments.older_than, arguments.to_bytes), dry_run=arguments.dry_run)
    except (CommandError, client.Refused) as error:
        return complain(error)
    items = [one | {"done": True} for one in done["items"]] + left
    gone = [one for one in items if one["done"]]
    answer = done | {
        "dry_run": arguments.dry_run,
        "items": items,
        "freed_bytes": sum(one["bytes"] for one in gone),
        "freed_inodes": sum(one["inodes"] for one in gone),
    }
    if arguments.json:
        print_json(answer)
    else:
        _print(answer)
    if done["short_bytes"]:
        wanted = human_bytes(done["freed_bytes"] + done["short_bytes"])
        freed = human_bytes(done["freed_bytes"])
        complain(Exception(f"cleanup: wanted {wanted}, freed {freed}; {done['holding']}"))
    return 1 if done["short_bytes"] else 0


def _own(settings: Settings, wishes: Wishes, *, dry_run: bool) -> dict[str, Any]:
    """Clean this EP's cache. Raises CommandError, Refused."""
    answer: dict[str, Any] = {}
    try:
        asked = {"dry_run": dry_run, "older_than_s": wishes.older_than_s, "to_bytes": wishes.to_bytes}
        *_, answer = client.work(settings.socket, "cleanup", **asked)
    except client.ManagerDown as down:
        try:
            with _as_owner(settings.root):
                answer = upkeep.without_manager(settings, wishes, time.time(), dry_run=dry_run)
        except Timeout:
            what = f"cache {settings.root}: its manager holds the lock, and does not answer ({down})"
            raise CommandError(what) from None
        except OSError as error:
            raise CommandError(f"cache {settings.root}: {error.strerror or error}") from None
        except StatusError as error:
            raise CommandError(error.message) from None
        answer["by"] = f"this command (no manager: {down})"
    else:
        answer["by"] = "the running manager"
    return answer


@contextmanager
def _as_owner(root: str) -> Iterator[None]:
    """Work as the owner of the cache, if this is root: nothing there may become root's."""
    try:
        owner = Path(root).stat()
    except FileNotFoundError:
        yield
        return
    before = os.geteuid(), os.getegid()
    if before[0] != 0 or owner.st_uid == 0:
        yield
        return
    processes.boot_id()  # loads what may not be readable for the owner
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])


def _stale_pilots(directory: str | None, settings: Settings, *, dry_run: bool) -> list[dict[str, Any]]:
    """Remove, or only find, what dead pilots of this user left. Raises CommandError."""
    if directory is None:
        return []
    place, now = processes.place(), time.time()
    try:
        found = pilots.find(directory, settings.root, place, now)
    except OSError as error:
        raise CommandError(f"{directory}: {error.strerror or error}") from None
    items = []
    for one in found:
        why_not = one.why_not or ("" if dry_run else pilots.remove(one, place, now))
        items.append(
            {
                "kind": Kind.PILOT.value,
                "paths": [one.path],
                "what": one.path,
                "bytes": one.size_bytes,
                "inodes": one.inodes,
                "why": f"stays: {why_not}" if why_not else f"its manager on {one.host} is dead ({ago(one.beaten_at)})",
                "done": not why_not,
            }
        )
    return items


def _print(answer: dict[str, Any]) -> None:
    would = "would free" if answer["dry_run"] else "freed"
    if answer["items"]:
        columns = (
            Column(would, whole=True),
            "what",
            Column("size", number=True),
            Column("files", number=True, wide=True),
            "why",
        )
        rows = [
            (
                one["kind"] if one["done"] else "-",
                one["what"],
                human_bytes(one["bytes"]) if one["done"] else "-",
                str(one["inodes"]) if one["done"] else "-",
                one["why"],
            )
            for one in answer["items"]
        ]
        print_table(columns, rows)
        print()
    total = f"{human_bytes(answer['freed_bytes'])} in {counted(answer['freed_inodes'], 'file')}"
    items = counted(sum(one["done"] for one in answer["items"]), "item")
    print(f"{would} {total} ({items}); cleaned by {answer['by']}")
