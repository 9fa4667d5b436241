"""Images that HTCondor's transfer plug-ins bring, and sites at which a source is switched off: from ad to cache."""

from __future__ import annotations

import json
from pathlib import Path

from tests.contract.doubles import image_ad, sif
from tests.contract.harness import Site

DOUBLE = """#!/bin/sh
# a double of a transfer plug-in for ftp: counts its runs
[ "$1" = -classad ] && {{ echo 'MultipleFileSupport = true'; echo 'SupportedMethods = "ftp"'; exit; }}
echo run >>{here}/runs
target=$(sed 's/.*LocalFileName = "\\([^"]*\\)".*/\\1/' "$2")
case $(cat "$2") in
*nowhere*) printf '[ TransferSuccess = false; TransferError = "550 none"; TransferErrorData = %s ]' \\
    '{{ [ ErrorType = "Specification" ] }}' >"$4"; exit 1;;
esac
cp {here}/image.sif "$target"
printf '[ TransferSuccess = true ]' >"$4"
"""


def with_double(site: Site) -> Path:
    """Give a site a plug-in for ftp; return where it counts."""
    plugin = site.directory / "ftp_plugin"
    plugin.write_text(DOUBLE.format(here=site.directory))
    plugin.chmod(0o755)
    (site.directory / "image.sif").write_bytes(sif("by ftp"))
    site.configure(FILETRANSFER_PLUGINS=str(plugin))
    return site.directory / "runs"


def test_what_a_plugin_brings_is_kept_for_all(tmp_path: Path) -> None:
    """One run for two jobs; what it says is not there holds the job, and a scheme without a plug-in sends it away."""
    with Site(tmp_path) as site:
        runs = with_double(site)
        site.start()
        first = site.run_hook(image_ad("ftp://host.example/x.sif"))
        assert first.code == 0, first.message
        assert "SIF fetched from ftp://host.example/x.sif" in first.message
        second = site.run_hook(image_ad("ftp://host.example/x.sif"))
        assert "cached SIF of ftp://host.example/x.sif" in second.message
        assert runs.read_text() == "run\n"
        missing = site.run_hook(image_ad("ftp://host.example/nowhere.sif"))
        assert missing.code == 120
        assert "ftp_plugin: 550 none" in missing.message
        assert site.run_hook(image_ad("dav://host.example/x.sif")).code == 310


def test_a_scheme_that_only_this_slot_has_is_no_typing_error(tmp_path: Path) -> None:
    """The slot says which methods its plug-ins have; any other scheme is one."""
    with Site(tmp_path) as site:
        site.start()
        machine = 'HasFileTransferPluginMethods = "ftp,rucio"\n'
        assert site.run_hook(image_ad("rucio://scope/x.sif"), machine_ad=machine).code == 310
        assert site.run_hook(image_ad("rucci://scope/x.sif"), machine_ad=machine).code == 110


def test_a_site_where_federations_are_switched_off_says_so_to_jobs_and_admins(tmp_path: Path) -> None:
    """In the job's message, in `explain`, and in `doctor`, which also tells what is wrong with the file."""
    file = tmp_path / "exceptions.csv"
    file.write_text('Site,percent,message\nAnvil,100,"NAT, no cache nearby"\nUtah,much,x\n')
    with Site(tmp_path / "site", {"IMAGE_CACHE_SITE": "Anvil", "IMAGE_CACHE_EXCEPTIONS": str(file)}) as site:
        site.start()
        reason = "switched off at Anvil: NAT, no cache nearby (IMAGE_CACHE_EXCEPTIONS)"
        site.wait_for(lambda: reason in site.run_hook(image_ad("osdf:///ns/x.sif")).message, "the file being read")
        assert site.run_hook(image_ad("osdf:///ns/x.sif")).code == 610
        told = json.loads(site.command("explain", "--json", "-", text=image_ad("osdf:///ns/x.sif")).stdout)
        assert reason in [row["why_not"] for row in told["order"] if row["serves"] == "federation"]
        assert reason in told["ad"]
        assert "the order of sources:" in site.command("explain", "-", text=image_ad("osdf:///ns/x.sif")).stdout
        found = {one["words"]: one["level"] for one in json.loads(site.command("doctor", "--json").stdout)}
        assert found[f"data federations: {reason}"] == "ok"
        assert found[f"{file}: line 3: 'much' is no percentage from 0 to 100"] == "warning"
        file.write_text("Anvil,0,\n")
        site.reconfigure()
        assert reason not in site.run_hook(image_ad("osdf:///ns/x.sif")).message
