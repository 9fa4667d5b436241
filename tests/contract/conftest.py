"""What the tests of the contract start: sites, and HTTP servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.harness import Site
from tests.contract.origin import Origin

StartSite = Callable[..., Site]


@pytest.fixture
def origin() -> Iterator[Origin]:
    """Serve HTTP on loopback."""
    with Origin() as one:
        yield one


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[StartSite]:
    """Make sites, one below the other if there are more; all that they started ends with the test."""
    with ExitStack() as stack:
        made: list[Site] = []

        def make(**knobs: str) -> Site:
            directory = tmp_path / f"site{len(made)}" if made else tmp_path
            made.append(stack.enter_context(Site(directory, knobs)))
            return made[-1]

        yield make


@pytest.fixture
def site(make_site: StartSite) -> Site:
    """Start a manager with nothing configured."""
    return make_site().start()


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start one like `site`, for all tests of a module."""
    with Site(tmp_path_factory.mktemp("shared")) as one:
        yield one.start()
