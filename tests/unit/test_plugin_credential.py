"""The transfer plug-in reads a job's credential as the hook does: the same files, the same answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cache_manager import plugin_credential
from tests.unit.builders import CHECKOUT

HOOKS = (
    "import posix, sys; sys.path.insert(0, sys.argv[1]); import credential\n"
    "posix.write(1, credential.frame(sys.argv[2].encode(), b'/nowhere', 10.0))"
)


@pytest.mark.parametrize(
    ("files", "asked"),
    [
        ({}, ""),
        ({}, "igwn"),
        ({"igwn": "secret"}, ""),
        ({"igwn": "secret"}, "igwn"),
        ({"igwn": "secret", "other": "x"}, ""),
        ({"igwn": "secret", "scitokens": "usual"}, ""),
        ({"b": "second"}, "a\nb\nc"),
        ({"a": "x" * 70_000}, "a"),
        ({"a": "x" * 65_536}, "a"),
        ({"a": "x"}, "../a"),
        ({"a": "x"}, ".a"),
        ({"link": None}, "link"),
        ({"odd %name": "x", "a.b_c@d": "y"}, "a.b_c@d"),
    ],
)
def test_the_answer_is_the_hooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str | None], asked: str
) -> None:
    """Which is there, which is meant where none is named, and what is none."""
    for name, text in files.items():
        if text is None:
            (tmp_path / f"{name}.use").symlink_to("/etc/hostname")
        else:
            (tmp_path / f"{name}.use").write_text(text)
    (tmp_path / "not.top").write_text("x")
    environment = {"_CONDOR_CREDS": str(tmp_path)}
    argv = [sys.executable, "-IS", "-c", HOOKS, str(CHECKOUT / "hooks"), asked]
    hooks = subprocess.run(argv, env=environment, capture_output=True, check=True).stdout
    assert plugin_credential.frame(asked.encode(), environment) == hooks
    monkeypatch.chdir(tmp_path.parent)
    (tmp_path.parent / ".condor_creds").unlink(missing_ok=True)
    os.symlink(tmp_path, tmp_path.parent / ".condor_creds")  # noqa: PTH211 - as short
    assert plugin_credential.frame(asked.encode(), {}) == hooks


def test_a_fifo_does_not_stop_the_plugin(tmp_path: Path) -> None:
    """It is no file."""
    os.mkfifo(tmp_path / "a.use")
    assert b"kind=unwell" in plugin_credential.frame(b"a", {"_CONDOR_CREDS": str(tmp_path)})
