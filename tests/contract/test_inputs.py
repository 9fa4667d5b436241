"""What HTCondor gives the hook beside the ad: directories of any name, machine ads of any state."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.contract.doubles import cvmfs_ad, image_ad, job_ad, sif, write
from tests.contract.harness import Site

NAMES = (
    ("blanks", "dir with blanks"),
    ("percent signs", "100%20% %s %d"),
    ("equals signs and plus", "a=b+c&d"),
    ("a quote", 'a "quoted" dir'),
    ("an apostrophe and a dollar", "it's $HOME `x`"),
    ("an umlaut", "m\N{LATIN SMALL LETTER U WITH DIAERESIS}ller"),
    ("a Chinese name", "\N{CJK UNIFIED IDEOGRAPH-5BB9}"),
    ("a backslash", "back\\slash"),
    ("a newline", "new\nline"),
    ("a tab", "a\tb"),
    ("bytes that are no UTF-8", os.fsdecode(b"\xff\xfe")),
    ("200 characters", "x" * 200),
)

FILES = (
    "with blanks",
    "100% %20 %s",
    "a;b|c&d",
    "$(X) ${X} `x`",
    "it's",
    'a "quoted" one',
    "\N{LATIN SMALL LETTER U WITH DIAERESIS}",
    "\N{CJK UNIFIED IDEOGRAPH-5BB9}",
    "\N{PILE OF POO}",
    "back\\slash",
    "ends with \\",
    'both \\" of them',
    "x" * 200,
    "-n",
    "#",
    "a=b",
)

MACHINES = (
    ("no machine ad", None, {0}),
    ("an empty one", b"", {0}),
    ("an ordinary one", b'Name = "slot1@x"\nHasSIF = true\nHasDocker = false\n', {0}),
    ("one that says nothing of use", b"HasSIF = undefined\nHasSandboxImage = undefined\n", {0}),
    ("one that has errors", b"HasSIF = error\nHasSandboxImage = 1 / 0\nGPUs = error\n", {0}),
    ("one in Latin-1", b'Name = "m\xfcller"\n', {0}),
    ("garbage", b"garbage\n\n\0\n", {0, 399}),
    ("2 MiB", b'A = "' + b"x" * (2 << 20) + b'"\n', {0, 399}),
)


@pytest.fixture(scope="module")
def rocky(shared_site: Site) -> Path:
    """Publish an image on CVMFS."""
    return shared_site.cvmfs.publish("htc/rocky:9")


@pytest.mark.parametrize(("name", "directory"), NAMES, ids=[row[0] for row in NAMES])
def test_a_shipped_image_runs_from_a_directory_of_any_name_or_not_at_all(
    shared_site: Site, tmp_path: Path, name: str, directory: str
) -> None:
    """A path that the update ad cannot say is no reason for running from another one, nor for holding the job."""
    scratch = tmp_path / directory
    write(scratch, {"job.sif": sif()})
    answer = shared_site.run_hook(image_ad("job.sif"), cwd=scratch)
    if name in {"a newline", "a tab", "bytes that are no UTF-8", "a backslash"}:
        assert answer.image == f"{scratch}/job.sif" or answer.code >= 300, answer.image
    else:
        assert answer.runs(f"{scratch}/job.sif", sandbox=False), answer.attributes


@pytest.mark.parametrize(("name", "directory"), NAMES, ids=[row[0] for row in NAMES])
def test_a_directory_of_any_name_is_no_hindrance_to_other_images(
    shared_site: Site, rocky: Path, tmp_path: Path, name: str, directory: str
) -> None:
    """The directory goes over the socket with each request."""
    scratch = tmp_path / directory
    scratch.mkdir()
    assert shared_site.run_hook(cvmfs_ad("htc/rocky:9"), cwd=scratch).runs(rocky, sandbox=True), name


@pytest.mark.parametrize("name", FILES)
def test_an_image_on_this_ep_may_have_any_name(shared_site: Site, tmp_path: Path, name: str) -> None:
    """It runs from exactly that path, or goes elsewhere if the update ad cannot say it."""
    write(tmp_path, {f"{name}/bin/sh": b"", f"{name}.sif": sif()})
    for path, sandbox in ((f"{tmp_path}/{name}", True), (f"{tmp_path}/{name}.sif", False)):
        answer = shared_site.run_hook(image_ad(path.replace('"', '\\"')))
        if "\\" in name:
            assert answer.code >= 300 or answer.runs(path, sandbox=sandbox), answer.attributes
        else:
            assert answer.runs(path, sandbox=sandbox), answer.attributes


@pytest.mark.parametrize("name", ["m\N{LATIN SMALL LETTER U WITH DIAERESIS}ller:1", "a b:1", "a%20b:1", "a$(b)`c`':1"])
def test_a_published_image_may_have_any_name(shared_site: Site, name: str) -> None:
    """CVMFS takes them all."""
    real = shared_site.cvmfs.publish(f"any/{name}")
    assert shared_site.run_hook(cvmfs_ad(f"any/{name}")).runs(real, sandbox=True)


@pytest.mark.parametrize(("name", "machine", "codes"), MACHINES, ids=[row[0] for row in MACHINES])
@pytest.mark.usefixtures("rocky")
def test_a_machine_ad_of_any_state_holds_no_job(
    shared_site: Site, tmp_path: Path, name: str, machine: bytes | None, codes: set[int]
) -> None:
    """It is the EP's: whatever is wrong with it, another EP may run the job."""
    for launcher in (True, False):
        answer = shared_site.run_hook(cvmfs_ad("htc/rocky:9"), machine_ad=machine, cwd=tmp_path, launcher=launcher)
        assert answer.code in codes, f"{name}: {answer.message}"


@pytest.mark.parametrize("path", ["", "/nonexistent", "/", "/dev/null"])
def test_a_machine_ad_that_is_elsewhere_holds_no_job(shared_site: Site, path: str) -> None:
    """The environment names it."""
    assert shared_site.run_hook(job_ad(), env={"_CONDOR_MACHINE_AD": path}).code in {0, 399}


@pytest.mark.parametrize("pid", ["", "0", "1", "-1", "nan", "99999999999999999999", "x" * 100, "%41"])
def test_a_starter_that_is_none_costs_no_job(shared_site: Site, rocky: Path, pid: str) -> None:
    """The pid is the environment's; the kernel tells who asks."""
    answer = shared_site.run_hook(cvmfs_ad("htc/rocky:9"), env={"CONDOR_STARTER_PID": pid})
    assert answer.runs(rocky, sandbox=True), answer.message


def test_a_directory_that_is_gone_holds_no_job(site: Site) -> None:
    """HTCondor removed it: the job is on its way out."""
    scratch = site.directory / "gone"
    scratch.mkdir()
    wrapper = site.directory / "hooks"
    wrapper.mkdir()
    here = Path(__file__).resolve().parents[2] / "hooks"
    (wrapper / "prepare-job").write_text(f'#!/bin/sh\nrmdir "{scratch}"\nexec "{here}/prepare-job" "$@"\n', "ascii")
    (wrapper / "prepare-job").chmod(0o755)
    assert site.run_hook(cvmfs_ad("htc/rocky:9"), cwd=scratch, hooks=wrapper).code >= 300
