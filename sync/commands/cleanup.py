"""condor_image_sync cleanup."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from sync import opening, plan
from sync.commands.common import CommandError, add_config, add_json, print_json, print_table, settings
from sync.foreign import Tidying
from sync.ledger import Ledger
from sync.lock import Busy, only_publisher
from sync.memory import Forgotten, Memory
from sync.retirement import Retirement
from sync.settings import Settings
from sync.step import Action, Verb
from sync.targets.base import TargetError

HELP: Final = (
    "Remove sandboxes and SIFs to which nothing leads any more, once their grace period is over, at most so many as"
    " max_removals says; each run does so too. Looks at no list and asks no registry, so no name is taken away."
)
EXAMPLE: Final = "condor_image_sync cleanup --dry-run"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_config(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be removed, and change nothing")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Clean up, and print what was removed."""
    chosen = settings(arguments)
    faults: list[str] = []
    try:
        if arguments.dry_run:
            steps, tidying = _look(chosen)
        else:
            state, targets = Path(chosen.state_directory), opening.written_directories(chosen)
            with only_publisher(state, "cleanup", time.time(), targets):
                steps, tidying, faults = _clean(chosen)
    except (Busy, TargetError, Forgotten) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from None
    _print(steps, tidying, arguments)
    for fault in faults:
        sys.stderr.write(f"condor_image_sync: {fault}\n")
    return 1 if faults else 0


def _retirement(chosen: Settings, memory: Memory) -> tuple[Ledger, Retirement]:
    ledger = Ledger(memory, memory.catalog(), time.time)
    return ledger, Retirement(ledger, opening.sandboxes(chosen), opening.sif_tree(chosen))


def _look(chosen: Settings) -> tuple[tuple[Action, ...], Tidying]:
    ledger, retirement = _retirement(chosen, Memory(Path(chosen.state_directory)))
    steps = plan.clean_up(ledger.catalog, chosen, ledger.now).actions
    return steps, retirement.tidying(None, chosen)[1]


def _clean(chosen: Settings) -> tuple[tuple[Action, ...], Tidying, list[str]]:
    memory = Memory(Path(chosen.state_directory))
    memory.begin()
    ledger, retirement = _retirement(chosen, memory)
    retirement.begin()
    ledger.take_in_begun()
    planned = plan.clean_up(ledger.catalog, chosen, ledger.now)
    _, tidying = retirement.tidying(None, chosen)
    faults = retirement.apply(planned.of(Verb.REMOVE), None, chosen)
    faults += retirement.show()
    return planned.actions, tidying, faults


def _print(steps: tuple[Action, ...], tidying: Tidying, arguments: argparse.Namespace) -> None:
    gone = [one for one in steps if one.verb is Verb.REMOVE]
    if arguments.json:
        items = [
            {
                "name": one.name,
                "arch": one.arch,
                "form": one.form.value if one.form else "",
                "version": one.version.version if one.version else "",
                "done": one.verb is Verb.REMOVE and not arguments.dry_run,
                "why": one.reason,
            }
            for one in steps
        ]
        print_json({"dry_run": arguments.dry_run, "items": items, "unknown_sandboxes": list(tidying.remove)})
        return
    would = "would remove" if arguments.dry_run else "removed"
    rows = [
        [
            would if one in gone else "stays",
            one.form.value if one.form else "",
            one.name,
            one.arch,
            one.version.version if one.version else "",
            one.reason,
        ]
        for one in steps
    ]
    rows += [
        [would, "sandbox", place, "", "", "of a former publisher; no name leads to it"] for place in tidying.remove
    ]
    if rows:
        print_table(["", "form", "image", "architecture", "version", "why"], rows)
    sys.stdout.write(f"{would} {len(gone) + len(tidying.remove)} item(s)\n")
