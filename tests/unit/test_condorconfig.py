"""The drop-in configuration, read by HTCondor's own library and evaluated by its own ClassAds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import classad2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.condorconfig import Installation, render, with_binds
from cache_manager.configuration import read_knobs

EP = Installation(
    command="/opt/image cache/bin/condor_image_cache",
    hook="/opt/image cache/hooks/prepare-job",
    python="/usr/bin/python3",
    reserved_mb=20_000,
    arguments='"--userns"',
    binds=("/cvmfs", "/data:/mnt:ro"),
    plugin="/opt/cache/bin/image_cache_plugin",
    next_plugins="http,https=/usr/libexec/condor/curl_plugin",
)
PILOT = replace(EP, user="", reserved_mb=0, binds=(), next_plugins="")


@pytest.mark.parametrize("one", [EP, PILOT], ids=["EP", "pilot"])
def test_htcondor_reads_it_and_finds_the_hook_and_the_manager(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one: Installation
) -> None:
    """One file is all that an EP needs."""
    file = tmp_path / "condor_config"
    file.write_text(f"LOCAL_DIR = {tmp_path}\nDAEMON_LIST = MASTER, STARTD\nSTART = 1 + 1 == 2\n{render(one)}")
    monkeypatch.setenv("CONDOR_CONFIG", str(file))
    knobs = read_knobs()
    assert knobs["STARTER_JOB_HOOK_KEYWORD"] == "IMAGE_CACHE"
    assert knobs["IMAGE_CACHE_MANAGER"] == one.command
    assert int(knobs["PIPE_BUFFER_MAX"]) >= 10_240
    assert knobs["START"].startswith("(1 + 1 == 2) && ")
    assert knobs["IMAGE_CACHE_DIR"] == f"{tmp_path}/image_cache"
    assert knobs["IMAGE_CACHE_HOOK_PREPARE_JOB"] == one.hook
    assert f"--socket '{tmp_path}/image_cache/socket'" in knobs["IMAGE_CACHE_HOOK_PREPARE_JOB_ARGS"]
    assert "--deadline=20m" in knobs["IMAGE_CACHE_HOOK_PREPARE_JOB_ARGS"]
    assert {"MASTER", "STARTD", "IMAGE_CACHE_MANAGER"} <= set(re.split(r"[ ,]+", knobs["DAEMON_LIST"]))
    for name in ("RESERVED_DISK", "SINGULARITY_EXTRA_ARGUMENTS", "IMAGE_CACHE_MANAGER_USERID"):
        assert (f"\n{name} = " in render(one)) is (one is EP)


def test_our_transfer_plugin_is_the_last_and_knows_those_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """HTCondor has the last of a scheme do it; where ours would have nobody to pass files on to, it is not there."""
    file = tmp_path / "condor_config"
    file.write_text(f"LOCAL_DIR = {tmp_path}\nFILETRANSFER_PLUGINS = /usr/libexec/condor/curl_plugin\n{render(EP)}")
    monkeypatch.setenv("CONDOR_CONFIG", str(file))
    knobs = read_knobs()
    assert knobs["FILETRANSFER_PLUGINS"] == f"/usr/libexec/condor/curl_plugin, {EP.plugin}"
    assert knobs["IMAGE_CACHE_NEXT_PLUGIN"] == EP.next_plugins
    assert "FILETRANSFER_PLUGINS" not in render(PILOT)


def test_the_default_keyword_of_htcondor_is_not_used() -> None:
    """A job that says +HookKeyword = "none" would run without the hook."""
    assert "\nSTARTER_JOB_HOOK_KEYWORD = " in render(EP)
    assert "\nSTARTER_DEFAULT_JOB_HOOK_KEYWORD" not in render(EP)


def test_a_pilot_has_no_user_of_its_own() -> None:
    """Everything runs as the pilot's user, who cannot change it."""
    assert "\nIMAGE_CACHE_MANAGER_USERID =" not in render(PILOT)
    assert "\nIMAGE_CACHE_MANAGER_USERID = imagecache\n" in render(EP)


@pytest.mark.parametrize("one", [EP, PILOT], ids=["EP", "pilot"])
def test_every_block_is_explained(one: Installation) -> None:
    """An admin reads the file, and has to understand why each line is there."""
    blocks = [block for block in render(one).split("\n\n") if block.strip()]
    assert all(block.lstrip().startswith("# ") for block in blocks)


def test_a_path_with_a_blank_stays_one_argument() -> None:
    """HTCondor splits the hook's arguments at blanks, unless they are quoted."""
    text = render(replace(EP, python="/opt/my python/bin/python3"))
    assert "--python '/opt/my python/bin/python3'" in text


def start(default_image: str) -> classad2.ExprTree:
    """Return the START expression, for a site with or without a default image."""
    (line,) = re.findall(r"^START = (.*)$", render(EP), re.MULTILINE)
    text = line.replace("$(START)", "true").replace("$(IMAGE_CACHE_DEFAULT_IMAGE:)", default_image)
    return classad2.ExprTree(text)


@pytest.mark.parametrize(
    ("job", "is_ours"),
    [
        ("WantContainer = true", True),
        ('SingularityImage = "/cvmfs/x/y"', True),
        ("WantContainer = true\nWantDockerImage = true", True),
        ("WantDocker = true", False),
        ("WantDocker = true\nWantContainer = true", False),
        ("", None),
        ("WantContainer = false", None),
    ],
)
@pytest.mark.parametrize("default_image", ["", "htc/rocky:9"])
@pytest.mark.parametrize(
    ("machine", "healthy"),
    [("ImageCacheHealthy = true", True), ("ImageCacheHealthy = false", False), ("", False)],
)
def test_container_jobs_start_only_where_the_cache_is_well(
    job: str, default_image: str, machine: str, *, is_ours: bool | None, healthy: bool
) -> None:
    """Others are not affected; where there is a default image, a job without one is a container job too."""
    slot = classad2.parseOne(f"{machine}\n", classad2.ParserType.Old)
    asks = classad2.parseOne(f"{job}\n", classad2.ParserType.Old)
    needs_cache = bool(default_image) if is_ours is None else is_ours
    assert start(default_image).eval(slot, asks) is (healthy or not needs_cache)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '"--bind /cvmfs"'),
        ('""', '"--bind /cvmfs"'),
        ('"--userns"', '"--userns --bind /cvmfs"'),
        ('  "--userns "  ', '"--userns --bind /cvmfs"'),
        ("--userns", "--userns --bind /cvmfs"),
        ("\"--env 'A=b c'\"", "\"--env 'A=b c' --bind /cvmfs\""),
        ('"--bind /cvmfs --userns"', '"--bind /cvmfs --userns"'),
        ('"--bind /cvmfs2"', '"--bind /cvmfs2 --bind /cvmfs"'),
        ('"--bind /cvmfs:/x"', '"--bind /cvmfs:/x --bind /cvmfs"'),
    ],
)
def test_binds_are_appended_in_the_syntax_that_is_there(before: str, after: str) -> None:
    """The site's own arguments stay."""
    assert with_binds(before, ("/cvmfs",)) == after


ARGUMENTS = st.from_regex(r"\A[a-z0-9:/=' -]{0,30}\Z")
BINDS = st.lists(st.from_regex(r"\A/[a-z0-9/:]{0,9}\Z"), max_size=3).map(tuple)


@given(ARGUMENTS | ARGUMENTS.map(lambda words: f'"{words}"'), BINDS)
def test_doing_it_twice_changes_nothing(arguments: str, binds: tuple[str, ...]) -> None:
    """`config` is run again after an update, on an EP that has its own output already."""
    once = with_binds(arguments, binds)
    assert with_binds(once, binds) == once
    assert all(f"--bind {bind}" in once for bind in binds)
    assert arguments.strip().strip('"').strip() in once
