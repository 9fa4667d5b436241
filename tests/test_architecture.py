"""Who may import whom, as data. The table is architecture's section of README's developers, held against the code."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]

CONTRACT: Final = {
    "text",
    "quantities",
    "status",
    "reference",
    "library",
    "layout",
    "protocol",
    "sif",
    "sifwriter",
    "updatead",
    "outcome",
    "probe",
    "abilities",
    "redirects",
    "retry_after",
    "transferads",
    "archive",
}
CORE: Final = {
    "ads",
    "health",
    "jobad",
    "policy",
    "entry",
    "lease",
    "pin",
    "eviction",
    "reconcile",
    "partial",
    "cleanup",
    "heartbeat",
    "selection",
    "settings",
    "memory",
    "condorconfig",
    "caller",
    "credential",
    "opened",
    "exceptions",
    "evaluated",
}
SOURCES: Final = {
    "sources",
    "sources.base",
    "sources.asking",
    "sources.director",
    "sources.discovery",
    "sources.federation",
    "sources.federation_url",
    "sources.pelican_client",
    "sources.tokens",
    "sources.unix_socket",
    "sources.exchange",
    "sources.opening",
    "sources.ranges",
    "sources.refusals",
    "sources.library",
    "sources.registry",
    "sources.sums",
    "sources.transfer",
    "sources.transport",
    "sources.tree",
    "sources.url",
    "sources.plugin",
    "sources.cvmfs",
    "sources.cvmfs_child",
    "sources.stratum",
}
WEB: Final = {"web"}
"""How anybody talks to web servers."""
REGISTRY_PURE: Final = {
    "registry",
    "registry.reference",
    "registry.challenge",
    "registry.manifest",
    "registry.links",
    "registry.ratelimit",
    "registry.failure",
    "registry.packing",
    "registry.dockerconfig",
}
REGISTRY: Final = REGISTRY_PURE | {"registry.exchange", "registry.tokens", "registry.client"}
"""What the publisher shares with the cache: it builds on the contract and on WEB alone."""
EDGES: Final = {
    "host",
    "store",
    "scan",
    "staging",
    "hashing",
    "growth",
    "converter",
    "runtime",
    "limited",
    "limited_child",
    "unpacker",
    "disk",
    "removal",
    "processes",
    "ownership",
    "acl",
    "helper",
    "configuration",
    "client",
    "readback",
    "pilots",
    "plugin",
    "plugin_asks",
    "plugin_credential",
    "plugin_next",
    "switches",
}
MANAGER: Final = {
    "askback",
    "askers",
    "cache",
    "budget",
    "line",
    "listening",
    "questions",
    "leases",
    "objects",
    "room",
    "trash",
    "turns",
    "connections",
    "door",
    "evaluator",
    "evaluator_child",
    "reader",
    "pins",
    "fetcher",
    "runner",
    "arrived",
    "locator",
    "broker",
    "advertise",
    "server",
    "scrub",
    "reports",
    "images",
    "admin",
    "upkeep",
    "root",
    "manager",
    "checkup",
}
TOOLS: Final = {
    "__main__",
    "program",
    "commands",
    "commands.common",
    "commands.serve",
    "commands.config",
    "commands.doctor",
    "commands.status",
    "commands.list",
    "commands.show",
    "commands.progress",
    "commands.prefetch",
    "commands.pin",
    "commands.unpin",
    "commands.evict",
    "commands.cleanup",
    "commands.verify",
    "commands.metrics",
    "commands.explain",
    "commands.advertise",
}

LAYERS: Final = (CONTRACT | REGISTRY_PURE, WEB, REGISTRY - REGISTRY_PURE, CORE, SOURCES | EDGES, MANAGER, TOOLS)
"""From the ground up: a module imports from its own layer and from those before it."""

PURE: Final = CONTRACT | REGISTRY_PURE | CORE

SYNC_PURE: Final = {
    "values",
    "options",
    "settings",
    "catalog",
    "transitions",
    "request",
    "imageline",
    "imagelist",
    "imagelist_yaml",
    "resolution",
    "plan",
    "step",
    "retention",
    "expansion",
    "verdict",
    "yamltext",
    "blocks",
    "tarheader",
    "tarstream",
    "model",
    "imageconfig",
    "singularity",
    "events",
    "foreign",
    "manifest",
    "view",
}
SYNC_EDGES: Final = {
    "engine",
    "engine.base",
    "targets",
    "credentials",
    "manners",
    "resolve",
    "survey",
    "files",
    "treecopy",
    "lock",
    "memory",
    "ledger",
    "page",
    "pending",
    "publisher",
    "retirement",
    "run",
    "opening",
    "targets.base",
    "targets.sandboxes",
    "targets.directory",
    "targets.cvmfs",
    "targets.siftree",
    "targets.dav",
    "targets.command",
    "changed",
    "engine.order",
    "engine.local",
    "engine.dag",
    "engine.htcondor",
    "readback",
    "unsquash",
    "blobs",
    "handle",
    "layers",
    "tree",
    "unpack",
    "pull",
    "squash",
    "convert",
    "convert_job",
}
SYNC_TOOLS: Final = {
    "commands",
    "commands.common",
    "commands.plan",
    "commands.verify",
    "commands.run",
    "commands.status",
    "commands.cleanup",
    "commands.progress",
}
SYNC_LAYERS: Final = (SYNC_PURE, SYNC_EDGES, SYNC_TOOLS)
SYNC_MAY_IMPORT: Final = {
    "reference",
    "layout",
    "status",
    "runtime",
    "sif",
    "sifwriter",
    "text",
    "quantities",
    "removal",
    "disk",
    "program",
    "web",
    *REGISTRY,
}
"""What of cache_manager is the publisher's too."""
FORBIDDEN_IN_PURE: Final = {
    "os",
    "subprocess",
    "socket",
    "time",
    "requests",
    "random",
    "logging",
    "pathlib.Path",
    "asyncio",
}

_HTTP: Final = {
    "web",
    "registry.exchange",
    "sources.asking",
    "sources.unix_socket",
    "sources.exchange",
    "sources.refusals",
    "sources.stratum",
}
THIRD_PARTY: Final = {
    "classad2": {"ads"},
    "requests": _HTTP,
    "urllib3": _HTTP,
    "crc32c": {"sources.sums"},
    "filelock": {"root", "upkeep", "commands.cleanup"},
    "prometheus_client": {"commands.metrics"},
    "rich": {"commands.common", "commands.progress"},
    "htcondor2": set(),
}
"""Where each may be imported; htcondor2 only in the configuration's child, which is a text."""

SYNC_THIRD_PARTY: Final[dict[str, set[str]]] = {
    "yaml": {"settings", "imagelist_yaml"},
    "rich": {"commands.common", "commands.progress"},
    "requests": {"survey", "targets.dav"},
    "filelock": {"lock"},
    "crc32c": {"targets.dav"},
    "isal": {"layers"},
    "zstandard": {"layers"},
    "jinja2": {"page"},
    "markupsafe": {"page"},
}
SYNC_STARTS_PROCESSES: Final = {
    "targets.cvmfs",
    "targets.command",
    "changed",
    "squash",
    "unsquash",
    "engine.local",
    "engine.htcondor",
}

STARTS_PROCESSES: Final = {
    "helper",
    "runtime",
    "limited",
    "unpacker",
    "configuration",
    "commands.config",
    "plugin_next",
}

_C_MODULES: Final = {"_signal", "_socket", "posix", "pwd", "select", "sys", "time"}
HOOK_IMPORTS: Final = {"prepare_job": _C_MODULES | {"degraded", "next_hook", "image_test", "look", "credential"}}
HOOK_ON_DEMAND: Final = {
    name: {"posix", "select", "time", "look"} for name in ("degraded", "next_hook", "image_test", "look", "credential")
}


def modules(package: str) -> dict[str, Path]:
    """Return the modules of a package by their dotted name in it."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            found[name] = path
    return found


def imports(path: Path) -> Iterator[str]:
    """Yield the full names that a module imports, wherever in it; not those that only its types need."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ifs = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    typing = {inner for node in ifs if ast.unparse(node.test) == "TYPE_CHECKING" for inner in node.body}
    for node in ast.walk(tree):
        if node in typing:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(name: str) -> int:
    """Return a module's layer, 0 being the ground."""
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


def own(imported: str, known: dict[str, Path]) -> str:
    """Return the module of cache_manager that an import names; empty for anything else."""
    if not imported.startswith("cache_manager."):
        return ""
    name = imported.removeprefix("cache_manager.")
    return name if name in known else name.rpartition(".")[0]


MODULES: Final = modules("cache_manager")


def test_every_module_has_its_place_in_the_house() -> None:
    """A new module is put into a layer by whoever makes it."""
    assert set(MODULES) == set().union(*LAYERS)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_from_its_layer_and_from_those_below(name: str) -> None:
    """Arrows run downwards."""
    for imported in imports(MODULES[name]):
        target = own(imported, MODULES)
        if target:
            assert layer_of(target) <= layer_of(name), f"{name} imports {target}"
        assert not imported.startswith(("hooks", "sync", "tests")), f"{name} imports {imported}"


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    """Take away what imports nothing of the rest, until nothing is left."""
    left = {name: {own(one, MODULES) for one in imports(path)} - {"", name} for name, path in MODULES.items()}
    while left:
        free = [name for name, targets in left.items() if not targets & set(left)]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_core_opens_no_file_reads_no_clock_and_starts_nothing(name: str) -> None:
    """What decides takes values and returns values."""
    for imported in imports(MODULES[name]):
        words = {imported, imported.partition(".")[0]}
        assert not words & FORBIDDEN_IN_PURE, f"{name} imports {imported}"
        assert own(imported, MODULES) in {"", *PURE}, f"{name} imports {imported}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_third_party_packages_live_only_where_the_table_says(name: str) -> None:
    """An outside thing has one place that knows it."""
    for imported in imports(MODULES[name]):
        package = imported.partition(".")[0]
        if package not in sys.stdlib_module_names and package != "cache_manager":
            assert name in THIRD_PARTY[package], f"{name} imports {imported}"
        if package == "subprocess":
            assert name in STARTS_PROCESSES, f"{name} starts processes"


@pytest.mark.parametrize(("name", "allowed"), [*HOOK_IMPORTS.items(), *HOOK_ON_DEMAND.items()])
def test_the_hook_imports_nothing_that_costs_time(name: str, allowed: set[str]) -> None:
    """C modules only, and the rest only when it is needed."""
    path = modules("hooks")[name]
    found = {imported.rpartition(".")[0] or imported for imported in imports(path)}
    assert found <= allowed


@pytest.mark.parametrize("name", ["sources.cvmfs_child", "limited_child"])
def test_a_child_that_is_a_program_imports_nothing_of_ours(name: str) -> None:
    """It is run by its path, without the packages."""
    found = {imported.partition(".")[0] for imported in imports(MODULES[name])}
    assert found <= set(sys.stdlib_module_names)


SYNC_MODULES: Final = modules("sync")


def test_every_module_of_the_publisher_has_its_place_in_the_house() -> None:
    """As in the cache."""
    assert set(SYNC_MODULES) - {"__main__"} == set().union(*SYNC_LAYERS)


@pytest.mark.parametrize("name", sorted(SYNC_MODULES))
def test_the_publisher_imports_from_below_and_of_the_cache_only_what_is_its_own_too(name: str) -> None:
    """The publisher runs where there is no cache."""
    rooms = [number for number, layer in enumerate(SYNC_LAYERS) if name in layer] or [len(SYNC_LAYERS)]
    for imported in imports(SYNC_MODULES[name]):
        shared = own(imported, MODULES)
        assert not shared or shared in SYNC_MAY_IMPORT, f"{name} imports {imported}"
        assert not imported.startswith(("hooks", "tests")), f"{name} imports {imported}"
        target = imported.removeprefix("sync.") if imported.startswith("sync.") else ""
        target = target if target in SYNC_MODULES else target.rpartition(".")[0]
        for number, layer in enumerate(SYNC_LAYERS):
            assert target not in layer or number <= rooms[0], f"{name} imports {imported}"
        package = imported.partition(".")[0]
        if package not in sys.stdlib_module_names and package not in {"cache_manager", "sync"}:
            assert name in SYNC_THIRD_PARTY[package], f"{name} imports {imported}"
        if package == "subprocess":
            assert name in SYNC_STARTS_PROCESSES, f"{name} starts processes"
        if name in SYNC_PURE:
            assert not {imported, package} & FORBIDDEN_IN_PURE, f"{name} imports {imported}"


def test_packaging_is_no_package() -> None:
    """An __init__.py there would shadow PyPA's packaging, and break pip and pytest."""
    assert not (ROOT / "packaging" / "__init__.py").exists()
