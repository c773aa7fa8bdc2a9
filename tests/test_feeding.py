"""Batches from memory, from a mapped store and from files that are decoded again: the same bytes in the same order."""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from dying_images import DyingImages
from subclass_kd import decoders
from subclass_kd.config import Data
from subclass_kd.data.on_demand import OnDemand
from subclass_kd.data.pixels import load_pixels
from subclass_kd.data.table import SampleTable
from subclass_kd.engine import run_jobs
from subclass_kd.errors import UserError
from subclass_kd.feeding import Feed
from subclass_kd.study_file import make_study
from subclass_kd.team import Team

SIZE = 16
ROWS = torch.tensor([21, 3, 4, 5, 22, 0, 17, 9, 30, 31, 32, 33])  # of 40, in no order
ORDER = [torch.tensor([3, 0, 11]), torch.tensor([7]), torch.tensor([], dtype=torch.int64), torch.tensor([4, 4, 10, 1])]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Give 40 colour images of (40, 3, 16, 16), and a table of them as PNG files of twice that size."""
    folder = tmp_path_factory.mktemp("images")
    names = [f"{number:02}.png" for number in range(40)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (2 * SIZE, 2 * SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    table = SampleTable("study", names, root=folder)
    return np.array(load_pixels(table, Data(size=SIZE))[0]), table


@pytest.fixture
def on_demand(files):
    """Give the images as files that two processes decode for each batch."""
    images, _ = load_pixels(files[1], Data(size=SIZE, store_limit=0))
    assert isinstance(images, OnDemand)
    images.processes = 2
    yield images
    decoders._idle.pop(images, None)


@pytest.fixture
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def batches(images, fabric, order=ORDER):
    return list(Feed(images, ROWS, fabric).batches(order))


@pytest.mark.parametrize("kind", ["memory", "store", "on demand"])
def test_each_batch_has_the_images_of_its_rows_in_their_order(files, on_demand, fabric, kind):
    stored, _ = load_pixels(files[1], Data(size=SIZE))
    found = batches({"memory": files[0], "store": stored, "on demand": on_demand}[kind], fabric)
    for batch, images in zip(ORDER, found, strict=True):
        assert images.dtype == torch.uint8
        assert images.device.type == "cpu"
        assert np.array_equal(images.numpy(), files[0][ROWS[batch].numpy()])
    assert [len(images) for images in found] == [3, 1, 0, 4]


def test_a_feed_counts_its_own_images(files, fabric):
    feed = Feed(files[0], ROWS, fabric)
    assert len(feed) == 12
    assert torch.equal(feed.rows, ROWS)
    assert list(feed.batches([])) == []


def test_a_batch_is_a_copy_that_may_be_changed(files, fabric):
    stored, _ = load_pixels(files[1], Data(size=SIZE))
    (batch,) = Feed(stored, ROWS, fabric).batches([torch.arange(3)])
    batch.zero_()
    assert np.array_equal(stored, files[0])


# Processes that decode


def processes():
    return {child.pid for child in multiprocessing.active_children()}


def until_gone(before):
    """Give the processes that are there when all others have ended, or have not in 20 s."""
    gc.collect()
    deadline = time.monotonic() + 20
    while (there := processes()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    return there


def test_the_processes_stay_for_other_epochs_and_other_feeds_of_the_images(files, on_demand, fabric):
    before = processes()
    batches(on_demand, fabric)
    first = processes() - before
    assert len(first) == 2
    for order in (ORDER, [torch.arange(12)], ORDER[::-1]):
        expected = [files[0][ROWS[batch].numpy()] for batch in order]
        assert all(np.array_equal(*pair) for pair in zip(batches(on_demand, fabric, order), expected, strict=True))
    (validation,) = Feed(on_demand, torch.arange(5), fabric).batches([torch.arange(5)])
    assert np.array_equal(validation.numpy(), files[0][:5])
    assert processes() - before == first


def in_force(images, fabric):
    """Count the processes that decode some images."""
    before = processes()
    batches(images, fabric)
    return len(processes() - before)


def test_there_are_not_more_processes_than_help(on_demand, fabric, monkeypatch):
    monkeypatch.setattr(decoders, "MOST", 1)
    assert in_force(on_demand, fabric) == 1


@pytest.mark.parametrize(("limit", "count"), [(16, 2), (4, 1), (-1, 3)])
def test_the_pipes_of_the_processes_take_half_of_what_may_be_open(on_demand, fabric, monkeypatch, limit, count):
    resource = pytest.importorskip("resource")
    on_demand.processes = 3
    with monkeypatch.context() as patched:
        patched.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY if limit < 0 else limit, 4096))
        assert in_force(on_demand, fabric) == count


@pytest.mark.parametrize(("most", "ahead"), [(decoders.MOST_AHEAD, 4), (3 << 20, 3), (1 << 20, 2), (0, 2)])
def test_large_batches_wait_in_smaller_number_but_one_for_each_process(monkeypatch, most, ahead):
    """Of 1 MiB each here, for two processes."""
    images, found, in_order = DyingImages(2), [], decoders.in_order
    monkeypatch.setattr(decoders, "MOST_AHEAD", most)
    monkeypatch.setattr(decoders, "in_order", lambda *given: found.append(given[-1]) or in_order(*given))
    order = [np.array([row]) for row in (1, 2, 3, 4, 5, 6, 7, 8)]
    assert [batch[0, 0, 0, 0] for batch in decoders.decoded(images, order)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert list(decoders.decoded(images, [])) == []
    assert found == [ahead, 4 if most else 2]
    decoders._idle.pop(images)


def test_two_feeds_at_once_do_not_mix(files, on_demand, fabric):
    other = torch.arange(40).flip(0)
    pairs = zip(
        Feed(on_demand, ROWS, fabric).batches(ORDER), Feed(on_demand, other, fabric).batches(ORDER), strict=True
    )
    for batch, (one, two) in zip(ORDER, pairs, strict=True):
        assert np.array_equal(one.numpy(), files[0][ROWS[batch].numpy()])
        assert np.array_equal(two.numpy(), files[0][other[batch].numpy()])


def test_an_epoch_that_is_left_early_does_not_reach_into_the_next(files, on_demand, fabric):
    started = Feed(on_demand, ROWS, fabric).batches([torch.tensor([number]) for number in range(12)])
    next(started)
    started.close()
    assert np.array_equal(batches(on_demand, fabric)[0].numpy(), files[0][ROWS[ORDER[0]].numpy()])


def test_the_processes_end_with_the_images(files, fabric):
    before = processes()
    images, _ = load_pixels(files[1], Data(size=SIZE, store_limit=0))
    images.processes = 1
    batches(images, fabric)
    assert len(processes() - before) == 1
    del images
    assert until_gone(before) <= before


def test_the_first_of_a_team_leaves_the_others_their_share_of_the_cores(on_demand, monkeypatch, tmp_path):
    monkeypatch.setattr("subclass_kd.team._current", Team(0, 4, nodes=2))
    monkeypatch.setattr("subclass_kd.engine.count_cores", lambda: 7)
    monkeypatch.setattr("subclass_kd.build.check", Mock(side_effect=UserError("check", "enough", "")))
    with pytest.raises(UserError, match="enough"):
        run_jobs(make_study({}), SimpleNamespace(images=on_demand), tmp_path, ["a job"], Mock(), Mock())
    assert on_demand.processes == 3


def test_torch_s_own_random_numbers_stay_what_they_were(on_demand, fabric):
    """Dropout must not differ with where images come from."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    batches(on_demand, fabric)
    batches(on_demand, fabric)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_a_file_that_changes_is_one_message(tmp_path, fabric, change):
    names = [f"{number}.png" for number in range(4)]
    for number, name in enumerate(names):
        Image.new("L", (SIZE, SIZE), number).save(tmp_path / name)
    images, _ = load_pixels(SampleTable("study", names, root=tmp_path), Data(store_limit=0))
    images.processes, before = 1, processes()
    if change == "gone":
        (tmp_path / "2.png").unlink()
    else:
        Image.new("L", (SIZE, SIZE), 100).save(tmp_path / "2.png")
    feed = Feed(images, torch.arange(4), fabric)
    with pytest.raises(UserError) as caught:
        list(feed.batches([torch.tensor([0, 1]), torch.tensor([3, 2])]))
    assert caught.value.where == str(tmp_path / "2.png")
    assert caught.value.found == {"gone": "no file", "changed": "an image that changed while the run went on"}[change]
    assert len(processes() - before) == 1  # for another feed, which may be of other files
    decoders._idle.pop(images)
    assert until_gone(before) <= before  # the error, which is still there, does not keep it


DEATH = (
    "decoding images: found a process that died (exit code -9), as where memory runs out; expected memory for all "
    "processes that decode. Lower --workers, batch_size or data.size, and run again: it goes on where it stopped."
)


def within(seconds, action):
    """Give what an action raises; fail if it has not ended in time, and leave no process behind."""
    raised, before = [], processes()

    def act():
        try:
            action()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=act, daemon=True)
    try:
        thread.start()
        thread.join(seconds)
        assert not thread.is_alive(), f"not ended in {seconds} s"
    finally:
        kill(processes() - before)
    return raised


def kill(numbers):
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
@pytest.mark.parametrize("count", [1, 2])
def test_a_process_killed_in_the_middle_of_a_batch_is_one_message(count):
    """The batch is larger than a pipe, whose end the other process would keep open if it were theirs together."""
    images = DyingImages(count)
    order = [np.array([row]) for row in (1, 2, 3, 0, 4, 5, 6, 7)]
    [error] = within(30, lambda: list(decoders.decoded(images, order)))
    assert isinstance(error, UserError)
    assert str(error) == DEATH
    assert not decoders._idle[images]  # those that are left are not asked again
    assert len(list(decoders.decoded(images, order[:3]))) == 3
    decoders._idle.pop(images)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_a_process_killed_while_it_waits_is_the_same_message(on_demand, fabric):
    before = processes()
    batches(on_demand, fabric)
    os.kill(min(processes() - before), signal.SIGKILL)
    [error] = within(30, lambda: [batches(on_demand, fabric) for _ in range(50)])
    assert str(error) == DEATH


def test_an_interrupt_ends_processes_that_would_not_end_by_themselves():
    before, images = processes(), DyingImages(2)
    started = decoders.decoded(images, [np.array([row]) for row in (1, 9, 9)])
    next(started)
    try:
        with pytest.raises(KeyboardInterrupt):
            started.throw(KeyboardInterrupt())
        assert until_gone(before) <= before
    finally:
        kill(processes() - before)


# A GPU


def test_what_a_gpu_keeps_are_the_images_of_the_feed_s_own_rows(files, on_demand, fabric, monkeypatch):
    monkeypatch.setattr("subclass_kd.feeding.CHUNK", 5 * 3 * SIZE**2)
    for images in (files[0], on_demand):
        kept = Feed(images, ROWS, fabric)._copied()  # to the CPU here
        assert np.array_equal(kept.numpy(), files[0][ROWS.numpy()])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("share", [0.25, 0.0])
@pytest.mark.parametrize("kind", ["memory", "on demand"])
def test_a_gpu_gets_the_same_batches_kept_there_or_copied_ahead(files, on_demand, monkeypatch, kind, share):
    monkeypatch.setattr("subclass_kd.feeding.SHARE", share)
    feed = Feed({"memory": files[0], "on demand": on_demand}[kind], ROWS, Fabric(accelerator="cuda", devices=1))
    for _ in range(3):
        for batch, images in zip(ORDER, feed.batches(ORDER), strict=True):
            assert images.is_cuda
            assert np.array_equal(images.cpu().numpy(), files[0][ROWS[batch].numpy()])
    assert (feed._resident is not None) == (share > 0)


# Memory


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_of_the_process_does_not_grow_with_the_images(tmp_path, python):
    """200 MB of pixels: opened, verified, averaged and fed, in far less than that of memory of its own."""
    code = """if True:
        import sys, numpy as np, torch
        from pathlib import Path
        from types import SimpleNamespace
        from subclass_kd.data import index
        from subclass_kd.feeding import Feed

        def own():
            [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
            return int(line.split()[1]) / 1024

        images = np.lib.format.open_memmap(sys.argv[1], mode="c")
        images = np.asarray(images)
        fabric = SimpleNamespace(device=torch.device("cpu"), to_device=lambda images: images)
        index.make(images[:1000])  # imports, threads, first allocations
        before = own()
        known = index.make(images)
        assert index.agrees(known, images)
        known.mean_and_std(np.arange(len(images)))
        seen = 0
        for batch in Feed(images, torch.arange(len(images)), fabric).batches(torch.arange(len(images)).split(64)):
            seen += len(batch)
        print(seen, own() - before)
    """
    path = tmp_path / "images.npy"
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(50_000, 1, 64, 64))
    images[::100] = 7
    images.flush()
    done = python("-c", code, str(path))
    assert done.returncode == 0, done.stderr
    seen, grown = done.stdout.split()
    assert int(seen) == 50_000
    assert float(grown) < 60, f"{grown} MB"
