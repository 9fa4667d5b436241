# ruff: noqa: PTH108, PTH110, PTH115, PTH118, PTH120, PTH123
# pathlib takes longer to import than all that is done here
"""The transfer plug-ins that were there before ours: which one a URL is for, and what it makes of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping

from cache_manager import transferads
from cache_manager.transferads import AdError, Value

KNOBS = (
    "IMAGE_CACHE_SOCKET",
    "IMAGE_CACHE_MANAGER_USERID",
    "IMAGE_CACHE_HOOK_DEADLINE:20m",
    "IMAGE_CACHE_NEXT_PLUGIN",
)
TAKEN_OVER = ("http", "https", "osdf", "stash", "pelican")
"""The schemes of which our plug-in brings images."""

CONFIG_S = 20
DESCRIBE_S = 20
BETWEEN = "\x1f"
ROOM = 64 * 1024
"""What a plug-in's result file is made with, as by HTCondor: on a full disk there is room for the reason then."""

Ad = tuple[str, dict[str, Value]]


class Site:
    """What the configuration says: where the manager listens, whose it is, and the plug-in for each scheme."""

    def __init__(self, socket: str = "", owner: str = "", deadline: str = "", plugins: str = "") -> None:
        self.socket = socket
        self.owner = owner
        self.deadline = deadline
        self.next_plugins = read_map(plugins)


def read_map(text: str) -> dict[str, str]:
    """Read IMAGE_CACHE_NEXT_PLUGIN: `http,https=/usr/libexec/condor/curl_plugin osdf,stash=/usr/bin/stash_plugin`."""
    found: dict[str, str] = {}
    for word in text.split():
        schemes, equals, path = word.partition("=")
        if equals and path.startswith("/"):
            found.update(dict.fromkeys((one for one in schemes.lower().split(",") if one), path))
    return found


def read_site(environment: Mapping[str, str]) -> Site:
    """Ask HTCondor's own tool (20 ms), or else its Python module (200). What cannot be read is empty."""
    macro = BETWEEN.join(f"$({knob if ':' in knob else knob + ':'})" for knob in KNOBS)
    path = f"{environment.get('PATH', '')}:{_beside_starter()}:/usr/bin:/usr/local/bin"
    for directory in path.split(":"):
        tool = f"{directory}/condor_config_val"
        if directory and os.access(tool, os.X_OK):
            try:
                done = subprocess.run(
                    [tool, "-macro", macro], capture_output=True, text=True, timeout=CONFIG_S, check=False
                )
            except (OSError, subprocess.TimeoutExpired):
                continue
            words = done.stdout.rstrip("\n").split(BETWEEN)
            if done.returncode == 0 and len(words) == len(KNOBS):
                return Site(*words)
    return _by_module()


def _by_module() -> Site:
    from cache_manager import configuration, settings  # noqa: PLC0415 - where HTCondor's tools are not

    try:
        knobs = configuration.read_knobs()
    except configuration.ConfigurationError:
        return Site()
    names = [knob.partition(":")[0] for knob in KNOBS]
    return Site(settings.socket_path(knobs), *(knobs.get(name, "") for name in names[1:]))


def _beside_starter() -> str:
    """Return where HTCondor's tools are by where its starter is: a pilot's are on no PATH."""
    try:
        return os.path.join(os.path.dirname(os.readlink(f"/proc/{os.getppid()}/exe")), "../bin")
    except OSError:
        return ""


def scheme_of(url: str) -> str:
    """Return the scheme of a URL without the name of a credential in front of it: `token+osdf://` is osdf."""
    return url.partition("://")[0].partition(":")[0].rpartition("+")[2].lower()


def only_one(site: Site, files: list[Ad]) -> str:
    """Return the one plug-in that all files are for; empty where there are several, or none for one of them."""
    wanted = {site.next_plugins.get(scheme_of(str(ad["url"])), "") for _, ad in files if ad.get("url")}
    return wanted.pop() if len(wanted) == 1 else ""


def sorted_by_plugin(site: Site, files: list[Ad]) -> list[tuple[str, list[str]]]:
    """Return for each plug-in the ads that it is for, those that are for no file with every one of them."""
    context = [raw for raw, ad in files if not ad.get("url")]
    found: dict[str, list[str]] = {}
    for raw, ad in files:
        if ad.get("url"):
            plugin = site.next_plugins.get(scheme_of(str(ad["url"])), "")
            found.setdefault(plugin, list(context)).append(raw)
    return list(found.items())


def pass_on(plugin: str, ads: list[str], *, upload: bool) -> tuple[list[Ad], int]:
    """Run a plug-in for these ads; return its result ads, one for each file, and its exit status."""
    wanted = [ad for raw in ads for _, ad in transferads.parse(raw) if ad.get("url")]
    if not plugin:
        return [_failure(ad, "no other plug-in on this execution point (IMAGE_CACHE_NEXT_PLUGIN)") for ad in wanted], 1
    if any("url" not in ad for raw in ads for _, ad in transferads.parse(raw)) and not _knows_context(plugin):
        ads = [raw for raw in ads if "url" in transferads.parse(raw)[0][1]]
    given, report = (f".image_cache_plugin.{os.getpid()}.{name}" for name in ("in", "out"))
    try:
        _write(given, "".join(f"{raw}\n" for raw in ads))
        _write(report, " " * ROOM)
        options = ["-upload"] if upload else []
        # it says what it has to say where HTCondor logs it
        done = subprocess.run([plugin, "-infile", given, "-outfile", report, *options], check=False)
        with open(report, encoding="utf-8", errors="surrogateescape") as file:
            found = transferads.parse(file.read())
        code = done.returncode if done.returncode >= 0 else 128 - done.returncode
        why = f"{plugin}: exit status {done.returncode}, and no word of this file"
    except (OSError, AdError) as error:
        found, code, why = [], 1, f"{plugin}: {error}"
    finally:
        for name in (given, report):
            if os.path.exists(name):
                os.unlink(name)
    named = {str(ad.get("transferfilename")) for _, ad in found}
    silent = [ad for ad in wanted if str(ad["localfilename"]) not in named]
    return [*found, *(_failure(ad, why) for ad in silent)], code or (1 if silent else 0)


def _failure(ad: Mapping[str, Value], why: str) -> Ad:
    """Return the result ad of a file of which a plug-in said nothing."""
    cause = {"ErrorType": "Parameter", "PluginVersion": "", "PluginLaunched": True, "ErrorCode": 1, "ErrorString": why}
    raw = transferads.render(
        {
            "TransferUrl": ad["url"],
            "TransferFileName": ad["localfilename"],
            "TransferSuccess": False,
            "TransferError": why,
            "TransferErrorData": [cause],
        }
    )
    return transferads.parse(raw)[0]


def _knows_context(plugin: str) -> bool:
    """Whether a plug-in knows ads that are for no file (protocol 4)."""
    said = describe(plugin)
    version = said.get("protocolversion")
    return isinstance(version, int) and version >= 4  # noqa: PLR2004 - as it is called


def describe(plugin: str) -> dict[str, Value]:
    """Return what a plug-in says of itself (`-classad`); nothing where it does not."""
    try:
        done = subprocess.run([plugin, "-classad"], capture_output=True, text=True, timeout=DESCRIBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return {}
    return transferads.parse_lines(done.stdout) if done.returncode == 0 else {}


def methods_of(said: Mapping[str, Value]) -> tuple[str, ...]:
    """Return the schemes that a plug-in says it has."""
    return tuple(one.strip().lower() for one in str(said.get("supportedmethods") or "").split(",") if one.strip())


def render_map(plugins: Iterable[tuple[str, Mapping[str, Value]]], schemes: Iterable[str]) -> str:
    """Return the value of IMAGE_CACHE_NEXT_PLUGIN: of plug-ins for one scheme the last, as HTCondor has it.

    Those that take one file for each start (protocol 1) are no successors: nobody has such a one for these schemes.
    """
    chosen: dict[str, str] = {}
    wanted = set(schemes)
    for path, said in plugins:
        if said.get("multiplefilesupport") is True:
            chosen.update(dict.fromkeys((one for one in methods_of(said) if one in wanted), path))
    paths = dict.fromkeys(chosen.values())
    return " ".join(f"{','.join(one for one in chosen if chosen[one] == path)}={path}" for path in paths)


def _write(path: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
