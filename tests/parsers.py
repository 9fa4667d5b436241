"""What reads other people's bytes, each as a function that takes any: its own error or a value, and no other way out.

`tests.fuzz` feeds them what atheris invents, `tests/unit/test_corpus.py` what lies in `tests/corpus`.
"""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from typing import Final
from unittest.mock import NonCallableMock
from urllib.parse import urlsplit

from cache_manager import ads, archive, jobad, protocol, redirects, retry_after, sif
from cache_manager.credential import Credential, CredentialError
from cache_manager.entry import CacheEntry
from cache_manager.heartbeat import Heartbeat
from cache_manager.layout import is_key, is_version_file
from cache_manager.lease import Lease
from cache_manager.library import LibraryReference, LibraryReferenceError
from cache_manager.line import Line
from cache_manager.outcome import Located, Unwell
from cache_manager.pin import Pin
from cache_manager.processes import Peer
from cache_manager.reference import ImageReference
from cache_manager.registry import challenge, dockerconfig, links, ratelimit
from cache_manager.registry import manifest as manifests
from cache_manager.registry.reference import RegistryReference, RegistryReferenceError
from cache_manager.sources import director, discovery, library, stratum, tree
from cache_manager.sources.asking import Reply
from cache_manager.sources.federation_url import FederationUrl
from cache_manager.status import HookStatus, StatusError
from sync import catalog, imageconfig, model, resolution, singularity
from sync.catalog import CatalogError
from sync.engine import dag
from sync.imagelist import ImageList
from sync.settings import Settings, SettingsError
from sync.tarheader import TarError
from sync.tarstream import TarStream

KNOWN: Final = "http://user:s3cr3t@one.example/x.sif"
_SIF_FRONT: Final = b"#!".ljust(32, b"\0") + b"SIF_MAGIC\0" + b"01\0" + b"02\0" + bytes(16)
_ROCKY: Final = ImageReference.parse_configured("htc/rocky:9")
_EMPTY: Final = model.Node(model.Form.DIRECTORY, 0o755, 0)
_TAR: Final = tarfile.TarInfo("manifest.json").tobuf()
_LOOP: Final = asyncio.new_event_loop()


def _must(truth: object, what: object) -> None:
    """Complain of what may not be, also where assertions are switched off."""
    if not truth:
        raise AssertionError(what)


def reference(data: bytes) -> None:
    """Read what a job or an admin names."""
    for parse in (ImageReference.parse, ImageReference.parse_configured):
        with suppress(StatusError):
            image = parse(data.decode(errors="replace"))
            if image.scheme in {"http", "https"}:
                _must("@" not in image.short.partition("://")[2].partition("/")[0], image.short)


def job_ad(data: bytes) -> None:
    """Read both ads, as the loop reads them: what needs evaluation is left to the evaluator."""
    text = data.decode(errors="replace")
    try:
        jobad.read_request(text, text, "", ads.not_here)
    except ads.NeedsEvaluation:
        return
    except StatusError as error:
        _must(not error.status.holds or error.status is HookStatus.IMAGE_REFERENCE_INVALID, error.message)


def exchange(data: bytes) -> None:
    """Read from the socket whatever a user sends."""

    async def read() -> None:
        reader = asyncio.StreamReader(protocol.MAX_HEADER_BYTES)
        reader.feed_data(data)
        reader.feed_eof()
        line = Line(reader, NonCallableMock(asyncio.StreamWriter), Peer(1, 1))
        with suppress(protocol.ProtocolError, EOFError):
            for _ in range(4):
                header, body = await line.read_frame()
                _must(len(body) == header.length <= protocol.MAX_BODY_BYTES, header)

    _LOOP.run_until_complete(read())


def header(data: bytes) -> None:
    """Read the first line of a frame."""
    with suppress(protocol.ProtocolError):
        found = protocol.parse_header(data)
        for key in ("job", "left", "starter", "size"):
            int(found.number(key, 0))


def sif_file(data: bytes) -> None:
    """Read a SIF, as it is and behind a SIF's magic: what is taken lies within the file."""
    for image in (data, _SIF_FRONT + data):
        with suppress(sif.SifError):
            _within(sif.parse(lambda at, length, image=image: image[at : at + length], len(image)), image)  # type: ignore[misc]
        with suppress(sif.SifError):
            _within(sif.parse_header(image[:4096], len(image)), image)
            place = sif.table_of(image)
            partition = sif.root_squashfs(image[place.offset : place.offset + place.size_bytes])
            _must(partition is None or partition.offset > 0, partition)
    sif.squashfs_counts(data)


def _within(found: sif.SifHeader, image: bytes) -> None:
    _must(0 <= found.end_bytes <= len(image), found)


def manifest(data: bytes) -> None:
    """Read what lies beside a published SIF."""
    answer = tree.read_manifest(_ROCKY, "https://h/x.sif", "https://h/x.json", data)
    _must(isinstance(answer, (Located, Unwell)), answer)
    if isinstance(answer, Located):
        _must(len(answer.digest) == 64 and answer.size_bytes, answer)


def latest(data: bytes) -> None:
    """Read latest.txt."""
    version = data.decode("utf-8", "replace").strip()
    _must(not is_version_file(version) or (len(version) < 64 and "/" not in version), version)


def stratum_manifest(data: bytes) -> None:
    """Read .cvmfspublished."""
    revision = stratum.revision_of(data)
    _must(revision is None or revision >= 0, revision)


def records(data: bytes) -> None:
    """Read the files of a cache root: each is what it says, written and read again, or it is none."""
    text = data.decode(errors="replace")
    with suppress(ValueError):
        entry = CacheEntry.from_json(text, 0.0)
        _must(is_key(entry.key) and CacheEntry.from_json(entry.to_json(), 0.0) == entry, entry)
    with suppress(ValueError):
        pin = Pin.from_json(text)
        _must(Pin.from_json(pin.to_json()).key == pin.key, pin)
    with suppress(ValueError):
        lease = Lease.from_json(text)
        _must(Lease.from_json(lease.to_json()).holder == lease.holder, lease)
    with suppress(ValueError):
        beat = Heartbeat.from_json(text)
        _must(Heartbeat.from_json(beat.to_json()) == beat, beat)


def retry_after_header(data: bytes) -> None:
    """Read Retry-After."""
    seconds = retry_after.retry_after_s(data.decode("latin-1"), 1.7e9)
    _must(seconds is None or retry_after.MIN_S <= seconds <= retry_after.MAX_S, seconds)


def location_header(data: bytes) -> None:
    """Read Location: it takes the user's password nowhere else."""
    text = data.decode("latin-1")
    with suppress(redirects.RedirectError):
        leads_to = redirects.next_url(KNOWN, text)
        _must("s3cr3t" not in leads_to or "s3cr3t" in text or urlsplit(leads_to).hostname == "one.example", leads_to)


def registry_reference(data: bytes) -> None:
    """Read the name of an image in a registry: it means the same when it is written in full."""
    with suppress(RegistryReferenceError):
        found = RegistryReference.parse(data.decode(errors="replace"))
        _must(RegistryReference.parse(str(found)) == found, found)
        _must(".." not in found.published_name.split("/"), found)


def registry_manifest(data: bytes) -> None:
    """Read a manifest or an index, and choose in it."""
    with suppress(manifests.ManifestError):
        found = manifests.parse(data, "")
        _must(found.digest == manifests.digest_of(data), found)
        if isinstance(found, manifests.Index):
            manifests.choose(found, "x86_64")
        else:
            _must(0 <= found.size_bytes < manifests.MAX_SIZE * (manifests.MAX_LAYERS + 1), found)
    manifests.architecture_of(data)


def registry_headers(data: bytes) -> None:
    """Read WWW-Authenticate, Link and the limits: the next page is on the same server."""
    text = data.decode("latin-1")
    challenge.choose(challenge.parse(text))
    with suppress(links.LinkError):
        page = links.next_page("https://one.example/v2/x/tags/list", text)
        _must(not page or urlsplit(page).netloc.lower() == "one.example", page)
    limit = ratelimit.read({"ratelimit-limit": text, "ratelimit-reset": text}, 1.7e9)
    _must(limit is None or (limit.reset_s or 0) >= 0, limit)


def director_answer(data: bytes) -> None:
    """Read what a director says, in each header and as each status: a few servers to ask, or a reason."""
    text = data.decode("latin-1").replace("\n", " ").replace("\r", " ")
    names = ("Link", "Location", "X-Pelican-Namespace", "X-Pelican-Authorization", "Retry-After", "Server")
    for name, status in product(names, (200, 307, 404, 429)):
        headers = {"Location": "https://h/x", "Server": "pelican/7", name: text}
        try:
            found = director.read("https://d/x", Reply(status, text, headers, data, near=False), with_token=False)
        except director.RefusedError as error:
            _must(len(error.answer.why) < 2000 and "\x1b" not in error.answer.why, error.answer)
        else:
            _must(0 < len(found.servers) <= director.SERVERS, found)
            _must(all(urlsplit(url).hostname for url in found.servers), found)


def discovery_answer(data: bytes) -> None:
    """Read where a federation says that its director is."""
    with suppress(ValueError):
        url = discovery.director_of(data)
        _must(urlsplit(url).hostname and url.startswith(("http://", "https://")), url)


def library_answer(data: bytes) -> None:
    """Read what a library says of an image and of a container: a hash that is one part of a path, a few names."""
    with suppress(library.LibraryAnswerError):
        found = library.read_image(data)
        _must("/" not in found.hash and ".." not in found.hash and found.hash.isascii(), found)
        _must(found.size_bytes is None or 0 < found.size_bytes < 2**63, found)
    with suppress(library.LibraryAnswerError):
        _must(all(isinstance(one, str) for one in library.read_architectures(data, "latest")), data)


def library_reference(data: bytes) -> None:
    """Read the name of an image in a library: what becomes of it stays below the API, at one host."""
    with suppress(LibraryReferenceError):
        found = LibraryReference.parse(data.decode(errors="replace"))
        parts = urlsplit(f"{found.server('https://own.example')}/v1/images/{found.path}:{found.tag}?arch=amd64")
        _must(parts.hostname and parts.query == "arch=amd64" and not parts.fragment, found)
        _must(parts.path == f"/v1/images/{found.path}:{found.tag}" and ".." not in parts.path.split("/"), found)


def federation_url(data: bytes) -> None:
    """Read a reference of a federation: its path stays below the director."""
    with suppress(StatusError):
        image = ImageReference.parse(f"osdf:///{data.decode(errors='replace')}")
        what = FederationUrl.of(image, "https://osg-htc.org")
        _must(what.path.startswith("/") and "?" not in what.path and ".." not in what.path.split("/"), what)
        _must(FederationUrl.parse(what.identity, "https://osg-htc.org").path == what.path, what)


def bearer_token(data: bytes) -> None:
    """Read what a job has as a credential: it fits into a header."""
    credential = Credential("igwn", data)
    _must(credential.expires_at is not None, "")
    with suppress(CredentialError):
        _must(credential.bearer.isascii() and not set(credential.bearer) & set(" \r\n"), "no token")


def layer(data: bytes) -> None:
    """Read a layer's archive, as it is and with the checksum of its first header put right: no more comes than came."""
    mended = bytearray(data)
    mended[148:156] = b" " * len(mended[148:156])
    mended[148:156] = (b"%06o\0 " % sum(mended[:512]))[: len(mended[148:156])]
    for tar in (data, bytes(mended)):
        with suppress(TarError):
            stream = TarStream(iter([tar[:700], tar[700:]]))
            came = 0
            for member in stream:
                came += sum(map(len, stream.content()))
                _must(came <= len(tar) and member.size >= 0, member)
                with suppress(model.ModelError):
                    words = model.real_path(_EMPTY, model.words_of(member.name))
                    _must(b".." not in words and b"" not in words, words)


def image_config(data: bytes) -> None:
    """Read an image's configuration: scripts can be made of what is taken."""
    with suppress(imageconfig.ConfigError):
        config = imageconfig.parse(data)
        _must(0 <= config.created_at < 2**32, config)
        singularity.environment_script(config)
        singularity.runscript(config)


def dag_status(data: bytes) -> None:
    """Read what DAGMan wrote."""
    dag.status_of(data.decode(errors="replace"))


def image_list(data: bytes) -> None:
    """Read what a pull request makes of the list of images, in either form."""
    for raw in (data, b"images:\n" + data):
        found = ImageList.parse(raw)
        _must(found.render() == raw, raw)
        _must(len({one.tree_name for one in found.entries}) == len(found.entries), found.entries)
        for entry in found.entries:
            _must(".." not in entry.name.split("/") and not entry.name.startswith(("/", ".")), entry.name)


def publishers_files(data: bytes) -> None:
    """Read sync.yaml, catalog.json and the digests that are remembered."""
    text = data.decode(errors="replace")
    with suppress(SettingsError):
        Settings.from_yaml(text)
    with suppress(CatalogError):
        found = catalog.parse(text)
        _must(catalog.parse(catalog.render(found)) == found, found)
    known = resolution.parse_known(text)
    refused = resolution.parse_refused(text)
    again = resolution.render_known(known, refused)
    _must((resolution.parse_known(again), resolution.parse_refused(again)) == (known, refused), text)


def archive_of_layers(data: bytes) -> None:
    """Read a tar, as it is and behind a header of one."""
    for body in (data, _TAR + data):
        archive.is_archive(body[: archive.BLOCK])
        with suppress(archive.ArchiveError):
            archive.look(lambda at, length, body=body: body[at : at + length], len(body))  # type: ignore[misc]


def docker_config(data: bytes) -> None:
    """Read Docker's configuration: it has a user and a password for a registry, or none."""
    with suppress(dockerconfig.DockerConfigError):
        found = dockerconfig.password_for(data, "docker.io")
        _must(found is None or all(isinstance(one, str) for one in found), "no text")


PARSERS: Final[dict[str, Callable[[bytes], None]]] = {
    one.__name__: one
    for one in (
        reference,
        job_ad,
        exchange,
        header,
        sif_file,
        manifest,
        latest,
        stratum_manifest,
        records,
        retry_after_header,
        location_header,
        registry_reference,
        registry_manifest,
        registry_headers,
        director_answer,
        discovery_answer,
        library_answer,
        library_reference,
        federation_url,
        bearer_token,
        layer,
        image_config,
        dag_status,
        image_list,
        publishers_files,
        archive_of_layers,
        docker_config,
    )
}
