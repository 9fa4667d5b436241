"""The commands with which an admin looks at the manager, and what they tell the startd."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cache_manager.__main__ import COMMANDS
from tests.contract.conftest import StartSite
from tests.contract.doubles import cvmfs_ad, image_ad, job_ad, sif
from tests.contract.harness import CHECKOUT, Site
from tests.contract.origin import Origin, Reply

ROCKY = cvmfs_ad("htc/rocky:9")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(shared_site: Site, command: str) -> None:
    """With an example."""
    done = shared_site.command(command, "--help")
    assert done.returncode == 0
    assert "example:" in done.stdout


@pytest.mark.parametrize("words", [("no-such-command",), ("explain",), ("status", "--no-such")])
def test_wrong_usage_is_told_as_such(shared_site: Site, words: tuple[str, ...]) -> None:
    """Exit status 2, nothing on stdout."""
    done = shared_site.command(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage:" in done.stderr


def test_status_and_list_are_for_people_and_for_programs(site: Site, origin: Origin) -> None:
    """One image, in use by this process."""
    origin.routes["/a.sif"] = Reply(sif())
    image = site.run_hook(image_ad(f"{origin.url}/a.sif")).image
    state = json.loads(site.command("status", "--json").stdout)
    assert (state["entries"], state["leases"], state["in_use"], state["misses"]) == (1, 1, 1, 1)
    assert 4096 <= state["used_bytes"] <= 4096 * 4
    (entry,) = json.loads(site.command("list", "--json").stdout)
    assert entry["key"] == Path(image).parent.name
    assert entry["leases"] == ["12.3"]
    table = site.command("list").stdout
    assert "a.sif" in table
    assert "12.3" in table
    assert "healthy" in site.command("status").stdout


def test_without_a_manager_status_and_list_say_so(make_site: StartSite) -> None:
    """Exit status 1, on stderr."""
    site = make_site()
    for words in (("status",), ("list", "--json")):
        done = site.command(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{site.socket}: No such file or directory" in done.stderr


@pytest.mark.parametrize("with_manager", [True, False])
def test_explain_tells_each_step_and_changes_nothing(
    make_site: StartSite, origin: Origin, *, with_manager: bool
) -> None:
    """What was asked, who was asked, the update ad, the status."""
    site = make_site(IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2")
    real = site.cvmfs.publish("htc/rocky:9")
    if with_manager:
        site.start()
    told = json.loads(site.command("explain", "--json", "-", text=ROCKY).stdout)
    assert told["status"] == 0
    assert told["asked"] == "htc/rocky:9"
    assert told["by"].startswith("the running manager" if with_manager else "this command (no manager: ")
    assert f'ContainerImage = "{real}"' in told["ad"]
    assert [step["answer"] for step in told["steps"]] == ["chosen: it is there", "not asked: the one before serves"]
    shown = site.command("explain", "-", text=cvmfs_ad("htc/rockx:9"))
    assert shown.returncode == 0
    assert "120 IMAGE_NOT_PUBLISHED: the job is held" in shown.stdout
    assert "did you mean htc/rocky:9" in shown.stdout
    assert origin.count(".sif") == 0
    assert with_manager or not site.root.exists()


@pytest.mark.parametrize(("text", "code"), [("garbage", 399), (job_ad(), 0)])
def test_explain_takes_any_ad(shared_site: Site, text: str, code: int) -> None:
    """And says what the hook would say."""
    told = json.loads(shared_site.command("explain", "--json", "-", text=text).stdout)
    assert told["status"] == code
    assert f"HookStatusCode = {code}\n" in told["ad"]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("htc/rocky:9", "htc/rocky:9: No such file or directory: a file with an ad is wanted, as in `condor_q"),
        ("-", "standard input: no ad (1 bytes): is the job still in the queue?"),
    ],
)
def test_explain_of_no_ad_is_not_done_and_says_what_is_wanted(shared_site: Site, file: str, says: str) -> None:
    """Exit status 1, and one line: for an image instead of a file, and for a job that left the queue."""
    done = shared_site.command("explain", file, text="\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"condor_image_cache: {says}")
    assert done.stderr.count("\n") == 1


def test_advertise_prints_what_a_startd_reads(site: Site) -> None:
    """Literals only, and the line that ends an update; also without a manager."""
    for healthy in ("true", "false"):
        done = site.command("advertise")
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert lines[-1] == "- update:true"
        assert f"ImageCacheHealthy = {healthy}" in lines
        assert all(re.fullmatch(r'ImageCache[A-Za-z]+ = (?:"[^"]*"|true|false|\d+)', line) for line in lines[:-1])
        site.stop() if healthy == "true" else None


def test_advertise_follows_what_happens(site: Site, origin: Origin) -> None:
    """A new image, the end of the manager, and its return."""
    argv = [sys.executable, "-u", "-m", "cache_manager", "advertise", "--follow"]
    with (site.directory / "advertised").open("wb") as sink:
        site.popen(argv, cwd=CHECKOUT, stdout=sink)
    said = site.directory / "advertised"
    site.wait_for(lambda: "ImageCacheEntries = 0" in said.read_text(), "the first ad")
    origin.routes["/a.sif"] = Reply(sif())
    assert site.run_hook(image_ad(f"{origin.url}/a.sif")).code == 0
    site.wait_for(lambda: "ImageCacheEntries = 1" in said.read_text(), "the ad with the image")
    site.stop()
    site.wait_for(lambda: "ImageCacheHealthy = false" in said.read_text(), "the ad without a manager")
    site.start()
    site.wait_for(lambda: said.read_text().count("ImageCacheEntries = 1") == 2, "the ad after the return")


@pytest.mark.parametrize(
    ("options", "root"), [("--pilot", "image_cache"), ("--other-filesystem", "an image cache 100%")]
)
def test_the_configuration_that_is_printed_is_one(make_site: StartSite, options: str, root: str) -> None:
    """HTCondor reads it, and the hook runs with the arguments that it names."""
    knobs = {"IMAGE_CACHE_DEFAULT_IMAGE": "htc/rocky:9", "IMAGE_CACHE_DIR": f"$(LOCAL_DIR)/{root}"}
    site = make_site(**knobs)
    site.root = site.directory / root
    site.socket = site.root / "socket"
    site.start()
    real = site.cvmfs.publish("htc/rocky:9")
    printed = site.command("config", options)
    assert printed.returncode == 0, printed.stderr
    site.configure(printed.stdout)
    script = "import json, htcondor2, sys; print(json.dumps([htcondor2.param[name] for name in sys.argv[1:]]))"
    names = ["IMAGE_CACHE_HOOK_PREPARE_JOB", "IMAGE_CACHE_HOOK_PREPARE_JOB_ARGS", "IMAGE_CACHE_MANAGER", "DAEMON_LIST"]
    done = subprocess.run([sys.executable, "-c", script, *names], env=site.env, capture_output=True, check=True)
    hook, words, manager, daemons = json.loads(done.stdout)
    assert "IMAGE_CACHE_MANAGER" in daemons
    assert Path(manager).exists()
    arguments = shlex.split(words)
    assert arguments[0] == "--python"
    answer = site.run_hook(
        job_ad(), *arguments[2:], hooks=Path(hook).parent, python=arguments[1], socket="/nonexistent"
    )
    assert answer.runs(real, sandbox=True), answer.message
