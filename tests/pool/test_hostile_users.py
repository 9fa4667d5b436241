"""No job user writes under the root, or has the manager do it: under real uids, on an execution point of root's."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.pool.harness import Pool, poll, run_as
from tests.pool.processes import end, make_directory, start_as
from tests.pool.strangers import MANAGER, as_joe, root_of, starters, tree

HERE: Final = Path(__file__).parent


@pytest.mark.parametrize("user", ["joe", "amy"])
def test_no_job_user_changes_anything_under_the_root(ep: Pool, user: str) -> None:
    """Whatever they try on whatever they can name: nothing succeeds, and all is as it was."""
    poll(lambda: not starters(ep), "the end of all jobs")
    before = tree(root_of(ep))
    said = run_as(user, ["/opt/venv/bin/python3", HERE / "attack.py", root_of(ep)]).stdout
    assert json.loads(said) == []
    assert tree(root_of(ep)) == before


@contextmanager
def manager_at(directory: Path, **knobs: str) -> Iterator[Callable[[], str]]:
    """Run a manager as its user would be run, with its root below `directory`; give what it says it is troubled by."""
    safe = make_directory(Path("/pool/safe"), "imagecache")
    shutil.rmtree(safe)
    make_directory(safe, "imagecache")
    config = safe / "condor_config"
    lines = {
        "LOCAL_DIR": str(safe),
        "LOG": str(safe),
        "IMAGE_CACHE_DIR": str(directory),
        "IMAGE_CACHE_SOCKET": f"{safe}/socket",
        "IMAGE_CACHE_MANAGER_USERID": "imagecache",
        "IMAGE_CACHE_CVMFS_BASE": "/nowhere",
    }
    config.write_text("".join(f"{name} = {value}\n" for name, value in (lines | knobs).items()))
    env = {"CONDOR_CONFIG": str(config)}
    output = safe / "output"
    process = start_as("imagecache", ["condor_image_cache", "serve"], output=output, env=env)

    def trouble() -> str:
        def answer() -> str | None:
            if process.poll() is not None:
                return f"ended: {output.read_text()}"
            done = run_as(None, ["condor_image_cache", "status", "--json"], env=env, check=False)
            return str(json.loads(done.stdout)["reason"] or "none") if done.stdout else None

        return poll(answer, "an answer", 30, interval=0.1)

    try:
        yield trouble
    finally:
        end(process, 5)


PLANTS: Final = {
    "a parent that everybody may write to": ("/pool/trap", 0o777, "true", "/pool/trap is writable by others"),
    "a directory of joe's in one like /tmp": (
        "/pool/trap",
        0o1777,
        "mkdir -p /pool/trap/cache/entries",
        "belongs to another user (uid 1000",
    ),
    "a parent of joe's": ("/pool/trap", 0o1777, "mkdir /pool/trap/x && chmod 777 /pool/trap/x", "belongs to uid 1000"),
    "a link of joe's to a directory of the manager's": (
        "/pool/trap",
        0o1777,
        "ln -s /pool/treasure /pool/trap/cache",
        "is no directory",
    ),
    "a link of joe's on the way": (
        "/pool/trap",
        0o1777,
        "ln -s /pool/treasure /pool/trap/x",
        "/pool/trap/x belongs to uid 1000",
    ),
    "a file": ("/pool/trap", 0o1777, "echo mine >/pool/trap/cache", "File exists"),
    "a FIFO": ("/pool/trap", 0o1777, "mkfifo /pool/trap/cache", "File exists"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_what_others_planted_before_the_first_start_is_refused_and_named(plant: str) -> None:
    """The manager makes and changes nothing there, says what is wrong, and goes on when it is mended."""
    top, mode, script, expected = PLANTS[plant]
    shutil.rmtree(top, ignore_errors=True)
    make_directory(Path(top), None, mode)
    treasure = make_directory(Path("/pool/treasure"), "imagecache")
    as_joe(script)
    before = {name: one for name, one in tree(Path(top)).items() if "/treasure" not in name}
    path = Path(top, "x", "cache") if "/x" in script else Path(top, "cache")
    with manager_at(path) as trouble:
        assert expected in trouble()
    assert tree(Path(top)) == before
    assert list(treasure.iterdir()) == []


def test_a_root_in_a_directory_like_tmp_is_good_once_it_is_the_managers() -> None:
    """Others may make names beside it, and cannot replace it."""
    shutil.rmtree("/pool/trap", ignore_errors=True)
    make_directory(Path("/pool/trap"), None, 0o1777)
    with manager_at(Path("/pool/trap/cache")) as trouble:
        assert trouble() == "none"
        said = run_as("joe", ["/opt/venv/bin/python3", HERE / "attack.py", "/pool/trap/cache"]).stdout
        assert json.loads(said) == []


@pytest.mark.parametrize("how", ["ln -s", "ln", "mkfifo"])
def test_a_log_that_leads_elsewhere_is_not_written(how: str) -> None:
    """Else what is logged would be written into a file of the manager's own, such as an image."""
    shutil.rmtree("/pool/trap", ignore_errors=True)
    make_directory(Path("/pool/trap"), None, 0o1777)
    treasure = make_directory(Path("/pool/treasure"), "imagecache") / "image"
    treasure.write_text("an image")
    os.chown(treasure, MANAGER, MANAGER)
    if how == "ln":  # root stands for a kernel without fs.protected_hardlinks
        Path("/pool/trap/log").hardlink_to(treasure)
    else:
        as_joe("mkfifo /pool/trap/log" if how == "mkfifo" else f"ln -s {treasure} /pool/trap/log")
    with manager_at(Path("/pool/safe/cache"), IMAGE_CACHE_LOG="/pool/trap/log") as trouble:
        assert "log /pool/trap/log: " in trouble()
    assert treasure.read_text() == "an image"


@pytest.mark.parametrize(
    "script",
    ["mkdir -p /pool/trap/cache/entries", "ln -s /etc /pool/trap/cache", "ln -s /etc/planted /pool/trap/log"],
)
def test_root_gives_nothing_away_that_others_planted(script: str) -> None:
    """`config --prepare` runs as root: it takes over no directory of joe's, and follows no link of his."""
    shutil.rmtree("/pool/trap", ignore_errors=True)
    make_directory(Path("/pool/trap"), None, 0o1777)
    as_joe(script)
    config = Path("/pool/trap_config")
    lines = ("LOCAL_DIR = /pool/trap", "IMAGE_CACHE_DIR = /pool/trap/cache", "IMAGE_CACHE_LOG = /pool/trap/log")
    config.write_text("\n".join(("EXECUTE = /pool", *lines, "")))
    planted = {name: one for name, one in tree(Path("/pool/trap")).items() if name != "/pool/trap"}
    etc = Path("/etc").stat()
    done = run_as(None, ["condor_image_cache", "config", "--prepare"], env={"CONDOR_CONFIG": str(config)}, check=False)
    assert done.returncode == 1, done.stdout
    assert tree(Path("/pool/trap")).items() >= planted.items()
    assert Path("/etc").stat().st_uid == etc.st_uid
    assert not Path("/etc/planted").exists()


LISTEN: Final = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
listener.listen()
print("listens", flush=True)
block = b'ContainerImage = "/home/joe/evil.sif"\\nImageCacheHealthy = true\\nHookStatusCode = 0\\n'
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    try:
        connection.sendall(b"IMGC/1 %d\\n" % len(block) + block)
    except OSError:
        pass
    connection.close()
"""


def test_a_hook_believes_no_stranger_on_the_socket() -> None:
    """What it prints is run as its user: joe's listener gives amy no image, and the slot ad no health."""
    shutil.rmtree("/pool/trap", ignore_errors=True)
    make_directory(Path("/pool/trap"), None, 0o1777)
    output = Path("/pool/trap.output")
    output.unlink(missing_ok=True)
    as_joe("mkdir /pool/trap/joes")
    listener = start_as("joe", ["/usr/bin/python3", "-c", LISTEN, "/pool/trap/joes/socket"], output=output)
    hook = ["/usr/bin/python3", "-IS", "/src/hooks/prepare_job.py", "--socket", "/pool/trap/joes/socket"]
    ad = 'ContainerImage = "http://127.0.0.1:1/x.sif"\nWantContainer = true\n'
    config = Path("/pool/trap_config")
    config.write_text("LOCAL_DIR = /pool/trap\nIMAGE_CACHE_SOCKET = /pool/trap/joes/socket\n")
    try:
        poll(lambda: "listens" in output.read_text(), "joe's listener")
        for options in (["--owner", "imagecache"], ["--owner", "990"], ["--root", "/pool/trap"], ["--owner=none"]):
            said = run_as("amy", [*hook, *options], text_input=ad).stdout
            assert "HookStatusCode = 410" in said
            assert "uid 1000 listens there, who is not the manager's user" in said
            assert "evil" not in said
        assert "evil" in run_as("amy", [*hook, "--owner", "joe"], text_input=ad).stdout
        for user in ("amy", "condor", None):
            argv = ["condor_image_cache", "advertise"]
            told = run_as(user, argv, env={"CONDOR_CONFIG": str(config)}, check=False).stdout
            assert "ImageCacheHealthy = false" in told
    finally:
        end(listener, 5)
