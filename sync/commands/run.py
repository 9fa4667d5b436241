"""condor_image_sync run."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

from cache_manager.text import human_bytes
from sync import opening, plan
from sync.catalog import Catalog
from sync.commands.common import CommandError, add_config, add_json, print_json, print_table, settings
from sync.commands.progress import Telling, telling
from sync.credentials import CredentialsError
from sync.ledger import Ledger
from sync.lock import Busy, only_publisher
from sync.memory import Forgotten, Memory
from sync.pending import Pending
from sync.publisher import Publisher
from sync.retirement import Retirement
from sync.run import Outcome, Run
from sync.settings import Settings
from sync.step import Verb
from sync.survey import ListError, remember, survey
from sync.targets.base import TargetError

HELP: Final = (
    "Resolve the list, convert what is new, publish it in both forms, retire what is old. May be killed at any moment:"
    " readers have the old image or the new one, and the next run goes on. Exit status 1 if any image failed."
)
EXAMPLE: Final = "condor_image_sync run --only htc/rocky:9"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_config(parser)
    parser.add_argument("--engine", choices=("local", "htcondor"), help="where to convert; default: as configured")
    parser.add_argument(
        "--only", metavar="REF", action="append", default=[], help="only this published name; repeatable"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run, and print what became of it."""
    chosen = settings(arguments)
    if arguments.engine:
        chosen = replace(chosen, engine=arguments.engine)
    signal.signal(signal.SIGTERM, _end)
    try:
        state, targets = Path(chosen.state_directory), opening.written_directories(chosen)
        with only_publisher(state, "run", time.time(), targets), telling() as tells:
            ledger, outcome = publish(chosen, arguments.only, tells)
    except (Busy, ListError, CredentialsError, TargetError, Forgotten) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{error.filename or chosen.state_directory}: {error.strerror or error}") from None
    if arguments.json:
        print_json(_as_json(outcome))
    else:
        _print(outcome, ledger.catalog)
    return 0 if outcome.is_good else 1


def _end(_number: int, _frame: FrameType | None) -> None:
    """Leave by the context managers: conversions are cancelled, a transaction is aborted."""
    raise SystemExit(128 + signal.SIGTERM)


def publish(chosen: Settings, only: list[str], tells: Telling) -> tuple[Ledger, Outcome]:
    """Do a whole run. Raises CommandError, what `survey` and the targets raise, and OSError."""
    memory = Memory(Path(chosen.state_directory))
    memory.begin()
    memory.tell({})
    sandboxes, tree = opening.sandboxes(chosen), opening.sif_tree(chosen)
    found = sandboxes.begin() if sandboxes else ""
    if found:
        tells.tell(chosen.cvmfs_repository, found)
    if tree:
        tree.store.begin()
    ledger = Ledger(memory, memory.catalog(), time.time)
    ledger.take_in_begun()
    listed = survey(chosen, tells.looked)
    remember(chosen, listed)
    planned = plan.decide(listed, ledger.catalog, chosen, ledger.now)
    if only:
        planned = planned.only(only)
        _refuse_unknown(only, planned)
        ledger.save(plan.note_some(listed, only, ledger.catalog, ledger.now))
    else:
        listed_now = replace(ledger.catalog, authoritative=chosen.authoritative)
        ledger.save(plan.note(listed, planned, listed_now, ledger.now))
    tells.expect(len({one.name for one in planned.of(Verb.CONVERT)}))
    one = Run(
        settings=chosen,
        ledger=ledger,
        engine=opening.engine(chosen),
        pending=Pending(Path(chosen.work_directory)),
        publisher=Publisher(ledger, sandboxes, tree, tells.tell),
        retirement=Retirement(ledger, sandboxes, tree),
        requests=lambda action: opening.request(action, chosen),
        tell=tells.tell,
    )
    outcome = one.go(None if only else listed, planned)
    outcome.faults += [str(fault) for fault in listed.faults]
    return ledger, outcome


def _refuse_unknown(only: list[str], planned: plan.Plan) -> None:
    missing = set(only) - {one.name for one in planned.actions}
    if missing:
        raise CommandError(f"not listed, and not published: {', '.join(sorted(missing))}")


def _as_json(outcome: Outcome) -> dict[str, Any]:
    failed = [{"name": one.name, "why": one.why, "transient": one.transient} for one in outcome.failures]
    published = [{"name": name, "architectures": list(archs)} for name, archs in sorted(outcome.published.items())]
    return {"published": published, "failed": failed, "faults": outcome.faults}


def _print(outcome: Outcome, catalog: Catalog) -> None:
    rows = []
    for name, archs in sorted(outcome.published.items()):
        current = catalog.get(name).current
        sizes = ", ".join(human_bytes(current[arch].size_bytes) for arch in archs if arch in current)
        rows.append([name, "published", ", ".join(archs), sizes, ""])
    rows += [[one.name, "failed", "", "", one.why] for one in sorted(outcome.failures, key=lambda one: one.name)]
    if rows:
        print_table(["image", "state", "architectures", "SIF", "why"], rows)
    for fault in outcome.faults:
        sys.stderr.write(f"condor_image_sync: {fault}\n")
    states = Counter(image.state.value for image in catalog.images.values())
    counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    done = f"{len(outcome.published)} published in this run, {len({one.name for one in outcome.failures})} failed"
    sys.stdout.write(f"{done}; now {counts or 'nothing is published'}\n")
