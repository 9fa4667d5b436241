"""Frames on the manager's socket."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache_manager.protocol import Header, ProtocolError, frame, parse_header

NAMES = st.from_regex(r"\A[a-z][a-z_]{0,10}\Z").filter(lambda name: name != "body")
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60)


def split(raw: bytes) -> tuple[bytes, bytes]:
    """Return a frame's header line and its body."""
    line, newline, body = raw.partition(b"\n")
    return line + newline, body


@given(st.binary(max_size=300), st.dictionaries(NAMES, VALUES | st.integers(), max_size=5))
def test_a_frame_reads_back_as_it_was(body: bytes, keys: dict[str, str | int]) -> None:
    """Blanks, equal signs, line ends and percent signs in a value included."""
    line, rest = split(frame(body, **keys))
    header = parse_header(line)
    assert rest == body
    assert header.length == len(body)
    assert header.keys == {name: str(value) for name, value in keys.items()}


@given(st.binary(max_size=60))
def test_a_path_of_any_bytes_reads_back_as_it_was(path: bytes) -> None:
    """A scratch directory has bytes, not characters."""
    text = path.decode("utf-8", "surrogateescape")
    line, _ = split(frame(b"", scratch=text))
    assert line.isascii()
    assert parse_header(line).keys["scratch"].encode("utf-8", "surrogateescape") == path


def test_the_header_is_what_the_hook_writes() -> None:
    """The hook writes it without this module, so its bytes are fixed."""
    line = b"IMGC/1 12 job=10 left=1199.9 scratch=/exec/dir_7/scratch%20a starter=7 slot=slot1_1\n"
    header = parse_header(line)
    assert header == Header(
        12,
        {"job": "10", "left": "1199.9", "scratch": "/exec/dir_7/scratch a", "starter": "7", "slot": "slot1_1"},
    )
    assert frame(b"/a b", ask="probe") == b"IMGC/1 4 ask=probe\n/a b"


def test_a_key_of_a_newer_hook_is_no_error() -> None:
    """Keys are only ever added: an older manager serves a newer hook."""
    assert parse_header(b"IMGC/1 0 job=0 new-key=1 other=\n").keys == {"job": "0", "new-key": "1", "other": ""}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"IMGC/1\n",
        b"IMGC/1 5",
        b"IMGC/2 5\n",
        b"imgc/1 5\n",
        b"GET / HTTP/1.1\r\n",
        b"IMGC/1 -5\n",
        b"IMGC/1 5.0\n",
        b"IMGC/1 0x10\n",
        b"IMGC/1 1_000\n",
        b"IMGC/1 +5\n",
        "IMGC/1 \u0665\n".encode(),
        b"IMGC/1 " + b"9" * 19 + b"\n",
        b"IMGC/1 " + b"9" * 16_000 + b"\n",
        b"IMGC/1 5 job\n",
        b"IMGC/1 5 job=1 \xff\n",
        b"\x16\x03\x01\x02\x00\x01\x00\n",
    ],
)
def test_what_is_no_header_is_refused(line: bytes) -> None:
    """Somebody else's protocol, a wrong version, a length that is none."""
    with pytest.raises(ProtocolError):
        parse_header(line)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda rest: b"IMGC/1 " + rest + b"\n"))
@example(b"IMGC/1 5 a=%\n")
@example(b"IMGC/1 5 a=%zz b=%ff=\xff\xfe\n")
@example(b"IMGC/1 5 =\n")
@example(b"IMGC/1 5 \xff\xfe=\xff\n")
def test_any_line_is_a_header_or_refused(line: bytes) -> None:
    """Every local user may write to the socket."""
    try:
        header = parse_header(line)
    except ProtocolError:
        return
    assert 0 <= header.length < 10**18


@pytest.mark.parametrize(
    "text", ["", "nan", "NaN", "-nan", "inf", "-inf", "1e400", "1e12", "-1e12", "9" * 5000, "0x10", "12s", "one"]
)
def test_a_number_that_is_none_has_the_default(text: str) -> None:
    """Not a number, endless, or more than anything that is counted."""
    assert Header(0, {"left": text}).number("left", 7.5) == 7.5


def test_a_number_that_is_missing_has_the_default() -> None:
    """An older hook does not send every key."""
    assert Header(0, {}).number("left", 7.5) == 7.5


@given(st.text(max_size=30))
def test_any_number_can_be_counted_with(text: str) -> None:
    """It becomes a deadline, a pid, a length."""
    value = Header(0, {"left": text}).number("left", 0.0)
    assert math.isfinite(value)
    assert abs(int(value)) < 10**12
