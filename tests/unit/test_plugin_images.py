"""Which of the files that HTCondor wants from the transfer plug-in is the job's image."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_manager import plugin
from cache_manager.plugin_next import Ad

URL = "https://one.example/x.sif"
JOB = {"containerimage": "x.sif", "containerimagefullpath": URL}


@pytest.mark.parametrize(
    ("target", "is_image"),
    [
        ("x.sif", True),
        ("{here}/x.sif", True),
        ("{here}/link/x.sif", True),
        ("data/x.sif", False),
        ("gone/x.sif", False),
    ],
)
def test_the_image_is_what_goes_into_the_scratch_directory_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, *, is_image: bool
) -> None:
    """Another of its name may go into a directory, also into one that is not there yet."""
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    files: list[Ad] = [("", {"url": URL, "localfilename": target.format(here=tmp_path)})]
    assert bool(plugin.images_among(files, JOB)) is is_image
