"""HTCondor's configuration, read in a child that prints it as JSON.

`htcondor2.reload_config()` ends the whole process on a syntax error, and so does the import: a manager must outlive
an admin's typing error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from cache_manager.settings import knob_names

CONDOR_KNOBS: Final = (
    "LOCAL_DIR",
    "LOG",
    "EXECUTE",
    "FILETRANSFER_PLUGINS",
    "LIBEXEC",
    "SINGULARITY",
    "SINGULARITY_EXTRA_ARGUMENTS",
    "SINGULARITY_RUN_TEST_BEFORE_JOB",
    "STARTER_JOB_HOOK_KEYWORD",
    "START",
    "MASTER",
    "STARTER",
    "STARTER_LIST",
    "PIPE_BUFFER_MAX",
    "IMAGE_CACHE_MANAGER",
    "IMAGE_CACHE_MANAGER_USERID",
    "CONDOR_IDS",
    "IMAGE_CACHE_HOOK_PREPARE_JOB",
    "IMAGE_CACHE_HOOK_PREPARE_JOB_ARGS",
    "DAEMON_LIST",
    "STARTER_DEFAULT_JOB_HOOK_KEYWORD",
    "USE_DEFAULT_CONTAINER",
)

LIMIT_S: Final = 30.0

_CHILD = """
import json, sys
import htcondor2
names = set(json.load(sys.stdin))
known = htcondor2.param.keys()
names |= {name for name in known if name.startswith("IMAGE_CACHE_") or name.endswith("_HOOK_PREPARE_JOB")}
print(json.dumps({name: str(htcondor2.param[name]) for name in sorted(names) if name in htcondor2.param}))
"""


class ConfigurationError(Exception):
    """HTCondor's configuration cannot be read; the text says what HTCondor says."""


def read_knobs() -> dict[str, str]:
    """Return our knobs, all prepare-job hooks, and the few of HTCondor's knobs that matter, macros expanded.

    Raises ConfigurationError.
    """
    named = os.environ.get("CONDOR_CONFIG", "")
    if named and named != "ONLY_ENV" and not Path(named).exists():  # htcondor2 would go on with all defaults
        raise ConfigurationError(f"HTCondor configuration: CONDOR_CONFIG names {named}, which does not exist")
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-c", _CHILD],
            input=json.dumps([*CONDOR_KNOBS, *knob_names()]),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"HTCondor configuration: not read in {LIMIT_S:.0f} s") from None
    try:
        values: dict[str, str] = json.loads(child.stdout)
    except ValueError:
        said = " ".join(child.stderr.split())[-400:] or f"exit status {child.returncode}"
        raise ConfigurationError(f"HTCondor configuration: {said}") from None
    return values
