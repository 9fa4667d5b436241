"""Bad input of every kind gets its status and a message, leaves nothing behind, and harms no other job."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.bad_inputs import BAD_SIFS, FINE, PRIVATE, ROWS, Bad
from tests.contract.block import read_block
from tests.contract.doubles import VERSION, cvmfs_ad, image_ad, sif, tree, write
from tests.contract.harness import Site
from tests.contract.raw_server import RawServer, Script, answer


@dataclass
class World:
    """A site without CVMFS, where 1 s without a byte is too long; its server; and another host's."""

    site: Site
    raw: RawServer
    other: RawServer

    def fill(self, text: str) -> str:
        """Put this world's names into a text."""
        for name, value in {
            "@GOOD@": f"{self.raw.url}/good.sif",
            "@RAW@": self.raw.url,
            "@OTHER@": self.other.url,
        }.items():
            text = text.replace(name, value)
        return text

    def state(self) -> tuple[list[str], int]:
        """Return what must be as before: the entries, and what they are counted as."""
        return self.site.names("entries"), self.site.ask("status")["used_bytes"]

    def serves(self, name: str) -> bool:
        """Whether the next job gets a new image."""
        self.raw.routes[f"/next/{name}.sif"] = (answer(body=sif(name)),)
        return read_block(self.site.prepare(image_ad(f"{self.raw.url}/next/{name}.sif")))["HookStatusCode"] == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Start one for all rows: what one leaves behind is the next one's trouble."""
    with RawServer() as raw, RawServer("127.0.0.2") as other:
        knobs = {
            "IMAGE_CACHE_CVMFS_BASE": "/nonexistent",
            "IMAGE_CACHE_SIF_SOURCES": f"{raw.url}/v2",
            "IMAGE_CACHE_STALL_TIMEOUT": "1s",
            "IMAGE_CACHE_MAX_BYTES": "20 MB",
        }
        with Site(tmp_path_factory.mktemp("bad"), knobs) as site:
            raw.routes["/good.sif"] = (answer(body=sif("good")),)
            one = World(site.start(), raw, other)
            assert one.site.run_hook(image_ad(f"{raw.url}/good.sif")).code == 0
            yield one


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.status}: {row.kind}")
def test_bad_input_gets_its_status_and_leaves_nothing_behind(world: World, row: Bad) -> None:
    """Right status, a message that names the image and what is wrong, the cache as before, the next job served."""
    world.raw.routes |= row.routes
    before, logged = world.state(), len(world.site.log_text())
    ad = world.fill(row.ad) if isinstance(row.ad, str) else row.ad
    found = world.site.run_hook(ad, *row.args)
    assert found.code == row.status, found.message
    assert world.fill(row.named) in found.message
    assert row.said in found.message
    assert world.site.names("staging") == []
    assert world.state() == before
    assert world.serves(f"{ROWS.index(row)}")
    assert "Traceback" not in world.site.log_text()[logged:]


def test_the_table_has_each_kind_once() -> None:
    """And is as long as it has to be."""
    assert len({row.kind for row in ROWS}) == len(ROWS) >= 60


@pytest.mark.parametrize(("kind", "ad"), FINE, ids=[row[0] for row in FINE])
def test_an_ad_that_only_looks_bad_is_served(world: World, kind: str, ad: str) -> None:
    """HTCondor reads it, and so does the manager."""
    assert world.site.run_hook(world.fill(ad)).code == 0, kind


@pytest.mark.parametrize(("kind", "body", "said"), BAD_SIFS, ids=[row[0] for row in BAD_SIFS])
def test_a_bad_sif_that_came_with_the_job_holds_it(world: World, kind: str, body: bytes, said: str) -> None:
    """The hook sends no more than the first 4 KiB, which is all of these."""
    write(world.site.scratch, {"job.sif": body})
    found = world.site.run_hook(image_ad("job.sif"))
    assert found.code == 150, f"{kind}: {found.message}"
    assert found.message.startswith("job.sif: ")
    assert said in found.message


def test_an_index_of_a_gigabyte_is_not_read(world: World) -> None:
    """After 64 KiB it is clear that it is none; what the server sent meanwhile lies in buffers."""
    for kind in ("a pointer: 1 GB", "a pointer: without an end"):
        row = next(row for row in ROWS if row.kind == kind)
        world.raw.routes |= row.routes
        assert world.site.run_hook(world.fill(str(row.ad))).code == row.status
        (path,) = (path for path in row.routes if path.endswith("latest.txt"))
        assert 0 < world.raw.sent[path] < 50_000_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_encoding_that_nobody_asked_for_is_undone(world: World, encoding: str) -> None:
    """Some servers do that; the image is what counts."""
    body = sif(encoding)
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    world.raw.routes[f"/{encoding}.sif"] = (answer(body=packed, headers={"Content-Encoding": encoding}),)
    found = world.site.run_hook(image_ad(f"{world.raw.url}/{encoding}.sif"))
    assert Path(found.image).read_bytes() == body, found.message


def test_no_other_server_gets_the_urls_password(world: World) -> None:
    """It goes to its own server, after a redirect there too, and not to where that one leads."""
    own = world.raw.url.replace("://", f"://{PRIVATE}")
    target = f"{world.other.url}/elsewhere.sif"
    world.raw.routes["/a.sif"] = (answer("302 Found", headers={"Location": "/b.sif"}),)
    world.raw.routes["/b.sif"] = (answer("302 Found", headers={"Location": target}),)
    world.other.routes["/elsewhere.sif"] = (answer(body=sif("elsewhere")),)
    found = world.site.run_hook(image_ad(f"{own}/a.sif"))
    assert Path(found.image).read_bytes() == sif("elsewhere"), found.message
    for path in ("/a.sif", "/b.sif"):
        assert all("Authorization: Basic" in head for head in world.raw.requests(path))
    (head,) = world.other.requests("/elsewhere.sif")
    assert "authorization" not in head.lower()
    assert "s3cr3t" not in head
    assert "s3cr3t" not in world.site.all_text()


@pytest.mark.parametrize("source", ["own", "tree"])
def test_all_who_wait_for_a_throttled_source_are_one_request_again(world: World, source: str) -> None:
    """The source asks for 2 s: nobody asks before, one asks after, and all jobs run."""
    refusal = (answer("429 Too Many Requests", headers={"Retry-After": "2"}),)
    if source == "own":
        path, ad = "/throttled.sif", image_ad(f"{world.raw.url}/throttled.sif")
        good: Script = (answer(body=sif(source)),)
    else:
        ad = cvmfs_ad("htc/throttled:1")
        world.raw.serve(tree("htc/throttled:1", sif(source)))
        (path,) = (path for path in world.raw.routes if "throttled__1/latest" in path)
        good = (answer(body=f"{VERSION}\n".encode()),)
    world.raw.routes[path] = [refusal, refusal, good]
    found = [hook.finish() for hook in [world.site.start_hook(ad) for _ in range(20)]]
    assert all(one.code == 0 and "as the source had asked" in one.message for one in found), found
    assert len(world.raw.requests(path)) == 3
