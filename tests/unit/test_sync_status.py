"""What users are told of each image: on the terminal, as JSON, and on one page that needs nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest

from sync import page, transitions, view
from sync.__main__ import main
from sync.catalog import Catalog, Version
from sync.events import Doing, Publication
from sync.memory import Memory
from sync.values import Failure, Resolved
from sync.view import Places
from tests.unit.publications import digest_of

NOW: Final = 1_800_000_000.0
HOSTILE: Final = "\"><script>alert(1)</script><img src=x onerror=alert(2)>' onload=alert(3) {{ 7 * 7 }}"
PLACES: Final = Places("/cvmfs/images.example.org", "osdf:///ns/v2")


def version(text: str, at: float, arch: str = "x86_64") -> Version:
    """Return a version of an image."""
    return Version(
        arch=arch,
        version="20270115T080000Z",
        index_digest=digest_of(text),
        digest=digest_of(f"{text} {arch}"),
        created_at=at,
        sha256=digest_of(f"sif {text}")[7:],
        size_bytes=52_428_800,
        has_sif=True,
        sandbox=f".images/{digest_of(text)[7:9]}/{digest_of(text)[9:]}",
        tree_digest=digest_of(f"tree {text}")[7:],
        tree_bytes=150_000_000,
    )


def catalog(why: str = "a layer has the wrong digest") -> Catalog:
    """Return a catalog with an image in each state."""
    found = Catalog()
    for name in ("htc/rocky:9", "htc/new:1", "htc/bad", "htc/worse:1", "htc/gone:1"):
        found = transitions.resolved(found, Resolved(name, f"docker.io/{name}", digest_of(name)), NOW - 500)
    found = transitions.published(found, "htc/rocky:9", version("rocky", NOW - 7200), NOW - 7200)
    found = transitions.published(found, "htc/bad", version("bad", NOW - 86400), NOW - 86400)
    found = transitions.published(found, "htc/gone:1", version("gone", NOW - 86400), NOW - 86400)
    found = transitions.queued(found, "htc/new:1", NOW - 60)
    found = transitions.failed(found, Failure("htc/bad", "docker.io/htc/bad", why), digest_of("x"), NOW - 3600)
    found = transitions.failed(found, Failure("htc/worse:1", "docker.io/htc/worse:1", "gone"), "", NOW - 3600)
    return transitions.unlisted(found, "htc/gone:1", NOW - 10)


def remembered(directory: Path, found: Catalog) -> Path:
    """Have a state directory remember a catalog; return its sync.yaml."""
    memory = Memory(directory / "state")
    memory.begin()
    memory.save(found)
    memory.add(
        [Publication(NOW - 86400 * day, "htc/rocky:9", "x86_64", digest_of(f"v{day}"), "v") for day in (3, 2, 1)]
    )
    config = directory / "sync.yaml"
    config.write_text(
        f"image_list: /list\nstate_directory: {directory}/state\ncvmfs: {{repository: images.example.org}}\n"
        f"sif: {{directory: /srv/v2, public_url: 'osdf:///ns/v2'}}\n"
    )
    return config


def test_each_image_is_shown_with_state_since_why_digests_sizes_and_places() -> None:
    """What fails first, then what is under way."""
    rows = view.rows(catalog(), {"htc/new:1": Doing("unpacking", NOW - 5)}, {}, PLACES)
    assert [(one.name, one.state, one.since) for one in rows] == [
        ("htc/bad:latest", "failing", NOW - 3600),
        ("htc/worse:1", "failing", NOW - 3600),
        ("htc/new:1", "converting", NOW - 5),
        ("htc/rocky:9", "published", NOW - 7200),
        ("htc/gone:1", "retired", NOW - 10),
    ]
    bad, worse, new, rocky, _ = rows
    assert (bad.why, bad.failures, len(bad.versions)) == ("a layer has the wrong digest", 1, 1)
    assert (worse.why, worse.versions) == ("gone", ())
    assert new.why == "unpacking"
    one = rocky.versions[0]
    assert one.sif == "osdf:///ns/v2/x86_64/htc__rocky__9/20270115T080000Z.sif"
    assert one.sandbox.startswith("/cvmfs/images.example.org/.images/")
    assert rocky.link == "/cvmfs/images.example.org/htc/rocky:9"
    assert (one.digest, one.sif_bytes, one.tree_bytes) == (digest_of("rocky x86_64"), 52_428_800, 150_000_000)


def test_the_terminal_shows_all_images_and_one_with_its_digests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what it was before."""
    config = str(remembered(tmp_path, catalog()))
    assert main(["status", "--config", config]) == 0
    said = capsys.readouterr().out
    assert re.search(r"htc/bad:latest +failing +.* ago +x86_64 52\.4 MB +a layer has the wrong digest", said)
    assert main(["status", "--config", config, "htc/rocky:9"]) == 0
    said = capsys.readouterr().out
    for text in (digest_of("rocky x86_64"), digest_of("rocky"), "osdf:///ns/v2/x86_64/htc__rocky__9/", digest_of("v2")):
        assert text in said
    assert main(["status", "--config", config, "htc/rocki:9"]) == 1
    assert "htc/rocki:9: not listed" in capsys.readouterr().err


def test_programs_get_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, one image or all."""
    config = str(remembered(tmp_path, catalog()))
    assert main(["status", "--json", "--config", config, "docker.io/htc/bad"]) == 0
    (only,) = json.loads(capsys.readouterr().out)
    assert (only["name"], only["state"], only["why"]) == ("htc/bad:latest", "failing", "a layer has the wrong digest")
    assert only["versions"][0]["sif_sha256"] == digest_of("sif bad")[7:]


def test_a_page_and_its_data_are_written_for_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Into a directory that need not be there yet."""
    config = str(remembered(tmp_path, catalog()))
    assert main(["status", "--config", config, "--html", str(tmp_path / "www" / "images"), "--title", "Ours"]) == 0
    assert capsys.readouterr().out == ""
    assert "<h1>Ours</h1>" in (tmp_path / "www" / "images" / "index.html").read_text()
    document = json.loads((tmp_path / "www" / "images" / "status.json").read_text())
    assert len(document["images"]) == 5


def test_before_the_first_run_there_is_a_page_that_says_so(tmp_path: Path) -> None:
    """And no error."""
    config = remembered(tmp_path, Catalog())
    (tmp_path / "state" / "history.jsonl").unlink()
    assert main(["status", "--config", str(config), "--html", str(tmp_path)]) == 0
    assert "Nothing is published yet." in (tmp_path / "index.html").read_text()


class Page(HTMLParser):
    """What a browser makes of the page: its elements, and the text that people see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Take text."""
        self.text += data


def test_names_and_errors_are_other_peoples_and_stay_text() -> None:
    """No element, attribute or script comes from them, and the page's own policy would let none run."""
    hostile = catalog(HOSTILE)
    image = hostile.images["htc/bad"]
    odd = Resolved(f"htc/{HOSTILE}", f"docker.io/{HOSTILE}", HOSTILE)
    hostile = transitions.resolved(hostile, odd, NOW)
    rows = view.rows(hostile, {}, {image.name: [Publication(NOW, image.name, HOSTILE, HOSTILE, "v")] * 2}, PLACES)
    found = Page(page.render(rows, NOW, HOSTILE))
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert "img" not in {tag for tag, _ in found.tags}
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in found.text
    policy = next(one["content"] or "" for tag, one in found.tags if one.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No image, font, style or script of another server: it can be copied, and tells nobody who reads it."""
    text = page.render(view.rows(catalog(), {}, {}, PLACES), NOW)
    for tag, attributes in Page(text).tags:
        assert tag not in {"link", "img", "iframe", "object", "embed"}
        assert not {"src", "href", "action", "srcset", "background"} & set(attributes), tag
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_can_be_read_by_machines_that_read_aloud() -> None:
    """It has a language, a title, one heading, a named search, and says how many images it found."""
    tags = Page(page.render(view.rows(catalog(), {}, {}, PLACES), NOW)).tags
    names = [tag for tag, _ in tags]
    assert ("html", {"lang": "en"}) in tags
    assert [names.count(one) for one in ("title", "h1", "main", "header")] == [1, 1, 1, 1]
    assert ("label", {"for": "q"}) in tags
    assert any(one.get("role") == "status" for _, one in tags)
    assert all("datetime" in one for tag, one in tags if tag == "time")


def test_a_page_of_a_thousand_images_is_small() -> None:
    """A megabyte or two, which a phone loads."""
    found = Catalog()
    for number in range(1000):
        name = f"ns/image{number}:1"
        found = transitions.resolved(found, Resolved(name, name, digest_of(name)), NOW)
        found = transitions.published(found, name, version(name, NOW), NOW)
    assert len(page.render(view.rows(found, {}, {}, PLACES), NOW)) < 4_000_000
