"""The site's former hook runs after ours: its attributes are merged, its refusal counts, its faults hold no job."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

import classad2
import pytest

from tests.contract.block import Literal
from tests.contract.doubles import cvmfs_ad, job_ad
from tests.contract.harness import Site

ROCKY = cvmfs_ad("htc/rocky:9")


@dataclass(frozen=True)
class Case:
    """A former hook, and what the job gets."""

    name: str
    script: str
    code: int
    says: str = ""


CASES = (
    Case("says nothing", "exit 0", 0),
    Case("adds an attribute", "echo 'Extra = 7'", 0),
    Case("adds an attribute, with CRLF", "printf 'Extra = 7\\r\\n'", 0),
    Case("has no newline at its end", "printf 'Extra = 7'", 0),
    Case("does not read its input", "exec <&-; echo 'Extra = 7'", 0),
    Case("refuses by its status", "echo 'HookStatusCode = 150'; echo 'HookStatusMessage = \"no\"'", 150, "no"),
    Case("refuses for this EP", "echo 'HookStatusCode = 350'", 350, "next hook"),
    Case("refuses by its exit status", "exit 7", 7, "next hook"),
    Case("refuses after words of its own", "echo 'Reason = not allowed here!'; exit 7", 7),
    Case("refuses after a line that is none", "echo 'x = ('; echo 'HookStatusCode = 150'", 150),
    Case("says its status as a text", "echo 'HookStatusCode = \"150\"'", 0),
    Case("says a negative status", "echo 'HookStatusCode = -5'", 0),
    Case("says something else", "echo hello world", 0),
    Case("ends by a signal", "kill -SEGV $$", 399, "signal 11"),
    Case("says more than HTCondor takes", "head -c 100000 /dev/zero | tr '\\0' x", 0),
    Case("never ends", "exec tail -f /dev/null", 460, "deadline"),
    Case("closes its output and never ends", "exec >&-; exec tail -f /dev/null 1>&2 2>/dev/null", 460, "deadline"),
)


def block_as_condor_reads(stdout: bytes) -> dict[str, Literal]:
    """Return what HTCondor merges: it stops at the first line that is no attribute."""
    read: dict[str, Literal] = {}
    for line in stdout.decode().splitlines():
        try:
            ad = classad2.parseOne(line + "\n", classad2.ParserType.Old)
        except classad2.ClassAdException:
            return read
        if len(ad) != 1:
            return read
        read |= {name: ad[name] for name in ad}
    return read


@pytest.fixture(scope="module")
def rocky(shared_site: Site) -> Path:
    """Publish an image on CVMFS."""
    return shared_site.cvmfs.publish("htc/rocky:9")


def former_hook(directory: Path, script: str) -> Path:
    """Write a hook."""
    path = directory / "former"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_former_hook_has_its_say(shared_site: Site, rocky: Path, tmp_path: Path, case: Case) -> None:
    """As HTCondor would have given it to it."""
    hook = former_hook(tmp_path, case.script)
    running = shared_site.start_hook(
        ROCKY, "--deadline", "0.7s" if case.code == 460 else "10s", "--next-hook", str(hook)
    )
    stdout, stderr, status = running.raw()
    assert status == 0, stderr
    assert len(stdout) < 10_000
    assert running.left_behind() == []
    read = block_as_condor_reads(stdout)
    assert len(re.findall(rb"(?mi)^HookStatusCode *=", stdout)) == 1, stdout
    assert read["HookStatusCode"] == case.code, stdout
    assert case.says in str(read.get("HookStatusMessage", ""))
    if case.code == 0:
        assert read["ContainerImage"] == str(rocky)
        assert read.get("Extra", 7) == 7
        assert ("Extra" in read) == ("Extra" in case.script)


@pytest.mark.usefixtures("rocky")
def test_the_former_hook_sees_what_htcondor_would_show_it(shared_site: Site, tmp_path: Path) -> None:
    """The ad with our changes, the environment, the job's directory; and signals that work."""
    seen = tmp_path / "seen"
    script = (
        f"cat >{seen}; echo \"$CONDOR_STARTER_PID $PWD\" >>{seen}; grep -E 'SigBlk|SigIgn' /proc/self/status >>{seen}"
    )
    hook = former_hook(tmp_path, script)
    answer = shared_site.run_hook(ROCKY, f"--next-hook={hook}", env={"CONDOR_STARTER_PID": "77"}, cwd=tmp_path)
    text = seen.read_text(encoding="utf-8")
    assert answer.code == 0
    assert f'ContainerImage = "{answer.image}"' in text
    assert "WantSandboxImage = true" in text
    assert text.startswith(ROCKY)
    assert f"77 {tmp_path}" in text
    ignored = re.search(r"SigIgn:\t([0-9a-f]{16})", text)
    assert ignored, text
    python_ignores = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert not int(ignored[1], 16) & python_ignores


@pytest.mark.parametrize("path", ["/nonexistent/hook", "/etc/passwd", "/etc"])
def test_a_former_hook_that_cannot_be_run_holds_no_job(shared_site: Site, path: str) -> None:
    """It is the EP's fault."""
    assert shared_site.run_hook(job_ad(), "--next-hook", path).code == 399


def test_a_large_ad_passes_through_the_former_hook(shared_site: Site, tmp_path: Path) -> None:
    """Though it answers before it has read, and more than a pipe holds."""
    hook = former_hook(tmp_path, "echo 'Extra = 7'; cat")
    running = shared_site.start_hook(job_ad(f'Large = "{"x" * 200_000}"'), "--next-hook", str(hook))
    stdout, _, status = running.raw()
    assert status == 0
    assert block_as_condor_reads(stdout)["HookStatusCode"] in {0, 399}
    assert len(stdout) < 10_000


@pytest.mark.usefixtures("rocky")
def test_the_former_hook_is_not_asked_about_a_job_that_does_not_run(shared_site: Site, tmp_path: Path) -> None:
    """Our refusal is the answer."""
    hook = former_hook(tmp_path, f"touch {tmp_path}/asked; echo 'HookStatusCode = 0'")
    assert shared_site.run_hook(cvmfs_ad("htc/nothing:1"), f"--next-hook={hook}").code == 120
    assert not (tmp_path / "asked").exists()
