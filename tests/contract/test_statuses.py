"""Every row of HookStatus as HTCondor meets it: ads in, answer out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cache_manager import client, protocol
from tests.cases import CASES
from tests.cases.case import WHO, Case
from tests.contract.block import Answer, read_block
from tests.contract.harness import Site
from tests.contract.origin import Origin
from tests.contract.worlds import World

WorldOf = Callable[[Case], World]


@pytest.fixture(scope="module")
def world_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorldOf]:
    """Return a case's world; cases with the same configuration live in the same one."""
    with ExitStack() as stack:
        worlds: dict[str, World] = {}

        def find(case: Case) -> World:
            key = f"{sorted(case.knobs.items())} {case.before_start}"
            if key not in worlds:
                worlds[key] = _begin(case, stack, tmp_path_factory.mktemp("world"))
            return worlds[key]

        yield find


def _begin(case: Case, stack: ExitStack, directory: Path) -> World:
    origin = stack.enter_context(Origin())
    names = {"@ORIGIN@": origin.url, "@SITE@": str(directory)}
    knobs = dict(case.knobs)
    for name, value in names.items():
        knobs = {knob: text.replace(name, value) for knob, text in knobs.items()}
    world = World(stack.enter_context(Site(directory, knobs)), origin)
    if case.before_start:
        case.before_start(world)
    world.site.start()
    return world


def _ask(case: Case, world: World, *, like_condor: bool) -> Answer:
    ad = world.fill(case.ad) if isinstance(case.ad, str) else case.ad
    return world.site.run_hook(
        ad,
        *case.args,
        machine_ad=case.machine,
        socket=world.site.directory / "nobody" if case.no_manager else None,
        launcher=like_condor,
        blocked_signals=like_condor,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}: {case.name}")
def test_a_job_gets_the_answer_of_the_table(case: Case, world_of: WorldOf) -> None:
    """First as HTCondor starts the hook, then with a clean signal mask and without the launcher."""
    world = world_of(case)
    if case.before:
        case.before(world)
    for like_condor in (True, False):
        answer = _ask(case, world, like_condor=like_condor)
        assert answer.code == case.code, answer.message
        assert case.said in answer.message
        if case.runs:
            kind, _, place = case.runs.partition(" ")
            path = str(world.entry(place)) if kind == "entry" else world.fill(place)
            assert answer.runs(path, sandbox=kind == "sandbox"), answer.attributes
            assert Path(path).exists()
        elif case.code == 0:
            assert answer.is_untouched
        else:
            assert answer.message


EXPLAINED = [
    case for case in CASES if not case.no_manager and not case.args and len(case.ad) <= protocol.MAX_BODY_BYTES
]
"""An admin's question has no deadline: what never ends is left out."""


@pytest.mark.parametrize("case", EXPLAINED, ids=lambda case: f"{case.code}: {case.name}")
def test_explain_foresees_what_need_not_be_fetched(case: Case, world_of: WorldOf) -> None:
    """What only the bytes or the job's own user can tell is foreseen as 0."""
    site = world_of(case).site
    ad = case.ad if isinstance(case.ad, bytes) else world_of(case).fill(case.ad).encode()
    found = json.loads(client.ask(str(site.socket), "explain", ad + case.machine.encode(), job=len(ad)))
    block = read_block(found["ad"].encode())
    assert block["HookStatusCode"] == found["status"]
    assert found["status"] in ({case.code} if all(ask.is_foreseen for ask in case.asked) else {case.code, 0})
    named = Counter(step["source"].partition(" (")[0] for step in found["steps"] if step["source"] != "-")
    asked = Counter(WHO[ask.who].value for ask in case.asked)
    assert asked == named if case.code else asked <= named


def test_whatever_the_table_asked_no_manager_stumbled(world_of: WorldOf) -> None:
    """A traceback in the log is a fault of ours, whatever the hook made of it."""
    for case in CASES:
        assert "Traceback" not in world_of(case).site.log_text()
