"""The manager's own life, and the commands with which an admin looks at it."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from cache_manager.__main__ import COMMANDS
from tests.contract.conftest import StartSite
from tests.contract.doubles import cvmfs_ad, image_ad, job_ad, sif
from tests.contract.harness import CHECKOUT, Site
from tests.contract.origin import Origin, Reply
from tests.contract.processes import PATIENCE_S

ROCKY = cvmfs_ad("htc/rocky:9")


def test_a_new_configuration_is_read_without_a_restart(shared_site: Site) -> None:
    """condor_reconfig sends SIGHUP."""
    shared_site.cvmfs.publish("htc/rocky:9")
    assert shared_site.run_hook(ROCKY).code == 0
    shared_site.reconfigure(IMAGE_CACHE_ALLOW="nothing", IMAGE_CACHE_MAX_BYTES="7 GB")
    assert shared_site.run_hook(ROCKY).code == 350
    assert shared_site.ask("status")["max_bytes"] == 7_000_000_000
    shared_site.reconfigure()
    assert shared_site.run_hook(ROCKY).code == 0


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("this is no configuration\n", "onfiguration"),
        ("IMAGE_CACHE_MAX_BYTES = much\n", "IMAGE_CACHE_MAX_BYTES"),
        ("IMAGE_CACHE_PREFER = sandbox\nIMAGE_CACHE_TAG_TTL = soon\n", "IMAGE_CACHE_TAG_TTL"),
        ("include : /nonexistent/file\n", "onfiguration"),
    ],
    ids=["syntax", "value", "two values", "include"],
)
def test_a_wrong_configuration_changes_nothing_and_is_told(shared_site: Site, extra: str, said: str) -> None:
    """The manager outlives an admin's typing error, and says so until it is mended."""
    shared_site.reconfigure(extra, IMAGE_CACHE_ALLOW="nothing")
    assert shared_site.run_hook(image_ad("/nonexistent/x.sif")).code == 360
    state = shared_site.ask("status")
    assert said in state["reason"]
    assert state["healthy"]
    assert f'ImageCacheReason = "{state["reason"][:20]}' in shared_site.reports("")
    shared_site.reconfigure()
    assert shared_site.ask("status")["reason"] == ""


def test_a_wrong_configuration_keeps_no_admin_from_asking(site: Site) -> None:
    """The file is wrong for the command as well as for the manager."""
    site.reconfigure("this is no configuration\n")
    for config in ("IMAGE_CACHE_MAX_BYTES = much\n", ""):
        site.configure(config)
        status = site.command("status", "--json")
        assert status.returncode == 0
        assert "onfiguration" in json.loads(status.stdout)["reason"]
        assert "onfiguration" in site.command("advertise").stdout


def test_a_request_keeps_the_configuration_that_it_began_with(shared_site: Site, origin: Origin) -> None:
    """A job that waits is not refused by what was configured meanwhile."""
    site = shared_site
    gate = Event()
    origin.routes["/a.sif"] = Reply(sif(), gate=gate)
    hook = site.start_hook(image_ad(f"{origin.url}/a.sif"))
    site.wait_for(lambda: origin.count("a.sif"), "the fetch")
    site.reconfigure(IMAGE_CACHE_ALLOW="nothing", IMAGE_CACHE_MESSAGES="never")
    gate.set()
    answer = hook.finish()
    site.reconfigure()
    assert answer.code == 0
    assert answer.message


def test_a_new_root_waits_for_a_restart(site: Site) -> None:
    """And is not said to be the one in use."""
    before = site.ask("status")["root"]
    site.reconfigure(IMAGE_CACHE_DIR=str(site.directory / "elsewhere"), IMAGE_CACHE_SOCKET=str(site.socket))
    assert "restart" in site.log_text()
    assert site.ask("status")["root"] == before
    assert site.run_hook(job_ad()).code == 0


def test_a_second_manager_for_the_same_root_refuses_to_start(site: Site, origin: Origin) -> None:
    """And disturbs nothing: neither the first one's socket, nor what it is fetching."""
    gate = Event()
    origin.routes["/a.sif"] = Reply(sif(), gate=gate)
    hook = site.start_hook(image_ad(f"{origin.url}/a.sif"))
    site.wait_for(lambda: origin.count("a.sif"), "the fetch")
    second = site.launch()
    assert second.wait(PATIENCE_S) == 1
    assert f"cache {site.root}: another manager has it" in site.log_text()
    assert "Traceback" not in site.log_text()
    gate.set()
    answer = hook.finish()
    assert answer.code == 0, answer.message
    assert Path(answer.image).read_bytes() == sif()


@pytest.mark.parametrize(
    ("number", "busy"),
    [(signal.SIGTERM, True), (signal.SIGQUIT, True), (signal.SIGTERM, False), (signal.SIGINT, False)],
)
def test_a_manager_ends_when_it_is_told_to(site: Site, origin: Origin, number: int, *, busy: bool) -> None:
    """Also in the middle of a fetch; its socket and its children go with it."""
    site.cvmfs.publish("htc/rocky:9")
    assert site.run_hook(ROCKY).code == 0
    if busy:
        origin.routes["/a.sif"] = Reply(sif(), gate=Event())
        site.start_hook(image_ad(f"{origin.url}/a.sif"))
        site.wait_for(lambda: origin.count("a.sif"), "the fetch")
    children = site.children()
    assert children
    assert site.stop(signal.Signals(number)) == 0
    assert not site.socket.exists()
    site.wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in children), "the children's end")
    assert "Traceback" not in site.log_text()


def test_a_manager_obeys_signals_that_it_was_started_without(make_site: StartSite) -> None:
    """HTCondor blocks nearly all signals of what it starts as a hook; a manager must not depend on better luck."""
    site = make_site()
    site.blocked_signals = True
    site.start()
    assert not site.manager_blocks(signal.SIGTERM) | site.manager_blocks(signal.SIGHUP)
    site.reconfigure(IMAGE_CACHE_ALLOW="nothing")
    assert site.run_hook(ROCKY).code == 350
    assert site.stop() == 0


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("this is no configuration\n", "onfiguration"),
        ("IMAGE_CACHE_MAX_BYTES = -1\n", "IMAGE_CACHE_MAX_BYTES"),
        ("IMAGE_CACHE_DIR = relative/path\n", "no absolute path"),
        ("IMAGE_CACHE_SIF_SOURCES = ftp://x\n", "no base URL"),
        ("IMAGE_CACHE_DEFAULT_IMAGE = ../x\n", "IMAGE_CACHE_DEFAULT_IMAGE"),
    ],
    ids=["syntax", "size", "path", "URL", "image"],
)
def test_a_manager_does_not_start_with_a_wrong_configuration(make_site: StartSite, config: str, said: str) -> None:
    """It says why, without a traceback, and exits with 1."""
    site = make_site()
    site.configure(config)
    done = site.command("serve", "--stderr")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_configuration_that_is_not_there_is_told(make_site: StartSite) -> None:
    """HTCondor would go on with its defaults."""
    site = make_site()
    site.config.unlink()
    for words in (("serve", "--stderr"), ("status",), ("config",)):
        done = site.command(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert "does not exist" in done.stderr


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


@pytest.mark.parametrize(("text", "code"), [("", 399), ("garbage", 399), (image_ad("../x"), 110), (job_ad(), 0)])
def test_explain_takes_any_ad(shared_site: Site, text: str, code: int) -> None:
    """And says what the hook would say."""
    told = json.loads(shared_site.command("explain", "--json", "-", text=text).stdout)
    assert told["status"] == code
    assert f"HookStatusCode = {code}\n" in told["ad"]


def test_explain_of_a_file_that_is_not_there_is_not_done(shared_site: Site) -> None:
    """Exit status 1, and no traceback."""
    done = shared_site.command("explain", "/nonexistent/ad")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr


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
def test_the_configuration_that_is_printed_is_one(
    make_site: StartSite, tmp_path: Path, options: str, root: str
) -> None:
    """HTCondor reads it, and the hook runs with the arguments that it names."""
    site = make_site(IMAGE_CACHE_DEFAULT_IMAGE="htc/rocky:9", IMAGE_CACHE_DIR=str(tmp_path / root)).start()
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
