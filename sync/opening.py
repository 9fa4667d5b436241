"""Opens what sync.yaml names: the targets, where their readers find them, and the engine with what it is asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from sync.engine.base import Engine
from sync.engine.dag import JobOptions
from sync.engine.htcondor import HTCondorEngine
from sync.engine.local import LocalEngine
from sync.imageline import parse_reference
from sync.request import Access, Request
from sync.settings import Settings
from sync.step import Action
from sync.targets.base import FileStore, SandboxTarget
from sync.targets.command import SifCommand
from sync.targets.cvmfs import BASE, CvmfsRepository, Place
from sync.targets.dav import SifServer
from sync.targets.directory import SandboxDirectory, SifDirectory
from sync.targets.siftree import SifTree
from sync.view import Places

TRANSACTION: Final = "transaction.json"
"""The record of an open transaction, in the state directory."""


def sandboxes(settings: Settings) -> SandboxTarget | None:
    """Return where sandboxes are published."""
    if settings.cvmfs_repository:
        record = Path(settings.state_directory) / TRANSACTION
        return CvmfsRepository(Place(settings.cvmfs_repository), record)
    if settings.cvmfs_directory:
        return SandboxDirectory(Path(settings.cvmfs_directory), settings.cvmfs_mount)
    return None


def sif_tree(settings: Settings) -> SifTree | None:
    """Return where SIFs are published."""
    store: FileStore | None = None
    if settings.sif_directory:
        store = SifDirectory(Path(settings.sif_directory))
    elif settings.sif_url:
        store = SifServer(settings.sif_url, settings.sif_credentials_file)
    elif settings.sif_command:
        store = SifCommand(settings.sif_command, Path(settings.state_directory))
    return SifTree(store) if store is not None else None


def written_directories(settings: Settings) -> list[Path]:
    """Return the directories, on this machine, of the targets: no two publishers may write one at a time.

    For a repository it is its spool, and none where there is no such repository: that is told when it is opened.
    """
    spool = Place(settings.cvmfs_repository).area
    names = [one for one in (settings.cvmfs_directory, settings.sif_directory) if one]
    return [*map(Path, names), *([spool] if settings.cvmfs_repository and spool.is_dir() else [])]


def places(settings: Settings) -> Places:
    """Return where readers find what is published."""
    mount = settings.cvmfs_mount or settings.cvmfs_directory
    top = str(BASE / settings.cvmfs_repository) if settings.cvmfs_repository else mount
    return Places(top, settings.sif_public_url or settings.sif_url or settings.sif_directory)


def engine(settings: Settings) -> Engine:
    """Return where images are converted."""
    work = Path(settings.work_directory)
    if settings.engine == "local":
        return LocalEngine(work, settings.workers)
    lines = {"requirements": settings.htcondor_requirements} if settings.htcondor_requirements else {}
    python = settings.htcondor_python or sys.executable
    return HTCondorEngine(work, JobOptions(python, settings.htcondor_retries, lines))


def request(action: Action, settings: Settings) -> Request:
    """Return what an engine is told of a conversion that is planned."""
    if action.resolved is None or action.variant is None:
        raise ValueError(f"{action.name}: {action.verb} is no conversion")
    registry = settings.registry(parse_reference(action.source).registry)
    return Request(
        name=action.name,
        source=action.source,
        index_digest=action.resolved.digest,
        variant=action.variant,
        access=Access(insecure=registry.insecure, credentials_file=registry.credentials_file),
        compression=settings.compression.algorithm,
        level=settings.compression.level,
    )
