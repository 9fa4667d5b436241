"""Prove that the pool, the jobs' reports and the origin work, without the project's own hook; prints a timing report.

Run it inside the tree: `tests/pool/enter.sh "$(tests/pool/tree.sh)" . python3 /src/tests/pool/selfcheck.py`
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.pool.harness import Job, Pool, poll, run_as, wait_for
from tests.pool.origin import CvmfsTree, Origin, SifTree
from tests.pool.processes import descendants

WORK = Path("/pool/selfcheck")
SIF = Path("/srv/images/sif/rocky9.sif")
SANDBOX = Path("/srv/images/sandbox/rocky9")
CONFIG = f"""\
STARTER_JOB_HOOK_KEYWORD = IMG
IMG_HOOK_PREPARE_JOB = {WORK}/hooks/prepare
HasSIF = True
STARTD_ATTRS = $(STARTD_ATTRS) HasSIF
"""
HOOK = """\
#!/usr/bin/python3 -IS
import re, sys
wanted = re.search(r'^Wanted = "(.*)"', sys.stdin.read(), re.M)
if not wanted:
    sys.exit()
image, sif = wanted[1], str(wanted[1].endswith(".sif")).lower()
if image == "hold":
    print('HookStatusCode = 150\\nHookStatusMessage = "not an image (so it says): hold"')
    sys.exit()
print(f'''ContainerImage = "{image}"
SingularityImage = "{image}"
WantContainer = true
WantSIF = {sif}
WantSandboxImage = {"false" if sif == "true" else "true"}
WantDockerImage = false
WantDocker = false
HookStatusMessage = "chosen: {image}"''')
"""
CONTAINER = {"universe": "container", "container_image": "docker://busybox"}
SLEEP = {"executable": "/bin/sleep", "arguments": "60", "transfer_executable": "false"}


class Stopwatch:
    """Prints a line for everything that was checked, with the time since the line before."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self, what: str) -> None:
        """Print how long `what` took."""
        now = time.monotonic()
        print(f"{now - self._last:6.2f} s  {what}", flush=True)
        self._last = now


def check(expected: object, found: object, what: str) -> None:
    """Raise AssertionError unless they are equal."""
    assert expected == found, f"{what}: expected {expected!r}, found {found!r}"


def wanting(image: str | Path) -> dict[str, str]:
    """Return the submit lines of a job for which the hook chooses `image`."""
    return CONTAINER | {"+Wanted": f'"{image}"'}


def check_images(pool: Pool) -> None:
    """Run three jobs: with a SIF, with a sandbox, with no container at all."""
    jobs = [pool.submit(lines)[0] for lines in (wanting(SIF), wanting(SANDBOX), {"+Universe": "5"})]
    wait_for(jobs)
    check("htc/rocky:9 SIF\n", jobs[0].stdout, "the SIF job's output")
    check("htc/rocky:9 sandbox\n", jobs[1].stdout, "the sandbox job's output")
    check("the execution point itself\n", jobs[2].stdout, "the plain job's output")
    check([0, 0, 0], [job.exit_code for job in jobs], "exit codes")
    check(f"chosen: {SIF}", jobs[0].message(), "the hook's message")
    check("", jobs[2].message(), "a silent hook's message")
    check("docker://busybox", jobs[0].ad()["ContainerImage"], "the image in the history")
    check(1, jobs[0].num_shadow_starts, "shadow starts")


def check_many(pool: Pool, stopwatch: Stopwatch) -> None:
    """Run many jobs of one submission, waited for by their logs."""
    jobs = pool.submit(wanting(SIF), count=24)
    wait_for(jobs, timeout=120)
    check({"htc/rocky:9 SIF\n"}, {job.stdout for job in jobs}, "24 jobs' output")
    stopwatch.lap("24 SIF jobs on 12 slots")


def check_hold(job: Job) -> None:
    """See a job held because its hook reported 150, and see that before it is held."""
    runs = poll(job.hook_runs, "the hook's failure in the log")
    check([(150, "not an image (so it says): hold")], runs, "the hook's runs")
    check("held", job.wait("held"), "status")
    hold = job.hold
    assert hold is not None
    check((19, 150), (hold.code, hold.subcode), "hold codes")
    assert "not an image (so it says): hold" in hold.reason
    check(150, job.ad()["HoldReasonSubCode"], "the ad's hold subcode")


def check_ssh(pool: Pool) -> None:
    """Get into a container by condor_ssh_to_job; see that SIFs are mounted, not unpacked."""
    job = pool.submit(wanting(SIF) | SLEEP)[0]
    job.wait("running")
    check("htc/rocky:9 SIF\n", pool.ssh_to_job(job, "cat /IMAGE_ID").stdout, "output by ssh")
    mounted = [name for name in map(command_of, descendants(pool.master_pid)) if "squashfuse" in name]
    assert mounted, "no squashfuse below the pool: SIFs are unpacked for every job"
    pool.tool("condor_rm", job.id)
    check("removed", job.wait("removed"), "status")


def command_of(pid: int) -> str:
    """Return a process's command line; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def check_owners(pool: Pool) -> None:
    """Run jobs of two owners in root's pool, each with its own uid."""
    lines = CONTAINER | {"+Wanted": f'"{SANDBOX}"', "executable": "/bin/id", "transfer_executable": "false"}
    jobs = [pool.submit(lines | {"arguments": "-u"}, user=user)[0] for user in ("joe", "amy")]
    wait_for(jobs)
    check(["1000\n", "1001\n"], [job.stdout for job in jobs], "the jobs' uids")
    check(["joe", "amy"], [job.ad()["Owner"] for job in jobs], "the jobs' owners")


def check_restart(pool: Pool) -> None:
    """Reconfigure the pool, stop it, and start it again on the same directory."""
    pool.write_config("60-more.conf", "STARTD_ATTRS = $(STARTD_ATTRS) Shade\nShade = 42\n")
    pool.reconfig()
    poll(lambda: any(slot.get("Shade") == 42 for slot in pool.slots()), "the new attribute in the slot ad")
    pool.stop()
    pool.start()
    wait_for(pool.submit(wanting(SIF)))


def check_origin() -> None:
    """Count fetches, and make failures come and go."""
    tree = SifTree(WORK / "www")
    published = tree.publish("htc/rocky:9", SIF, "20260101T000000Z")
    path = tree.path_of("htc/rocky:9", published.name)
    with Origin(WORK / "origin", tree.base) as origin:
        for count in range(1, 6):
            check(SIF.stat().st_size, len(fetch(origin, path)), "bytes fetched")
            check(count, len(origin.requests(path, "GET")), "requests counted")
        for status in (502, 404):
            origin.fail("/", status)
            check(f"{status}", fetch_status(origin, path), "status while failing")
        origin.fail("/", 444)
        check("000", fetch_status(origin, path), "status of a closed connection")
        origin.restore()
        check("200", fetch_status(origin, path), "status when restored")
        check([502, 404, 444, 200], [request.status for request in origin.requests(path)][-4:], "the log")
        origin.stop()
        check("000", fetch_status(origin, path), "status when stopped")


def fetch(origin: Origin, path: str) -> bytes:
    """Return what curl gets, as an ordinary user."""
    target = Path("/tmp/fetched")  # noqa: S108 - the entry's own /tmp
    run_as("joe", ["curl", "-sf", "-o", target, origin.url + path])
    return target.read_bytes()


def fetch_status(origin: Origin, path: str) -> str:
    """Return the HTTP status that curl gets; 000 without an answer."""
    argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", origin.url + path]
    return run_as("joe", argv, check=False).stdout


def check_cvmfs(pool: Pool) -> None:
    """Run a sandbox by its name in the CVMFS double, before and after the name moves on."""
    tree = CvmfsTree()
    link = tree.publish("htc/rocky:9", SANDBOX)
    first: Job = pool.submit(wanting(link))[0]
    first.wait()
    tree.retag("htc/rocky:9", SANDBOX.with_name("rocky9-new"))
    second: Job = pool.submit(wanting(link))[0]
    second.wait()
    check(["htc/rocky:9 sandbox\n", "htc/rocky:9 sandbox, newer\n"], [first.stdout, second.stdout], "outputs")


def check_nothing_left() -> None:
    """Raise AssertionError if anything but the entry's first process and this one still runs."""
    others = [command_of(pid) for pid in descendants(1) if pid != os.getpid()]
    check([], others, "processes left behind")


def main() -> None:
    """Run every check; the first that fails ends the script with its traceback."""
    hooks = WORK / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "prepare").write_text(HOOK)
    (hooks / "prepare").chmod(0o755)
    stopwatch = Stopwatch()
    with Pool(WORK / "joe", config=CONFIG, name="joe") as pool:
        stopwatch.lap("joe's pool ready")
        refused = pool.submit(wanting("hold"), guard=2)[0]  # takes 10 s: beside the others
        check_images(pool)
        stopwatch.lap("jobs with a SIF, with a sandbox, without a container")
        check_many(pool, stopwatch)
        check_ssh(pool)
        stopwatch.lap("condor_ssh_to_job into a container, and condor_rm")
        check_cvmfs(pool)
        stopwatch.lap("two jobs from the CVMFS double")
        check_hold(refused)
        stopwatch.lap("a job held by its hook")
        check_restart(pool)
        stopwatch.lap("reconfigured, restarted, another job")
    stopwatch.lap("joe's pool stopped")
    with Pool(WORK / "root", user=None, config=CONFIG, name="root") as pool:
        stopwatch.lap("root's pool ready")
        check_owners(pool)
        stopwatch.lap("jobs of two owners")
    stopwatch.lap("root's pool stopped")
    check_origin()
    stopwatch.lap("origin: counted, failing, restored, stopped")
    check_nothing_left()
    stopwatch.lap("nothing left running")


if __name__ == "__main__":
    main()
