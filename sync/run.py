"""One run: convert what is planned, publish it in batches as it comes, then retire. It may be killed at any moment.

What was converted and not published waits in the work directory; what was published is in the catalog; what a killed
run left in the targets is cleared up at the next start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from sync import transitions
from sync.engine.base import Engine, EngineError
from sync.ledger import Ledger
from sync.pending import Pending
from sync.plan import Plan
from sync.publisher import Item, Publisher
from sync.request import Request
from sync.resolution import Resolution
from sync.retirement import Retirement
from sync.settings import Settings
from sync.step import Action, Verb
from sync.values import Converted, Failure

log = logging.getLogger(__name__)

Tell = Callable[[str, str], None]
"""Told an image's name and what is done with it; nothing: it is done."""

Wanted = dict[tuple[str, str], list[Action]]
"""What waits for the image of an architecture and a digest: names of one digest share a conversion."""


@dataclass
class Outcome:
    """What became of a run: by name what was published, what failed and why; and what else went wrong."""

    published: dict[str, list[str]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    resumed: int = 0

    @property
    def is_good(self) -> bool:
        """Whether nothing failed."""
        return not (self.failures or self.faults)


def _waits(action: Action) -> bool:
    """Whether an image that failed before is left alone for now: it is not as its registry has it."""
    return action.verb is Verb.WAIT


def _why(action: Action) -> Failure:
    return action.failure or Failure(action.name, action.source, action.reason)


@dataclass
class Run:
    """What a run works with."""

    settings: Settings
    ledger: Ledger
    engine: Engine
    pending: Pending
    publisher: Publisher
    retirement: Retirement
    requests: Callable[[Action], Request]
    tell: Tell
    outcome: Outcome = field(default_factory=Outcome)
    _failed: dict[str, Failure] = field(default_factory=dict)

    def go(self, now_listed: Resolution | None, plan: Plan) -> Outcome:
        """Do what is planned. Without a list no name goes that the plan does not name. Raises OSError."""
        self.outcome.failures += [_why(one) for one in plan.of(Verb.KEEP, Verb.WAIT) if one.failure or _waits(one)]
        wanted: Wanted = {}
        for action in plan.of(Verb.CONVERT):
            wanted.setdefault((action.arch, action.digest), []).append(action)
        self.outcome.resumed = self.pending.begin(wanted)
        try:
            self._publish_all(wanted)
        except EngineError as error:
            self.outcome.faults.append(f"engine {self.settings.engine}: {error}")
        steps = plan.of(Verb.LINK, Verb.UNLINK, Verb.REMOVE)
        self.outcome.faults += self.retirement.apply(steps, now_listed, self.settings)
        self._show()
        self.ledger.end()
        return self.outcome

    def _publish_all(self, wanted: Wanted) -> None:
        """Convert, and publish as soon as there is enough for a batch."""
        batch: list[Converted] = []
        for result in self._converted(wanted):
            if isinstance(result, Failure):
                self._fail_all(result, wanted)
                continue
            batch.append(result)
            if len(batch) >= self.settings.batch:
                self._publish(batch, wanted)
                batch = []
        if batch:
            self._publish(batch, wanted)

    def _converted(self, wanted: Wanted) -> Iterator[Converted | Failure]:
        """Yield conversions: those that a former run left first, then the others as they end."""
        requests = []
        for key, actions in wanted.items():
            found = self.pending.get(*key)
            if found is not None:
                self.tell(found.name, "was converted by a former run")
                yield found
            else:
                requests.append(self.requests(actions[0]))
        if not requests:
            return
        results = self.engine.run(requests, self._report)
        try:
            for result in results:
                if isinstance(result, Converted):
                    self.pending.put(result)
                    self.tell(result.name, "converted")
                yield result
        finally:
            if isinstance(results, Generator):
                results.close()

    def _report(self, request: Request, what: str) -> None:
        self.ledger.doing(request.name, what)
        self.tell(request.name, what)

    def _publish(self, batch: Sequence[Converted], wanted: Wanted) -> None:
        items = []
        for one in batch:
            for action in wanted[one.variant.arch, one.variant.digest]:
                index = action.resolved.digest if action.resolved else one.index_digest
                mine = replace(one, name=action.name, source=action.source, index_digest=index)
                items.append(Item(mine, action.forms))
        failures = self.publisher.publish(items)
        failed = {(one.name, one.arch) for one in failures}
        for one in batch:
            actions = wanted[one.variant.arch, one.variant.digest]
            done = [action.name for action in actions if (action.name, action.arch) not in failed]
            if len(done) == len(actions):
                self.pending.drop(one)
            for name in done:
                self._succeed(name, one.variant.arch)
        for failed_one in failures:
            self._fail(failed_one.failure)
        self._show()

    def _succeed(self, name: str, arch: str) -> None:
        self.outcome.published.setdefault(name, []).append(arch)
        self.ledger.doing(name, "")
        self.tell(name, f"published ({arch})")
        if name in self._failed:  # for another architecture: that one is not well
            self._remember(self._failed[name])

    def _fail_all(self, failure: Failure, wanted: Wanted) -> None:
        """Remember a conversion's failure, for each name that waited for it."""
        sharing = (actions for actions in wanted.values() if actions[0].name == failure.name)
        others = {(one.name, one.source) for actions in sharing for one in actions}
        for name, source in sorted({(failure.name, failure.source), *others}):
            self._fail(replace(failure, name=name, source=source))

    def _fail(self, failure: Failure) -> None:
        """Remember a failure of one name."""
        self._failed[failure.name] = failure
        self._remember(failure)
        self.ledger.doing(failure.name, "")
        self.outcome.failures.append(failure)
        self.tell(failure.name, f"failed: {failure.why}")

    def _remember(self, failure: Failure) -> None:
        catalog = self.ledger.catalog
        digest = catalog.get(failure.name).digest
        self.ledger.save(transitions.failed(catalog, failure, digest, self.ledger.now))

    def _show(self) -> None:
        self.outcome.faults += [one for one in self.retirement.show() if one not in self.outcome.faults]
