"""condor_image_cache metrics."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final

from cache_manager import client
from cache_manager.commands.common import CommandError, add_json, complain, print_json, socket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

HELP: Final = (
    "Print the manager's numbers in Prometheus' text format, for node_exporter's textfile collector or a script. A"
    " manager that does not answer is htcondor_image_cache_up 0, and exit status 1."
)
EXAMPLE: Final = "condor_image_cache metrics > /var/lib/node_exporter/image_cache.prom"

PREFIX: Final = "htcondor_image_cache_"

GAUGES: Final = {
    "healthy": ("healthy", "Whether container jobs are taken: 1 or 0."),
    "used_bytes": ("used_bytes", "What counts against IMAGE_CACHE_MAX_BYTES, reservations included."),
    "max_bytes": ("max_bytes", "IMAGE_CACHE_MAX_BYTES."),
    "reserved_bytes": ("reserved_bytes", "Reserved by fetches under way."),
    "free_bytes": ("free_bytes", "Free on the file system of the cache."),
    "used_inodes": ("used_inodes", "Files that count against IMAGE_CACHE_MAX_INODES."),
    "max_inodes": ("max_inodes", "IMAGE_CACHE_MAX_INODES; 0: no cap."),
    "free_inodes": ("free_inodes", "Free files on the file system of the cache."),
    "entries": ("entries", "Images in the cache."),
    "entries_in_use": ("in_use", "Images that jobs run from."),
    "leases": ("leases", "Jobs that run from an image of the cache."),
    "pinned_bytes": ("pinned_bytes", "What pinned images take on disk."),
    "pins": ("pins", "Pins, also of images that are not here."),
    "quarantine_bytes": ("quarantine_bytes", "What lies in quarantine."),
    "fetches": ("fetches", "Fetches under way."),
    "unread_entries": ("unread", "Images not read back since the start of the manager."),
    "start_time_seconds": ("started_at", "When the manager started, in seconds since the epoch."),
}
"""Metric: the name in `status`, and what it means."""

COUNTERS: Final = {
    "hits": ("hits", "Jobs whose image was in the cache."),
    "misses": ("misses", "Jobs whose image had to be fetched."),
    "evictions": ("evictions", "Images given up."),
    "evicted_bytes": ("evicted_bytes", "Bytes of the images given up."),
    "fetched_bytes": ("fetched_bytes", "Bytes of the images fetched."),
    "quarantined": ("quarantined", "Images that were found to differ, at a hit or reading back."),
    "read_back_bytes": ("read_back_bytes", "Bytes read back, in the background and for `verify`."),
    "scrub_findings": ("scrub_findings", "Images that the background reading found to differ."),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the numbers."""
    try:
        state = client.report(socket(), "status")
    except (CommandError, client.ManagerDown, client.Refused) as error:
        if not arguments.json:
            _print(None)
        return complain(error)
    if arguments.json:
        numbers = state | _further(state)
        print_json({PREFIX + name: numbers[key] for name, (key, _) in (GAUGES | COUNTERS).items()})
    else:
        _print(state)
    return 0


def _print(state: dict[str, Any] | None) -> None:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class Numbers(Collector):
        """The manager's numbers: its counters began with it, not with this command."""

        def collect(self) -> Iterator[Metric]:
            yield from _families(state)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Numbers())
    sys.stdout.write(generate_latest(registry).decode())


def _families(state: dict[str, Any] | None) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    yield GaugeMetricFamily(f"{PREFIX}up", "Whether the cache manager answers: 1 or 0.", state is not None)
    if state is None:
        return
    yield InfoMetricFamily(PREFIX.rstrip("_"), "The manager.", {"version": state["version"]})
    numbers = state | _further(state)
    for name, (key, meaning) in GAUGES.items():
        if numbers[key] is not None:
            yield GaugeMetricFamily(PREFIX + name, meaning, numbers[key])
    for name, (key, meaning) in COUNTERS.items():
        yield CounterMetricFamily(PREFIX + name, meaning, numbers[key])
    answers = CounterMetricFamily(f"{PREFIX}answers", "Answers to jobs by status code.", labels=["status"])
    for code, count in state["answers"].items():
        answers.add_metric([code], count)
    yield answers
    sources = GaugeMetricFamily(f"{PREFIX}source_well", "Whether a source answers: 1 or 0.", labels=["kind", "name"])
    for one in state["source_health"]:
        sources.add_metric([one["kind"], one["name"]], one["well"])
    yield sources


def _further(state: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers that `status` tells as lists and tables."""
    return {
        "fetches": len(state["fetches"]),
        "pins": len(state["pins"]),
        "quarantine_bytes": sum(one["disk_bytes"] for one in state["in_quarantine"]),
        "read_back_bytes": state["scrub"]["read_bytes"],
        "scrub_findings": state["scrub"]["findings"],
        "unread": state["scrub"]["unread"],
    }
