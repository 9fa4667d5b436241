"""A conversion as a process: `python -m sync.convert_job REQUEST DIRECTORY BLOBS`.

REQUEST is a file, or `-` for the first line of stdin, whose end then is that of whoever started this: it takes the
process along. Prints a line of JSON for each step, and the result as the last one. The exit status is 0 if there is a
result that trying again does not change, 75 if trying again may help.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from sync.convert import Place, convert
from sync.request import Request, result_to_json
from sync.values import Failure

EXIT_TRANSIENT: Final = 75


def main(argv: list[str]) -> int:
    """Convert; return the exit status."""
    where, directory, blobs = argv
    if where == "-":
        text = sys.stdin.readline()
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    else:
        text = Path(where).read_text(encoding="utf-8")
    request = Request.from_json(text)
    result = convert(request, Place(Path(directory), Path(blobs)), _report)
    _print(result_to_json(result))
    return EXIT_TRANSIENT if isinstance(result, Failure) and result.transient else 0


def _report(what: str) -> None:
    _print(json.dumps({"step": what}))


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _end_with_stdin() -> None:
    """End this process and its children when stdin does: nobody wants the result any more."""
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
