"""Bad input of every kind: how it is made, which status it has to get, and what the message has to say.

Held is only what no other EP could run: a reference that is none, and what the user's own URL says or delivers
completely, twice. Whatever may be the network's or a proxy's doing, the publisher's or this EP's, goes back to idle.

`@RAW@` and `@OTHER@` stand for the servers, `@GOOD@` for the URL of a good image that is in the cache.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final

from tests.contract.doubles import (
    ARCH,
    HTML,
    OBJECTS,
    VERSION,
    cvmfs_ad,
    descriptor,
    image_ad,
    job_ad,
    other_arch,
    sif,
    sif_header,
    superblock,
    tree,
)
from tests.contract.raw_server import Drip, End, Forever, Script, answer

HOLDS: Final = 300
PRIVATE: Final = "user:s3cr3t@"
CHUNKED: Final = {"Transfer-Encoding": "chunked"}


@dataclass(frozen=True)
class Bad:
    """A kind of bad input. `routes` are what the server says at which path; `named` is the image in the message."""

    kind: str
    status: int
    said: str
    ad: str | bytes
    named: str = ""
    routes: dict[str, Script] = field(default_factory=dict)
    args: tuple[str, ...] = ()


def own(kind: str, status: int, said: str, *script: bytes | Drip | Forever | End, args: tuple[str, ...] = ()) -> Bad:
    """Return what the job's own URL says."""
    path = f"/own/{re.sub('[^a-zA-Z0-9]+', '-', kind)}.sif"
    return Bad(kind, status, said, image_ad(f"@RAW@{path}"), f"@RAW@{path}: ", {path: script}, args)


def refused(kind: str, status: int, said: str, answered: str, **headers: str) -> Bad:
    """Return what the server of the job's own URL says instead of an image."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return own(kind, status, said, answer(answered, b"no\n", names))


def published(kind: str, status: int, said: str, files: dict[str, bytes | Script | None]) -> Bad:
    """Return what a tree has for an image: a good one, but for these files (None: not there)."""
    name = f"htc/{''.join(one if one.isalnum() else '_' for one in kind.lower())}:1"
    directory = f"{ARCH}/{name.replace('/', '__').replace(':', '__')}"
    routes: dict[str, Script] = {f"/v2/{path}": (answer(body=body),) for path, body in tree(name, sif(kind)).items()}
    for file, content in files.items():
        path = f"/v2/{directory}/{file}"
        routes.pop(path, None)
        if content is not None:
            routes[path] = (answer(body=content),) if isinstance(content, bytes) else content
    return Bad(kind, status, said, cvmfs_ad(name), f"{name}: ", routes)


def pointer(kind: str, said: str, content: bytes | Script, status: int = 610) -> Bad:
    """Return a latest.txt."""
    return published(f"a pointer: {kind}", status, said, {"latest.txt": content})


def manifest(kind: str, said: str, content: bytes | Script, status: int = 510) -> Bad:
    """Return a manifest."""
    return published(f"a manifest: {kind}", status, said, {VERSION.replace(".sif", ".json"): content})


def described(**instead: object) -> bytes:
    """Return a manifest, right but for these values."""
    return json.dumps({"sha256": "ab" * 32, "size": 4096} | instead).encode()


GOOD: Final = 'SingularityImage = "@GOOD@"'
BAD_ADS: Final = (
    Bad("an ad: binary", 399, "no attribute", bytes(range(1, 256)) * 4),
    Bad("an ad: NULs", 399, "no attribute", b"\0" * 1000),
    Bad("an ad: a NUL in a line", 399, "no attribute", job_ad("A\0 = 1", GOOD)),
    Bad("an ad: 2 MiB", 399, "too large", job_ad(f'Large = "{"x" * (2 << 20)}"', GOOD)),
    Bad("an ad: nothing", 399, "empty", b""),
    Bad("an ad: a newline", 399, "empty", b"\n"),
    Bad("an ad: a bad line in the middle", 399, "line 4 is no attribute", f"A = 1\nB = 2\nC = 3\nbad\n{GOOD}\n"),
    Bad("an ad: a line without a value", 399, "line 2 is no attribute", f"A = 1\nB =\n{GOOD}\n"),
    Bad("an ad: half a string", 399, "attributes can be read", job_ad('SingularityImage = strcat("@GOOD@', "A = 1")),
    Bad("an ad: 300 nested parentheses", 399, "can be read", job_ad(f"SingularityImage = {'(' * 300}1{')' * 300}")),
    Bad("an ad: in JSON", 399, "no attribute", '{"SingularityImage": "@GOOD@"}\n'),
    Bad("an ad: in the new syntax", 399, "no attribute", '[ SingularityImage = "@GOOD@"; ]\n'),
    Bad("an ad: too long an expression", 110, "evaluates to an error", job_ad(f"SingularityImage = {'1+' * 9999}1")),
)

BAD_REFERENCES: Final = tuple(
    Bad(f"a reference: {kind}", 110, said, job_ad(f"SingularityImage = {text}"))
    for kind, text, said in (
        ("two dots", '"https://localhost/../x.sif"', "`..`"),
        ("a control character", '"/cvmfs/x.org/a\x01b"', "control character"),
        ("an unknown scheme", '"javascript://alert(1)"', "unknown scheme"),
        ("100 nested parentheses around a number", f"{'(' * 100}1{')' * 100}", "not a string"),
        ("a list of lists", "{ { 1 }, { 2 } }", "evaluates to an error"),
        ("an attribute of itself", "SingularityImage", "evaluates to an error"),
    )
)

BAD_POINTERS: Final = (
    pointer("an HTML page", "names no version: '<!DOCTYPE html>", HTML),
    pointer("a path out of the tree", "names no version: '../../x.sif'", b"../../x.sif\n"),
    pointer("an absolute path", "names no version: '/etc/passwd.sif'", b"/etc/passwd.sif\n"),
    pointer("a URL", "names no version", b"http://localhost/x.sif\n"),
    pointer("two lines", "names no version", f"{VERSION}\n{VERSION}\n".encode()),
    pointer("empty", "names no version: '' (0 bytes)", b""),
    pointer("only newlines", "names no version: '' (3 bytes)", b"\n\n\n"),
    pointer("a NUL", "names no version", f"{VERSION}\0".encode()),
    pointer("a name without .sif", "names no version", b"20260101T000000Z\n"),
    pointer("a name of another form", "names no version", b"v1.sif\n"),
    pointer("UTF-16", "names no version", VERSION.encode("utf-16")),
    pointer("1 GB", "larger than 65536 bytes", (answer(length=str(10**9)), Forever(b"2" * 4096))),
    pointer("without an end", "larger than 65536 bytes", (answer(length=""), Forever(b"2" * 4096))),
    pointer("1 byte per second", "too slow", (answer(length="22"), Drip(b"20260101T000000Z.sif\n\n")), 620),
    pointer("a stall", "no byte for 1 s after 4 of 21 bytes", (answer(length="21") + b"2026", End.STALL), 620),
    pointer("cut off", "ended early", (answer(length="21") + b"2026",)),
    pointer("429", "HTTP 429", (answer("429 Too Many Requests", headers={"Retry-After": "3600"}),), 630),
    pointer(
        "a redirect to a file", "redirects to file:///etc", (answer("302 F", headers={"Location": "file:///etc"}),)
    ),
    published("a pointer to nothing", 610, "although latest.txt names it", {VERSION: None}),
    published("a pointer to what is forbidden", 610, "HTTP 403", {VERSION: (answer("403 Forbidden"),)}),
)

NO_VALUES: Final = "sha256 or size is missing or wrong"
BAD_MANIFESTS: Final = (
    manifest("a wrong size", "4096 bytes came, 4095 were promised", described(size=4095)),
    manifest("a wrong digest", "was promised (4096 bytes)", described()),
    manifest("another image's", "belongs to another image ('htc/another:1')", described(name="htc/another:1")),
    manifest("a name that is none", "belongs to another image", described(name=["htc"])),
    manifest("an HTML page", "no JSON", HTML),
    manifest("empty", "no JSON", b""),
    manifest("bytes", "no JSON", b"\xff\xfe\x00\x80"),
    manifest("a list", "no manifest", b"[1, 2]"),
    manifest("null", "no manifest", b"null"),
    manifest("no values", NO_VALUES, b"{}"),
    manifest("1e999 bytes", NO_VALUES, described(size="@").replace(b'"@"', b"1e999")),
    manifest("10 to the 400 bytes", NO_VALUES, described(size=10**400)),
    manifest("10 to the 5000 bytes", "no JSON", described(size="@").replace(b'"@"', b"1" + b"0" * 5000)),
    manifest("more than any disk has", "larger than this cache may hold", described(size=2**62), 320),
    manifest("a negative size", NO_VALUES, described(size=-1)),
    manifest("a size of nothing", NO_VALUES, described(size=0)),
    manifest("true for a size", NO_VALUES, described(size=True)),
    manifest("a size in a string", NO_VALUES, described(size="4096")),
    manifest("a short sha256", NO_VALUES, described(sha256="ab" * 31)),
    manifest("a sha256 in capitals", NO_VALUES, described(sha256="AB" * 32)),
    manifest("a sha512", NO_VALUES, described(sha256="sha512:" + "ab" * 64)),
    manifest("100,000 brackets", "larger than 65536", b"[" * 100_000, 610),
    manifest("60,000 brackets", "no JSON", b"[" * 60_000),
    manifest("not readable", "HTTP 500", (answer("500 Internal Server Error"),), 610),
)

WHOLE: Final = sif("whole")
_ROWS: Final = [descriptor(number, kind, at, length or 2048) for number, (kind, at, length) in enumerate(OBJECTS, 1)]


def with_rows(*rows: bytes, count: int = 3, end: int = 4096, table_at: int = 128) -> bytes:
    """Return a SIF of 4096 bytes with this table."""
    front = sif_header(count, end, table_at=table_at) + b"".join(rows)
    return front + WHOLE[len(front) :]


def with_numbers(at: int, number: int) -> bytes:
    """Return the SIF with another number in its header."""
    return WHOLE[:at] + struct.pack("<q", number) + WHOLE[at + 8 :]


CUTS: Final = {
    0: "empty (0 bytes)",
    1: "magic is missing",
    64: "shorter than its header (64 of 128 bytes)",
    127: "shorter than its header",
    **dict.fromkeys((128, 712, 713, 1297, 1298, 1882), "its descriptors end at 1883"),
    **dict.fromkeys((1883, 1946), "object 1 (definition file) ends at 1947"),
    **dict.fromkeys((1947, 2047), "object 2 (JSON) ends at 2048"),
    **dict.fromkeys((2048, 2052, 4095), "object 3 (file system) ends at 4096"),
}
BAD_SIFS: Final = (
    *((f"cut to {size} bytes", WHOLE[:size], said) for size, said in CUTS.items()),
    ("all zeros", bytes(4096), "no SIF: zeros (4096 bytes)"),
    ("gzip", gzip.compress(WHOLE, mtime=0), "no SIF: gzip data"),
    ("ELF", b"\x7fELF\x02\x01\x01".ljust(4096, b"\0"), "no SIF: a program (ELF)"),
    ("text", b"no image\n" * 100, "no SIF: its magic is missing"),
    ("JSON", b'{"error": "quota"}', "no SIF: a JSON document"),
    ("a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    ("no squashfs in it", WHOLE.replace(b"hsqs", b"xxxx"), "object 3 (file system) at 2048 is no squashfs"),
    (
        "a squashfs that was cut before",
        sif("whole", end=4096).replace(superblock(2048), superblock(2049)),
        "2048 of the 2049",
    ),
    ("no file system in it", with_rows(*_ROWS[:2], _ROWS[1]), "a SIF without a file system"),
    ("no descriptors", with_numbers(88, 0), "a SIF without a file system"),
    ("a descriptor count of 2^62", with_numbers(88, 2**62), f"{2**62} descriptors"),
    ("a descriptor count of 4", with_numbers(88, 4), "4 descriptors in 1755 bytes"),
    ("a negative descriptor count", with_numbers(88, -1), "a negative number"),
    ("a negative table", with_numbers(96, -4096), "a negative number"),
    ("a table within the header", with_numbers(96, 0), "descriptors at 0, within the header"),
    ("a table beyond the end", with_numbers(96, 2**62), "its descriptors end at"),
    ("data beyond the end", with_numbers(120, 2**62), "truncated SIF (4096 of"),
    ("an object at a negative offset", with_rows(*_ROWS[:2], descriptor(3, 0x4004, -1, 100)), "object 3"),
    ("an object of a negative size", with_rows(*_ROWS[:2], descriptor(3, 0x4004, 2048, -1)), "-1 bytes long"),
    ("an object of 2^63 - 1 bytes", with_rows(*_ROWS[:2], descriptor(3, 0x4004, 2048, 2**63 - 1)), "object 3"),
    ("an object over the table", with_rows(*_ROWS[:2], descriptor(3, 0x4004, 1000, 100)), "lies over the descriptors"),
)
OF_URLS: Final = (
    *(own(f"a SIF: {kind}", 150, said, answer(body=body)) for kind, body, said in BAD_SIFS),
    own("a SIF: for another machine", 330, "the image is for", answer(body=sif(arch=other_arch()))),
    own("a squashfs without a SIF header", 150, "a squashfs without", answer(body=b"hsqs".ljust(4096, b"\1"))),
)
OF_TREES: Final = tuple(
    published(f"a published SIF: {kind}", 510, said, {VERSION: body, VERSION.replace(".sif", ".json"): None})
    for kind, body, said in BAD_SIFS[::5]
)


def throttled(kind: str, wait: str | None, said: str, args: tuple[str, ...] = ()) -> Bad:
    """Return a 429 with this Retry-After."""
    headers = {} if wait is None else {"Retry-After": wait}
    return own(f"429, {kind}", 630, said, answer("429 Too Many Requests", headers=headers), args=args)


NOW: Final = time.time()
SHORTLY: Final = ("--deadline", "4s")
THROTTLED: Final = (
    throttled("seconds", "3600", "(Retry-After: 3600, that is 3600 s)"),
    throttled("a date", formatdate(NOW + 3600, usegmt=True), "GMT, that is 3"),
    throttled("an epoch", f"{NOW + 3600:.0f}", ", that is 3"),
    throttled("huge", "9" * 40, "that is 1000000000 s"),
    throttled("not said", None, "(Retry-After: not said)"),
    throttled("a word", "soon", "(Retry-After: soon, which is no time)"),
    throttled("negative", "-5", "(Retry-After: -5, which is no time)"),
    throttled("0 again and again", "0", "(Retry-After: 0, that is 1 s)", SHORTLY),
    throttled("an epoch that is over", "1671729995", "(Retry-After: 1671729995, that is 1 s)", SHORTLY),
)

BODY: Final = sif("body")
HALF: Final = BODY[:3000]
HTTP: Final = (
    refused("401", 130, "HTTP 401", "401 Unauthorized", WWW_Authenticate='Basic realm="x"'),
    refused("403", 130, "HTTP 403 Forbidden", "403 Forbidden"),
    refused("403 by a proxy", 610, "HTTP 403", "403 Forbidden", Via="1.1 squid"),
    refused("403 by Squid", 610, "HTTP 403", "403 Forbidden", X_Squid_Error="ERR_ACCESS_DENIED 0"),
    refused("404", 120, "HTTP 404", "404 Not Found"),
    refused("404 by a proxy", 610, "HTTP 404", "404 Not Found", Via="1.1 squid"),
    refused("407", 610, "HTTP 407", "407 Proxy Authentication Required", Proxy_Authenticate="Basic"),
    refused("410", 120, "HTTP 410", "410 Gone"),
    refused("418", 610, "HTTP 418", "418 I'm a teapot"),
    refused("500", 610, "HTTP 500", "500 Internal Server Error"),
    refused("502 by a proxy", 610, "HTTP 502", "502 Bad Gateway", Via="1.1 squid"),
    refused("503", 610, "HTTP 503", "503 Service Unavailable"),
    refused("503 until later", 610, "(Retry-After: 3600, that is", "503 Service Unavailable", Retry_After="3600"),
    refused("204", 610, "HTTP 204", "204 No Content"),
    refused("206 unasked", 610, "HTTP 206", "206 Partial Content", Content_Range="bytes 0-2/4096"),
    refused("299", 610, "HTTP 299", "299 What"),
    refused("304 unasked", 610, "HTTP 304", "304 Not Modified"),
    refused("999", 610, "HTTP 999", "999 Go Away"),
    refused("a redirect loop", 610, "a redirect loop (1 redirects", "302 Found", Location="a-redirect-loop.sif"),
    refused("a redirect to nowhere", 610, "HTTP 302", "302 Found"),
    refused("a redirect to a file", 610, "redirects to file:///etc/passwd", "302 Found", Location="file:///etc/passwd"),
    refused("a redirect to ftp", 610, "only http and https", "302 Found", Location="ftp://localhost/x.sif"),
    refused("a redirect to no URL", 610, "redirects to what is no URL", "302 Found", Location="http://[::1/"),
    refused("a redirect to a port that is none", 610, "no URL", "302 Found", Location="http://127.0.0.1:99999/"),
    refused("a redirect to what is not there", 120, "HTTP 404", "302 Found", Location="/nothing.sif"),
    refused("a redirect to who does not listen", 610, "refused", "302 Found", Location="http://127.0.0.1:1/x.sif"),
    own("a length too large", 610, "ended early (4096 of 5000 bytes)", answer(body=BODY, length="5000")),
    own("a length too small", 150, "object 3 (file system) ends at 4096", answer(body=BODY, length="4000")),
    own("a length that no disk has", 320, "larger than this cache may hold", answer(body=BODY, length=str(10**15))),
    own("a negative length and half an image", 610, "did not say how long", answer(body=HALF, length="-5")),
    own("a text for a length and half an image", 610, "did not say how long", answer(body=HALF, length="many")),
    own("a text for a length and a page", 150, "an HTML page", answer(body=HTML, length="many")),
    own("two lengths", 610, "Content-Length", answer(body=BODY, length="4096\r\nContent-Length: 5")),
    own("no length and half an image", 610, "did not say how long", answer(body=HALF, length="")),
    # as long as images are in use: without them it would be too large for the cache (320)
    own(
        "chunks without end",
        420,
        "no room in the cache",
        answer(length="", headers=CHUNKED),
        Forever(b"1000\r\n%4096d\r\n" % 0),
    ),
    own(
        "a redirect with a body without end",
        120,
        "HTTP 404",
        answer("302 Found", headers={"Location": "/nothing.sif"}, length=""),
        Forever(bytes(4096)),
    ),
    own(
        "chunks that end early", 610, "ended early (3000 bytes)", answer(length="", headers=CHUNKED), b"bb8\r\n" + HALF
    ),
    own("a chunk of no size", 610, "ended early", answer(length="", headers=CHUNKED), b"zz\r\n" + HALF),
    own("a chunk of a negative size", 610, "", answer(length="", headers=CHUNKED), b"-5\r\n" + HALF),
    own("a chunk with a size of 100 kB", 610, "", answer(length="", headers=CHUNKED), b"0" * 100_000),
    own(
        "half an image in whole chunks",
        150,
        "object 3",
        answer(length="", headers=CHUNKED),
        b"bb8\r\n" + HALF,
        b"\r\n0\r\n\r\n",
    ),
    own("a reset in the middle", 610, "reset by peer (", answer(length="4096"), HALF, End.RESET),
    own("a reset at once", 610, "reset by peer", End.RESET),
    own("a stall", 620, "no byte for 1 s after 3000 of 4096 bytes", answer(length="4096"), HALF, End.STALL),
    own("a stall of unknown size", 620, "no byte for 1 s after 3000 bytes", answer(length=""), HALF, End.STALL),
    own("a stall before the answer", 610, "no answer in 1 s", End.STALL),
    own("1 byte per second", 620, "too slow (", answer(length="4096"), Drip(BODY)),
    own("1 byte per second without end", 620, "too slow (", answer(length=""), Drip(BODY)),
    own(
        "chunks of 1 byte per second",
        620,
        "too slow",
        answer(length="", headers=CHUNKED),
        Drip(b"1\r\nx\r\n" * 999, 0.1),
    ),
    own(
        "a chunk's line of 1 byte per second",
        620,
        "no byte for 1 s",
        answer(length="", headers=CHUNKED),
        Drip(b"0" * 999),
    ),
    own("headers of 1 byte per second", 610, "no answer in 2 s", Drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 999)),
    own("no answer at all", 610, "without response"),
    own("no headers", 610, "", BODY),
    own("another protocol", 610, "", b"SSH-2.0-OpenSSH_9.2\r\n"),
    own("a header of 1 MB", 610, "header line", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10**6 + b"\r\n\r\n"),
    own("1000 headers", 610, "headers", b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000 + b"\r\n"),
    own("gzip unasked, and broken", 610, "cannot be undone", answer(body=BODY, headers={"Content-Encoding": "gzip"})),
    own(
        "gzip that becomes 200 MB",
        420,
        "no room in the cache",
        answer(body=gzip.compress(bytes(200_000_000), 1, mtime=0), headers={"Content-Encoding": "gzip"}),
    ),
    own("an encoding that nobody knows", 610, "'x-y'", answer(body=BODY, headers={"Content-Encoding": "x-y"})),
    own("a page, also after HEAD", 150, "an HTML page", answer(body=HTML)),
)

ROWS: Final = (
    *BAD_ADS,
    *BAD_REFERENCES,
    *BAD_POINTERS,
    *BAD_MANIFESTS,
    *OF_URLS,
    *OF_TREES,
    *THROTTLED,
    *HTTP,
)

FINE: Final = (
    ("duplicate attributes: the last counts, as for HTCondor", job_ad('SingularityImage = "/nowhere"', GOOD)),
    ("duplicate attributes in other letters", job_ad('SINGULARITYIMAGE = "/nowhere"', GOOD)),
    ("CRLF", job_ad(GOOD).replace("\n", "\r\n")),
    ("no newline at the end", job_ad(GOOD).rstrip("\n")),
    ("blank lines", job_ad("", GOOD, "", "  ")),
    ("100 nested parentheses", job_ad(f'SingularityImage = {"(" * 100}"@GOOD@"{")" * 100}')),
    ("300 nested parentheses elsewhere", job_ad(f"Requirements = {'(' * 300}true{')' * 300}", GOOD)),
    ("100,000 attributes", job_ad(*(f"x{number}=1" for number in range(100_000)), GOOD)),
)
"""Ads that look bad and are none."""
