"""A disposable, real HTCondor pool on this machine, as an ordinary user or as root; runs inside the tree of tree.sh."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.pool.jobs import Event, Hold, HookRun, Job, Status, describe_jobs, wait_for
from tests.pool.processes import descendants, end, kill, make_directory, poll, run_as, start_as

__all__ = ["Event", "Hold", "HookRun", "Job", "Pool", "Status", "poll", "run_as", "wait_for"]

OUT = Path("/out")
"""Where the logs of failed pools go, if enter.sh was given a place for them."""

_CONFIG = """\
LOCAL_DIR = {directory}
LOCAL_CONFIG_DIR = {directory}/config.d
LOG = $(LOCAL_DIR)/log
LOCK = $(LOCAL_DIR)/lock
RUN = $(LOCAL_DIR)/run
SPOOL = $(LOCAL_DIR)/spool
EXECUTE = $(LOCAL_DIR)/execute
BIN = /usr/bin
SBIN = /usr/sbin
LIB = /usr/lib/condor
LIBEXEC = /usr/libexec/condor
SEC_PASSWORD_DIRECTORY = $(LOCAL_DIR)/passwords.d
SEC_TOKEN_SYSTEM_DIRECTORY = $(LOCAL_DIR)/tokens.d
SEC_CREDENTIAL_DIRECTORY_OAUTH = $(LOCAL_DIR)/cred_dir

# Kernel-chosen ports on loopback, found by the address files: pools can run side by side.
CONDOR_HOST = 127.0.0.1
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = False
NO_DNS = True
DEFAULT_DOMAIN_NAME = test
UID_DOMAIN = test
FILESYSTEM_DOMAIN = test
TRUST_UID_DOMAIN = True
STARTER_ALLOW_RUNAS_OWNER = True
COLLECTOR_HOST = 127.0.0.1:0
USE_SHARED_PORT = True
SHARED_PORT_PORT = 0
UPDATE_COLLECTOR_WITH_TCP = True
DAEMON_LIST = MASTER SHARED_PORT COLLECTOR NEGOTIATOR SCHEDD STARTD
use SECURITY : HOST_BASED
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = *
ALLOW_ADMINISTRATOR = *
ALLOW_NEGOTIATOR = *
SEC_DEFAULT_AUTHENTICATION_METHODS = FS

NUM_CPUS = {cpus}
MEMORY = {memory}
NUM_SLOTS_TYPE_1 = 1
SLOT_TYPE_1 = 100%
SLOT_TYPE_1_PARTITIONABLE = True
JOB_DEFAULT_REQUESTMEMORY = 64
JOB_DEFAULT_REQUESTDISK = 1024
SINGULARITY = /usr/bin/apptainer
SINGULARITY_EXTRA_ARGUMENTS = "--userns"

# What takes minutes in production takes seconds here.
UPDATE_INTERVAL = 2
POLLING_INTERVAL = 2
NEGOTIATOR_INTERVAL = 1
NEGOTIATOR_MIN_INTERVAL = 1
NEGOTIATOR_CYCLE_DELAY = 1
SCHEDD_INTERVAL = 2
SCHEDD_MIN_INTERVAL = 1
STARTER_UPDATE_INTERVAL = 2
STARTER_INITIAL_UPDATE_INTERVAL = 1
SHADOW_QUEUE_UPDATE_INTERVAL = 2
MASTER_BACKOFF_CONSTANT = 1
KILLING_TIMEOUT = 5
MachineMaxVacateTime = 5
SHUTDOWN_FAST_TIMEOUT = 5
RUNBENCHMARKS = 0
STARTD_NOCLAIM_SHUTDOWN = 0
CREDMON_OAUTH =
# The plug-ins in Python cost two seconds at the start of the startd.
FILETRANSFER_PLUGINS = /usr/libexec/condor/curl_plugin
MAIL = /bin/true
SENDMAIL = /bin/true
STARTD_DEBUG = D_FULLDEBUG
STARTER_DEBUG = D_FULLDEBUG
MAX_STARTER_LOG = 20 Mb
"""
_OWNED = ("log", "lock", "run", "spool", "execute", "cred_dir")
_ADVERTISED = frozenset({"Machine", "Scheduler", "Negotiator"})


class Pool:
    """One execution point, access point and central manager below `directory`, as a context manager.

    `user` None makes it root's pool: daemons switch to `condor`, jobs run as their owners. `config` is read last,
    after what a test puts into `config_directory`. Nothing runs any more when the context is left.
    """

    def __init__(  # noqa: PLR0913 - a pool has that many sides
        self,
        directory: Path,
        *,
        user: str | None = "joe",
        config: str = "",
        name: str = "pool",
        cpus: int = 12,
        memory: int = 4096,
    ) -> None:
        self.directory = directory
        self.user = user
        self.name = name
        self._config = config
        self._size = {"cpus": cpus, "memory": memory}
        self._master: subprocess.Popen[bytes] | None = None
        self._submissions = itertools.count(1)
        self._make_directories()

    def _make_directories(self) -> None:
        make_directory(self.directory, self.user)
        daemons = self.user or "condor"
        for name in _OWNED:
            make_directory(self.directory / name, daemons)
        for name in ("passwords.d", "tokens.d"):
            make_directory(self.directory / name, self.user, 0o700)
        make_directory(self.config_directory, None)
        make_directory(self.directory / "jobs", None)

    @property
    def config_directory(self) -> Path:
        """Root's directory for condor_config.d files, read in alphabetical order; `99-test.conf` is `config`."""
        return self.directory / "config.d"

    @property
    def log_directory(self) -> Path:
        """Where the daemons write their logs."""
        return self.directory / "log"

    @property
    def execute_directory(self) -> Path:
        """Where jobs run."""
        return self.directory / "execute"

    @property
    def environment(self) -> dict[str, str]:
        """What makes HTCondor's tools talk to this pool."""
        return {"CONDOR_CONFIG": str(self.directory / "condor_config")}

    @property
    def master_pid(self) -> int:
        """The pid of condor_master; raises RuntimeError when the pool is not running."""
        if self._master is None:
            raise RuntimeError(f"pool {self.name} is not running")
        return self._master.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.dump(repr(error))
        self.stop()

    def start(self, timeout: float = 30) -> None:
        """Start the pool and wait until it takes jobs; raise RuntimeError with the ends of its logs if it does not."""
        self.write_main_config()
        (self.config_directory / "99-test.conf").write_text(self._config)
        (self.log_directory / ".collector_address").unlink(missing_ok=True)
        output = self.log_directory / "master.out"
        self._master = start_as(self.user, ["condor_master", "-f"], output=output, env=self.environment)
        try:
            poll(self._ready, f"pool {self.name} ready", timeout, interval=0.05)
        except (TimeoutError, RuntimeError) as error:
            tails = self.tails()
            self.stop()
            raise RuntimeError(f"{error}\n{tails}") from error

    def _ready(self) -> bool:
        if self._master is None or self._master.poll() is not None:
            raise RuntimeError(f"condor_master of pool {self.name} ended")
        if not (self.log_directory / ".collector_address").exists():
            return False
        return set(self.tool("condor_status", "-any", "-af", "MyType", check=False).stdout.split()) >= _ADVERTISED

    def stop(self) -> None:
        """End every process of the pool: asked, and after 10 s killed. A stopped pool can be started again."""
        if self._master is None:
            return
        family = descendants(self._master.pid)
        if self._master.poll() is None:
            self.tool("condor_off", "-fast", "-daemon", "master", check=False)
        end(self._master, 10, ask=None)
        kill(family)
        self._master = None

    def reconfig(self) -> None:
        """Make every daemon read its configuration again."""
        self.tool("condor_reconfig")

    def write_main_config(self) -> None:
        """Write condor_config; `start` does so too. The tools can read the pool's configuration from then on."""
        (self.directory / "condor_config").write_text(_CONFIG.format(directory=self.directory, **self._size))

    def write_config(self, name: str, text: str) -> None:
        """Put a condor_config.d file in place; running daemons read it after `reconfig`."""
        (self.config_directory / name).write_text(text)

    def tool(
        self, *argv: str | Path, user: str | None = None, check: bool = True, text_input: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run one of HTCondor's tools (or any program) against this pool, as `user` or else the pool's own."""
        return run_as(
            user or self.user,
            argv,
            env=self.environment,
            check=check,
            text_input=text_input,
            timeout=timeout,
        )

    def slots(self) -> list[dict[str, Any]]:
        """Return the ads of all slots."""
        said = self.tool("condor_status", "-json").stdout
        ads: list[dict[str, Any]] = json.loads(said) if said.strip() else []
        return ads

    def submit(  # noqa: PLR0913 - each is a different thing to say of jobs
        self,
        lines: Mapping[str, str] | str,
        *,
        count: int = 1,
        user: str | None = None,
        directory: Path | None = None,
        inputs: Iterable[Path] = (),
        guard: int = 0,
    ) -> list[Job]:
        """Run condor_submit for `count` jobs as `user` (default: the pool's, in root's pool joe).

        Each job has a directory `<directory>/<process>` of its own with copies of `inputs` and its files `out`, `err`
        and `log`. Jobs without an executable print /IMAGE_ID. `guard` > 0 allows so many starts of a job.
        """
        owner = user or self.user or "joe"
        where = directory or self.directory / "jobs" / str(next(self._submissions))
        make_directory(where, owner)
        given = list(inputs)
        for proc in range(count):
            own = make_directory(where / str(proc), owner)
            for path in given:
                shutil.copy2(path, own)
        description = where / "submit"
        description.write_text(describe_jobs(lines, where, count, guard))
        said = self._submitted(description, owner)
        cluster = int(said.split(".")[0])
        return [Job(cluster, proc, where / str(proc), owner, self.tool) for proc in range(count)]

    def _submitted(self, description: Path, owner: str) -> str:
        """Return what condor_submit says; on a busy machine the schedd may need a moment before it answers."""

        def attempt() -> str:
            done = self.tool("condor_submit", "-terse", description, user=owner, check=False)
            if done.returncode and "Failed to connect to local queue manager" not in done.stderr:
                raise RuntimeError(f"condor_submit {description}: {done.stdout}{done.stderr}")
            return "" if done.returncode else done.stdout

        return poll(attempt, f"{description} submitted", 60, interval=0.5)

    def ssh_to_job(self, job: Job, command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run `command` beside a running job, in its container, with condor_ssh_to_job as the job's owner."""

        def attempt() -> subprocess.CompletedProcess[str] | None:
            done = self.tool("condor_ssh_to_job", job.id, command, user=job.owner, check=False, timeout=timeout)
            return None if "-auto-retry" in done.stderr else done  # the schedd learns late that the job runs

        return poll(attempt, f"ssh to job {job.id}", timeout, interval=0.2)

    def log(self, name: str) -> str:
        """Return the text of a log, e.g. `ImageCacheLog`; empty if there is none."""
        path = self.log_directory / name
        return path.read_text(errors="replace") if path.exists() else ""

    def tails(self, lines: int = 30) -> str:
        """Return the ends of the logs that tell why something failed."""
        names = ["master.out", "MasterLog", "ImageCacheLog"]
        names += sorted(path.name for path in self.log_directory.glob("StarterLog*"))
        ends = ((name, self.log(name).splitlines()[-lines:]) for name in names)
        return "\n".join(f"--- {self.name}: {name}\n" + "\n".join(last) for name, last in ends if last)

    def dump(self, reason: str) -> None:
        """Write the ends of the logs to stderr, and all logs to /out if that exists."""
        sys.stderr.write(f"pool {self.name}: {reason}\n{self.tails()}\n")
        if OUT.is_dir():
            shutil.copytree(self.log_directory, OUT / f"{self.name}-log", dirs_exist_ok=True)
