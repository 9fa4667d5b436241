"""A real browser without a screen: what it makes of a page, and a picture of it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

from tests.pool.processes import environment_of


class Dom(HTMLParser):
    """The elements of a page once its script has run, as the browser says it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[dict[str, str | None]] = []
        self.text = text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element."""
        self.elements.append({"tag": tag, **dict(attrs)})

    def images(self) -> list[str]:
        """Return the names of the images that are shown."""
        found = (one for one in self.elements if one.get("class") == "image")
        return [str(one["id"]) for one in found if "hidden" not in one]

    def opened(self) -> int:
        """Return how many images are shown with all that is known of them."""
        return sum(one["tag"] == "details" and "open" in one for one in self.elements)


def dom(page: Path, fragment: str = "") -> Dom:
    """Return what the browser makes of a file."""
    return Dom(_run(page, fragment, "--dump-dom"))


def picture(page: Path, target: Path, size: str, fragment: str = "", *, dark: bool = False) -> None:
    """Take a picture of a page in a window of a size (`390,900`)."""
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    _run(page, fragment, f"--screenshot={target}", f"--window-size={size}", "--hide-scrollbars", *scheme)


def _run(page: Path, fragment: str, *options: str) -> str:
    with tempfile.TemporaryDirectory() as home:
        argv = ["chromium-headless-shell", "--disable-gpu", f"--user-data-dir={home}/profile", *options]
        argv += ["--no-sandbox"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*argv, f"file://{page}{fragment}"],
            env=environment_of(None, {"HOME": home}),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    return done.stdout
