"""Who could put something else in the place of a path of ours."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cache_manager import ownership
from cache_manager.ownership import Trust, open_log, uid_of, why_unsafe

ME = os.geteuid()
MINE = Trust(frozenset({0, ME}), strict=True)
PILOTS = Trust(frozenset({0, ME}), strict=False)
STRANGER = Trust(frozenset({ME + 4711}), strict=True)
"""Somebody to whom all that is here belongs to others."""


@pytest.mark.parametrize(
    ("mode", "strict", "pilots"),
    [
        (0o755, "", ""),
        (0o700, "", ""),
        (0o1777, "", ""),
        (0o777, "is writable by others (mode 0777)", "is writable by others (mode 0777)"),
        (0o757, "is writable by others (mode 0757)", "is writable by others (mode 0757)"),
        (0o3777, "", ""),
    ],
)
def test_a_directory_above_that_others_write_to_is_named(tmp_path: Path, mode: int, strict: str, pilots: str) -> None:
    """Unless nobody can replace there what is not theirs, as in /tmp."""
    above = tmp_path / "above"
    (above / "inner").mkdir(parents=True)
    above.chmod(mode)
    for trust, expected in ((MINE, strict), (PILOTS, pilots)):
        why = why_unsafe(above / "inner" / "root", trust)
        assert why == (f"{above} {expected}" if expected else "")
        assert why_unsafe(above / "inner" / "deep" / "not" / "there", trust) == why


@pytest.mark.parametrize(("gid", "strict"), [(0, False), (4, False), (999, False), (100, True), (1000, True)])
def test_a_group_of_users_may_write_above_a_pilots_cache_only(gid: int, *, strict: bool) -> None:
    """It is the site's group there. /var/log belongs to a group of the system's on some distributions."""
    found = os.stat_result((stat.S_IFDIR | 0o775, 1, 1, 2, ME, gid, 0, 0, 0, 0))
    for trust, expected in ((MINE, strict), (PILOTS, False)):
        why = ownership._why(Path("/above"), found, trust, made_by_anybody=False)
        assert (f"/above is writable by its group (gid {gid}, mode 0775)" == why) is expected


def test_a_directory_of_somebody_else_is_named() -> None:
    """Its owner can rename what is in it."""
    assert why_unsafe("/usr/lib/x", STRANGER) == "/ belongs to uid 0, who is neither root nor the manager's user"


def test_links_on_the_way_are_followed_and_what_they_lead_through_is_looked_at(tmp_path: Path) -> None:
    """Relative ones, absolute ones, and circles."""
    (tmp_path / "open" / "inner").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "safe").mkdir()
    for target in ("open/inner", str(tmp_path / "open" / "inner"), "safe/../open/inner"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(target)
        assert f"{tmp_path}/open is writable by others" in why_unsafe(tmp_path / "link" / "root", MINE)
    (tmp_path / "good").symlink_to("safe")
    assert why_unsafe(tmp_path / "good" / "root", MINE) == ""
    (tmp_path / "circle").symlink_to("circle")
    assert "too many links" in why_unsafe(tmp_path / "circle" / "root", MINE)


@pytest.mark.parametrize(("knobs", "strict"), [({}, ME == 0), ({"IMAGE_CACHE_MANAGER_USERID": "imagecache"}, True)])
def test_an_ep_of_roots_is_strict_and_a_pilot_is_not(knobs: dict[str, str], *, strict: bool) -> None:
    """`config` names the manager's user only on the former; HTCondor's own user is trusted on both."""
    trust = Trust.of(ME, knobs | {"CONDOR_IDS": "64.64"})
    assert trust.strict is strict
    assert trust.uids == {0, ME, 64}


@pytest.mark.parametrize(("name", "uid"), [("root", 0), ("0", 0), ("4711", 4711), ("no such user", None), ("", None)])
def test_a_user_is_known_by_name_or_number(name: str, uid: int | None) -> None:
    """As HTCondor's knobs have it."""
    assert uid_of(name) == uid


def test_a_log_is_made_appended_to_and_read_by_few(tmp_path: Path) -> None:
    """It names what users run."""
    for text in (b"one\n", b"two\n"):
        descriptor = open_log(tmp_path / "log", MINE)
        os.write(descriptor, text)
        os.close(descriptor)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640


def test_a_log_with_another_name_is_refused(tmp_path: Path) -> None:
    """The other one may be an image's."""
    (tmp_path / "image").write_text("an image")
    (tmp_path / "log").hardlink_to(tmp_path / "image")
    with pytest.raises(OSError, match="has another name"):
        open_log(tmp_path / "log", MINE)


def test_a_link_of_an_admins_is_followed(tmp_path: Path) -> None:
    """To /dev/stderr, for instance."""
    (tmp_path / "log").symlink_to("/dev/null")
    os.close(open_log(tmp_path / "log", MINE))
