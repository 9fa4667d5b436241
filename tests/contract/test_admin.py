"""The manager's own life: how it starts, reads its configuration again, and ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from threading import Event

import pytest

from tests.contract.conftest import StartSite
from tests.contract.doubles import cvmfs_ad, image_ad, job_ad, sif
from tests.contract.harness import Site
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
        ("IMAGE_CACHE_DIR = relative/path\nIMAGE_CACHE_SIF_SOURCES = ftp://x\n", "no base URL"),
        ("IMAGE_CACHE_DEFAULT_IMAGE = ../x\n", "IMAGE_CACHE_DEFAULT_IMAGE"),
    ],
    ids=["syntax", "size", "path and URL", "image"],
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
