"""Bringing an object in from one of several places, within one budget: what is cut goes on where it ended.

The rest of an object is taken from where the begin came from, or from elsewhere, if it can be shown to be the same
object: by its strong ETag, by a digest that is known beforehand and proves it in the end, or by its size where objects
do not change. Else it begins anew.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from cache_manager.outcome import Absent, Denied, Unwell
from cache_manager.sources.base import Known, Route, Sink, SourceError, nothing_promised
from cache_manager.sources.exchange import CONNECT_S, OK, PARTIAL, Ask, Body, Patience, length_of
from cache_manager.sources.opening import opened
from cache_manager.sources.ranges import part_of, strong_etag
from cache_manager.sources.refusals import shown, unreachable
from cache_manager.sources.sums import WANTED, Sum, best_sum
from cache_manager.status import HookStatus
from cache_manager.text import human_bytes, printable

ATTEMPTS: Final = 64
"""Requests for one object, of all routes together."""

RESTARTS: Final = 2
"""How often it may begin anew: what cannot go on where it ended is fetched at most so often in vain."""

FRUITLESS: Final = 2
"""How often the last route is asked again without a byte more, once something came: a server may be restarting."""

PAUSES_S: Final = (0.1, 0.5, 2.0)
"""Before it goes on: after a cut, and after one or more tries that brought nothing."""

MESSAGE: Final = 600
"""How long what is said of all routes may be: a job's hold reason is read by people."""

Failure = Absent | Denied | Unwell


def transfer(
    routes: Sequence[Route],
    sink: Sink,
    patience: Patience,
    digest: str = "",
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Write an object to the sink, from the first of the routes that gives all of it.

    `digest` is the sha256 that somebody who knows has promised, if so; whoever reads the sink holds it against what
    came. Raises SourceError, and the sink's StatusError.
    """
    _Transfer(sink, patience, digest, clock).run(sorted(routes, key=lambda route: route.url in sink.wrong_from))


class _Transfer:
    """One object's way into a sink. Everything raises SourceError, and the sink's StatusError."""

    def __init__(self, sink: Sink, patience: Patience, digest: str, clock: Callable[[], float]) -> None:
        self._sink = sink
        self._patience = patience
        self._digest = digest
        self._clock = clock
        self._began = clock()
        self._is_fixed = False
        self._tried = 0
        self._attempts = 0
        self._restarts = 0
        self._resumed = 0

    @property
    def _known(self) -> Known:
        """What is known of the object that the sink has a part of."""
        return self._sink.known

    def run(self, routes: Sequence[Route]) -> None:
        """Try the routes in their order."""
        self._is_fixed = all(route.of_bytes is not None for route in routes)
        failures: list[Failure] = []
        for self._tried, route in enumerate(routes, 1):
            failure = self._from(route, is_last=self._tried == len(routes))
            if failure is None:
                return
            failures.append(failure)
            if self._left_s() <= 0 or self._attempts >= ATTEMPTS:
                break
        raise SourceError(_all_failed(failures, len(routes), self._resumed))

    def _left_s(self) -> float:
        """Return what is left of the budget: each route that is tried has its start-up."""
        size = self._sink.size_bytes if self._known.of_bytes is None else self._known.of_bytes
        start_up = (self._tried - 1) * self._patience.stall_s
        return self._patience.budget_s(size) + start_up - (self._clock() - self._began)

    def _from(self, route: Route, *, is_last: bool) -> Failure | None:
        """Take the object, or the rest of it, from one place; None if that succeeded."""
        most = self._sink.size_bytes
        fruitless = 0
        while True:
            self._attempts += 1
            restarts = self._restarts
            try:
                self._attempt(route, is_last=is_last)
            except SourceError as error:
                failure = error.answer
            else:
                return None
            came = self._sink.size_bytes
            fruitless = 0 if came > most else fruitless + 1
            most = max(most, came)
            pause_s = self._pause_s(failure, fruitless, is_last=is_last)
            if pause_s is None or (fruitless and self._restarts > restarts):
                return failure
            time.sleep(pause_s)

    def _pause_s(self, failure: Failure, fruitless: int, *, is_last: bool) -> float | None:
        """Return how long to wait before the same place is asked again; None if it is not."""
        if not isinstance(failure, Unwell) or not self._sink.size_bytes or self._attempts >= ATTEMPTS:
            return None
        if failure.status is HookStatus.SOURCE_TOO_SLOW and not is_last:
            return None
        if fruitless > (FRUITLESS if is_last and self._may_go_on else 0):
            return None
        if self._restarts >= RESTARTS and not self._may_go_on:
            return None
        pause_s = PAUSES_S[min(fruitless, len(PAUSES_S) - 1)]
        if failure.retry_after_s is not None and is_last:
            pause_s = failure.retry_after_s
        return pause_s if pause_s < self._left_s() else None

    @property
    def _may_go_on(self) -> bool:
        """Whether the rest of the same object can be told from that of another one."""
        return self._known.as_it_is and bool(self._known.etag or self._digest or self._is_fixed)

    def _restart(self, route: Route) -> None:
        self._restarts += 1
        if self._restarts > RESTARTS:
            raise unreachable(route.url, f"cut, and does not go on where it ended: began anew {RESTARTS} times")
        self._sink.restart()

    def _attempt(self, route: Route, *, is_last: bool) -> None:
        """Ask one place for what is not here yet."""
        if self._sink.size_bytes and not self._may_go_on:
            self._restart(route)
        offset = self._sink.size_bytes
        # a proxy on the way may be what keeps the wrong bytes
        headers = {"Cache-Control": "no-cache"} if route.url in self._sink.wrong_from else {}
        with opened(Ask(route, headers=headers, offset=offset, validator=self._known.etag), self._patience) as body:
            goes_on = body.status == PARTIAL and self._continues(body, offset)
            if offset and not goes_on:
                self._restart(route)
            if goes_on or body.status == OK:
                self._resumed += goes_on
                self._receive(route, body, is_last=is_last)
                return
        self._attempt(route, is_last=is_last)  # what it said of the rest cannot be: all of it, then

    def _continues(self, body: Body, offset: int) -> bool:
        """Whether a part follows on what is here, and is one of the same object."""
        part, etag = part_of(body.headers), strong_etag(body.headers)
        if part is None or part.first != offset or not body.as_it_is:
            return False
        if body.size_bytes is not None and body.size_bytes != part.last + 1 - part.first:
            return False
        # some servers do not know If-Range, and send a part of whatever they have now
        same = etag == self._known.etag if etag and self._known.etag else bool(self._digest) or self._is_fixed
        return same and part.of_bytes == (self._known.of_bytes or part.of_bytes)

    def _receive(self, route: Route, body: Body, *, is_last: bool) -> None:
        """Take what an answer brings, and see that it is all of it."""
        sink = self._sink
        self._take_note(route, body)
        sink.came_from.add(route.url)
        sink.expect(self._known.of_bytes)
        before, began = sink.size_bytes, self._clock()
        for piece in body.pieces:
            sink.write(piece)
            self._keep_to_budget(route, sink.size_bytes - before, self._clock() - began, is_last=is_last)
            if sink.size_bytes > (self._known.of_bytes or sink.size_bytes):
                break
        of_bytes = self._known.of_bytes
        if of_bytes is not None and sink.size_bytes != of_bytes:
            much = "ended early" if sink.size_bytes < of_bytes else "sent more than it said"
            sink.note(replace(self._known, as_it_is=sink.size_bytes < of_bytes))
            raise unreachable(route.url, f"{much} ({sink.size_bytes} of {of_bytes} bytes)")
        if route.trailer and body.is_chunked:
            _refuse_trailer(route, body, sink.size_bytes)
        if sink.promised is nothing_promised and self._known.as_it_is:
            sink.promised = partial(self._ask_for_sum, route, self._known.etag, sink.size_bytes)

    def _take_note(self, route: Route, body: Body) -> None:
        """Remember of which object these are bytes."""
        part = part_of(body.headers)
        if body.status == PARTIAL and part is not None:
            etag = self._known.etag or strong_etag(body.headers)
            self._sink.note(replace(self._known, of_bytes=part.of_bytes, etag=etag))
            self._sink.end_is_told = True
            return
        etag = strong_etag(body.headers) if body.as_it_is else ""
        of_bytes = route.of_bytes if body.size_bytes is None and body.as_it_is else body.size_bytes
        self._sink.note(Known(of_bytes, etag, body.as_it_is))
        self._sink.end_is_told = body.end_is_told
        found = best_sum(body.headers) if body.as_it_is else None
        self._sink.promised = (lambda: found) if found else nothing_promised

    def _keep_to_budget(self, route: Route, came: int, spent_s: float, *, is_last: bool) -> None:
        """Raise SourceError when the budget is over; or for a place that is behind its time, while there are others."""
        its_time_s = self._patience.budget_s(came)
        if self._left_s() < 0:
            spent_s, came = self._clock() - self._began, self._sink.size_bytes
            its_time_s = spent_s + self._left_s()
        elif is_last or spent_s <= its_time_s:
            return
        rate = f"{human_bytes(came / max(spent_s, 0.001))}/s"
        what = f"too slow ({human_bytes(came)} in {spent_s:.0f} s, {rate}; its time was {its_time_s:.0f} s)"
        raise SourceError(Unwell(HookStatus.SOURCE_TOO_SLOW, f"{shown(route.url)}: {what}"))

    def _ask_for_sum(self, route: Route, etag: str, size_bytes: int) -> Sum | None:
        """Ask what the sum of an object is: afterwards, because servers compute it when they are asked.

        Who does not say it, or not soon, is not waited for.
        """
        patience = replace(self._patience, stall_s=min(self._patience.stall_s, CONNECT_S))
        try:
            with opened(Ask(route, "HEAD", {"Want-Digest": WANTED}), patience) as body:
                same = strong_etag(body.headers) in {"", etag} and length_of(body.headers) in {None, size_bytes}
                return best_sum(body.headers) if same else None
        except SourceError:
            return None


def _refuse_trailer(route: Route, body: Body, came: int) -> None:
    said = body.trailers.get("x-transfer-status", "")
    if not re.match(r"200\b", said):
        words = f"said then: {printable(said, 80)}" if said else "did not say that these were all"
        raise unreachable(route.url, f"HTTP 200, sent {came} bytes, and {words}")


def _all_failed(failures: Sequence[Failure], of_routes: int, resumed: int) -> Failure:
    """Return what it means that no place gave the object: what may be over soon counts more than what is final."""
    why = failures[0].why
    if of_routes > 1:
        why = "; ".join(printable(one.why, MESSAGE // len(failures)) for one in failures)
    if resumed:
        why += f" (went on {resumed} times)"
    unwell = [one for one in failures if isinstance(one, Unwell)]
    if unwell:
        waits = [one.retry_after_s for one in unwell if one.retry_after_s is not None]
        return replace(
            next((one for one in unwell if one.status is not HookStatus.SOURCE_THROTTLED), unwell[0]),
            why=why,
            everything=all(one.everything for one in unwell),
            retry_after_s=min(waits, default=None),
        )
    return replace(next((one for one in failures if isinstance(one, Denied)), failures[0]), why=why)
