"""The container runtime, here shell scripts that end as they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_manager import runtime
from cache_manager.runtime import RETRY_S, Runtime


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
    found = runtime.assumed("")
    assert (found.can_use_sif, found.can_use_sandbox) == (False, False)
    assert found.why_not == "no container runtime is installed"


def test_of_htcondors_arguments_only_what_decides_is_taken_along() -> None:
    """A bind that is not there would fail the probe."""
    assert runtime.telling_options('"--userns --bind /cvmfs"') == ("--userns",)
    assert runtime.telling_options("-u --nv") == ("-u",)
    assert runtime.telling_options("") == ()


GOOD = "case $2 in exec) exit 37 ;; *) exit 0 ;; esac"
BAD_IMAGE = "case $2 in exec) exit 37 ;; *) echo 'FATAL: bad superblock' >&2; exit 255 ;; esac"
SILENT = "case $2 in exec) exit 37 ;; *) exit 3 ;; esac"
CANNOT = "echo 'no user namespaces' >&2; exit 255"
SIFS_UNPACKED = (
    "[ $2 = exec ] || exit 9; case $4 in *.sif) echo 'Converting SIF to Temporary Sandbox' >&2 ;; esac; exit 37"
)


def installed(tmp_path: Path, script: str, libexec: str = "") -> Runtime:
    """Return a runtime that is a script."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    path = program(tmp_path / "apptainer", script)
    return Runtime(lambda: path, libexec, str(home))


@pytest.mark.parametrize(
    ("script", "why"),
    [(GOOD, ""), (BAD_IMAGE, "FATAL: bad superblock"), (SILENT, "exit status 3"), (CANNOT, "")],
    ids=["starts", "does not start", "says nothing", "cannot tell"],
)
def test_an_image_is_blamed_only_where_a_known_good_one_starts(tmp_path: Path, script: str, why: str) -> None:
    """Else it is this EP that cannot, or this user."""
    assert installed(tmp_path, script).why_not("/cache/x/image") == why


def test_a_sif_is_not_blamed_where_sifs_do_not_run(tmp_path: Path) -> None:
    """And a directory is."""
    one = installed(tmp_path, SIFS_UNPACKED)
    assert one.why_not("/cache/x/image") == ""
    assert one.why_not(str(tmp_path)) == "exit status 9"


@pytest.mark.parametrize("path", ["", "/does/not/exist"])
def test_without_a_runtime_an_image_is_not_tested(tmp_path: Path, path: str) -> None:
    """It is served, and the job's own starter will say."""
    assert Runtime(lambda: path, "", str(tmp_path)).why_not("/cache/x/image") == ""


def test_what_runs_is_seen_and_not_believed(tmp_path: Path) -> None:
    """The smallest images are there while they are tried, both forms, and gone afterwards."""
    script = f"ls -d $4 $4/exit_37 >>{tmp_path}/seen 2>/dev/null; {SIFS_UNPACKED}"
    one = installed(tmp_path, script)
    assert not one.abilities.tried
    assert one.look(1000.0)
    assert (one.abilities.can_use_sif, one.abilities.can_use_sandbox) == (False, True)
    assert "temporary sandbox" in one.abilities.why_not
    seen = [Path(line).name for line in (tmp_path / "seen").read_text().splitlines()]
    assert sorted(seen) == ["exit_37", "probe.sif", "sandbox"]
    assert list((tmp_path / "home").iterdir()) == []


def test_htcondors_own_test_image_serves_where_it_is_there(tmp_path: Path) -> None:
    """It is what HTCondor itself judges by."""
    program(tmp_path / "libexec" / "singularity_test_sandbox" / "exit_37", "exit 37")
    one = installed(tmp_path, f"echo $4 >>{tmp_path}/seen; exit 37", str(tmp_path / "libexec"))
    one.look(1000.0)
    assert f"{tmp_path}/libexec/singularity_test_sandbox\n" in (tmp_path / "seen").read_text()


def test_another_program_is_tried_and_the_same_is_not(tmp_path: Path) -> None:
    """An update of the runtime changes what runs."""
    count = tmp_path / "count"
    one = installed(tmp_path, f"echo >>{count}; exit 37")
    assert one.look(1000.0)
    assert not one.look(2000.0)
    assert len(count.read_text()) == 2
    program(tmp_path / "apptainer", CANNOT)
    assert one.look(2060.0)
    assert not one.abilities.can_use_sif
    assert "no user namespaces" in one.abilities.why_not


def test_what_does_not_run_is_tried_again_later(tmp_path: Path) -> None:
    """Somebody may have opened /dev/fuse meanwhile."""
    marker = tmp_path / "marker"
    one = installed(tmp_path, f"[ -e {marker} ] && exit 37; exit 1")
    one.look(1000.0)
    marker.touch()
    assert not one.look(1000.0 + RETRY_S - 1)
    assert one.look(1000.0 + RETRY_S)
    assert one.abilities.can_use_sif


def test_without_a_place_for_the_probe_the_assumption_stays(tmp_path: Path) -> None:
    """The cache's root may be unusable."""
    path = program(tmp_path / "apptainer", "exit 1")
    one = Runtime(lambda: path, "", str(tmp_path / "nowhere"))
    assert not one.look(1000.0)
    assert not one.abilities.tried


def test_the_runtime_keeps_nothing_outside_of_our_root(tmp_path: Path) -> None:
    """$HOME is small and not ours, and the manager's secrets are not the image's."""
    installed(tmp_path, f"env > {tmp_path}/seen; {GOOD}").why_not("/cache/x/image")
    seen = dict(line.partition("=")[::2] for line in (tmp_path / "seen").read_text().splitlines())
    kept = {name for name, value in seen.items() if value == str(tmp_path / "home")}
    assert {"HOME", "TMPDIR", "APPTAINER_CACHEDIR", "APPTAINER_TMPDIR", "SINGULARITY_CACHEDIR"} <= kept
    assert not any(name.startswith(("CONDOR", "_CONDOR")) for name in seen)
