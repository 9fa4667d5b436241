"""condor_image_cache: dispatches to the admin commands; a command's modules are imported only for itself."""

from __future__ import annotations

import sys
from typing import Final

from cache_manager.program import Program

COMMANDS: Final = {
    "serve": "run the cache manager in the foreground",
    "config": "print HTCondor's configuration for this installation",
    "status": "show the cache's health, use and fetches",
    "list": "show the images in the cache",
    "show": "show one image with its origin and history",
    "explain": "show how a job ad would be answered, without fetching",
    "prefetch": "bring images in before jobs ask",
    "pin": "keep images, also when no job uses them",
    "unpin": "keep images no longer",
    "evict": "give named images up",
    "cleanup": "free what nobody needs: partial fetches, orphans, old images, caches of dead pilots",
    "verify": "read images back against their digests",
    "doctor": "check what the cache needs on this EP",
    "advertise": "print the slot attributes, for a startd cron job",
    "metrics": "print the manager's numbers for Prometheus",
}

PROGRAM: Final = Program(
    "condor_image_cache",
    "The container image cache of an HTCondor execution point.",
    "It reads HTCondor's configuration (CONDOR_CONFIG).",
    "cache_manager.commands",
    COMMANDS,
)


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0 done, 1 not done, 2 wrong usage."""
    return PROGRAM.main(argv)


if __name__ == "__main__":
    sys.exit(main())
