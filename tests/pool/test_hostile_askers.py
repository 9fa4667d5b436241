"""Who gets images brought, and who may read and know of them: under real uids, on an execution point of root's."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.pool.demo import BARE_KNOBS
from tests.pool.harness import Job, Pool, poll, run_as
from tests.pool.processes import make_directory
from tests.pool.strangers import ASK, ask, listed, root_of, starters
from tests.pool.world import SIFS, World, image_name

ASKING_JOB: Final = """#!/bin/sh
# asks as a job may, and leaves a process behind that asks when the job and its starter are gone
ask() { /opt/venv/bin/python3 "$1/code.py" "$2" prepare <"$1/ad" 2>&1; }
ask "$@" >"$1/in_job.$3"
# without HTCondor's marks in its environment, and without a parent, it is not found and killed with the job
(env -i setsid /bin/sh -c '
    while [ ! -e "$1/go" ]; do /bin/sleep 0.1; done
    /opt/venv/bin/python3 "$1/code.py" "$2" prepare <"$1/ad" >"$1/.left.$3" 2>&1
    /bin/mv "$1/.left.$3" "$1/left_behind.$3"
' sh "$@" </dev/null >/dev/null 2>&1 &)
"""


def test_a_user_who_is_in_no_job_gets_no_image_and_may_look(ep: Pool, publisher: World) -> None:
    """Nothing is fetched, no server is asked, no job is held, and the execution point stays open."""
    ad = f'ClusterId = 1\nProcId = 0\nOwner = "joe"\nSingularityImage = {image_name("htc/cold:1")}\n'
    before = len(publisher.origin.requests())
    for name in ("htc/cold:1", "htc/a:1", "htc/b:1", "htc/c:1", "htc/rocky:9"):
        said = ask(ep, "prepare", ad.replace("htc/cold:1", name), "joe")
        assert "HookStatusCode = 399" in said
        assert "uid 1000 does not ask from a job of this execution point" in said
    explained = json.loads(ask(ep, "explain", ad, "joe"))
    assert any("not asked: only for jobs" in step["answer"] for step in explained["steps"])
    assert len(publisher.origin.requests()) == before
    assert [one["name"] for one in listed(ep, "joe")] == ["htc/rocky:9"]
    status = json.loads(run_as("joe", ["condor_image_cache", "status", "--json"], env=ep.environment).stdout)
    assert status["healthy"]
    assert status["leases"] == 0


def test_root_may_ask_without_a_job(ep: Pool) -> None:
    """And the manager's user."""
    ad = f"ClusterId = 1\nProcId = 0\nSingularityImage = {image_name('htc/rocky:9')}\n"
    for user in (None, "imagecache"):
        assert "HookStatusCode = 0" in ask(ep, "prepare", ad, user)


def test_a_process_that_calls_itself_a_starter_is_none(ep: Pool) -> None:
    """Users name their processes as they like."""
    script = (
        "import os, subprocess, sys\n"
        "open('/proc/self/comm', 'w').write('condor_starter')\n"
        "sys.stdout.write(subprocess.run(sys.argv[1:], stdin=sys.stdin, capture_output=True, text=True).stdout)\n"
    )
    ad = f"SingularityImage = {image_name('htc/rocky:9')}\n"
    inner = ["/opt/venv/bin/python3", "-c", ASK, str(root_of(ep) / "socket"), "prepare"]
    env = ep.environment | {"PYTHONPATH": "/src"}
    said = run_as("joe", ["/opt/venv/bin/python3", "-c", script, *inner], env=env, text_input=ad).stdout
    assert "HookStatusCode = 399" in said


def test_a_job_may_ask_and_what_it_leaves_behind_may_not(ep: Pool) -> None:
    """The starter above it is what counts, and that is gone."""
    place = make_directory(Path("/pool/asking"), "joe")
    script = place / "ask"
    script.write_text(ASKING_JOB)
    script.chmod(0o755)
    (place / "ad").write_text(f"ClusterId = 1\nProcId = 0\nSingularityImage = {image_name('htc/rocky:9')}\n")
    (place / "code.py").write_text(f"import sys\nsys.path.insert(0, '/src')\n{ASK}")
    lines = {"executable": str(script), "arguments": f"{place} {root_of(ep)}/socket $(Process)"}
    for number, job in enumerate(ep.submit(lines, user="joe", count=5)):  # HTCondor finds and kills some of them
        job.wait()
        assert "HookStatusCode = 0" in (place / f"in_job.{number}").read_text()
    poll(lambda: not starters(ep), "the end of the starter")
    (place / "go").touch()
    answers = poll(lambda: list(place.glob("left_behind.*")), "the answer to what was left behind")
    assert all("HookStatusCode = 399" in answer.read_text() for answer in answers)


def test_a_site_may_rename_its_starter(publisher: World) -> None:
    """What HTCondor's configuration names as the starter is one; the kernel keeps 15 bytes of its name."""
    program = Path("/pool/condor_starter.of_the_site")
    shutil.copy("/usr/sbin/condor_starter", program)
    with publisher.pool("ep-renamed", BARE_KNOBS | {"STARTER": str(program)}, user=None) as pool:
        job = pool.submit({"+SingularityImage": image_name("htc/rocky:9")}, user="joe")[0]
        job.wait()
        assert job.stdout == "htc/rocky:9 SIF\n"


FORGED: Final = """#!/bin/sh
# asks for three images, each time as another owner
for number in 0 1 2; do
    printf 'Owner = "owner%s"\nJobUniverse = 5\nContainerImage = "%s/forged%s.sif"\nWantContainer = true\n' \
        $number "$3" $number | /opt/venv/bin/python3 "$1/code.py" "$2" prepare
done
"""


def test_a_job_that_asks_in_the_name_of_others_closes_no_execution_point(ep: Pool, publisher: World) -> None:
    """Whose failures they are is the kernel's word; what HTCondor itself (root) says of an owner is believed."""
    place = make_directory(Path("/pool/forging"), "joe")
    (place / "ask").write_text(FORGED)
    (place / "ask").chmod(0o755)
    (place / "code.py").write_text(f"import sys\nsys.path.insert(0, '/src')\n{ASK}")
    for number in range(3):
        shutil.copyfile(SIFS / "rocky9.sif", publisher.directory / "www" / f"forged{number}.sif")
    lines = {"executable": str(place / "ask"), "arguments": f"{place} {root_of(ep)}/socket {publisher.origin.url}"}
    ad = f'Owner = "amy"\nContainerImage = "{publisher.origin.url}/forged0.sif"\nWantContainer = true\n'
    with full_disk(ep):
        job = ep.submit(lines, user="joe")[0]
        job.wait()
        assert job.stdout.count("HookStatusCode = 430") == 3, job.stdout
        assert is_healthy(ep)
        assert "HookStatusCode = 430" in ask(ep, "prepare", ad, None)
        assert not is_healthy(ep)
    assert "HookStatusCode = 0" in ask(ep, "prepare", ad, None)
    assert is_healthy(ep)


@contextmanager
def full_disk(pool: Pool) -> Iterator[None]:
    """Have no room on a pool's disk, by its own word."""

    def leave_free(size: str) -> None:
        pool.write_config("90-disk.conf", f"IMAGE_CACHE_MIN_FREE_BYTES = {size}\n")
        before = read_again()
        pool.reconfig()
        poll(lambda: read_again() > before, "the configuration being read")

    def read_again() -> int:
        return pool.log("ImageCacheLog").count("configuration read again")

    leave_free("900 TB")
    try:
        yield
    finally:
        leave_free("10 MB")


def is_healthy(pool: Pool) -> bool:
    """Whether an execution point says that it takes container jobs."""
    said = run_as(None, ["condor_image_cache", "status", "--json"], env=pool.environment, check=False).stdout
    return bool(json.loads(said)["healthy"])


HIDDEN: Final = """
import os, sys
from cache_manager import processes
from cache_manager.askers import Askers
from cache_manager.processes import Peer
assert not processes.is_visible(1), "/proc hides nothing"
why = Askers({"EXECUTE": "/pool/hidden"}).why_not
print(json.dumps([why(Peer(int(sys.argv[1]), 1000), place) for place in sys.argv[2:]]))
"""


def test_where_proc_hides_others_a_users_scratch_directory_speaks_for_them() -> None:
    """HTCondor gives it to the job's user: nobody else has one there."""
    places = {"dir_77/scratch": "joe", "dir_78": "joe", "dir_79/scratch": "amy", "joes/dir_80": "joe"}
    good = ("dir_77/scratch", "dir_77", "dir_78", "dir_78/deep/in/it")
    bad = ("dir_79/scratch", "dir_81", "joes/dir_80", "joes", "", "/home/joe", "dir_79/../dir_77")
    stated = {str(Path("/pool/hidden", name)): name in good for name in (*good, *bad)}
    shutil.rmtree("/pool/hidden", ignore_errors=True)
    for name, user in places.items():
        make_directory(Path("/pool/hidden", name), user)
    code = 'mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid=990 --regid=990 --clear-groups -- "$@"'
    python = ["/opt/venv/bin/python3", "-c", f"import json{HIDDEN}", str(os.getpid()), *stated]
    said = run_as(None, ["unshare", "-m", "sh", "-c", code, "sh", *python], env={"PYTHONPATH": "/src"}).stdout
    assert [not why for why in json.loads(said)] == list(stated.values())


def submit_url(pool: Pool, url: str, user: str, *, guard: int = 0) -> Job:
    """Submit a job that names an image by its URL, for the cache to fetch."""
    lines = {"universe": "container", "container_image": url, "transfer_container": "false"}
    return pool.submit(lines, user=user, guard=guard)[0]


def opens(user: str, path: str) -> bool:
    """Whether a user can read a file."""
    return not run_as(user, ["/usr/bin/head", "-c1", path], check=False).returncode


def test_an_image_that_came_with_a_credential_is_its_users_alone(ep: Pool, publisher: World) -> None:
    """Read by who brought it and by who shows now that the server gives it to them; named to no one else."""
    url = f"{publisher.origin.url}/web.sif?sig=s3cr3t"
    mine = submit_url(ep, url, "joe")
    mine.wait()
    assert mine.stdout == "web SIF\n"
    (entry,) = [one for one in listed(ep, None) if one["name"] != "htc/rocky:9"]
    image = str(root_of(ep) / "entries" / entry["key"] / "image")
    assert (opens("joe", image), opens("amy", image), opens("www-data", image)) == (True, False, False)
    assert "web.sif" in json.dumps(listed(ep, "joe"))
    assert "web.sif" not in json.dumps(listed(ep, "amy"))
    assert entry["digest"] not in json.dumps(listed(ep, "amy"))
    shown = run_as("amy", ["condor_image_cache", "show", entry["key"]], env=ep.environment, check=False)
    assert shown.returncode == 1
    assert "web" not in str([ad["ImageCacheImages"] for ad in ep.slots()])

    publisher.origin.fail("/web.sif", 403)
    hers = submit_url(ep, url, "amy")
    hers.wait("held")
    assert hers.hold is not None
    assert hers.hold.subcode == 130
    assert not opens("amy", image)

    publisher.origin.restore()
    again = submit_url(ep, url, "amy")
    again.wait()
    assert again.stdout == "web SIF\n"
    assert opens("amy", image)
    assert "web.sif" in json.dumps(listed(ep, "amy"))


def test_who_was_admitted_is_still_so_after_a_restart(ep: Pool, publisher: World) -> None:
    """The lists are on the disk; and the same bytes without a credential are for all."""
    url = f"{publisher.origin.url}/alma9.sif?sig=s3cr3t"
    submit_url(ep, url, "joe").wait()
    (entry,) = [one for one in listed(ep, None) if "alma9" in one["name"]]
    image = str(root_of(ep) / "entries" / entry["key"] / "image")
    ep.tool("condor_off", "-daemon", "image_cache_manager")
    poll(lambda: not (root_of(ep) / "socket").exists(), "the end of the manager")
    ep.tool("condor_on", "-daemon", "image_cache_manager")
    poll((root_of(ep) / "socket").exists, "another manager")
    assert (opens("joe", image), opens("amy", image)) == (True, False)
    assert "alma9" not in json.dumps(listed(ep, "amy"))
    hers = submit_url(ep, url.partition("?")[0], "amy")
    hers.wait()
    assert hers.stdout == "htc/almalinux:9 SIF\n"
    assert opens("amy", image)
    assert opens("www-data", image)
    assert "alma9" in json.dumps(listed(ep, "amy"))
