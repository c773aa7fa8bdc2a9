"""What tests of several rooms share: small images whose subclasses can be learned, as Fashion-MNIST's IDX files."""

import gzip
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A clock chooses between float32 and bfloat16 where a CPU computes in both, so two runs need not agree on it. Tests
# hold digits against each other, so they leave bfloat16 out, in a way that the processes which they start inherit.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


@pytest.fixture(scope="session", autouse=True)
def cache_of_tests(tmp_path_factory):
    """Keep decoded pixels out of the user's cache; processes that tests start inherit it."""
    os.environ["SUBCLASS_KD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def write_idx():
    """Give the function that writes uint8 images (N, H, W) or labels (N,) as an IDX file, gzipped if named .gz."""

    def write(path, array):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        content = header + np.ascontiguousarray(array, np.uint8).tobytes()
        path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)

    return write


@pytest.fixture(scope="session")
def write_idx_folder(write_idx):
    """Give the function that writes (train images, train labels, test images, test labels) as the four files."""
    names = [f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]

    def write(folder, *arrays):
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in zip(names, arrays, strict=True):
            write_idx(folder / name, array)
        return folder

    return write


def striped(labels, seed):
    """Draw images (N, 28, 28): subclass k has stripes across (k even) or down (k odd), on a ground of grey k // 2."""
    place = np.arange(28)
    wave = 45 * np.sign(np.sin(2 * np.pi * (place + 0.5) / 7))
    across = np.broadcast_to(wave[:, None], (28, 28))
    images = np.stack([50 + 35 * (label // 2) + (across.T if label % 2 else across) for label in labels])
    noise = np.random.default_rng(seed).normal(0, 20, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def small_idx_folder(write_idx_folder, tmp_path_factory):
    """Give a folder of four IDX files: 10 subclasses, 40 training and 20 test images each, in turn."""
    train, test = np.arange(400) % 10, np.arange(200) % 10
    folder = tmp_path_factory.mktemp("idx")
    return write_idx_folder(folder, striped(train, 0), train, striped(test, 1), test)


@pytest.fixture(scope="session")
def python():
    """Give the function that runs this Python with arguments in a folder, and returns the finished process."""

    def run(*arguments, cwd=None, **environment):
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def module_popen():
    """Give ``subprocess.Popen`` for what a fixture of a module starts; what lives after the module is killed."""
    with ended_at_last() as start:
        yield start


@pytest.fixture
def popen():
    """Give ``subprocess.Popen``; what a test that fails has left running is killed."""
    with ended_at_last() as start:
        yield start


@contextmanager
def ended_at_last():
    with ExitStack() as stack:

        def start(*arguments, **options):
            process = subprocess.Popen(*arguments, **options)
            stack.callback(end, process)
            return process

        yield start


def end(process):
    process.kill()  # processes of a run end with their parent
    process.wait()
    for pipe in filter(None, (process.stdout, process.stderr)):
        pipe.close()


@pytest.fixture
def skd(monkeypatch, capsys):
    """Give the function that runs ``skd`` in this process, which has loaded torch, as if it were called in a folder."""

    def run(*arguments, cwd):
        from subclass_kd.cli import main

        monkeypatch.chdir(cwd)
        capsys.readouterr()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return subprocess.CompletedProcess(arguments, end.value.code or 0, *capsys.readouterr())

    return run
