"""The admin commands as a person sees them: in a real terminal, narrow and wide."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Final, Self

import pytest

from tests.contract.doubles import ARCH, VERSION, cvmfs_ad, sif, tree, write
from tests.contract.harness import CHECKOUT, Site
from tests.contract.origin import Origin, Reply
from tests.pool.processes import poll

LONG: Final = "opensciencegrid/osgvo-el9:latest"
NAMES: Final = ("htc/rocky:9", LONG, "htc/tensorflow:2.15")
SIZE: Final = 4_000_000
PATIENCE_S: Final = 60.0

RUNTIME: Final = """\
#!/bin/sh
[ "$2" != exec ] || exit 37
"""
"""Stands for a container runtime that runs everything: these images are none that a real one starts."""


class Terminal:
    """A terminal of tmux in which one command runs. A context manager: the terminal ends with it."""

    def __init__(self, site: Site, columns: int, *words: str) -> None:
        self._socket = site.directory / "tmux"
        self._columns = columns
        environment = [f"{name}={value}" for name, value in site.env.items()]
        command = shlex.join(["env", *environment, sys.executable, "-m", "cache_manager", *words])
        self._script = f"cd {shlex.quote(str(CHECKOUT))}; {command}; echo END $?; sleep 1000"

    def __enter__(self) -> Self:
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(self._columns), "-y", "100", self._script)
        return self

    def __exit__(self, *_: object) -> None:
        self._tmux("kill-server")

    def screen(self) -> str:
        """Return what is on the screen now."""
        return self._tmux("capture-pane", "-p")

    def shows(self, *texts: str) -> str:
        """Wait until a line of the screen has all these texts, and return the screen then."""

        def seen() -> str:
            screen = self.screen()
            return screen if any(all(text in line for text in texts) for line in screen.splitlines()) else ""

        return poll(seen, f"{texts} on the screen", PATIENCE_S)

    def finished(self) -> list[str]:
        """Wait for the command's end, and return the lines of the screen above it."""
        return self.shows("END ").partition("END ")[0].splitlines()

    def _tmux(self, *words: str) -> str:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/", "SHELL": "/bin/sh"}
        argv = ["tmux", "-S", str(self._socket), *words]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    """Serve a tree of images; the last of them waits for its gate."""
    with Origin() as one:
        for name in (*NAMES, "htc/slow:1"):
            one.serve(tree(name, sif(name, SIZE)))
        yield one


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, origin: Origin) -> Iterator[Site]:
    """Return an EP with three images, one in use, one pinned and one old, and with what crashes left."""
    directory = tmp_path_factory.mktemp("terminal")
    runtime = directory / "apptainer"
    runtime.write_text(RUNTIME, encoding="ascii")
    runtime.chmod(0o755)
    knobs = {
        "IMAGE_CACHE_SIF_SOURCES": f"{origin.url}/v2",
        "IMAGE_CACHE_CVMFS_BASE": "/nonexistent",
        "IMAGE_CACHE_RUNTIME": str(runtime),
    }
    with ExitStack() as stack:
        one = stack.enter_context(Site(directory, knobs)).start()
        assert one.run_hook(cvmfs_ad(NAMES[0])).code == 0
        assert one.command("pin", LONG).returncode == 0
        assert one.command("prefetch", NAMES[2]).returncode == 0
        assert one.run_hook(cvmfs_ad("htc/missing:1")).code == 440
        leave(one.root)
        yield one


def leave(root: Path) -> None:
    """Put down what a crash leaves."""
    write(root, {"staging/1-1/image": b"x" * 50_000})
    os.utime(root / "staging" / "1-1", (time.time() - 3600,) * 2)


def line_with(lines: list[str], *texts: str) -> str:
    """Return the line that has all these texts, unbroken."""
    found = [line for line in lines if all(text in line for text in texts)]
    assert found, f"no line with {texts} in\n" + "\n".join(lines)
    return found[0]


WIDTHS = pytest.mark.parametrize("columns", [80, 150])


@WIDTHS
def test_list_keeps_an_image_on_one_line(site: Site, columns: int) -> None:
    """Names are whole, numbers stand below each other; what is only nice to know needs a wide terminal."""
    with Terminal(site, columns, "list") as terminal:
        lines = terminal.finished()
    header = line_with(lines, "image", "key", "size", "last used", "kept", "jobs")
    assert ("format" in header) == (columns == 150)
    used = line_with(lines, NAMES[0], "4.0 MB", "ago", " 1")
    assert ("12.3" in used) == (columns == 150)
    pinned = line_with(lines, LONG, "4.0 MB", " pin ")
    assert used.index("4.0 MB") == pinned.index("4.0 MB")
    assert "…" not in "".join(lines)
    assert len([line for line in lines if line.strip()]) == 4


@WIDTHS
def test_status_reads_from_top_to_bottom(site: Site, columns: int) -> None:
    """Health, room, images, sources, pins, and what failed last."""
    with Terminal(site, columns, "status") as terminal:
        lines = terminal.finished()
    expected = (
        ("manager", "healthy"),
        ("used", "12.0 MB of 20.0 GB (0 %)"),
        ("images", "3, 1 in use by 1 job, 1 pin (4.0 MB)"),
        ("tree", "127.0.0.1", "well"),
        (LONG, "4.0 MB", "ago"),
        ("12.3", "440 CVMFS_UNAVAILABLE", "htc/missing:1"),
    )
    places = [lines.index(line_with(lines, *texts)) for texts in expected]
    assert places == sorted(places)
    assert "…" not in "".join(lines)


@WIDTHS
def test_show_tells_one_image(site: Site, columns: int) -> None:
    """Each thing has its line, and the history its times."""
    with Terminal(site, columns, "show", NAMES[0]) as terminal:
        lines = terminal.finished()
    for texts in (("image", NAMES[0]), ("size", "4.0 MB (4000000 bytes)"), ("in use by jobs", "12.3")):
        line_with(lines, *texts)
    line_with(lines, "-", ":", "job 12.3 (pid ", "began to use it")


@WIDTHS
def test_cleanup_says_what_it_would_free(site: Site, columns: int) -> None:
    """Each thing with its reason, and the total."""
    with Terminal(site, columns, "cleanup", "--dry-run", "--to-bytes", "0") as terminal:
        lines = terminal.finished()
    line_with(lines, "would free", "what", "size", "why")
    line_with(lines, "partial fetch", "staging/1-1", "nobody fetches it")
    line_with(lines, "image", NAMES[2], "4.0 MB")
    line_with(lines, "would free 4.1 MB in ", "(2 items)")
    line_with(lines, "condor_image_cache: cleanup: wanted 12.1 MB, freed 4.1 MB; ")


@WIDTHS
def test_prefetch_shows_how_far_it_is_and_then_only_the_answer(site: Site, origin: Origin, columns: int) -> None:
    """Name, bar, bytes, rate and time on one line, which goes when the image is here."""
    gate = Event()
    path = f"/v2/{ARCH}/htc__slow__1/{VERSION}"
    origin.routes[path] = Reply(sif("htc/slow:1", SIZE), gate=gate)
    with Terminal(site, columns, "prefetch", NAMES[0], "htc/slow:1") as terminal:
        screen = terminal.shows("htc/slow:1", "━", "/4.0 MB", "/s, ", " left")
        line_with(screen.splitlines(), NAMES[0], "4.0/4.0 MB", "here")
        assert "END" not in screen
        gate.set()
        lines = terminal.finished()
    line_with(lines, "image", "key", "size", "fetched")
    line_with(lines, "htc/slow:1", "4.0 MB", "/s)")
    line_with(lines, NAMES[0], "was here")
    assert "━" not in "".join(lines)
    assert site.command("evict", "htc/slow:1").returncode == 0
