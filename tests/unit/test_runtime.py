"""The container runtime, here shell scripts that end as they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_manager import runtime


def program(path: Path, script: str) -> str:
    """Make a program and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_the_runtime_is_ours_or_htcondors_or_the_first_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A knob that names nothing executable is passed over."""
    ours, condors = program(tmp_path / "ours", ":"), program(tmp_path / "condors", ":")
    apptainer, singularity = program(tmp_path / "a" / "apptainer", ":"), program(tmp_path / "b" / "singularity", ":")
    monkeypatch.setenv("PATH", f"{tmp_path}/b:{tmp_path}/a")
    assert runtime.find(ours, condors) == ours
    assert runtime.find("", condors) == condors
    assert runtime.find("/does/not/exist", condors) == condors
    assert runtime.find("", "/does/not/exist") == apptainer
    Path(apptainer).unlink()
    assert runtime.find("", "") == singularity
    monkeypatch.setenv("PATH", "/does/not/exist")
    assert runtime.find("", "") == ""


def test_without_a_runtime_nothing_can_be_run() -> None:
    """And the reason is told."""
    found = runtime.abilities("")
    assert (found.can_use_sif, found.can_use_sandbox) == (False, False)
    assert found.why_not == "no container runtime is installed"


GOOD = "case $2 in exec) exit 37 ;; *) exit 0 ;; esac"
BAD_IMAGE = "case $2 in exec) exit 37 ;; *) echo 'FATAL: bad superblock' >&2; exit 255 ;; esac"
SILENT = "case $2 in exec) exit 37 ;; *) exit 3 ;; esac"
CANNOT = "echo 'no user namespaces' >&2; exit 255"


@pytest.mark.parametrize(
    ("script", "why"),
    [(GOOD, ""), (BAD_IMAGE, "FATAL: bad superblock"), (SILENT, "exit status 3"), (CANNOT, "")],
    ids=["starts", "does not start", "says nothing", "cannot tell"],
)
def test_an_image_is_blamed_only_where_a_known_good_one_starts(tmp_path: Path, script: str, why: str) -> None:
    """Else it is this EP that cannot, or this user."""
    tester = runtime.Tester(program(tmp_path / "apptainer", script), str(tmp_path), str(tmp_path))
    assert tester.why_not("/cache/x/image") == why


def test_without_a_runtime_an_image_is_not_tested() -> None:
    """It is served, and the job's own starter will say."""
    assert runtime.Tester("", "", "/").why_not("/cache/x/image") == ""
    assert runtime.Tester("/does/not/exist", "", "/").why_not("/cache/x/image") == ""


def test_the_runtime_keeps_nothing_outside_of_our_root(tmp_path: Path) -> None:
    """$HOME is small and not ours, and the manager's secrets are not the image's."""
    script = f"env > {tmp_path}/seen; case $2 in exec) exit 37 ;; *) exit 0 ;; esac"
    runtime.Tester(program(tmp_path / "apptainer", script), str(tmp_path), "/our/root").why_not("/cache/x/image")
    seen = dict(line.partition("=")[::2] for line in (tmp_path / "seen").read_text().splitlines())
    kept = {name for name, value in seen.items() if value == "/our/root"}
    assert {"HOME", "APPTAINER_CACHEDIR", "APPTAINER_TMPDIR", "SINGULARITY_CACHEDIR", "SINGULARITY_TMPDIR"} <= kept
    assert not any(name.startswith(("CONDOR", "_CONDOR")) for name in seen)
