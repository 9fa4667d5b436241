"""condor_image_sync plan."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Final

from sync.catalog import Catalog
from sync.commands.common import CommandError, add_config, add_json, print_json, print_table, settings
from sync.credentials import CredentialsError
from sync.memory import Forgotten, Memory
from sync.plan import Plan, decide
from sync.resolution import Resolution
from sync.settings import Settings
from sync.step import Action, Verb
from sync.survey import ListError, survey

HELP: Final = (
    "Show what a run would do, and why, without doing it: asks the registries, and changes nothing. Exit status 1 if"
    " the list has broken lines, or an image cannot be resolved."
)
EXAMPLE: Final = "condor_image_sync plan --only htc/rocky:9"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_config(parser)
    parser.add_argument(
        "--only", metavar="REF", action="append", default=[], help="only this published name; repeatable"
    )
    parser.add_argument("--all", action="store_true", help="also what stays as it is")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    chosen = settings(arguments)
    try:
        found = survey(chosen)
    except (ListError, CredentialsError) as error:
        raise CommandError(str(error)) from None
    plan = decide(found, published(chosen), chosen, time.time())
    if arguments.only:
        plan = plan.only(arguments.only)
        missing = set(arguments.only) - {one.name for one in plan.actions}
        if missing:
            raise CommandError(f"not listed, and not published: {', '.join(sorted(missing))}")
    if arguments.json:
        print_json(_as_json(found, plan))
    else:
        _print(found, plan, with_kept=arguments.all or bool(arguments.only))
    return 1 if found.faults or any(one.failure for one in plan.actions) else 0


def published(chosen: Settings) -> Catalog:
    """Return the catalog of what is published, an empty one before the first run. Raises CommandError."""
    memory = Memory(Path(chosen.state_directory))
    try:
        return memory.catalog()
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from None
    except Forgotten as error:
        raise CommandError(str(error)) from None


def _as_json(found: Resolution, plan: Plan) -> dict[str, Any]:
    return {
        "counts": plan.counts(),
        "broken_lines": [{"line": one.line, "text": one.text, "why": one.why} for one in found.faults],
        "actions": [_step(one) for one in plan.actions],
    }


def _step(one: Action) -> dict[str, Any]:
    size = one.variant.compressed_bytes if one.variant else None
    values = {
        "verb": one.verb.value,
        "name": one.name,
        "arch": one.arch,
        "forms": _forms(one).split(),
        "digest": one.digest,
        "compressed_bytes": size,
        "source": one.source,
        "reason": one.reason,
    }
    return {key: value for key, value in values.items() if value not in ("", None, [])}


def _forms(one: Action) -> str:
    return one.form.value if one.form else " ".join(sorted(one.forms))


def _print(found: Resolution, plan: Plan, *, with_kept: bool) -> None:
    for fault in found.faults:
        sys.stdout.write(f"{fault}\n")
    shown = [one for one in plan.actions if with_kept or one.verb is not Verb.KEEP or one.failure or not one.resolved]
    rows = [[one.verb.value, one.name, one.arch, _forms(one), one.reason] for one in shown]
    if rows:
        print_table(["does", "image", "architecture", "form", "why"], rows)
    counts = ", ".join(f"{number} {verb}" for verb, number in plan.counts().items() if number)
    sys.stdout.write(f"{counts or 'nothing is listed or published'}\n")
