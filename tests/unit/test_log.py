"""The manager's log in HTCondor's directory, where its user may write its own file and rename nothing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from tests.unit.builders import CHECKOUT

FULL = """
import logging, os, sys
from cache_manager.commands import serve
from cache_manager.ownership import Trust
serve.LOG_BYTES = 2000
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
log = serve._Log(sys.argv[1], Trust.of(os.geteuid(), {}))
for number in range(200):
    log.emit(logging.makeLogRecord({"msg": f"line {number:04d} of many, as long as such a line is"}))
"""


def test_a_full_log_makes_place_where_it_cannot_be_renamed(tmp_path: Path) -> None:
    """The newest lines are there, whole, and it does not grow on."""
    directory = tmp_path / "log"
    directory.mkdir()
    log = directory / "ImageCacheLog"
    log.touch()
    if os.geteuid() == 0:
        os.chown(log, 65534, 65534)
    directory.chmod(0o555)
    for above in tmp_path.parents:
        if above.owner() == tmp_path.owner() and above != Path("/") and not above.stat().st_mode & stat.S_IXOTH:
            above.chmod(above.stat().st_mode | 0o111)
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(log)], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    lines = log.read_text().splitlines()
    assert lines[-1] == "line 0199 of many, as long as such a line is"
    assert all(line.startswith("line ") and line.endswith(" is") for line in lines)
    assert log.stat().st_size <= 2000
    assert [path.name for path in directory.iterdir()] == ["ImageCacheLog"]
    directory.chmod(0o755)
