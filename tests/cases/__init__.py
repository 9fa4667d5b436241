"""The table of cases: job ad x slot x state of the world -> answer. Run three ways; see case.py."""

from __future__ import annotations

from typing import Final

from tests.cases import ads, defaults, held, idle, published, registries, slots, submitted
from tests.cases.case import Case

NOT_YET: Final[dict[int, str]] = {}
"""Rows of HookStatus that no case reaches yet, and why."""

CASES: Final[tuple[Case, ...]] = (
    *ads.ROWS,
    *published.ROWS,
    *defaults.ROWS,
    *slots.ROWS,
    *held.ROWS,
    *idle.ROWS,
    *submitted.ROWS,
    *registries.ROWS,
)
