"""condor_image_cache doctor."""

from __future__ import annotations

import argparse
from typing import Final

from cache_manager.checkup import Level, examine
from cache_manager.commands.common import CommandError, add_json, complain, print_json, print_table, settings_and_knobs

HELP: Final = "Check what the cache needs on this EP; each line ok, warning or problem. Exit status 1 with a problem."
EXAMPLE: Final = "condor_image_cache doctor"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the checks."""
    try:
        settings, knobs = settings_and_knobs()
    except CommandError as error:
        return complain(error)
    checks = list(examine(settings, knobs))
    if arguments.json:
        print_json(
            [
                {"subject": one.subject, "level": one.level.value, "words": one.words, "remedy": one.remedy}
                for one in checks
            ]
        )
    else:
        rows = [(one.level.value, one.subject, one.words, one.remedy) for one in checks]
        print_table(("", "what", "found", "remedy"), rows)
    return 1 if any(one.level is Level.PROBLEM for one in checks) else 0
