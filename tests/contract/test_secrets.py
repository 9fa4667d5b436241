"""What may be secret is never said: not in messages, logs, records or names, and not to other users."""

from __future__ import annotations

import itertools

import pytest

from tests.contract.conftest import StartSite
from tests.contract.doubles import ARCH, HTML, cvmfs_ad, image_ad, job_ad, sif, tree
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

CANARY = "CaNaRy7391"
PRIVATE = {
    "CONDOR_PRIVATE_INHERIT": f"12 <127.0.0.1:9618> 0 {CANARY}",
    "CONDOR_PRIVATE_SHARED_PORT_COOKIE": CANARY,
    "BEARER_TOKEN": CANARY,
    "_CONDOR_CREDS": f"/{CANARY}",
    "AWS_SECRET_ACCESS_KEY": CANARY,
}

REPLIES = (
    ("the image", Reply(sif())),
    ("an HTML page", Reply(HTML)),
    ("403", Reply(status=403)),
    ("404", Reply(status=404)),
    ("429", Reply(status=429, headers={"Retry-After": "1"})),
    ("503", Reply(status=503)),
    ("cut off", Reply(sif(), cut=100)),
    (
        "a redirect to a port that is none",
        Reply(status=302, headers={"Location": f"http://u:{CANARY}@h:none/?{CANARY}"}),
    ),
    ("a redirect to another scheme", Reply(status=302, headers={"Location": f"ftp://u:{CANARY}@h/x?sig={CANARY}"})),
    ("a redirect to nobody", Reply(status=302, headers={"Location": f"http://u:{CANARY}@127.0.0.1:1/x?sig={CANARY}"})),
    ("a redirect to itself", Reply(status=302, headers={"Location": f"?sig={CANARY}"})),
)

UNUSABLE = (
    "https://user:@SECRET@@h/a b.sif?sig=@SECRET@",
    "https://user:@SECRET@@h/../x.sif?sig=@SECRET@",
    "https://user:@SECRET@@h:none/x.sif?sig=@SECRET@",
    "https://user:@SECRET@@/x.sif?sig=@SECRET@",
    "https://user:@SECRET@@[::1/x.sif?sig=@SECRET@",
    "gopher://user:@SECRET@@h/x.sif?sig=@SECRET@",
    "https://user:@SECRET@@127.0.0.1:1/x.sif?sig=@SECRET@",
    "https://user:@SECRET@@127.0.0.1:1/x.sif#@SECRET@",
    "osdf://user:@SECRET@@h/x.sif?authz=@SECRET@",
    "token+osdf:///x.sif?authz=@SECRET@",
    "osdf:///x{.sif?authz=@SECRET@",
    "docker://user:@SECRET@@registry/x?y=@SECRET@",
    "s3://user:@SECRET@@bucket/x?sig=@SECRET@",
)


def test_the_environments_secrets_go_nowhere(make_site: StartSite) -> None:
    """HTCondor gives them to the hook and to the manager."""
    site = make_site()
    site.environment = PRIVATE
    site.start()
    ads = (job_ad(), cvmfs_ad("x:1"), "garbage", image_ad("x.sif"))
    answers = [
        site.run_hook(ad, env=PRIVATE, launcher=launcher) for ad, launcher in itertools.product(ads, (True, False))
    ]
    site.stop()
    answers += [site.run_hook(ad, env=PRIVATE) for ad in ads]
    said = b"".join(answer.stdout + answer.stderr for answer in answers).decode()
    assert CANARY not in said + site.all_text()


@pytest.mark.parametrize(("name", "reply"), REPLIES, ids=[row[0] for row in REPLIES])
def test_a_signed_url_is_not_said(shared_site: Site, origin: Origin, name: str, reply: Reply) -> None:
    """Neither its query nor its password, whatever becomes of it."""
    site = shared_site
    site.log.write_text("", encoding="utf-8")
    origin.routes["/x.sif"] = reply
    ad = image_ad(f"http://user:{CANARY}@127.0.0.1:{origin.port}/x.sif?sig={CANARY}#{CANARY}")
    answers = [site.run_hook(ad) for _ in range(2)]
    said = "".join(answer.message for answer in answers)
    assert CANARY not in said + site.reports(ad) + site.all_text(), name
    assert origin.requests


@pytest.mark.parametrize("reference", UNUSABLE)
def test_a_reference_that_cannot_be_used_is_said_without_its_secrets(shared_site: Site, reference: str) -> None:
    """With a manager, and without one."""
    shared_site.log.write_text("", encoding="utf-8")
    ad = image_ad(reference.replace("@SECRET@", CANARY))
    answers = [shared_site.run_hook(ad), shared_site.run_hook(ad, "--degraded=*", socket="/nonexistent")]
    assert CANARY not in "".join(answer.message for answer in answers) + shared_site.all_text()


@pytest.mark.parametrize("name", ["SingularityImage", "ContainerImage"])
def test_an_expression_that_fails_is_said_without_its_secrets(shared_site: Site, name: str) -> None:
    """It may put a signed URL together."""
    site = shared_site
    site.log.write_text("", encoding="utf-8")
    answer = site.run_hook(job_ad(f'{name} = strcat("https://h/x.sif?sig={CANARY}", 1 / 0)'))
    assert answer.code == 110
    assert CANARY not in answer.message + site.all_text()


@pytest.mark.parametrize("line", [f'Environment "TOKEN={CANARY}"', f"{CANARY}", f'Env = "A={CANARY}'])
def test_a_line_that_cannot_be_read_is_said_without_what_it_holds(shared_site: Site, line: str) -> None:
    """A job's environment and arguments are its own."""
    site = shared_site
    site.log.write_text("", encoding="utf-8")
    answer = site.run_hook(job_ad(line, "SingularityImage = strcat(1)"))
    assert CANARY not in answer.message + site.all_text()


def test_the_password_of_a_tree_stays_in_the_configuration(make_site: StartSite, origin: Origin) -> None:
    """Any user may ask the socket, and the root can be read by all."""
    source = f"http://user:{CANARY}@127.0.0.1:{origin.port}/v2"
    site = make_site(IMAGE_CACHE_SIF_SOURCES=source, IMAGE_CACHE_CVMFS_BASE="/nonexistent").start()
    origin.serve(tree("htc/a:1", sif("a")))
    origin.routes[f"/v2/{ARCH}/htc__b__1/latest.txt"] = Reply(HTML)
    said = "".join(site.run_hook(cvmfs_ad(f"htc/{name}:1")).message for name in "abca")
    assert "cached SIF" in said
    assert CANARY not in said + site.reports(cvmfs_ad("htc/a:1")) + site.all_text()


def test_nobody_forges_the_log_or_an_admins_terminal(make_site: StartSite, origin: Origin) -> None:
    """Line ends and escape sequences in a job's attributes, in file names and in servers' answers."""
    site = make_site().start()
    origin.routes["/x.sif"] = Reply(sif())
    origin.routes["/y.sif"] = Reply(status=429, headers={"Retry-After": "\x1b[2J\x07"})
    forged = 'strcat("7", substr("\x1b[31m", 0))'
    for line in (f"ClusterId = {forged}", f"ProcId = {forged}", f"Owner = {forged}"):
        for name in "xy":
            site.run_hook(
                job_ad().replace("ClusterId = 12\n", "") + line + f'\nSingularityImage = "{origin.url}/{name}.sif"\n'
            )
    site.run_hook(image_ad("x.sif"), env={"_CONDOR_SLOT": "slot1\n2026-01-01 00:00:00 INFO forged"})
    said = site.command("list").stdout + site.command("status").stdout + site.log_text()
    assert "\x1b" not in said
    assert not [line for line in said.splitlines() if line.startswith("2026-01-01 00:00:00 INFO forged")]
