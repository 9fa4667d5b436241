"""The launcher and the script: whatever breaks, and whoever ends them, HTCondor gets one block and exit status 0."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.block import Answer
from tests.contract.conftest import StartSite
from tests.contract.doubles import cvmfs_ad, job_ad
from tests.contract.fake_manager import SILENT, FakeManager
from tests.contract.harness import HOOKS, Site
from tests.contract.processes import PATIENCE_S, Hook, command_line
from tests.pool.processes import poll

INTERPRETERS = (
    ("exits with 1", "exit 1"),
    ("exits with 3, after some words", "echo hello; exit 3"),
    ("dies by SIGSEGV", "kill -SEGV $$"),
    ("is killed", "kill -KILL $$"),
    ("says nothing and is content", "exit 0"),
    ("says something else and is content", "echo hello"),
)

DAMAGES = (
    ("a syntax error", "def broken(:\n"),
    ("a module that is not there", "import module_that_is_not_there\n"),
    ("a NUL", "\0"),
    ("an exit with 0", "import sys\nsys.exit(0)\n"),
    ("an exit with 1", "import sys\nsys.exit(1)\n"),
)

SHADOWS = ("posix", "_signal", "_socket", "select", "time", "degraded", "sitecustomize", "encodings", "os")


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[FakeManager]:
    """Listen as a manager that never answers."""
    with FakeManager(tmp_path / "fake", b"", SILENT) as fake:
        yield fake


@pytest.fixture
def waiting(make_site: StartSite, silent: FakeManager) -> Hook:
    """Start a hook that waits for it."""
    site = make_site()
    hook = site.start_hook(cvmfs_ad("htc/rocky:9"), socket=silent.path)
    site.wait_for(lambda: silent.asked, "the hook's request")
    return hook


@pytest.mark.parametrize(("name", "script"), INTERPRETERS, ids=[row[0] for row in INTERPRETERS])
def test_an_interpreter_that_fails_is_answered_for(shared_site: Site, tmp_path: Path, name: str, script: str) -> None:
    """Without a block HTCondor takes the exit status: 1 holds the job, 0 runs it without its image."""
    interpreter = tmp_path / "interpreter"
    interpreter.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    interpreter.chmod(0o755)
    answer = shared_site.run_hook(cvmfs_ad("htc/rocky:9"), python=str(interpreter))
    assert answer.code == 399, name
    assert str(interpreter) in answer.message


@pytest.mark.parametrize("python", ["/nonexistent/python3", "", "/etc/passwd"])
def test_a_missing_interpreter_is_replaced_or_answered_for(shared_site: Site, python: str) -> None:
    """The launcher knows where others are; where there is none, 399."""
    answer = shared_site.run_hook(job_ad(), python=python)
    assert answer.code == (
        0 if any(Path(one).exists() for one in ("/usr/bin/python3", "/usr/local/bin/python3")) else 399
    )


def test_an_option_without_its_value_is_answered_for(shared_site: Site) -> None:
    """An empty macro in the configuration must not hold every job."""
    argv = [str(HOOKS / "prepare-job"), "--python"]
    hook = shared_site.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, blocked_signals=True)
    stdout, stderr = hook.communicate(timeout=PATIENCE_S)
    assert Answer.of(stdout, stderr, hook.returncode, 0).code >= 300


@pytest.mark.parametrize(("name", "text"), DAMAGES, ids=[row[0] for row in DAMAGES])
def test_a_broken_script_is_answered_for(shared_site: Site, tmp_path: Path, name: str, text: str) -> None:
    """An upgrade that went wrong sends jobs back to idle: it does not hold them, nor run them without their image."""
    hooks = shutil.copytree(HOOKS, tmp_path / "hooks")
    script = hooks / "prepare_job.py"
    script.write_text(text + script.read_text(encoding="utf-8"), encoding="utf-8")
    assert shared_site.run_hook(cvmfs_ad("htc/rocky:9"), hooks=hooks).code == 399, name


@pytest.mark.parametrize("left", [0, 1000, 6000])
def test_a_script_that_was_written_in_part_is_answered_for(shared_site: Site, tmp_path: Path, left: int) -> None:
    """The disk was full when it was installed."""
    hooks = shutil.copytree(HOOKS, tmp_path / "hooks")
    os.truncate(hooks / "prepare_job.py", left)
    assert shared_site.run_hook(cvmfs_ad("htc/rocky:9"), hooks=hooks).code == 399


def test_a_script_that_is_missing_is_answered_for(shared_site: Site, tmp_path: Path) -> None:
    """The launcher alone was installed."""
    (tmp_path / "hooks").mkdir()
    shutil.copy(HOOKS / "prepare-job", tmp_path / "hooks")
    assert shared_site.run_hook(cvmfs_ad("htc/rocky:9"), hooks=tmp_path / "hooks").code == 399


def test_a_broken_degraded_module_is_answered_for(make_site: StartSite) -> None:
    """It is imported only when there is no manager."""
    site = make_site()
    hooks = shutil.copytree(HOOKS, site.directory / "hooks")
    (hooks / "degraded.py").write_text("def broken(:\n", encoding="ascii")
    for launcher in (True, False):
        assert site.run_hook(cvmfs_ad("htc/rocky:9"), hooks=hooks, launcher=launcher).code == 399


@pytest.mark.parametrize("with_manager", [True, False])
def test_the_jobs_directory_and_environment_inject_no_modules(make_site: StartSite, *, with_manager: bool) -> None:
    """The hook runs where the job's files lie."""
    site = make_site()
    if with_manager:
        site.start()
    for name in SHADOWS:
        (site.scratch / f"{name}.py").write_text("raise SystemExit(7)\n", encoding="ascii")
    poisoned = {"PYTHONPATH": str(site.scratch), "PYTHONHOME": str(site.scratch), "PYTHONSTARTUP": "x.py"}
    for launcher in (True, False):
        assert site.run_hook(job_ad(), env=poisoned, launcher=launcher).is_untouched


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL])
def test_a_killed_interpreter_is_answered_for(waiting: Hook, number: signal.Signals) -> None:
    """Whoever kills it."""
    os.kill(waiting.python, number)
    assert waiting.finish().code == 399


def test_a_signal_to_the_launcher_is_answered_after_the_hook(make_site: StartSite, silent: FakeManager) -> None:
    """One block, not two."""
    site = make_site()
    hook = site.start_hook(job_ad(), "--deadline", "0.5s", socket=silent.path, blocked_signals=False)
    site.wait_for(lambda: silent.asked, "the hook's request")
    hook.process.send_signal(signal.SIGTERM)
    assert hook.finish().code == 460


def test_a_hook_whose_launcher_was_killed_ends_by_itself(waiting: Hook) -> None:
    """HTCondor kills the hook of a job that was removed: nothing may stay and hold a connection."""
    python = waiting.python
    waiting.process.kill()
    poll(lambda: b"prepare_job.py" not in command_line(python), "the end of the interpreter", 10)


def test_an_ad_that_never_ends_is_waited_for_until_the_deadline(shared_site: Site) -> None:
    """Standard input stays open."""
    assert shared_site.run_hook(job_ad(), "--deadline", "0.5s", ends=False).code == 460


@pytest.mark.parametrize("deadline", ["", "0", "-1", "nan", "inf", "soon", "1e99", "20m", "5h", "1200"])
def test_a_deadline_that_is_none_is_the_usual_one(shared_site: Site, deadline: str) -> None:
    """No value of the knob may end the hook at once."""
    assert shared_site.run_hook(job_ad(), f"--deadline={deadline}").is_untouched


def test_options_of_a_newer_config_are_ignored(shared_site: Site) -> None:
    """The configuration may be newer than the hook."""
    assert shared_site.run_hook(job_ad(), "--new", "--newer=x", "word").is_untouched


def test_the_answer_does_not_depend_on_the_path(shared_site: Site) -> None:
    """condor_master's PATH may hold nothing that the launcher would need."""
    for path in ("", "/nonexistent"):
        assert shared_site.run_hook(job_ad(), env={"PATH": path}).is_untouched
        assert shared_site.run_hook(job_ad(), env={"PATH": path}, python="/bin/false").code == 399
