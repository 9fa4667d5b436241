"""What lies beside a published SIF: what it was made of, and what proves that its sandbox is the same image. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sync.values import Converted


def manifest(one: Converted, version: str, sandbox: str, created_at: float) -> bytes:
    """Return `<version>.json`. Caches read `name`, `sha256` and `size`; `sandbox` is the path below the repository."""
    record = {
        "name": one.name,
        "version": version,
        "arch": one.variant.arch,
        "source": one.source,
        "index_digest": one.index_digest,
        "digest": one.variant.digest,
        "sha256": one.sha256,
        "size": one.size_bytes,
        "sandbox": sandbox,
        "tree_digest": one.tree_digest,
        "tree_bytes": one.tree_bytes,
        "tree_inodes": one.tree_inodes,
        "created": datetime.fromtimestamp(created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tools": dict(one.tools),
    }
    return json.dumps(record, indent=1).encode() + b"\n"
