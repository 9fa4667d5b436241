"""What the doctor says of an EP on which one thing is wrong, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cache_manager import host
from tests.contract.conftest import StartSite
from tests.contract.harness import HOOKS, Site

SUBJECTS = {
    "knobs",
    "hook keyword",
    "displaced hook",
    "hook",
    "manager",
    "socket",
    "runtime",
    "runtime limits",
    "user namespaces",
    "set-uid starter",
    "/dev/fuse",
    "squashfuse",
    "cache",
    "file system",
    "disk",
    "CVMFS",
    "SIF sources",
}
"""What has a line on every EP that has a cache."""

INSTALLED = {
    "STARTER_JOB_HOOK_KEYWORD": "IMAGE_CACHE",
    "IMAGE_CACHE_HOOK_PREPARE_JOB": str(HOOKS / "prepare-job"),
    "DAEMON_LIST": "MASTER STARTD IMAGE_CACHE_MANAGER",
    "START": "MY.ImageCacheHealthy =?= true",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: knobs on top of a good installation, or something done to the site."""

    subject: str
    level: str
    said: str
    knobs: tuple[tuple[str, str], ...] = ()
    done: Callable[[Site], object] | None = None


def everybody_may_write(site: Site) -> None:
    """Open the root to others."""
    site.root.chmod(0o777)


def unmount(site: Site) -> None:
    """Have an empty directory where the repository is mounted."""
    for path in sorted(site.cvmfs.top.rglob("*"), reverse=True):
        path.rmdir()


def close_socket(site: Site) -> None:
    """Let only the manager's user connect."""
    site.socket.chmod(0o600)


FAULTS = (
    Fault("knobs", "warning", "unknown: IMAGE_CACHE_MAX_BYTE", (("IMAGE_CACHE_MAX_BYTE", "1 GB"),)),
    Fault("hook keyword", "problem", "the hook does not run", (("STARTER_JOB_HOOK_KEYWORD", "OSPOOL"),)),
    Fault("displaced hook", "warning", "OSPOOL_HOOK_PREPARE_JOB = /x", (("OSPOOL_HOOK_PREPARE_JOB", "/x"),)),
    Fault("displaced hook", "problem", "cannot be run", (("IMAGE_CACHE_NEXT_HOOK", "/nonexistent"),)),
    Fault("displaced hook", "ok", "runs after ours", (("IMAGE_CACHE_NEXT_HOOK", "/bin/true"),)),
    Fault("hook", "problem", "No such file", (("IMAGE_CACHE_HOOK_PREPARE_JOB", "/nonexistent/prepare-job"),)),
    Fault("manager", "problem", "is not in DAEMON_LIST", (("DAEMON_LIST", "MASTER STARTD"),)),
    Fault("manager", "problem", "", done=Site.stop),
    Fault("START", "warning", "does not look at ImageCacheHealthy", (("START", "true"),)),
    Fault("default image", "warning", "two defaults", (("USE_DEFAULT_CONTAINER", "true"),)),
    Fault("PIPE_BUFFER_MAX", "warning", "10240 bytes", (("PIPE_BUFFER_MAX", "10240"),)),
    Fault("socket", "problem", "(mode 600)", done=close_socket),
    Fault("socket", "problem", "told another one", (("IMAGE_CACHE_HOOK_PREPARE_JOB_ARGS", "--socket /run/other"),)),
    Fault("cache", "problem", "writable by", done=everybody_may_write),
    Fault("disk", "warning", "the cap cannot be reached", (("IMAGE_CACHE_MAX_BYTES", "900 TB"),)),
    Fault("CVMFS", "problem", "the directory is empty", done=unmount),
    Fault("SIF source", "problem", "refused", (("IMAGE_CACHE_SIF_SOURCES", "http://127.0.0.1:9/v2"),)),
)


def diagnosis(site: Site) -> tuple[int, list[dict[str, str]]]:
    """Return the doctor's exit status and lines."""
    done = site.command("doctor", "--json")
    lines: list[dict[str, str]] = json.loads(done.stdout)
    return done.returncode, lines


def test_a_good_installation_has_a_line_for_each_thing_and_no_problem(make_site: StartSite) -> None:
    """Also for what is well: an admin sees what was looked at."""
    site = make_site(**INSTALLED)
    (site.cvmfs.top / "htc").mkdir()
    status, lines = diagnosis(site.start())
    assert {line["subject"] for line in lines} >= SUBJECTS
    bad = [
        line for line in lines if line["level"] == "problem" and line["subject"] not in {"runtime", "user namespaces"}
    ]
    assert bad == []  # this machine may have no runtime, which is not the installation's fault
    assert status == (1 if any(line["level"] == "problem" for line in lines) else 0)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.subject}: {fault.said}")
def test_what_is_wrong_is_named_with_its_remedy(make_site: StartSite, fault: Fault) -> None:
    """A line of its own, as bad as it is; a problem makes the command fail."""
    site = make_site(**INSTALLED)
    (site.cvmfs.top / "htc").mkdir()
    site.start()
    site.configure(**dict(fault.knobs))
    if fault.done:
        fault.done(site)
    status, lines = diagnosis(site)
    found = [line for line in lines if (line["subject"], line["level"]) == (fault.subject, fault.level)]
    assert any(fault.said in line["words"] for line in found), lines
    assert fault.level == "ok" or all(line["remedy"] for line in found)
    assert status == 1 or fault.level != "problem"


def test_limits_of_the_runtimes_configuration_are_told(tmp_path: Path) -> None:
    """A set-uid starter refuses images of other owners then, which looks like a bad image."""
    configuration = tmp_path / "apptainer.conf"
    text = "# limit container owners = x\nlimit container owners = root\nlimit container paths = NULL\n"
    configuration.write_text(text, encoding="ascii")
    assert host.limits((str(configuration), "/nonexistent")) == [f"{configuration}: limit container owners = root"]
