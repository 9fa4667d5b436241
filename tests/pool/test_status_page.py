"""The status page in a real browser: it can be searched, is readable, and nobody's name or error runs in it."""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from sync import page, transitions, view
from sync.events import Doing, Publication
from sync.values import Resolved
from tests.pool.browser import dom, picture
from tests.pool.harness import OUT
from tests.unit.publications import digest_of
from tests.unit.test_sync_status import HOSTILE, NOW, PLACES, catalog, version

ATTACK: Final = "<script>document.title = 'taken over'</script><img src=x onerror=\"document.title = 'taken over'\">"
NAMES: Final = ("htc/almalinux:9", "htc/rocky:8", "htc/rocky:9-cuda-12.6.0", "htc/ubuntu:24.04", "eic/eic_xl:nightly")


@dataclass(frozen=True)
class Look:
    """A window in which the page is looked at."""

    name: str
    size: str
    fragment: str = ""
    dark: bool = False


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page with an image in each state."""
    found = catalog(f"layer 3 of 7: its digest is not what the manifest says {ATTACK}")
    for number, name in enumerate(NAMES):
        found = transitions.resolved(found, Resolved(name, f"ghcr.io/{name}", digest_of(name)), NOW)
        found = transitions.published(found, name, version(name, NOW - number * 90_000), NOW)
    history = {
        "htc/rocky:9": [Publication(NOW - 86400 * day, "", "x86_64", digest_of(str(day)), "") for day in (9, 4, 1)]
    }
    doing = {"htc/new:1": Doing("unpacking", NOW - 60)}
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page.render(view.rows(found, doing, history, PLACES), NOW, "Images of the Example Pool"))
    return path


def test_all_images_are_shown_with_what_fails_first(index: Path) -> None:
    """And the search is there, which needs the script."""
    shown = dom(index)
    assert shown.images()[:3] == ["htc/bad:latest", "htc/worse:1", "htc/new:1"]
    assert len(shown.images()) == 10
    assert "hidden" not in next(one for one in shown.elements if one.get("id") == "search")


@pytest.mark.parametrize(
    ("fragment", "expected"),
    [
        ("#q=rocky", ["htc/rocky:8", "htc/rocky:9", "htc/rocky:9-cuda-12.6.0"]),
        ("?q=rocky", ["htc/rocky:8", "htc/rocky:9", "htc/rocky:9-cuda-12.6.0"]),
        ("#q=ROCKY%20cuda", ["htc/rocky:9-cuda-12.6.0"]),
        ("#state=failing", ["htc/bad:latest", "htc/worse:1"]),
        ("#state=failing&q=manifest", ["htc/bad:latest"]),
        (f"#q={digest_of('rocky x86_64')}", ["htc/rocky:9"]),
        ("#q=nothing-of-that", []),
    ],
)
def test_the_search_finds_by_name_digest_error_and_state(index: Path, fragment: str, expected: list[str]) -> None:
    """From the address, so that a search can be sent to somebody."""
    shown = dom(index, fragment)
    assert shown.images() == expected
    said = f"{len(expected)} of 10 images" if expected else "No image matches."
    assert said in shown.text


def test_a_single_image_is_shown_with_all_that_is_known(index: Path) -> None:
    """Also when it is linked to by its name."""
    assert dom(index, "#q=htc/ubuntu:24.04").opened() == 1
    assert dom(index, "#htc/rocky:9").opened() == 1
    assert dom(index).opened() == 0


def test_names_and_errors_do_not_run(index: Path, tmp_path: Path) -> None:
    """The browser shows them as text, and its console has nothing to complain about our own script."""
    assert "<title>Images of the Example Pool</title>" in dom(index).text
    hostile = transitions.resolved(catalog(HOSTILE), Resolved(f"htc/{HOSTILE}", HOSTILE, HOSTILE), NOW)
    other = tmp_path / "index.html"
    other.write_text(page.render(view.rows(hostile, {}, {}, PLACES), NOW, "Ours"))
    assert len(dom(other).images()) == 6


@pytest.mark.parametrize(
    "look",
    [
        Look("wide", "1100,1100"),
        Look("dark", "1100,900", f"#q={digest_of('rocky x86_64')[:19]}", dark=True),
        Look("phone", "390,1200"),
    ],
    ids=lambda one: one.name,
)
def test_it_can_be_looked_at(index: Path, tmp_path: Path, look: Look) -> None:
    """The pictures go to /out, for people to judge."""
    target = tmp_path / f"status-{look.name}.png"
    picture(index, target, look.size, look.fragment, dark=look.dark)
    raw = target.read_bytes()
    assert ",".join(map(str, struct.unpack(">II", raw[16:24]))) == look.size
    assert len(raw) > 20_000  # an empty window is 5 kB
    if OUT.is_dir():
        shutil.copy(target, OUT)
