"""A process of a team that falls silent, as one whose machine died, ends the others; one that is suspended does not."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from subclass_kd import channel
from subclass_kd.team import Team

# Two processes as srun starts them. The first has given an order and waits; the second reads the data for it.
TEAM = """
import sys, time
from subclass_kd import channel, device, heartbeat, together, work  # all: who still imports may be silent
from subclass_kd.study_file import make_study
heartbeat.SILENCE, channel.GRACE, channel.PATIENCE = 3, 1, 1
def read(*_):
    print("begun", flush=True)
    time.sleep(100)
together._samples = read
with together.joined(2, 1):
    print("begun", flush=True)
    together._channel.order({"study": make_study({}).model_dump(mode="json"), "data": "", "out": ""})
"""


@pytest.fixture
def team():
    """Give two processes that have come together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TEAM],
            env={**os.environ, **slurm, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "begun\n", process.stderr.read()
        time.sleep(1)  # until each has heard of the other
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def words_of(process):
    """Give what a process says that has to end by itself."""
    _, errors = process.communicate(timeout=40)
    assert process.returncode == 1, errors
    return errors.splitlines()


def test_the_first_process_does_not_wait_for_one_that_was_killed_elsewhere(team):
    first, second = team
    for name in (signal.SIGSTOP, signal.SIGCONT):  # as a queue suspends a whole job
        for process in team:
            process.send_signal(name)
        time.sleep(3.5 if name == signal.SIGSTOP else 2)
    assert [process.poll() for process in team] == [None, None]
    second.kill()
    assert words_of(first) == [
        f"skd: process 1 of the training, on {socket.gethostname()}, has said nothing for 3 s",
        "skd: a process of the training is gone without a word; is there enough memory?",
    ]


def test_no_process_waits_for_a_first_one_whose_machine_answers_nothing(team):
    first, second = team
    first.send_signal(signal.SIGSTOP)  # its store takes calls and gives no answer, as after a loss of power
    assert words_of(second) == [
        f"skd: process 0 of the training, on {socket.gethostname()}, has said nothing for 3 s",
        "skd: a process of the training is gone without a word",
    ]


class Hung:
    """A store whose machine is gone: no call comes back for long."""

    def __getattr__(self, name):
        return lambda *_: time.sleep(3)


def test_a_process_that_fails_does_not_wait_to_tell_a_machine_that_is_gone(monkeypatch):
    monkeypatch.setattr(channel, "PATIENCE", 0.1)
    monkeypatch.setattr(channel, "GRACE", 0.1)
    own = channel.Channel(Hung(), Team(1, 2))
    begun = time.monotonic()
    own.end(1, "out of luck")
    assert time.monotonic() - begun < 2
