"""Retry-After, in each form in which servers write it."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.retry_after import MAX_S, MIN_S, retry_after_s

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 5 ", 5),
        ("1.5", 1),
        ("0", MIN_S),
        ("1700000042", 42),
        ("1700000042.7", 42),
        ("1671729995", MIN_S),
        ("999999999", 999_999_999),
        ("9" * 30, MAX_S),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW + 90), 90),
        (format_datetime(datetime.fromtimestamp(NOW + 90, UTC)), 90),
        (datetime.fromtimestamp(NOW + 90, UTC).strftime("%A, %d-%b-%y %H:%M:%S GMT"), 90),
        (formatdate(NOW - 90, usegmt=True), MIN_S),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_S),
    ],
)
def test_each_form_is_a_wait_in_seconds(text: str, seconds: float) -> None:
    """A moment that is over asks for the shortest wait: clocks differ."""
    assert retry_after_s(text, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "-5",
        "+5",
        "5 s",
        "5, 6",
        "0x10",
        "1_0",
        "1e3",
        "nan",
        "inf",
        "\u0665",
        "Mon, 99 Foo 2026 99:99:99 GMT",
    ],
)
def test_what_is_no_time_says_nothing(text: str) -> None:
    """It is as if the server had not said how long."""
    assert retry_after_s(text, NOW) is None


@given(
    st.text(max_size=60)
    | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,9} [-+A-Z0-9]{1,9}")
)
def test_any_text_is_a_wait_within_bounds_or_none(text: str) -> None:
    """Headers are text from anybody."""
    seconds = retry_after_s(text, NOW)
    assert seconds is None or MIN_S <= seconds <= MAX_S
