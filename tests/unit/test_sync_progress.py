"""What a run tells while it runs: lines that come and go on a terminal, a line for each event in a log."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

PROGRAM = """
from sync.commands.progress import telling
with telling() as tells:
    tells.looked(2, 2)
    tells.expect(2)
    tells.tell("htc/rocky:9", "unpacking")
    tells.tell("htc/rocky:9", "published (x86_64)")
    tells.tell("htc/bad:1", "failed: its layer\\x1b[2J is another")
print("the answer")
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "120"}


def test_a_log_has_a_line_for_each_event_and_stdout_the_answer_alone() -> None:
    """What comes from others is on one line, without control characters."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout == "the answer\n"
    lines = [re.sub(r"^\S+ \S+ ", "", line) for line in done.stderr.splitlines()]
    assert lines == [
        "the list: 2 of 2 names looked at",
        "2 image(s) to convert",
        "htc/rocky:9: unpacking",
        "htc/rocky:9: published (x86_64)",
        "htc/bad:1: failed: its layer?[2J is another",
    ]


def test_a_terminal_shows_each_image_under_way_and_in_the_end_the_answer() -> None:
    """And no control character of others reaches it."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, stderr=theirs, env=ENVIRONMENT) as process:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # the end of a terminal
            while piece := os.read(ours, 65536):
                said += piece
    os.close(ours)
    assert process.returncode == 0
    text = said.decode()
    assert "htc/rocky:9" in text
    assert "images" in text
    assert "2/2" in text
    assert "\x1b[2J" not in text
    assert text.rstrip().endswith("the answer")
