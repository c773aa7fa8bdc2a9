"""One training over two processes: the losses of one, and no process that waits for one that has ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from benchmarks import two_hosts
from torch.distributed import TCPStore

from subclass_kd import store
from subclass_kd.errors import UserError
from subclass_kd.study import run_study
from subclass_kd.study_file import load_study
from subclass_kd.team import Team
from subclass_kd.together import _launched, check_together, joined

ROOT = Path(__file__).parents[2]
SKD = ["-m", "subclass_kd.cli", "run"]
TRAINED = ("teachers/class", "teachers/subclass", "students/scratch", "students/kd", "students/skd")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def study_file(small_idx_folder, tmp_path_factory):
    """A study whose 320 training images make batches of 46 and 45, which two processes cannot halve."""
    content = {
        "data": {"kind": "fashion-mnist", "root": str(small_idx_folder)},
        # Our own networks in float64. In float32 a last digit grows tenfold every few epochs, in one process as in two.
        "teacher": {"model": two_hosts.RESNET, "options": {"width": 4}, "epochs": 2, "batch_size": 50},
        "student": {"model": two_hosts.CONVNET, "options": {"width": 4}, "epochs": 5, "batch_size": 50},
        "distillation": {"views": 2},
        "arms": ["scratch", "kd", "skd"],
        "seeds": 1,
        "workers": 1,
    }
    path = tmp_path_factory.mktemp("ddp") / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of the machine")
def test_the_store_of_processes_on_one_machine_listens_on_loopback_alone():
    meeting, children = _launched(Team(0, 1, 0))
    assert children == []
    other = TCPStore("127.0.0.1", meeting.port, None, is_master=False, wait_for_workers=False)
    meeting.set("order", "7")
    assert other.get("order") == b"7"
    for address in ("127.0.0.2", "::1"):  # a socket for all addresses would answer by these as well
        with pytest.raises(OSError, match=r"refused|Cannot assign|not supported"):
            socket.create_connection((address, meeting.port), timeout=5)


@pytest.fixture(scope="module")
def alone(study_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    return out, run_study(load_study(study_file), out)


@pytest.fixture(scope="module")
def together(study_file, alone, python, tmp_path_factory):
    """The same study by two processes that torchrun starts, after the other, whose measured choices it takes over."""
    out = tmp_path_factory.mktemp("together") / "run"
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    done = python(*torchrun, *SKD, study_file, "--out", out, "--devices", "2", "--json", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_loss_curves_are_those_of_one_process(alone, together):
    for name in TRAINED:
        one, two = (store.notes(out / f"{name}-seed0.safetensors") for out, _ in (alone, together))
        assert (one["devices"], two["devices"]) == (1, 2)
        assert len(one["history"]) == len(two["history"]) == (2 if name.startswith("teachers") else 5)
        for own, theirs in zip(one["history"], two["history"], strict=True):
            for part in ("loss", "hard", "soft"):
                assert abs(own[part] - theirs[part]) < 1e-6, (name, own["epoch"], part)
            assert abs(own["validation_log_loss"] - theirs["validation_log_loss"]) < 1e-6, (name, own["epoch"])
        weights = (store.load(out / f"{name}-seed0.safetensors") for out, _ in (alone, together))
        assert all(
            own.allclose(theirs, rtol=0, atol=1e-9) for own, theirs in zip(*map(dict.values, weights), strict=True)
        )


def test_targets_are_the_teachers_for_every_image_in_its_place(alone, together):
    for name in ("class", "subclass"):
        one, two = (store.load(out / f"targets/{name}-seed0.safetensors")["logits"] for out, _ in (alone, together))
        assert one.shape == two.shape == (2, 320, 2 if name == "class" else 10)
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_results_are_those_of_one_process_and_say_how_many_there_were(alone, together):
    (_, one), (_, two) = alone, together
    for arm in ("scratch", "kd", "skd"):
        for metric in ("f1", "auroc", "brier"):
            assert two["arms"][arm][metric]["mean"] == pytest.approx(one["arms"][arm][metric]["mean"], abs=1e-6)
    assert (one["environment"]["devices"], two["environment"]["devices"]) == ([1], [2])
    assert one["study"] == two["study"]


def test_a_team_that_is_stopped_goes_on_to_the_same_weights(popen, study_file, together, tmp_path):
    """The two processes are here skd's own, with teachers in shares; the signal comes to the first alone.

    Both stop at one step. Sums of shares are added in another order, and the study is the same.
    """
    out = tmp_path / "run"
    command = [sys.executable, *SKD, str(study_file), "--out", str(out), "--devices", "2", "--json"]
    command += ["--set", "teacher.shard=true"]
    process = popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    deadline = time.monotonic() + 100
    while not (out / "targets/subclass-seed0.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert errors.splitlines()[-1].startswith("skd: Interrupted. What a run has finished is kept")
    assert not (out / "results.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for name in TRAINED:
        undisturbed, resumed = (store.load(run / f"{name}-seed0.safetensors") for run in (together[0], out))
        torch.testing.assert_close(resumed, undisturbed, rtol=0, atol=1e-9)
    for name in ("targets/subclass", "predictions/teachers/class"):
        undisturbed, resumed = (store.load(run / f"{name}-seed0.safetensors") for run in (together[0], out))
        torch.testing.assert_close(resumed, undisturbed, rtol=0, atol=1e-6)
    results = json.loads(done.stdout)
    assert results["study"] == together[1]["study"]
    assert results["environment"]["devices"] == [2]


def started_by_srun(popen, arguments):
    """Start two processes as SLURM does, and give their exit codes and what they said."""
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "127.0.0.1", "MASTER_PORT": free_port()}
    pipe = subprocess.PIPE
    processes = [
        popen(
            [sys.executable, *SKD, *map(str, arguments)],
            env={**os.environ, **slurm, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            cwd=ROOT,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=100) for process in processes]
    return [process.returncode for process in processes], told


def test_what_is_wrong_for_all_is_said_once(popen, study_file, together, tmp_path):
    out = tmp_path / "run"
    rate = ["--set", "student.learning_rate=1e30", "--set", "arms=[scratch]"]
    codes, told = started_by_srun(popen, [study_file, "--out", out, "--devices", "2", *rate])
    (printed, first), second = told
    assert codes[0] == 2, told
    assert second == ("", "")
    assert printed == ""
    assert first.splitlines()[-1].startswith('skd: key "student.learning_rate": found 1e+30, with which the loss')
    assert first.count("skd: ") == 1


MODEL = """
import os
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_chans):
        super().__init__()
        self.head = nn.Linear(28 * 28 * in_chans, num_classes)
        self.steps = 0

    def forward(self, images):
        self.steps += self.training
        if self.steps == 3 and os.environ.get("RANK") == "1":
            raise RuntimeError("out of luck")
        return self.head(images.flatten(1))
"""


def test_a_fault_of_one_process_ends_all_with_its_words(study_file, together, tmp_path):
    (tmp_path / "net.py").write_text(MODEL)
    arguments = ["--devices", "2", "--set", "student={model: 'net:Net', epochs: 3}", "--set", "arms=[scratch]"]
    arguments += ["--set", "teacher.model=small:resnet"]
    command = [sys.executable, *SKD, study_file, "--out", "run", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "process 1 of the training, on " in done.stderr
    assert "out of luck" in done.stderr


def refused(*arguments):
    with pytest.raises(UserError) as caught, joined(*arguments):
        pass
    return caught.value


def test_several_nodes_and_other_processes_than_asked_for_are_refused(monkeypatch):
    assert "torchrun --nnodes 2 --nproc-per-node 4" in refused(4, 2).remedy
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert refused(1, 1).found == "4 processes that torchrun started"
    assert refused(2, 1).expected == "2, one for each device"
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit) as silent, joined(2, 1):
        pass
    assert silent.value.code is None


@pytest.mark.parametrize(
    ("changes", "workers", "where"),
    [
        (["device=cuda:1"], None, 'key "device"'),
        (["device=mps"], None, 'key "device"'),
        (["teacher.compile=true"], 1, 'key "teacher.compile"'),
        ([], 2, "--workers 2"),
    ],
)
def test_what_a_team_cannot_do_is_refused(study_file, changes, workers, where):
    with pytest.raises(UserError) as caught:
        check_together(load_study(study_file, changes), workers)
    assert caught.value.where == where


def test_shares_are_all_there_is_in_its_order():
    for count in range(12):
        shares = [Team(rank, 4).share(count) for rank in range(4)]
        assert [item for share in shares for item in range(count)[share]] == list(range(count))
        assert max(len(range(count)[share]) for share in shares) - min(len(range(count)[share]) for share in shares) < 2
