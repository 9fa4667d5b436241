"""A ClassAd as text, and the values of its attributes.

Literals are read by a line scanner, because nearly every attribute that matters is one; an expression is evaluated
by classad2, with another ad as TARGET. What an expression takes, in time and memory, is up to who wrote it: an ad that
is only looked at raises NeedsEvaluation instead, and is read again where that may go wrong.

classad2 stops silently at the first bad line, which would turn a broken ad into "names no image": an ad of which fewer
attributes were read than lines received is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Final

import classad2

from cache_manager.status import HookStatus, StatusError

_LINE = re.compile(r"^[ \t]*([A-Za-z_][A-Za-z0-9_.]*)[ \t]*=(?!=)[ \t\r]*([^ \t\r\n].*)$", re.MULTILINE)
_BLANK: Final = " \t\r"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD = re.compile(r"(?<!\d)([A-Za-z_][A-Za-z0-9_]*)[ \t]*(\(?)")
_NO_ATTRIBUTES: Final = frozenset({"true", "false", "undefined", "error", "is", "isnt", "my", "parent"})
_SIMPLE_STRING = re.compile(r'"([^"\\]*)"')
_INTEGER = re.compile(r"-?\d{1,18}")
QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_OF_TARGET = re.compile(r"\btarget\s*\.\s*[A-Za-z_][A-Za-z0-9_]*", re.IGNORECASE)
MAX_EXPRESSION: Final = 16 * 1024
"""Longer expressions are not evaluated: classad2 descends into them, and the stack ends before they do."""


class Missing(Enum):
    """The two ways of having no value, which are not the same as an empty string."""

    UNDEFINED = "undefined"
    ERROR = "error"


Value = str | int | float | bool | Missing


_WORDS: Final[dict[str, Value]] = {
    "": Missing.UNDEFINED,
    "undefined": Missing.UNDEFINED,
    "error": Missing.ERROR,
    "true": True,
    "false": False,
}


class NeedsEvaluation(Exception):  # noqa: N818 - a finding
    """An attribute that matters is an expression."""


def evaluate_at_once(_name: str) -> None:
    """Let every expression be evaluated here and now."""


def not_here(name: str) -> None:
    """Let no expression be evaluated. Raises NeedsEvaluation."""
    raise NeedsEvaluation(name)


class Ad:
    """A ClassAd as text. Values are looked up by name, whatever its case, and evaluated when asked for.

    `evaluating` is called with the name of each attribute that is about to be evaluated. Raises StatusError
    (HOOK_INTERNAL_ERROR) when the text is not one attribute a line.
    """

    def __init__(self, text: str, what: str, evaluating: Callable[[str], None] = evaluate_at_once) -> None:
        found = _LINE.findall(text)
        lines = text.count("\n") + (not text.endswith("\n")) if text else 0
        if len(found) != lines:
            _refuse_other_lines(text, what, len(found))
        self._what = what
        self._evaluating = evaluating
        self._values: dict[str, str] = {name.lower(): value for name, value in found}
        """Still with blanks behind them: few are ever asked for."""
        self._parsed: classad2.ClassAd | None = None

    def __len__(self) -> int:
        return len(self._values)

    def text_of(self, name: str) -> str:
        """Return what stands behind the attribute's `=`; empty if the ad has none."""
        return self._values.get(name.lower(), "").rstrip(_BLANK)

    def value(self, name: str, target: Ad | None = None) -> Value:
        """Return the value of an attribute; `target` is the ad that TARGET means."""
        text = self.text_of(name)
        simple = _literal(text)
        if simple is not None:
            return simple
        self._evaluating(name)
        try:
            tree = self._classad().lookup(name)
        except KeyError:  # its expression is too long
            return Missing.ERROR
        try:
            value = _plain(tree.eval(self._classad(), target._classad() if target else None))  # noqa: SLF001 - its own kind
        except (classad2.ClassAdException, UnicodeError, RecursionError):
            return Missing.ERROR
        return Missing.ERROR if value is Missing.UNDEFINED and self._is_circular(name.lower()) else value

    def _is_circular(self, name: str) -> bool:
        """Whether an attribute's expression comes back to it. classad2 calls that undefined, which names no image."""
        seen: set[str] = set()
        fresh = self._own_words(name)
        while fresh:
            seen |= fresh
            fresh = {word for one in fresh for word in self._own_words(one)} - seen
        return name in seen

    def _own_words(self, name: str) -> set[str]:
        """Return the attributes of this ad that an attribute's expression names."""
        text = _OF_TARGET.sub(" ", QUOTED.sub(" ", self.text_of(name)))
        return {word.lower() for word in _NAME.findall(text)} & self._values.keys()

    def asks(self, name: str) -> bool:
        """Whether the attribute may have another value on another EP: its expression looks beyond this ad."""
        seen: set[str] = set()
        fresh = {name.lower()}
        while fresh:
            seen |= fresh
            words = {word for one in fresh for word in self._words(one)}
            if not words <= self._values.keys():
                return True
            fresh = words - seen
        return False

    def _words(self, name: str) -> set[str]:
        """Return the attributes that an attribute's expression names, of whichever ad."""
        found = _WORD.findall(QUOTED.sub(" ", self.text_of(name)))
        return {word.lower() for word, is_function in found if not is_function} - _NO_ATTRIBUTES

    def is_true(self, name: str, target: Ad | None = None) -> bool:
        """Whether the attribute is true; a number other than 0 counts, as in HTCondor."""
        value = self.value(name, target)
        return isinstance(value, (bool, int, float)) and bool(value)

    def string(self, name: str, target: Ad | None = None) -> str:
        """Return a string attribute; empty if it is anything else."""
        value = self.value(name, target)
        return value if isinstance(value, str) else ""

    def _classad(self) -> classad2.ClassAd:
        if self._parsed is None:
            usable = {
                name: value
                for name, value in self._values.items()
                if len(value) <= MAX_EXPRESSION or _SIMPLE_STRING.fullmatch(value.rstrip(_BLANK))
            }
            text = "".join(f"{name} = {value}\n" for name, value in usable.items())
            parsed = classad2.parseOne(text, classad2.ParserType.Old)
            if len(parsed) < len(usable):
                raise StatusError(
                    HookStatus.HOOK_INTERNAL_ERROR,
                    f"{self._what}: only {len(parsed)} of {len(self._values)} attributes can be read",
                )
            self._parsed = parsed
        return self._parsed


def _literal(text: str) -> Value | None:
    """Return the value of a literal, or None if `text` needs evaluation."""
    string = _SIMPLE_STRING.fullmatch(text)
    if string:
        return string.group(1)
    if _INTEGER.fullmatch(text):
        return int(text)
    return _WORDS.get(text.lower())


def _plain(value: object) -> Value:
    if isinstance(value, classad2.Value):
        return Missing.ERROR if value == classad2.Value.Error else Missing.UNDEFINED
    if isinstance(value, (str, bool, int, float)):
        return value
    return Missing.ERROR


def _refuse_other_lines(text: str, what: str, found: int) -> None:
    """Blank lines are allowed; anything else that is no attribute is named with its number."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not _LINE.match(line):
            raise StatusError(
                HookStatus.HOOK_INTERNAL_ERROR,
                f"{what}: line {number} is no attribute ({len(line)} characters, {found} attributes read)",
            )
