"""The ads that HTCondor and its file-transfer plug-ins exchange: `[ Url = "..."; LocalFileName = "..." ]`. Pure.

Read without the ClassAd library and without regular expressions: our own plug-in starts for each job that names a URL,
and those imports take longer than all that it does. What stands in these files are literals, lists and nested ads; any
other expression is skipped and counts as undefined. Names of attributes have no case, and are in lower case here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Value = str | bool | int | float | None | list["Value"] | dict[str, "Value"]

MAX_DEPTH = 16
_BLANK = " \t\r\n\0"
_END = ";]},"
_WORDS = {"true": True, "false": False}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class AdError(ValueError):
    """A file that holds no ads; the text says where it is wrong."""


def parse(text: str) -> list[tuple[str, dict[str, Value]]]:
    """Return each ad of a file, as it stands there and taken apart. Raises AdError."""
    reader = _Reader(text)
    ads = []
    while reader.peek():
        began = reader.at
        ad = reader.ad(0)
        ads.append((text[began : reader.at], ad))
    return ads


def parse_lines(text: str) -> dict[str, Value]:
    """Return what a plug-in says of itself: one attribute a line. Lines that are none are passed over."""
    said: dict[str, Value] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip():
            try:
                said[name.strip().lower()] = _Reader(value).value(0)
            except AdError:
                continue
    return said


def render(ad: Mapping[str, object]) -> str:
    """Return an ad as it is written into such a file."""
    return f"[ {' '.join(f'{name} = {_literal(value)};' for name, value in ad.items())} ]"


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, Mapping):
        return render(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{{ {', '.join(_literal(one) for one in value)} }}"
    clean = "".join(c if c.isprintable() else " " for c in str(value))
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0

    def peek(self) -> str:
        """Return the next character that is no blank; empty at the end."""
        text = self._text
        while self.at < len(text) and text[self.at] in _BLANK:
            self.at += 1
        return text[self.at : self.at + 1]

    def _take(self, wanted: str) -> None:
        if self.peek() != wanted:
            raise AdError(f"no {wanted!r} at position {self.at}: {self._text[self.at : self.at + 20]!r}")
        self.at += 1

    def ad(self, depth: int) -> dict[str, Value]:
        self._take("[")
        found: dict[str, Value] = {}
        while self.peek() != "]":
            if self.peek() == ";":
                self.at += 1
                continue
            name = self._name()
            self._take("=")
            found[name] = self.value(depth + 1)
            if self.peek() not in {";", "]"}:
                self._skip()  # what follows a literal makes an expression of it
                found[name] = None
        self.at += 1
        return found

    def _name(self) -> str:
        began, text = self.at, self._text
        while self.at < len(text) and (text[self.at].isalnum() or text[self.at] in "_'."):
            self.at += 1
        if self.at == began:
            raise AdError(f"no attribute at position {began}: {text[began : began + 20]!r}")
        return text[began : self.at].strip("'").lower()

    def value(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise AdError(f"nested deeper than {MAX_DEPTH}")
        first = self.peek()
        if first == '"':
            return self._string()
        if first == "[":
            return dict(self.ad(depth))
        if first == "{":
            return self._list(depth)
        began = self.at
        self._skip()
        return _word(self._text[began : self.at].strip())

    def _list(self, depth: int) -> list[Value]:
        self._take("{")
        found: list[Value] = []
        while self.peek() != "}":
            found.append(self.value(depth + 1))
            if self.peek() == ",":
                self.at += 1
            elif self.peek() != "}":
                raise AdError(f"no end of a list at position {self.at}")
        self.at += 1
        return found

    def _string(self) -> str:
        text = self._text
        parts: list[str] = []
        self.at += 1
        while self.at < len(text):
            one = text[self.at]
            self.at += 1
            if one == '"':
                return "".join(parts)
            if one == "\\":
                one = text[self.at : self.at + 1]
                self.at += 1
                one = _ESCAPES.get(one, one)
            parts.append(one)
        raise AdError(f"a string has no end ({len(text)} characters)")

    def _skip(self) -> None:
        """Pass over an expression that is no literal."""
        depth, text = 0, self._text
        while self.at < len(text):
            one = text[self.at]
            if one == '"':
                self._string()
                continue
            if depth == 0 and one in _END:
                return
            depth += (one in "([{") - (one in ")]}")
            self.at += 1


def _word(text: str) -> Value:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return None
