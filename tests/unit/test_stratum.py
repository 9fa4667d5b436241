"""Is the mounted revision of a CVMFS repository the newest: what its Stratum 1 says, or does not."""

from __future__ import annotations

import pytest

from cache_manager.sources.stratum import TRUSTED_S, PublishedRevisions
from tests.unit.origin import Origin, Reply

MANIFEST = b"C0123abcd\nB4096\nD240\nS%s\nNimages.example\nT1750000000\n--\n0123abcd\nS99\nsignature"


def published(revision: bytes = b"8") -> Reply:
    """Return a Stratum 1's manifest."""
    return Reply(MANIFEST % revision)


@pytest.mark.parametrize(
    ("reply", "mounted", "said"),
    [
        (published(), "8", ""),
        (published(), "9", ""),
        (published(), "7", "an old revision is mounted here (7, published is 8)"),
        (published(b"x"), "8", "sends no manifest"),
        (Reply(b"<html>S9</html>"), "8", "sends no manifest"),
        (Reply(b"x" * 1_000_000), "8", "sends no manifest"),
        (Reply(b"", status=404), "8", "says HTTP 404"),
        (Reply(b"", status=502), "8", "says HTTP 502"),
    ],
    ids=["newest", "newer than the server", "old", "no number", "HTML", "large", "gone", "unwell"],
)
def test_only_the_newest_revision_speaks_for_what_is_published(
    origin: Origin, reply: Reply, mounted: str, said: str
) -> None:
    """Where that cannot be told, it does not."""
    origin.replies["/r/.cvmfspublished"] = reply
    revisions = PublishedRevisions(lambda: 0.0)
    why = revisions.why_old({"revision": mounted, "host": f"{origin.base}/r", "proxy": "DIRECT"})
    assert (said in why) if said else why == ""


@pytest.mark.parametrize(
    "facts",
    [{}, {"revision": "7"}, {"host": "http://127.0.0.1:1/r"}, {"revision": "7", "host": "file:///etc/passwd"}],
    ids=["nothing", "no host", "no revision", "no URL"],
)
def test_a_client_that_tells_nothing_is_believed(facts: dict[str, object]) -> None:
    """An admin may hide the attributes, and a copy of a repository has none."""
    assert PublishedRevisions(lambda: 0.0).why_old(facts) == ""


def test_however_many_names_are_wrong_one_request_tells(origin: Origin) -> None:
    """It is trusted for a moment, and then asked again."""
    origin.replies["/r/.cvmfspublished"] = published()
    now = 0.0
    revisions = PublishedRevisions(lambda: now)
    facts: dict[str, object] = {"revision": "8", "host": f"{origin.base}/r/"}
    for _ in range(5):
        assert revisions.why_old(facts) == ""
    assert len(origin.asked) == 1
    now = TRUSTED_S + 1
    assert revisions.why_old(facts) == ""
    assert len(origin.asked) == 2


def test_a_proxy_that_is_down_tells_nothing() -> None:
    """The client goes the same way."""
    facts: dict[str, object] = {"revision": "8", "host": "http://localhost/r", "proxy": "http://127.0.0.1:1"}
    assert "cannot be told whether its revision 8 is the newest" in PublishedRevisions(lambda: 0.0).why_old(facts)
