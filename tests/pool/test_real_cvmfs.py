"""CVMFS as it is: a FUSE file system that answers, lies, breaks, and stops answering. Real ones: squashfuse, stopped.

The repository is a squashfs image mounted by squashfuse; a stopped squashfuse makes its readers hang in the kernel, a
killed one leaves "Transport endpoint is not connected", a damaged image gives input/output errors.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pool.harness import Pool, poll, run_as
from tests.pool.origin import CvmfsTree
from tests.pool.processes import descendants, environment_of, make_directory
from tests.pool.world import CVMFS_REPOSITORY, SANDBOXES, SIFS, VERSION, World, image_name

REPOSITORY = Path(CVMFS_REPOSITORY).name
HOOK = "/src/hooks/prepare-job"


@dataclass
class Repository:
    """A mounted repository, and the manager that looks at it."""

    mount: Path
    image: Path
    server: subprocess.Popen[bytes]
    manager: subprocess.Popen[bytes]
    socket: str

    def ask(self, name: str) -> dict[str, str]:
        """Run the hook for a job with this image and return its answer."""
        ad = f"ClusterId = 1\nProcId = 0\nJobUniverse = 5\nSingularityImage = {image_name(name)}\n"
        done = subprocess.run(
            [HOOK, "--socket", self.socket, "--deadline", "60"], input=ad, capture_output=True, text=True, check=True
        )
        lines = (line.partition(" = ") for line in done.stdout.splitlines())
        return {key: value.strip('"') for key, _, value in lines}

    def status(self, name: str) -> int:
        """Return the hook status for an image."""
        return int(self.ask(name)["HookStatusCode"])

    def log(self) -> str:
        """Return the manager's log."""
        return (self.image.parent / "log").read_text()


@pytest.fixture
def make_repository(world: World) -> Iterator[Callable[..., Repository]]:
    """Return a function that mounts a repository with htc/rocky:9 in it and starts a manager."""
    begun: list[Repository] = []
    directory = make_directory(Path(tempfile.mkdtemp(prefix="cvmfs-", dir=world.directory)), "joe")

    def make(*, sources: bool = True, damaged: bool = False) -> Repository:
        tree = CvmfsTree(directory / "tree")
        tree.publish("htc/rocky:9", SANDBOXES / "rocky9")
        image = directory / "repository.sqfs"
        run_as(None, ["mksquashfs", tree.root, image, "-noI", "-noD", "-noF", "-noX", "-quiet", "-no-progress"])
        if damaged:  # the data is well, the table of inodes is not
            size = image.stat().st_size
            with image.open("r+b") as file:
                file.seek(size - 6000)
                file.write(b"\xff" * 3000)
        mount = directory / "cvmfs" / REPOSITORY
        mount.mkdir(parents=True)
        server = subprocess.Popen(["squashfuse", "-f", "-o", "allow_other", str(image), str(mount)])
        poll(lambda: os.path.ismount(mount), "the mount")
        config = directory / "condor_config"
        knobs = {
            "LOCAL_DIR": directory,
            "LOG": directory,
            "LIBEXEC": "/usr/libexec/condor",
            "IMAGE_CACHE_CVMFS_BASE": mount.parent,
            "IMAGE_CACHE_MIN_FREE_BYTES": "1 MB",
            "IMAGE_CACHE_SIF_SOURCES": world.sif_source if sources else "",
        }
        config.write_text("".join(f"{name} = {value}\n" for name, value in knobs.items()))
        with (directory / "log").open("wb") as log:
            argv = ["condor_image_cache", "serve", "--stderr"]
            environment = environment_of("joe", {"CONDOR_CONFIG": str(config)})
            manager = subprocess.Popen(argv, env=environment, stderr=log, cwd="/", user="joe", group="joe")
        one = Repository(mount, image, server, manager, str(directory / "image_cache" / "socket"))
        begun.append(one)
        poll(lambda: Path(one.socket).exists(), "the manager's socket")
        return one

    yield make
    for one in begun:
        one.manager.terminate()
        one.server.send_signal(signal.SIGCONT)
        one.manager.wait(20)
        subprocess.run(["umount", "-l", one.mount], check=False, capture_output=True)
        one.server.kill()
        one.server.wait()


def test_a_healthy_repository_serves_by_digest_and_is_the_authority(make_repository: Callable[..., Repository]) -> None:
    """A name that it does not have holds the job."""
    repository = make_repository()
    assert repository.ask("htc/rocky:9")["ContainerImage"].startswith(f"{repository.mount}/.images/")
    assert repository.status("htc/rocki:9") == 120


def test_a_repository_that_hangs_costs_one_job_the_probe_and_then_nobody(
    make_repository: Callable[..., Repository],
) -> None:
    """Each gets the SIF, nothing is held, and the repository is used again when it answers."""
    repository = make_repository()
    repository.server.send_signal(signal.SIGSTOP)
    assert repository.ask("htc/rocky:9")["WantSIF"] == "true"
    assert "hangs" in repository.log()
    # hanging readers are abandoned, not waited for: the answers come while the mount still hangs
    assert repository.status("htc/cold:1") == 0
    assert repository.status("htc/rocki:9") == 440
    repository.server.send_signal(signal.SIGCONT)
    poll(lambda: "answers again" in repository.log(), "the repository to be looked at again", 60)
    assert repository.ask("htc/rocky:9")["WantSandboxImage"] == "true"


def test_a_hang_starts_no_process_for_each_job(make_repository: Callable[..., Repository]) -> None:
    """One abandoned child at most, however many jobs come."""
    repository = make_repository(sources=False)
    repository.server.send_signal(signal.SIGSTOP)
    assert [repository.status(f"htc/image:{number}") for number in range(5)] == [440] * 5
    assert len(descendants(repository.manager.pid)) <= 2


def test_a_mount_whose_server_died_is_no_authority(make_repository: Callable[..., Repository]) -> None:
    """Transport endpoint is not connected."""
    repository = make_repository(sources=False)
    repository.server.kill()
    repository.server.wait()
    answer = repository.ask("htc/rocki:9")
    assert answer["HookStatusCode"] == "440"
    assert "Transport endpoint is not connected" in answer["HookStatusMessage"]


def test_a_repository_with_input_output_errors_is_no_authority(make_repository: Callable[..., Repository]) -> None:
    """The SIF serves, and what is not published elsewhere goes back to idle."""
    repository = make_repository(damaged=True)
    assert repository.ask("htc/rocky:9")["WantSIF"] == "true"
    assert repository.status("htc/rocki:9") == 440


def test_a_repository_that_is_not_mounted_is_no_authority(make_repository: Callable[..., Repository]) -> None:
    """An empty directory is where a mount should be."""
    repository = make_repository(sources=False)
    subprocess.run(["umount", repository.mount], check=True)
    assert repository.status("htc/rocki:9") == 440


def test_a_repository_that_hangs_after_the_answer_sends_the_job_elsewhere_or_to_the_sif(
    make_repository: Callable[..., Repository],
) -> None:
    """An answer that is still trusted is given again: the runtime's test of the image is HTCondor's own."""
    repository = make_repository()
    assert repository.ask("htc/rocky:9")["WantSandboxImage"] == "true"
    repository.server.send_signal(signal.SIGSTOP)
    assert repository.status("htc/rocky:9") == 0
    assert repository.ask("htc/cold:1")["WantSIF"] == "true"
    assert repository.ask("htc/rocky:9")["WantSIF"] == "true"


def test_a_bad_image_is_found_out_before_a_job_runs_in_it(
    make_repository: Callable[..., Repository], world: World
) -> None:
    """A whole SIF by its header and its size, that does not start: the job goes back to idle and is not held."""
    bad = Path("/pool/bad.sif")
    content = bytearray((SIFS / "alma9.sif").read_bytes())
    content[40960:90000] = b"\x55" * (90000 - 40960)
    bad.write_bytes(content)
    world.tree.publish("htc/bad:1", bad, VERSION)
    repository = make_repository()
    known_good = Path("/usr/libexec/condor/singularity_test_sandbox")
    assert known_good.is_dir()
    answer = repository.ask("htc/bad:1")
    assert answer["HookStatusCode"] == "450", answer
    assert "does not start here" in answer["HookStatusMessage"]
    assert json.loads(subprocess.run(
        ["condor_image_cache", "list", "--json"],
        env={**os.environ, "CONDOR_CONFIG": str(repository.image.parent / "condor_config")},
        capture_output=True, text=True, check=True,
    ).stdout) == []  # fmt: skip


def test_ten_jobs_of_one_user_with_a_dead_url_leave_everyone_else_running(bare: Pool) -> None:
    """They go back to idle; the EP stays open, and others' jobs run."""
    dead = bare.submit({"+SingularityImage": '"http://127.0.0.1:9/dead.sif"'}, count=10)
    poll(lambda: all(job.messages() for job in dead), "every job's answer", 60)
    assert bare.slots()[0]["ImageCacheHealthy"] is True
    other = bare.submit({"+SingularityImage": image_name("htc/rocky:9")})[0]
    other.wait()
    assert other.stdout == "htc/rocky:9 SIF\n"
    bare.tool("condor_rm", *[job.id for job in dead])


def test_the_sites_former_hook_runs_after_ours_on_the_pool(world: World) -> None:
    """Its attributes are merged into the job's ad."""
    former = world.directory / "former-hook"
    former.write_text("#!/bin/sh\ncat >/dev/null\necho 'Arguments = \"/IMAGE_ID /IMAGE_ID\"'\n")
    former.chmod(0o755)
    with world.pool("ep-next-hook", {"IMAGE_CACHE_NEXT_HOOK": str(former)}) as pool:
        job = pool.submit({"+SingularityImage": image_name("htc/rocky:9")})[0]
        job.wait()
    first, second = job.stdout.splitlines()
    assert first == second
    assert first.startswith("htc/rocky:9")
