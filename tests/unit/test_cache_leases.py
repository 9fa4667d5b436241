"""Who uses an image, and for how long: as long as its process lives."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from cache_manager import processes
from cache_manager.cache import Cache
from cache_manager.lease import BOUND_S, Holder, Lease
from cache_manager.outcome import Located
from cache_manager.status import HookStatus, StatusError
from cache_manager.store import Store
from tests.unit.benches import Bench, child, run
from tests.unit.builders import key_of


def lease_files(bench: Bench) -> list[str]:
    """Return the names of the lease files."""
    return sorted(path.name for path in (bench.store.root / "leases").iterdir())


def test_the_lease_is_on_disk_before_the_job_hears_of_its_image(tmp_path: Path) -> None:
    """A manager that dies now finds it when it starts again."""

    def test(bench: Bench) -> None:
        bench.put("a")
        with child() as (holder, _):
            path = bench.cache.acquire(key_of("a"), holder, 1500.0, "12.0")
            lease = Lease.from_json((bench.store.root / "leases" / holder.file_name).read_text())
            assert path == bench.store.root / "entries" / key_of("a") / "image"
            assert path.exists()
            assert (lease.keys, lease.job_id, lease.taken_at) == (frozenset({key_of("a")}), "12.0", 1500.0)
            assert lease.boot_id == processes.boot_id()
            bench.cache.leases.release(holder)

    run(tmp_path / "cache", test)


def test_a_holder_may_use_several_images_and_ask_again(tmp_path: Path) -> None:
    """A hook whose manager was restarted asks twice; that is one lease."""

    def test(bench: Bench) -> None:
        bench.put("a")
        bench.put("b")
        with child() as (holder, _):
            for name in ("a", "b", "a"):
                bench.cache.acquire(key_of(name), holder, 1500.0)
            assert bench.cache.leases.in_use == {key_of("a"), key_of("b")}
            assert lease_files(bench) == [holder.file_name]
            bench.cache.leases.release(holder)
            bench.cache.leases.release(holder)
            assert (bench.cache.leases.in_use, lease_files(bench)) == (frozenset(), [])

    run(tmp_path / "cache", test)


def test_without_a_holder_the_use_is_remembered_and_nothing_is_held(tmp_path: Path) -> None:
    """Nobody could be watched; the image is at least the last to go."""

    def test(bench: Bench) -> None:
        bench.put("a", now=1000.0)
        bench.cache.acquire(key_of("a"), None, 1500.0)
        assert (bench.cache.leases.in_use, lease_files(bench)) == (frozenset(), [])
        assert bench.cache.entries[key_of("a")].last_used_at == 1500.0
        record = bench.store.root / "entries" / key_of("a") / "entry.json"
        assert record.stat().st_mtime == 1500.0

    run(tmp_path / "cache", test)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_lease_ends_with_its_process_however_that_ends(tmp_path: Path, how: signal.Signals) -> None:
    """The kernel tells, also of a starter that was killed."""

    async def test(bench: Bench) -> None:
        bench.put("a")
        bench.put("b")
        with child() as (staying, _), child() as (holder, process):
            bench.cache.acquire(key_of("a"), holder, 1500.0)
            bench.cache.acquire(key_of("b"), staying, 1500.0)
            process.send_signal(how)
            await bench.until(lambda: holder not in bench.cache.leases)
            assert bench.cache.leases.in_use == {key_of("b")}
            assert lease_files(bench) == [staying.file_name]
            bench.cache.leases.release(staying)

    run(tmp_path / "cache", test)


def test_a_holder_that_ended_before_it_was_watched_keeps_nothing(tmp_path: Path) -> None:
    """The hook's starter may be gone when the fetch has ended."""

    async def test(bench: Bench) -> None:
        bench.put("a")
        with child() as (holder, process):
            process.kill()
            process.wait()
            bench.cache.acquire(key_of("a"), holder, 1500.0)
            await bench.until(lambda: not bench.cache.leases)
        assert lease_files(bench) == []

    run(tmp_path / "cache", test)


def test_a_process_with_the_same_pid_is_another_holder(tmp_path: Path) -> None:
    """Pids are used again."""

    async def test(bench: Bench) -> None:
        bench.put("a")
        with child() as (holder, _):
            bench.cache.acquire(key_of("a"), Holder(holder.pid, holder.start_ticks - 1), 1500.0)
            await bench.until(lambda: not bench.cache.leases)

    run(tmp_path / "cache", test)


def test_a_lease_whose_end_nobody_sees_ends_after_a_day(tmp_path: Path) -> None:
    """Also at a restart. Others go on as long as their jobs."""
    root = tmp_path / "cache"
    job = tmp_path / "dir_7"
    job.mkdir()
    seen = Holder(0, 0, str(job), job.stat().st_ino)
    unseen = Holder(0, 0, "/elsewhere/dir_7", bounded=True)

    def before(bench: Bench) -> None:
        bench.put("a")
        for holder in (seen, unseen):
            bench.cache.acquire(key_of("a"), holder, bench.now)
        bench.now += BOUND_S - 1
        bench.cache.leases.poll()
        assert set(bench.cache.leases) == {seen, unseen}
        kept = (root / "leases" / unseen.file_name).read_text()
        bench.now += 1
        bench.cache.leases.poll()
        assert set(bench.cache.leases) == {seen}
        kept_too = (root / "leases" / seen.file_name).read_text()
        bench.cache.leases.release(seen)
        (root / "leases" / unseen.file_name).write_text(kept)
        (root / "leases" / seen.file_name).write_text(kept_too)

    def after(bench: Bench) -> None:
        bench.now += BOUND_S
        bench.cache.load()
        assert set(bench.cache.leases) >= {seen}
        job.rmdir()
        bench.cache.leases.poll()
        assert (dict(bench.cache.leases), lease_files(bench)) == ({}, [])

    run(root, before)
    run(root, after)


def test_without_a_boot_id_another_hosts_leases_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pids are others; a file system may be shared. A machine that was renamed since still knows its own."""
    root = tmp_path / "cache"
    for boot, kept in (("", False), ("a", True)):
        monkeypatch.setattr(processes, "boot_id", lambda boot=boot: boot)
        with child() as (holder, _):

            def before(bench: Bench, holder: Holder = holder) -> None:
                if key_of("a") not in bench.cache.entries:
                    bench.put("a")
                bench.cache.acquire(key_of("a"), holder, 1500.0)
                path = root / "leases" / holder.file_name
                text = json.dumps(json.loads(path.read_text()) | {"host": "another.example"})
                bench.cache.leases.release(holder)
                path.write_text(text)

            def after(bench: Bench, holder: Holder = holder, *, kept: bool = kept) -> None:
                assert (holder in bench.cache.leases) is kept

            run(root, before)
            run(root, after)


def test_a_restart_keeps_the_leases_of_the_living(tmp_path: Path) -> None:
    """Their jobs run on; those of the dead, of another boot and of nobody go."""
    root = tmp_path / "cache"
    with child() as (living, _), child() as (dying, process):

        def before(bench: Bench) -> None:
            bench.put("a", now=1000.0)
            bench.put("b", now=2000.0)
            bench.cache.acquire(key_of("a"), living, 3000.0, "1.0")
            bench.cache.acquire(key_of("b"), dying, 3000.0, "2.0")
            for holder in (living, dying):
                kept = (root / "leases" / holder.file_name).read_text()
                bench.cache.leases.release(holder)
                (root / "leases" / holder.file_name).write_text(kept)
            other_boot = json.loads((root / "leases" / living.file_name).read_text()) | {"boot_id": "x"}
            (root / "leases" / f"{os.getpid()}-1.json").write_text(json.dumps(other_boot))
            (root / "leases" / "junk").write_text("{")

        run(root, before)
        process.kill()
        process.wait()

        async def after(bench: Bench) -> None:
            assert set(bench.cache.leases) == {living}
            assert bench.cache.leases.in_use == {key_of("a")}
            assert lease_files(bench) == [living.file_name]
            assert [bench.cache.entries[key_of(name)].last_used_at for name in "ab"] == [3000.0, 3000.0]
            os.kill(living.pid, signal.SIGKILL)
            await bench.until(lambda: not bench.cache.leases)

        run(root, after)


def test_a_damaged_image_is_never_handed_out(tmp_path: Path) -> None:
    """It is dropped when a job asks for it, and fetched anew."""

    def test(bench: Bench) -> None:
        located = Located(url="https://o.example/a.sif")
        one = bench.put("a", url=located.url)
        assert bench.cache.find(located) == one
        assert bench.cache.find(Located(digest=one.digest)) == one
        assert bench.cache.find(Located(url="https://o.example/b.sif")) is None
        image = bench.store.root / "entries" / one.key / "image"
        image.chmod(0o644)
        os.truncate(image, 10)
        bench.cache.read_only = True
        assert bench.cache.find(located) is None
        assert image.exists()
        bench.cache.read_only = False
        assert bench.cache.find(located) is None
        assert not image.exists()
        assert bench.cache.entries == {}

    run(tmp_path / "cache", test)


def test_an_image_whose_jobs_end_at_once_is_suspected_once(tmp_path: Path) -> None:
    """Three in a row; one that ran for a minute clears it. The image may be broken, or its jobs just short."""

    def test(bench: Bench) -> None:
        bench.put("a")
        for seconds, suspects in ((1, 0), (59, 0), (60, 0), (1, 0), (2, 0), (3, 1), (4, 1)):
            with child() as (holder, _):
                bench.cache.acquire(key_of("a"), holder, bench.now)
                bench.now += seconds
                bench.cache.leases.release(holder)
            assert bench.suspects == [key_of("a")] * suspects

    run(tmp_path / "cache", test)


def test_a_version_of_an_object_is_another_object(tmp_path: Path) -> None:
    """A URL whose content changed is not served from what it was."""

    def test(bench: Bench) -> None:
        one = bench.put("a")
        bench.cache.add(one, Located(url="https://o.example/a.sif", version="etag1"), 1000.0)
        assert bench.cache.find(Located(url="https://o.example/a.sif", version="etag1")) == one
        assert bench.cache.find(Located(url="https://o.example/a.sif", version="etag2")) is None
        assert bench.cache.find(Located(url="https://o.example/a.sif")) is None

    run(tmp_path / "cache", test)


def test_what_is_known_of_objects_outlives_the_manager_and_tells_no_secret(tmp_path: Path) -> None:
    """A URL may hold a signature: no file under the root has it, neither in its name nor in its text."""
    located = Located(url="https://user:s3cr3t@o.example/a.sif?sig=s3cr3t", version="v1")

    def before(bench: Bench) -> None:
        one = bench.put("a", url=located.url)
        bench.cache.add(one, located, 1000.0)

    def after(bench: Bench) -> None:
        found = bench.cache.find(located)
        assert found is not None
        assert found.name == "a"
        assert bench.cache.objects.known(located.object_id)["fetched_at"] == 1000.0

    run(tmp_path / "cache", before)
    run(tmp_path / "cache", after)
    for path in (tmp_path / "cache").rglob("*"):
        assert "s3cr3t" not in path.name
        assert path.is_dir() or b"s3cr3t" not in path.read_bytes()


def test_a_root_that_cannot_be_used_refuses_fetches_and_says_why(tmp_path: Path) -> None:
    """What lies there already may still serve; the status sends the job elsewhere."""

    async def test() -> None:
        root = tmp_path / "cache"
        bench = Bench(root)
        root.chmod(0o777)
        with pytest.raises(StatusError) as caught:
            bench.store.prepare()
        assert caught.value.status is HookStatus.CACHE_UNUSABLE
        bench.cache.trouble = caught.value.message
        with pytest.raises(StatusError) as again:
            bench.cache.reserve("1", "a", 1)
        assert (again.value.status, again.value.message) == (HookStatus.CACHE_UNUSABLE, f"a: {caught.value.message}")

    asyncio.run(test())


def test_a_root_that_is_gone_is_unusable(tmp_path: Path) -> None:
    """A file system that was unmounted."""

    def test(bench: Bench) -> None:
        bench.put("a")
        bench.store.root.rename(tmp_path / "elsewhere")
        gone = Cache(Store(bench.store.layout), lambda: bench.settings, lambda: None)
        with pytest.raises(StatusError) as caught:
            gone.reserve("1", "a", 1)
        assert caught.value.status is HookStatus.CACHE_UNUSABLE
        with child() as (holder, _), pytest.raises(StatusError) as again:
            bench.cache.acquire(key_of("a"), holder, 5000.0)
        assert again.value.status is HookStatus.CACHE_UNUSABLE

    run(tmp_path / "cache", test)
