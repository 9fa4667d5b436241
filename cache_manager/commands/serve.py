"""condor_image_cache serve."""

from __future__ import annotations

import argparse
import asyncio
import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import Final, TextIO

from cache_manager import processes
from cache_manager.commands.common import CommandError, complain, settings_and_knobs
from cache_manager.manager import ManagerError, serve
from cache_manager.ownership import Trust, open_log
from cache_manager.settings import Settings

HELP: Final = (
    "Run the cache manager in the foreground; under condor_master in real life. SIGTERM and SIGQUIT end it,"
    " SIGHUP reads the configuration again."
)
EXAMPLE: Final = "CONDOR_CONFIG=/etc/condor/condor_config condor_image_cache serve --stderr"

LOG_BYTES: Final = 10_000_000
LOG_FILES: Final = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("--stderr", action="store_true", help="log to standard error instead of IMAGE_CACHE_LOG")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal."""
    processes.protect()
    try:
        settings, knobs = settings_and_knobs()
        _log_to(settings, Trust.of(os.geteuid(), knobs), on_stderr=arguments.stderr)
    except (CommandError, OSError) as error:
        return complain(error)
    try:
        asyncio.run(serve(settings, knobs))
    except ManagerError as error:
        logging.getLogger(__name__).error("%s", error)  # noqa: TRY400 - it says it all
        return complain(error)
    logging.shutdown()
    os._exit(0)  # threads may still wait for a network: nobody waits for them


class _Log(logging.handlers.RotatingFileHandler):
    """A log that nobody else can lead to another file."""

    def __init__(self, path: str, trust: Trust) -> None:
        self._trust = trust
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES)

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802, ARG002 - the base class's names
        """Whether it is full. The base class asks the disk three times, and puts the line together twice."""
        return self.stream is not None and os.fstat(self.stream.fileno()).st_size >= LOG_BYTES

    def rotate(self, source: str, dest: str) -> None:
        """Make place for new lines: in HTCondor's directory the manager's user may not rename its own log.

        Then the older half of it goes.
        """
        try:
            Path(source).rename(dest)
        except PermissionError:
            with Path(source).open("r+b") as file:
                file.seek(LOG_BYTES // 2)
                newer = file.read().partition(b"\n")[2]
                file.seek(0)
                file.write(newer)
                file.truncate()

    def _open(self) -> TextIO:  # type: ignore[override] # the base class says which wrapper
        return os.fdopen(open_log(self.baseFilename, self._trust), "a", encoding="utf-8", errors="backslashreplace")


def _log_to(settings: Settings, trust: Trust, *, on_stderr: bool) -> None:
    handler: logging.Handler = logging.StreamHandler(sys.stderr) if on_stderr else _Log(settings.log, trust)
    logging.basicConfig(
        level=logging.INFO,
        handlers=[handler],
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
    )
    logging.getLogger("urllib3").setLevel(logging.ERROR)
