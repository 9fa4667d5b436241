"""A conversion as a process.

`python -m sync.convert_job - DIRECTORY BLOBS` reads the request from the first line of stdin; the end of stdin is that
of whoever started this, and takes the process along. `python -m sync.convert_job FILE` is a job: it works in its own
directory, and leaves `image.sif` there, empty if there is none.

Each step is printed as a line of JSON, and the result as the last one. The exit status is 0 if there is a result that
trying again does not change, 75 if trying again may help.
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
from sync.values import Converted, Failure

EXIT_TRANSIENT: Final = 75
IMAGE: Final = "image.sif"
"""What a job leaves."""


def main(argv: list[str]) -> int:
    """Convert; return the exit status."""
    if argv[0] == "-":
        text = sys.stdin.readline()
        threading.Thread(target=_end_with_stdin, daemon=True).start()
        result = convert(Request.from_json(text), Place(Path(argv[1]), Path(argv[2])), _report)
    else:
        result = _job(Request.from_json(Path(argv[0]).read_text(encoding="utf-8")))
    _print(result_to_json(result))
    return EXIT_TRANSIENT if isinstance(result, Failure) and result.transient else 0


def _job(request: Request) -> Converted | Failure:
    image = Path(IMAGE)
    image.touch()  # first of all: HTCondor holds a job that lacks what it is to bring back
    if request.access.credentials_file:
        Path(request.access.credentials_file).chmod(0o600)  # the file transfer does not keep modes
    result = convert(request, Place(Path("converted"), Path("blobs")), _report)
    if isinstance(result, Converted):
        Path(result.sif_path).replace(image)
    return result


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
