"""A study on a Ray cluster of two nodes, one of which is killed in the middle: the results of the local engine."""

import json
import re
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from subclass_kd import engine_ray_node as node
from subclass_kd import mirror
from subclass_kd.cli import main
from subclass_kd.errors import UserError
from subclass_kd.plan import plan
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study
from subclass_kd.watching import Silent

ray = pytest.importorskip("ray")

from subclass_kd.engine_ray import on_cluster, share_of  # noqa: E402

SMALL = {
    "teacher": {"options": {"width": 4}, "epochs": 2},
    "student": {"options": {"width": 4}, "epochs": 2},
    "distillation": {"views": 2},
    "arms": ["scratch", "skd"],
    "seeds": 2,
    "workers": 2,
    "device": "cpu",
}


def small_study(folder, **changes):
    return make_study({**SMALL, "data": {"root": str(folder)}, **changes})


def without_timings(content):
    if isinstance(content, dict):
        return {key: without_timings(value) for key, value in content.items() if not key.endswith("seconds")}
    return [without_timings(item) for item in content] if isinstance(content, list) else content


class Noting(Silent):
    """Progress that notes what it hears, and does something when the jobs begin."""

    def __init__(self, at_first=lambda: None):
        self.heard, self.at_first = [], at_first

    def begin(self, *_):
        self.at_first()

    def event(self, job, event, content):
        self.heard.append((job.path, event))


def keep_busy(node_id):
    """Take the one CPU of a node, so that all work goes to the other; give what to kill when that is over."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Guest:
        def is_there(self):
            return True

    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    guest = ray.remote(num_cpus=1, scheduling_strategy=there)(Guest).remote()
    assert ray.get(guest.is_there.remote())
    return guest


def kill_when_it_works(nodes, doomed, guest):
    """Kill a node, kill -9, as soon as it is seen to make a file, and let the other one work."""
    raylet = doomed.all_processes["raylet"][0].process.pid
    until = time.monotonic() + 120
    try:
        while not any(works_for(int(path.name), raylet) for path in Path("/proc").glob("[0-9]*")):
            if time.monotonic() > until:
                return  # the test will say that the node lives
            time.sleep(0.01)
        nodes.remove_node(doomed, allow_graceful=False)
    finally:
        ray.kill(guest)


def works_for(process, raylet):
    """Say whether a process is one of this node that makes a file."""
    with suppress(OSError):
        if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::_make"):
            return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]) == raylet
    return False


@pytest.fixture
def cluster():
    """Give a cluster of two nodes of one CPU each, and the second of them."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80_000_000}
    soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    cluster = Cluster(True, head_node_args={**small, "include_dashboard": False, "_system_config": soon})
    try:
        yield cluster, cluster.add_node(**small)
    finally:
        ray.shutdown()
        cluster.shutdown()


def names(folder):
    """Name all files of a run, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_study_whose_node_is_killed_gives_the_results_of_this_machine(cluster, small_idx_folder, tmp_path):
    study, (nodes, doomed) = small_study(small_idx_folder), cluster
    here = run_study(study.model_copy(update={"workers": 1}), tmp_path / "here")
    killers = []

    def begin():
        guest = keep_busy(nodes.head_node.node_id)
        killers.append(threading.Thread(target=kill_when_it_works, args=(nodes, doomed, guest)))
        killers[0].start()

    progress = Noting(begin)
    with on_cluster(nodes.address) as engine:
        there = run_study(study, tmp_path / "there", progress, engine)
        killers[0].join()
        assert doomed not in nodes.worker_nodes  # killed
        assert json.dumps(without_timings(there)) == json.dumps(without_timings(here))
        made = [job.path for job in plan(study, "")]
        assert sorted(path for path, event in progress.heard if event == "finished") == sorted(made)
        assert sorted(path for path, event in progress.heard if event == "started") == sorted(made)
        student = {"options": {"width": 4}, "epochs": 2, "learning_rate": 1e30}
        with pytest.raises(UserError, match=r'"student\.learning_rate".*no longer finite in epoch 1'):
            run_study(small_study(small_idx_folder, arms=["scratch"], student=student), tmp_path / "bad", None, engine)
        assert names(tmp_path / "there") == names(tmp_path / "here")
        # The same in a store that is no folder to those who work there, by the command line.
        (tmp_path / "study.yaml").write_text(json.dumps({**SMALL, "data": {"root": str(small_idx_folder)}}))
        command = ["run", str(tmp_path / "study.yaml"), "--engine", "ray", "-o", f"file://{tmp_path}/store"]
        for _ in range(2):  # the second finds all that it would make
            with pytest.raises(SystemExit, match="0"):
                main(command)
            stored = json.loads((tmp_path / "store/results.json").read_text())
            assert json.dumps(without_timings(stored)) == json.dumps(without_timings(here))
        assert names(tmp_path / "store") == names(tmp_path / "here") | {"report.html"}


def test_a_folder_in_a_store_is_mirrored_and_checkpoints_are_kept_there(tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "SECONDS", 0.01)
    remote = mirror.RemoteFolder("memory://bucket/run")
    assert remote.paths() == []
    with mirror.mirrored("memory://bucket/run") as copy:
        (copy.folder / "fold-0/teachers").mkdir(parents=True)
        for name in ("study.json", "fold-0/data.json", "fold-0/.lock", "fold-0/teachers/made-there.safetensors"):
            (copy.folder / name).write_text(name)
        assert copy.url_of(copy.folder / "fold-0") == "memory://bucket/run/fold-0"
    assert remote.paths() == ["fold-0/data.json", "study.json"]
    path, file = "teachers/.a.checkpoint", tmp_path / "teachers/.a.checkpoint"
    file.parent.mkdir()
    with suppress(KeyboardInterrupt), mirror.kept_in_store(remote, tmp_path, path):
        file.write_text("step 7")
        until = time.monotonic() + 20
        while path not in remote.paths() and time.monotonic() < until:
            time.sleep(0.01)
        raise KeyboardInterrupt
    file.unlink()
    with mirror.mirrored("memory://bucket/run") as copy:
        assert names(copy.folder) == {"study.json", "fold-0/data.json"}
    with mirror.kept_in_store(remote, tmp_path, path):
        assert file.read_text() == "step 7"
    assert remote.paths() == ["fold-0/data.json", "study.json"]
    with pytest.raises(UserError, match=r"memory://bucket/run/gone: found FileNotFoundError: .*gone"):
        remote.get("gone", tmp_path / "gone")
    with pytest.raises(UserError, match=r"nothing://bucket: found ValueError: Protocol not known"):
        mirror.RemoteFolder("nothing://bucket")


def test_a_gpu_is_shared_by_as_many_jobs_as_workers_asks_for():
    machines = [{"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}]
    shares = {workers: share_of(make_study({"workers": workers}), machines) for workers in ("auto", 6, 7, 24)}
    assert shares["auto"] == shares[6] == ({"num_cpus": 4, "num_gpus": 1.0}, 6)
    assert shares[7] == ({"num_cpus": 2, "num_gpus": 0.5}, 12)
    assert shares[24] == ({"num_cpus": 1, "num_gpus": 0.25}, 24)
    assert share_of(make_study({"device": "cpu"}), machines) == ({"num_cpus": 1}, 104)
    assert share_of(make_study({"device": "cuda"}), machines[2:]) == ({"num_cpus": 1, "num_gpus": 1.0}, 0)
    with pytest.raises(UserError, match='key "device": found "cuda:1" on a cluster'):
        share_of(make_study({"device": "cuda:1"}), machines)


def order(out, **changes):
    """Give what a job is told, for jobs that fail before they need the data."""
    told = node.Order(make_study({}), "", out, "mark", None, out, {}, node.versions(), cores=1)
    return replace(told, **changes)


def test_a_folder_that_is_not_shared_and_other_packages_are_refused(tmp_path):
    job = plan(make_study({}), "")[0]
    event, error = node.make(order(tmp_path), [job], {}, lambda *_: None)
    assert (event, error.found) == ("failed", "no folder of this run")
    event, error = node.check(order(tmp_path, versions={"torch": "1.0"}), None)
    assert event == "failed"
    assert re.match(r"torch on .*: found \S+; expected 1\.0, as where skd was called", str(error))


def test_a_file_that_another_machine_made_may_be_seen_late(tmp_path, monkeypatch):
    threading.Timer(0.2, (tmp_path / "late").touch).start()
    node.await_files(tmp_path, ["late"])
    monkeypatch.setattr(node, "LATE", 0.1)
    with pytest.raises(UserError, match=r"never.*found no file; expected what another machine has put there"):
        node.await_files(tmp_path, ["never"])


def test_an_address_is_of_use_with_ray_alone_and_must_answer(tmp_path, monkeypatch, capsys):
    (tmp_path / "study.yaml").write_text("seeds: 1\n")
    for options in (["--address", "here:1"], ["-o", "s3://bucket/run"]):
        with pytest.raises(SystemExit, match="2"):
            main(["run", str(tmp_path / "study.yaml"), *options])
        assert f"{options[0].replace('-o', '--out')}: found {options[1]}" in capsys.readouterr().err
    message = (
        r"--address: found 127\.0\.0\.1:1, where no cluster answers \(.*refused\); expected HOST:PORT, as ray start"
    )
    with pytest.raises(UserError, match=message), on_cluster("127.0.0.1:1"):
        pass
    monkeypatch.setattr(ray, "init", Mock(side_effect=ConnectionError("nobody")))
    with (
        pytest.raises(UserError, match=r"--address: found auto, where no cluster answers \(nobody\)"),
        on_cluster("auto"),
    ):
        pass
