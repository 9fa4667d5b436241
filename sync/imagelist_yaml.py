"""The list of images in YAML, where a community wants options for an image. Pure.

images:
  - htc/rocky:9
  - image: htc/large:1
    architectures: [x86_64, aarch64]
    size_limit: 30 GB
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import yaml

from cache_manager.text import printable
from sync import options
from sync.imageline import Entry, parse_reference
from sync.yamltext import refuse_excess


@dataclass(frozen=True, slots=True)
class Fault:
    """Lines that are broken: what is there, why it cannot be, and the line that it clashes with (0: none)."""

    line: int
    last_line: int
    text: str
    why: str
    other_line: int = 0

    def __str__(self) -> str:
        """Return it for people."""
        return f"line {self.line}: {self.text}: {self.why}"


_OPTIONS: Final[dict[str, Callable[[object], Any]]] = {
    "architectures": options.architectures,
    "size_limit": options.room,
}


def read(text: str) -> tuple[list[Entry], list[Fault]]:
    """Read the list. Every value is text, so `3.10` is what was written."""
    try:
        refuse_excess(text)
        if any(isinstance(one, yaml.AliasEvent) for one in yaml.parse(text, Loader=yaml.BaseLoader)):
            return [], [Fault(1, 1, "list", "has YAML aliases, which say nothing here")]
        top = yaml.compose(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        return [], [Fault(line, line, "list", f"is no YAML: {printable(getattr(error, 'problem', '') or str(error))}")]
    sections = top.value if isinstance(top, yaml.MappingNode) else []
    if [key.value for key, _ in sections] != ["images"] or not isinstance(sections[0][1], yaml.SequenceNode):
        return [], [Fault(1, 1, "list", "has something else than one list, `images:`")]
    entries, faults = [], []
    for node in sections[0][1].value:
        first, last = _span(node)
        try:
            entries.append(_entry(node, first, last))
        except ValueError as error:
            faults += [Fault(first, last, _shown(node), why) for why in str(error).splitlines()]
    return entries, faults


def _span(node: yaml.Node) -> tuple[int, int]:
    """Return the first and last line of a node; a block's own end mark is where the next one begins."""
    inner: Any = node
    while isinstance(inner, yaml.CollectionNode) and inner.value and not inner.flow_style:
        inner = inner.value[-1][1] if isinstance(inner, yaml.MappingNode) else inner.value[-1]
    return node.start_mark.line + 1, max(node.start_mark.line, inner.end_mark.line) + 1


def _entry(node: yaml.Node, first: int, last: int) -> Entry:
    """Read one item of the list. Raises ValueError with a line for each fault."""
    if isinstance(node, yaml.ScalarNode):
        return Entry(first, last, parse_reference(node.value))
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("is neither a name nor a section with `image:`")  # noqa: TRY004 - told with all other faults
    given: dict[str, Any] = {}
    faults = []
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        if name in given or name not in {"image", *_OPTIONS}:
            faults.append(f"{printable(name)}: is there twice, or no option ({', '.join(('image', *_OPTIONS))})")
        given[name] = _value(value)
    values: dict[str, Any] = {}
    for name, parse in _OPTIONS.items():
        try:
            values[name] = parse(given[name]) if name in given else None
        except ValueError as error:
            faults.append(f"{name}: {error}")
    try:
        reference = parse_reference(given["image"] if isinstance(given.get("image"), str) else "")
    except ValueError as error:
        faults.append(f"image: {error}")
    if faults:
        raise ValueError("\n".join(faults))
    return Entry(first, last, reference, values["architectures"] or (), values["size_limit"])


def _value(node: yaml.Node) -> object:
    if isinstance(node, yaml.SequenceNode):
        return [one.value if isinstance(one, yaml.ScalarNode) else None for one in node.value]
    return node.value if isinstance(node, yaml.ScalarNode) else None


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        named = [value for key, value in node.value if key.value == "image"]
        return _shown(named[0]) if named else "item"
    return printable(node.value) if isinstance(node, yaml.ScalarNode) else "item"
