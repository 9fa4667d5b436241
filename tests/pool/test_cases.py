"""The table of cases on real pools: each job submitted, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import classad2
import pytest

from tests.cases import CASES
from tests.cases.case import Case, Submit
from tests.cases.submitting import STRICT
from tests.contract.doubles import ARCH, HTML, job_ad, other_arch, sif, tree, truncated_sif, write
from tests.pool.harness import Job, Pool, poll
from tests.pool.processes import make_directory
from tests.pool.world import SANDBOXES, SIFS, VERSION, World

ROWS: Final = [case for case in CASES if case.submit]
ATTRIBUTE: Final = re.compile(r"[A-Za-z_]\w* ?=")
PLUGIN: Final = Path(__file__).with_name("http_plugin")
STRICT_KNOBS: Final = {"IMAGE_CACHE_HOOK_DEADLINE": "5s", "FILETRANSFER_PLUGINS": str(PLUGIN)}

OF_THE_IMAGE: Final = {
    "containerimage",
    "containerimagefullpath",
    "containerimagesource",
    "dockerimage",
    "jobuniverse",
    "singularityimage",
    "transfercontainer",
    "transferinput",
    "wantcontainer",
    "wantdocker",
    "wantdockerimage",
    "wantsandboximage",
    "wantsif",
}
"""The attributes of a job ad that say which image a job runs in, and how it comes there."""


def title(case: Case) -> str:
    """Return what pytest shows of a row."""
    return f"{case.code}: {case.name}"


class Submitted:
    """The jobs of all rows, each on its pool."""

    def __init__(self, world: World, pools: dict[str, Pool]) -> None:
        self.names = {"@ORIGIN@": world.origin.url, "@SITE@": str(world.directory / "site")}
        self.files = world.directory / "site" / "job"
        self.pools = pools
        with ThreadPoolExecutor() as threads:
            found = threads.map(self._submit_to, pools)
        self.jobs: dict[str, Job] = {name: job for some in found for name, job in some}

    def fill(self, text: str) -> str:
        """Put this world's names into a text."""
        for name, value in self.names.items():
            text = text.replace(name, value)
        return text

    def _submit_to(self, pool: str) -> list[tuple[str, Job]]:
        return [(case.name, self._submit(case.submit)) for case in ROWS if case.submit and case.submit.pool == pool]

    def _submit(self, submit: Submit) -> Job:
        lines = {name: self.fill(value) for name, value in submit.lines.items()}
        inputs = [self.files / file for file in submit.files]
        return self.pools[submit.pool].submit(lines, inputs=inputs, guard=1)[0]

    def remove(self) -> None:
        """Take the jobs out of the queues: those that are held, and those that are idle for ever."""
        for name, pool in self.pools.items():
            ids = [self.jobs[case.name].id for case in ROWS if case.submit and case.submit.pool == name]
            pool.tool("condor_rm", *ids, user="joe", check=False)

    def answer(self, case: Case) -> tuple[int, str]:
        """Return what the row's job was answered: code and message, which is empty for a job that is not touched."""
        assert case.submit is not None
        pool, job = self.pools[case.submit.pool], self.jobs[case.name]

        def answered() -> tuple[int, str] | None:
            for run in job.hook_runs():
                return run.status, run.message
            untouched = any(line.endswith(": untouched") for line in answers_to(job, pool))
            return (0, "") if untouched else None

        return poll(answered, f"the answer to {case.name}: {job.describe()}", 60)


def answers_to(job: Job, pool: Pool) -> list[str]:
    """Return the lines of the manager's log about a job."""
    return [line for line in pool.log("ImageCacheLog").splitlines() if f" answer {job.id} " in line]


def attributes(text: str) -> dict[str, object]:
    """Return the attributes that a text sets, by their names in lower case; what else it says is left out."""
    lines = [line for line in text.splitlines() if ATTRIBUTE.match(line)]
    ad = classad2.parseOne("\n".join(lines), classad2.ParserType.Old)
    return {name.lower(): str(ad.lookup(name)) for name in ad}


def publish(world: World) -> None:
    """Put into the world what the rows are about."""
    world.cvmfs.publish("htc/both:1", SANDBOXES / "alma9")
    world.tree.publish("htc/both:1", SIFS / "alma9.sif", VERSION)
    world.tree.publish("htc/tree:1", SIFS / "rocky9-new.sif", VERSION)
    published = world.directory / "www" / "v2"
    for files in (
        tree("htc/large:1", sif("large"), size=10**9),
        tree("htc/other:1", sif(arch=other_arch())),
        tree("htc/half:1", truncated_sif()),
        tree("htc/dead:1", sif("dead")),
        {f"{ARCH}/htc__slow__1/latest.txt": f"{VERSION}.sif\n".encode()},
    ):
        write(published, files)
    web, shipped = (SIFS / "web.sif").read_bytes(), (SIFS / "shipped.sif").read_bytes()
    write(world.directory / "www" / "own", {"good.sif": web, "query.sif": web, "job.sif": web, "html.sif": HTML})
    site = world.directory / "site"
    text = b"this is no image, but it is long enough for a header " * 3
    write(site / "job", {"job.sif": shipped, "image.sif": shipped, "text.sif": text})
    make_directory(site / "local", None)
    (site / "local" / "image.sif").symlink_to(SIFS / "alma9.sif")
    (site / "local" / "image").symlink_to(SANDBOXES / "alma9")
    for status in (403, 429, 503):
        world.origin.fail(f"/own/{status}.sif", status)
    world.origin.slow(world.object_path("htc/slow:1", ""), 1)


@pytest.fixture(scope="module")
def submitted(world: World, mounted: Pool, bare: Pool, root_pool: Pool) -> Iterator[Submitted]:
    """Return the jobs of all rows. What did not run is removed at the end."""
    publish(world)
    with world.pool("ep-that-refuses", STRICT | STRICT_KNOBS) as strict:
        one = Submitted(world, {"mounted": mounted, "bare": bare, "docker": root_pool, "strict": strict})
        yield one
        one.remove()


@pytest.mark.parametrize("case", ROWS, ids=title)
def test_a_real_job_gets_the_answer_of_the_table(case: Case, submitted: Submitted) -> None:
    """It reads its image's name in its container, is held with the reason, or is idle again."""
    assert case.submit is not None
    job = submitted.jobs[case.name]
    code, said = submitted.answer(case)
    assert code == case.code, said
    assert submitted.fill(case.said) in said
    if case.submit.reads:
        job.wait()
        assert job.stdout == f"{case.submit.reads}\n", job.message()
    elif case.code == 0:
        assert said == ""
    elif case.code < 300:
        job.wait("held")
        assert job.hold is not None
        assert (job.hold.code, job.hold.subcode) == (19, case.code)
        assert submitted.fill(case.said) in job.hold.reason
    else:
        assert poll(job.hook_runs, f"the hook's run for {case.name}", 30)[0].status == case.code
        assert job.status != "held"


@pytest.mark.parametrize("case", ROWS, ids=title)
def test_the_ad_of_the_table_is_the_one_that_condor_submit_makes(case: Case, submitted: Submitted) -> None:
    """All that says which image a job runs in, and nothing more of it."""
    assert case.submit is not None
    assert isinstance(case.ad, str)
    description = submitted.jobs[case.name].directory.parent / "submit"
    pool = submitted.pools[case.submit.pool]
    made = attributes(pool.tool("condor_submit", "-dry-run", "-", description, user="joe").stdout)
    written = attributes(submitted.fill(case.ad))
    names = OF_THE_IMAGE | (written.keys() - attributes(job_ad()).keys() - {"iwd"})
    of_image = [{name: ad[name] for name in sorted(names & ad.keys())} for ad in (made, written)]
    assert of_image[0] == of_image[1]
