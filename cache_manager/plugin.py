# ruff: noqa: PTH105, PTH108, PTH118, PTH123, PTH211
# pathlib takes longer to import than all that is done here
"""The file-transfer plug-in of this EP: `image_cache_plugin -infile F -outfile G [-upload]`, or `-classad`.

HTCondor runs it as the job's user, in the job's scratch directory, for what the job names by URL. The job's image is
asked of the cache manager, and a link to it put where HTCondor wants the file: nothing is copied and nothing counts
against the job's disk. Everything else goes to the plug-in that was there before.

What becomes of a job (tried with HTCondor 25.14): a plug-in that exits with anything but 0 puts the job on hold, and
with 0 the job goes on, whatever its result ads say. So an image that this execution point cannot bring (300 and more)
ends with 0 and TransferSuccess = false: the prepare-job hook, which asks the same of the manager, sends the job back to
idle. What no execution point could bring (below 300) ends with 1.

It is started once for each job, so it imports little: see `python -X importtime`.
"""

from __future__ import annotations

import os
import sys
import time

from cache_manager import __version__, plugin_asks, plugin_next, transferads
from cache_manager.plugin_asks import MANAGER_DOWN, Answer
from cache_manager.plugin_next import Ad, Site
from cache_manager.transferads import AdError, Value

HOLD_LIMIT = 300
NAMES = ("containerimage", "singularityimage")
FULL_NAME = "containerimagefullpath"


def main() -> int:
    """Run with the process's arguments; return the exit status."""
    return run(sys.argv[1:])


def run(argv: list[str]) -> int:
    """Describe this plug-in, or transfer what the input file names."""
    site = plugin_next.read_site(os.environ)
    if "-classad" in argv:
        sys.stdout.write(description(site))
        return 0
    try:
        given, report = argument(argv, "-infile"), argument(argv, "-outfile")
        with open(given, encoding="utf-8", errors="surrogateescape") as file:
            files = transferads.parse(file.read())
    except (AdError, IndexError, OSError) as error:
        sys.stderr.write(f"image_cache_plugin: {error}\n")
        return 1
    images = [] if "-upload" in argv else images_among(files, plugin_asks.job_ad(os.environ))
    plugin = plugin_next.only_one(site, files)
    if not images and plugin:
        os.execv(plugin, [plugin, *argv])  # noqa: S606 - none of this is ours: the other answers for itself
    reports, status = transfer(site, files, images, "-upload" in argv)
    write(report, reports)
    return status


def description(site: Site) -> str:
    """Return what HTCondor wants to know of a plug-in. Of the schemes only those that another plug-in has, too.

    Of those the job's other files can be had; without any, HTCondor goes on with the plug-ins that there are.
    """
    return (
        "MultipleFileSupport = true\n"
        f'PluginVersion = "{__version__}"\n'
        'PluginType = "FileTransfer"\n'
        "ProtocolVersion = 4\n"
        f'SupportedMethods = "{",".join(site.next_plugins)}"\n'
    )


def argument(argv: list[str], name: str) -> str:
    """Return the word behind an option. Raises IndexError with its name if there is none."""
    if name not in argv[:-1]:
        raise IndexError(f"no {name} FILE among the arguments")
    return argv[argv.index(name) + 1]


def images_among(files: list[Ad], job: dict[str, str]) -> list[Ad]:
    """Return those of the files that are the job's image: named by the ad, in the scratch directory itself.

    The access point may have signed a URL for this one transfer (`s3`): such a one is not what the job names, names
    something new each time, and is left to the plug-in that it was made for.
    """
    said = (job.get(name, "").partition("?")[0] for name in NAMES)  # HTCondor gives a file no query in its name
    names = {name for name in said if name and "/" not in name}
    whole, here = job.get(FULL_NAME, ""), os.path.realpath(".")
    found = []
    for raw, ad in files:
        url, target = str(ad.get("url") or ""), str(ad.get("localfilename") or "")
        directory, _, name = target.rpartition("/")
        named = name in names and (url == whole or "://" not in whole)
        if url and named and (not directory or os.path.realpath(directory) == here):
            found.append((raw, ad))
    return found


def transfer(
    site: Site,
    files: list[Ad],
    images: list[Ad],
    upload: bool,  # noqa: FBT001 - as HTCondor says it
) -> tuple[list[str], int]:
    """Return a result ad for each file, and the exit status: the first that is not 0."""
    reports, status = [], 0
    others = [one for one in files if one not in images]
    for image in images:
        report, code = bring(site, image, [raw for raw, ad in others if not ad.get("url")])
        reports.append(report)
        status = status or code
    for plugin, ads in plugin_next.sorted_by_plugin(site, others):
        found, code = plugin_next.pass_on(plugin, ads, upload=upload)
        reports += [raw for raw, _ in found]
        status = status or code
    return reports, status


def bring(site: Site, image: Ad, context: list[str]) -> tuple[str, int]:
    """Return the result ad for the job's image, and the exit status that goes with it."""
    raw, ad = image
    url, target = str(ad["url"]), str(ad["localfilename"])
    began = time.time()
    answer = plugin_asks.ask(site, url, os.environ)
    if answer.path:
        try:
            link(answer.path, target)
        except OSError as error:
            answer = Answer(MANAGER_DOWN, f"{target}: {error.strerror}")
        else:
            return result(ad, began, DeveloperData={"ImageCachePath": answer.path}), 0
    plugin = site.next_plugins.get(plugin_next.scheme_of(url), "")
    found, code = plugin_next.pass_on(plugin, [*context, raw], upload=False)
    report, theirs = next(((one, said) for one, said in found if said.get("transferfilename") == target), ("", {}))
    if code == 0 and theirs.get("transfersuccess") is True:
        return report, 0
    remove(target)  # half an image would be taken for the whole one
    also = str(theirs.get("transfererror") or f"exit status {code}")
    words = f"image cache: {answer.status}: {answer.message} [also tried: {plugin or 'no other plug-in'}: {also}]"
    known = theirs.get("transfererrordata")
    causes = [cause(answer), *(known if isinstance(known, list) else [])]
    failure = result(ad, began, TransferError=words, TransferErrorData=causes)
    return failure, 1 if answer.status < HOLD_LIMIT else 0


def cause(answer: Answer) -> dict[str, object]:
    """Return an element of TransferErrorData for a status of ours."""
    kinds = {130: "Authorization", 120: "Specification", 110: "Parameter", 610: "Contact"}
    more: dict[str, dict[str, object]] = {
        "Authorization": {"FailedServer": "image cache", "FailureType": "Authorization", "ShouldRefresh": False},
        "Specification": {"FailedServer": "image cache"},
        "Parameter": {"PluginVersion": __version__, "PluginLaunched": True},
        "Contact": {"FailedServer": "image cache"},
        "Transfer": {"FailedServer": "image cache", "FailureType": "TimedOut" if answer.status == 620 else "NoSpace"},  # noqa: PLR2004
    }
    kind = kinds.get(answer.status, "Transfer" if answer.status in {320, 420, 430, 620} else "Parameter")
    retry = {"Retryable": -1 if answer.status < HOLD_LIMIT else 0}
    said = {"ErrorCode": answer.status, "ErrorString": answer.message}
    return {"ErrorType": kind, **more[kind], **retry, **said}


def result(ad: dict[str, Value], began: float, **more: object) -> str:
    """Return a result ad: of a success, unless `more` holds a TransferError."""
    return transferads.render(
        {
            "TransferUrl": ad["url"],
            "TransferFileName": ad["localfilename"],
            "TransferSuccess": "TransferError" not in more,
            "TransferType": "download",
            "TransferProtocol": plugin_next.scheme_of(str(ad["url"])),
            "TransferStartTime": int(began),
            "TransferEndTime": int(time.time()),
            "TransferTotalBytes": 0,
            "TransferFileBytes": 0,
            **more,
        }
    )


def link(image: str, target: str) -> None:
    """Put a link to the image in the place of the file. Raises OSError."""
    directory, _, name = target.rpartition("/")
    beside = os.path.join(directory, f".{name}.image-cache")
    remove(beside)
    os.symlink(image, beside)
    os.replace(beside, target)


def remove(path: str) -> None:
    """Have a file gone."""
    try:
        os.unlink(path)
    except OSError:
        return


def write(path: str, reports: list[str]) -> None:
    """Write the result ads over the blanks with which HTCondor made the file: it has room on a full disk, too."""
    text = "".join(f"{report}\n" for report in reports).encode("utf-8", "surrogateescape")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while text:
            text = text[os.write(descriptor, text) :]
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
