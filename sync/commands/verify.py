"""condor_image_sync verify."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sync import options, verdict
from sync.changed import GitError, changed_lines
from sync.commands.common import CONFIG_VARIABLE, CommandError, add_json, print_json, settings
from sync.imageline import Entry
from sync.imagelist import MAX_BYTES, ImageList
from sync.resolve import Resolver, connect
from sync.settings import Settings
from sync.values import Failure, Resolved
from sync.verdict import Opinion, Verdict

SAMPLE: Final = 3
"""So many of a pattern's tags are looked at: each costs a registry's patience."""

HELP: Final = (
    "Check a list of images, or with --base only the lines that a pull request changes: grammar, existence, access"
    " without a password, architecture, size, and how many tags a pattern stands for. Prints a Markdown table, also"
    " into $GITHUB_STEP_SUMMARY. Exit status 1 if an image cannot be published, or could not be looked at."
)
EXAMPLE: Final = "condor_image_sync verify --base origin/main images.txt"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the list")
    parser.add_argument("--base", metavar="REV", help="check what is changed since the branch left this revision (git)")
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=os.environ.get(CONFIG_VARIABLE, ""),
        help=f"the publisher's configuration, for its limits; default: ${CONFIG_VARIABLE}, else the defaults of each",
    )
    parser.add_argument(
        "--architectures",
        metavar="NAMES",
        type=_as_argument(lambda text: options.architectures(text.replace(",", " "))),
        help="what an image has to be for, one of them: x86_64,aarch64",
    )
    parser.add_argument(
        "--size-limit", metavar="SIZE", type=_as_argument(options.room), help="compressed size of an image: 10GB"
    )
    add_json(parser)


def _as_argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:  # noqa: ANN401 - what it reads
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def run(arguments: argparse.Namespace) -> int:
    """Check, and print the table."""
    chosen = _limits(arguments)
    images = _list(arguments.file)
    lines = None
    if arguments.base is not None:
        try:
            lines = changed_lines(arguments.file, arguments.base)
        except GitError as error:
            raise CommandError(f"{arguments.file}: {error}", 2) from None
    faults, entries = verdict.touched(images, lines)
    verdicts = [verdict.of_fault(one) for one in faults]
    verdicts += _checked(images, entries, chosen)
    table = verdict.markdown(verdicts, len(images.faults) - len(faults))
    _summarise(table)
    if arguments.json:
        print_json(
            [{"line": one.line, "image": one.image, "is": one.opinion.value, "what": one.what} for one in verdicts]
        )
    else:
        sys.stdout.write(table)
    return 0 if all(one.opinion is Opinion.OK for one in verdicts) else 1


def _limits(arguments: argparse.Namespace) -> Settings:
    base = settings(arguments) if arguments.config else Settings()
    return replace(
        base,
        architectures=arguments.architectures or base.architectures,
        size_limit_bytes=arguments.size_limit or base.size_limit_bytes,
    )


def _list(file: Path) -> ImageList:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", 2) from None
    if len(raw) > MAX_BYTES:
        raise CommandError(f"{file}: is too large for a list (at most {MAX_BYTES} bytes)", 2)
    return ImageList.parse(raw)


def _checked(images: ImageList, entries: list[Entry], chosen: Settings) -> Iterator[Verdict]:
    """Yield what is found out of each entry, asking as somebody without any password."""
    client = connect(chosen)
    try:
        resolver = Resolver(client, chosen)
        others = [one for one in images.entries if not one.is_glob]
        expansion = resolver.expand([*others, *(one for one in entries if one.is_glob)])
        tags = {glob: [one for one in expansion.entries if one.line == glob.line] for glob in entries if glob.is_glob}
        wanted = [one for one in entries if not one.is_glob]
        wanted += [one for mine in tags.values() for one in mine[-SAMPLE:]]
        outcomes = dict(resolver.each(wanted, resolver.outcome))
    finally:
        client.close()
    for entry in entries:
        failure = expansion.failures.get(entry.name) if entry.is_glob else None
        yield _one(entry, failure, tags.get(entry, []), outcomes)


def _one(
    entry: Entry, failure: Failure | None, tags: list[Entry], outcomes: dict[Entry, Resolved | Failure]
) -> Verdict:
    if failure:
        return verdict.of_failure(entry, failure)
    if entry.is_glob:
        looked = [outcomes[one] for one in tags[-SAMPLE:]]
        if not looked:
            return Verdict(entry.line, entry.source, Opinion.OK, "its tags are all listed by lines of their own")
        return verdict.of_glob(entry, len(tags), looked)
    found = outcomes[entry]
    return verdict.of_failure(entry, found) if isinstance(found, Failure) else verdict.of_image(entry, found)


def _summarise(table: str) -> None:
    """Add the table to the page of the workflow's run, where there is one."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(f"{table}\n")
