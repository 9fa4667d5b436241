"""What the cases of the table find: a site with CVMFS, local files and a job's files, and a server full of images."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

from tests.contract import library_routes, registry_routes
from tests.contract.archives import archive
from tests.contract.doubles import (
    ARCH,
    HTML,
    VERSION,
    cvmfs_ad,
    digest,
    other_arch,
    sif,
    tree,
    truncated_sif,
    write,
)
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply, Route

TREE: Final = {"IMAGE_CACHE_SIF_SOURCES": "@ORIGIN@/v2"}
BARE: Final = TREE | {"IMAGE_CACHE_CVMFS_BASE": "/nonexistent"}
"""A tree, and no CVMFS."""
WITH_LIBRARY: Final = TREE | {"IMAGE_CACHE_LIBRARY": "@ORIGIN@/library"}
"""The server is a library as well."""
OSDF: Final = TREE | {"IMAGE_CACHE_FEDERATION": "@ORIGIN@"}
"""The server is a data federation as well: discovery, director, and caches of its own objects."""
WITH_RUNTIME: Final = TREE | {"IMAGE_CACHE_RUNTIME": "@SITE@/apptainer", "LIBEXEC": "@SITE@"}
"""A container runtime that starts HTCondor's own test image, and every other that does not say DOES NOT START.

Whatever it is told to convert becomes the same SIF.
"""

RUNTIME: Final = """\
#!/bin/sh
[ "$2" = exec ] && exit 37
if [ "$3" = --disable-cache ]; then
    cp "${0%/*}/converted.sif" "$4"
    grep -q 'DOES NOT START' "${5#*:}" && echo 'DOES NOT START' >>"$4"
    exit 0
fi
grep -q 'DOES NOT START' "$4" || exit 0
echo 'no such loader' >&2
exit 255
"""

LARGE: Final = 60_000


@dataclass
class World:
    """A site and the server beside it."""

    site: Site
    origin: Origin

    def __post_init__(self) -> None:
        """Put everything where it is looked for."""
        cvmfs = self.site.cvmfs
        rocky = cvmfs.publish("htc/rocky:9")
        for name in ("htc/both:1", "htc/rescued:1", "htc/almalinux:9"):
            cvmfs.publish(name)
        cvmfs.link("htc/linked:1", "rocky:9")
        (cvmfs.top / "htc" / "flat.sif").write_bytes(sif("flat"))
        (cvmfs.base / "other.example.org" / "x" / "y:1" / "bin").mkdir(parents=True)
        cvmfs.link("htc/dangling:1", f"/cvmfs/{cvmfs.repository}/.images/00/nothing")
        cvmfs.link("htc/outside:1", "/etc")
        cvmfs.link("htc/loop:1", "loop:1")
        (cvmfs.top / "htc" / "text:1").write_text("no image\n", encoding="utf-8")
        (cvmfs.base / "empty.example.org").mkdir()
        self._local(self.site.directory / "local")
        self._job(self.site.scratch)
        (self.site.directory / "local" / "on_cvmfs").symlink_to(rocky)
        for link in (self.site.scratch / "elsewhere.sif", self.site.directory / "local" / "rocky"):
            link.symlink_to(f"/cvmfs/{cvmfs.repository}/htc/rocky:9")
        (self.site.scratch / "unpublished.sif").symlink_to(f"/cvmfs/{cvmfs.repository}/htc/nothing:9")
        (self.site.directory / "local" / "cvmfs_elsewhere").symlink_to(f"/cvmfs/{cvmfs.repository}/.images/00/nothing")
        (self.site.scratch / "on_cvmfs.sif").symlink_to(rocky)
        write(self.site.directory / "tree", tree("htc/file:1", sif("file")))
        write(self.site.directory, {"converted.sif": sif("converted")})
        runtime = self.site.directory / "apptainer"
        runtime.write_text(RUNTIME, encoding="ascii")
        runtime.chmod(0o755)
        self.origin.routes |= (
            _own() | _unwilling() | registry_routes.routes() | library_routes.routes() | _federation(self.origin.url)
        )
        self.origin.routes[f"/v2/{ARCH}/htc__slow__1/latest.txt"] = Reply(f"{VERSION}\n".encode(), gate=Event())
        for files in _published():
            self.origin.serve(files)
        self.origin.serve(tree("htc/second:1", HTML, sha256=digest(sif("second")), size=4096), "/broken")

    def _local(self, local: Path) -> None:
        files = {
            "image.sif": sif("local"),
            "image/bin/sh": b"",
            "image.sqfs": b"hsqs" + bytes(4092),
            "text.sif": b"text",
        }
        write(local, files)

    def _job(self, scratch: Path) -> None:
        write(
            scratch,
            {
                "job.sif": sif("job"),
                "sub/job.sif": sif("job"),
                "text.sif": b"this is no image, but it is long enough for a header " * 3,
                "empty.sif": b"",
                "half.sif": truncated_sif(),
            },
        )
        os.mkfifo(scratch / "fifo.sif")
        (scratch / "dangling.sif").symlink_to("nothing")

    def fill(self, text: str) -> str:
        """Put this world's names into a text."""
        names = {
            "@ORIGIN@": self.origin.url,
            "@PORT@": str(self.origin.port),
            "@SITE@": str(self.site.directory),
        }
        for name, value in names.items():
            text = text.replace(name, value)
        return text

    def entry(self, seed: str) -> Path:
        """Return the path of the cached `sif(seed)`."""
        return self.site.root / "entries" / f"{digest(sif(seed))}.sif" / "image"


def closed_root(world: World) -> None:
    """Make the root one that others may write to."""
    world.site.root.mkdir()
    world.site.root.chmod(0o777)


def hold_everything(world: World) -> None:
    """Fill the cache with images that are in use by this process."""
    for name in ("first", "second_held"):
        assert world.site.run_hook(cvmfs_ad(f"htc/{name}:1")).code == 0


def _published() -> list[dict[str, bytes]]:
    """Return the trees of what is published, well or badly."""
    directory = f"{ARCH}/htc__@__1"
    up = {f"{directory}/latest.txt".replace("@", "pointer_up"): b"../../x.sif\n"}
    html = {f"{directory}/latest.txt".replace("@", "pointer_html"): HTML}
    crlf = tree("htc/crlf:1", sif("crlf"))
    crlf[f"{directory}/latest.txt".replace("@", "crlf")] = f"{VERSION}\r\n\r\n".encode()
    missing = tree("htc/missing:1", sif("missing"))
    del missing[f"{directory}/{VERSION}".replace("@", "missing")]
    no_json = tree("htc/nojson:1", sif())
    no_json[f"{directory}/{VERSION.replace('.sif', '.json')}".replace("@", "nojson")] = HTML
    seeds = {name: sif(name) for name in ("tree", "both", "second")}
    held = {name: sif(name, LARGE) for name in ("first", "second_held", "third")}
    return [
        *(tree(f"htc/{name}:1", body) for name, body in (seeds | held).items()),
        tree("htc/plain:1", sif("plain"), manifest=False),
        tree("htc/untagged", sif("untagged"), name="htc/untagged:latest"),
        tree("htc/large:1", sif("large"), size=10**9),
        tree("htc/dead:1", sif("dead") + b"DOES NOT START"),
        tree("htc/other:1", sif(arch=other_arch())),
        tree("htc/half:1", truncated_sif()),
        tree("htc/rescued:1", truncated_sif()),
        tree("htc/digest:1", sif("another"), sha256=digest(sif("promised"))),
        tree("htc/size:1", sif("size"), size=4095),
        tree("htc/html:1", HTML, sha256=digest(sif("html")), size=4096),
        tree("htc/name:1", sif(), name="htc/another:1"),
        crlf,
        up,
        html,
        missing,
        no_json,
    ]


def _unwilling() -> dict[str, Route]:
    """Return the trees of servers that do not say what they have: not well, busy, closed."""
    replies = {
        "ill": Reply(status=503),
        "busy": Reply(status=429, headers={"Retry-After": "3600"}),
        "closed": Reply(status=403),
    }
    names = ("tree", "second")
    return {f"/{top}/{ARCH}/htc__{name}__1/latest.txt": reply for top, reply in replies.items() for name in names}


def _own() -> dict[str, Route]:
    """Return what jobs name by its URL."""
    large = sif("large", 200_000)
    own: dict[str, Route] = {
        "good.sif": Reply(sif("good")),
        "does_not_start.sif": Reply(sif("dead") + b"DOES NOT START"),
        "query.sif?x=1": Reply(sif("query")),
        "query.sif?pack=auto&sig=a%3D%3D==": Reply(sif("query2")),
        "moved.sif": Reply(status=302, headers={"Location": "/own/good.sif"}),
        "circle.sif": Reply(status=302, headers={"Location": "/own/circle.sif"}),
        "moved_badly.sif": Reply(status=302, headers={"Location": "gopher://nowhere/"}),
        "moved_to_half.sif": Reply(status=302, headers={"Location": "http://[::1/x.sif"}),
        "moved_to_bytes.sif": Reply(status=302, headers={"Location": "/own/\xe4.sif"}),
        "chunked.sif": Reply(sif("chunked"), length=-1),
        "head405.sif": Reply(sif("head405"), head=405),
        "head501.sif": Reply(sif("head501"), head=501),
        "head403.sif": Reply(sif("head403"), head=403),
        "head0.sif": Reply(sif("head0"), head_length=0),
        "html_once.sif": [Reply(HTML), Reply(sif("html_once"))],
        "gone.sif": Reply(status=410),
        "403.sif": Reply(status=403),
        "proxy403.sif": Reply(status=403, headers={"Via": "1.1 squid"}),
        "401.sif": Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}),
        "html.sif": Reply(HTML),
        "empty.sif": Reply(b""),
        "half.sif": Reply(truncated_sif()),
        "large.sif": Reply(large),
        "large_chunked.sif": Reply(large, length=-1),
        "other.sif": Reply(sif(arch=other_arch())),
        "saved.tar": Reply(archive()),
        "plain.tar": Reply(archive(index="something")),
        "half.tar": Reply(archive()[:3000]),
        "other.tar": Reply(archive(other_arch())),
        "slow.sif": Reply(sif("slow"), gate=Event()),
        "503.sif": Reply(status=503),
        "cut.sif": Reply(sif("cut"), cut=1000, length=4096),
        "429.sif": Reply(status=429, headers={"Retry-After": "3600"}),
    }
    return {f"/own/{name}": route for name, route in own.items()}


def _federation(server: str) -> dict[str, Route]:
    """Return what discovery and the director say of some of the own images."""
    led = {
        "/ospool/uc-shared/good.sif": ("good.sif", "false"),
        "/ospool/uc-shared/nothing.sif": ("nothing.sif", "false"),
        "/igwn/secret.sif": ("good.sif", "true"),
    }
    director = {
        f"/api/v1.0/director/{kind}{path}": Reply(
            status=307,
            headers={
                "Link": f'<{server}/own/{name}>; rel="duplicate"; pri=1; depth=1',
                "X-Pelican-Namespace": f"namespace=/{path.split('/')[1]}, require-token={needs_token}",
            },
        )
        for path, (name, needs_token) in led.items()
        for kind in ("object", "origin")
    }
    known = json.dumps({"director_endpoint": server}).encode()
    return {"/.well-known/pelican-configuration": Reply(known), **director}
