"""CVMFS as it is: it answers, is old, breaks, and stops answering. A real FUSE file system, and real D states."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.pool.harness import poll
from tests.pool.repository import Manager, Mount, answer_of, d_states, publish_revision, retire_revisions
from tests.pool.world import CVMFS_REPOSITORY, World, image_name

ROCKY = image_name("htc/rocky:9")
MakeSite = Callable[..., Manager]


@pytest.fixture
def make_site(world: World) -> Iterator[MakeSite]:
    """Return a function that mounts a repository and starts a manager, with or without a tree of SIFs."""
    with ExitStack() as stack:

        def make(*, sources: bool = True) -> Manager:
            mount = stack.enter_context(Mount(world))
            return stack.enter_context(Manager(mount, world.sif_source if sources else ""))

        yield make


def test_a_healthy_repository_serves_by_digest_and_is_the_authority(make_site: MakeSite) -> None:
    """A name that it does not have holds the job; links that say /cvmfs lead to where it is mounted."""
    site = make_site()
    assert site.ask(ROCKY)["ContainerImage"].startswith(f"{site.mount.top}/.images/")
    assert site.status("htc/rocki:9") == 120


def test_an_old_revision_is_no_authority_for_what_it_lacks(make_site: MakeSite, world: World) -> None:
    """An image that was published since is missing here, and only here: the job goes elsewhere, until it is newest."""
    site = make_site(sources=False)
    host = publish_revision(world, 8)
    facts = {"user.revision": "7", "user.host": host, "user.proxy": "DIRECT"}
    site.mount.behave(xattrs=facts)
    assert site.ask(ROCKY)["WantSandboxImage"] == "true"
    answer = site.ask(image_name("htc/new:1"))
    assert answer["HookStatusCode"] == "440"
    assert "an old revision is mounted here (7, published is 8)" in answer["HookStatusMessage"]
    site.mount.behave(xattrs=facts | {"user.revision": "8"})
    assert site.status("htc/newer:1") == 120


@pytest.mark.parametrize("proxy", ["DIRECT", "http://127.0.0.1:9"])
def test_a_repository_whose_servers_cannot_be_reached_is_no_authority(
    make_site: MakeSite, world: World, proxy: str
) -> None:
    """It may be old, and nobody can tell: through the proxy that its client uses."""
    site = make_site(sources=False)
    host = publish_revision(world, 7)
    if proxy == "DIRECT":
        retire_revisions(world)
    site.mount.behave(xattrs={"user.revision": "7", "user.host": host, "user.proxy": proxy})
    answer = site.ask(image_name("htc/new:1"))
    assert answer["HookStatusCode"] == "440"
    assert "cannot be told whether its revision 7 is the newest" in answer["HookStatusMessage"]


def test_a_repository_with_input_output_errors_is_no_authority(make_site: MakeSite) -> None:
    """The SIF serves, and what is not published elsewhere goes back to idle."""
    site = make_site()
    site.mount.behave(errno=errno.EIO)
    assert site.ask(ROCKY)["WantSIF"] == "true"
    assert site.status("htc/rocki:9") == 440


def test_an_image_with_input_output_errors_takes_no_others_with_it(make_site: MakeSite) -> None:
    """One broken directory is found by looking at the repository itself, and then it is the repository's trouble."""
    site = make_site()
    site.mount.behave(errno=errno.EIO, below="/htc")
    assert site.ask(ROCKY)["WantSIF"] == "true"


def test_a_mount_whose_client_died_is_no_authority(make_site: MakeSite) -> None:
    """Transport endpoint is not connected."""
    site = make_site(sources=False)
    site.mount.kill()
    answer = site.ask(image_name("htc/rocki:9"))
    assert answer["HookStatusCode"] == "440"
    assert "Transport endpoint is not connected" in answer["HookStatusMessage"]


def test_a_repository_that_is_not_mounted_is_no_authority(make_site: MakeSite) -> None:
    """An empty directory is where a mount should be."""
    site = make_site(sources=False)
    subprocess.run(["umount", site.mount.top], check=True)
    assert site.status("htc/rocki:9") == 440


def test_a_hang_costs_no_job_its_image_where_there_is_a_sif(make_site: MakeSite) -> None:
    """Each gets the SIF, nothing is held, and the repository is used again when it answers."""
    site = make_site()
    site.mount.behave(hang=True)
    assert site.ask(ROCKY)["WantSIF"] == "true"
    poll(lambda: "hangs" in site.log(), "the hang being found out")
    assert len(site.children_in_d_state()) == 1
    # hanging readers are abandoned, not waited for: the answers come while the mount still hangs
    assert site.status("htc/cold:1") == 0
    assert site.status("htc/rocki:9") == 440
    assert len(site.children_in_d_state()) == 1
    site.mount.behave()
    poll(lambda: "answers again" in site.log(), "the repository to be looked at again", 60)
    assert site.ask(ROCKY)["WantSandboxImage"] == "true"


def test_while_a_hang_is_found_out_jobs_with_other_images_are_answered(make_site: MakeSite, world: World) -> None:
    """One job pays for the probe; others with an image of the same repository wait no longer than that one."""
    site = make_site(sources=False)
    site.mount.behave(hang=True)
    first = site.start_hook(ROCKY)
    poll(lambda: site.ask(image_name("none:1").replace(CVMFS_REPOSITORY, "/cvmfs/none.example")), "an answer")
    others = [site.start_hook(image_name(f"htc/image:{number}")) for number in range(5)]
    assert site.ask(f'"{world.origin.url}/web.sif"')["WantSIF"] == "true"
    assert site.ask('"/srv/images/sif/alma9.sif"')["WantSIF"] == "true"
    assert first.poll() is None
    assert answer_of(first)["HookStatusCode"] == "440"
    assert {answer_of(other)["HookStatusCode"] for other in others} == {"440"}
    assert len(site.children_in_d_state()) == 1


def test_a_hang_after_the_answer_is_found_out_without_a_job(make_site: MakeSite) -> None:
    """A repository in use is looked at in the background: the next job gets the SIF at once."""
    site = make_site()
    assert site.ask(ROCKY)["WantSandboxImage"] == "true"
    site.mount.behave(hang=True)
    poll(lambda: "hangs" in site.log(), "the hang being found out", 60)
    assert site.ask(ROCKY)["WantSIF"] == "true"


def test_a_path_that_leads_into_a_hang_ends_the_look_and_not_the_slot(make_site: MakeSite) -> None:
    """A link on this EP: the hook looks at it itself, and leaves the look behind when it is in D state."""
    site = make_site()
    link = site.directory / "link.sif"
    link.symlink_to(site.mount.top / "htc" / "rocky:9")
    site.mount.behave(hang=True)
    answer = site.ask(f'"{link}"')
    assert answer["HookStatusCode"] == "360"
    assert "link.sif: cannot be opened (does not answer" in answer["HookStatusMessage"]
    assert d_states()


def test_without_a_manager_a_hang_ends_the_look_and_not_the_slot(make_site: MakeSite) -> None:
    """The job goes back to idle; the hook has ended, although its child cannot."""
    site = make_site()
    site.mount.behave(hang=True)
    path = f'"{site.mount.top}/htc/rocky:9"'
    answer = site.ask(path, "--socket", str(Path("/nonexistent/socket")), "--degraded", "yes")
    assert answer["HookStatusCode"] == "410"
    assert d_states()
