"""A study on a Ray cluster of two nodes, one of which is killed in the middle: the results of the local engine."""

import contextlib
import json
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from subclass_kd import engine_ray_node as node
from subclass_kd.cli import main
from subclass_kd.errors import UserError
from subclass_kd.plan import plan
from subclass_kd.study import Silent, run_study
from subclass_kd.study_file import make_study

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
    """Progress that notes what it hears."""

    def __init__(self):
        self.heard = []

    def event(self, job, event, content):
        self.heard.append((job.path, event))


def kill_when_it_works(nodes, doomed):
    """Kill a node, kill -9, as soon as one of its processes is seen to make a file."""
    raylet = doomed.all_processes["raylet"][0].process.pid
    children = Path(f"/proc/{raylet}/task/{raylet}/children")
    for _ in range(3000):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"ray::_make"):
                    nodes.remove_node(doomed, allow_graceful=False)
                    return
        time.sleep(0.01)


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


def test_a_study_whose_node_is_killed_gives_the_results_of_this_machine(cluster, small_idx_folder, tmp_path):
    study, (nodes, doomed) = small_study(small_idx_folder), cluster
    here = run_study(study.model_copy(update={"workers": 1}), tmp_path / "here")
    killer = threading.Thread(target=kill_when_it_works, args=(nodes, doomed))
    progress = Noting()
    with on_cluster(nodes.address) as engine:
        killer.start()
        there = run_study(study, tmp_path / "there", progress, engine)
        killer.join()
        assert doomed not in nodes.worker_nodes  # killed
        assert json.dumps(without_timings(there)) == json.dumps(without_timings(here))
        made = [job.path for job in plan(study, "")]
        assert sorted(path for path, event in progress.heard if event == "finished") == sorted(made)
        assert sorted(path for path, event in progress.heard if event == "started") == sorted(made)
        student = {"options": {"width": 4}, "epochs": 2, "learning_rate": 1e30}
        with pytest.raises(UserError, match=r'"student\.learning_rate".*no longer finite in epoch 1'):
            run_study(small_study(small_idx_folder, arms=["scratch"], student=student), tmp_path / "bad", None, engine)
        model = small_study(small_idx_folder, student={"model": "torch.nn:Identity"})
        with pytest.raises(UserError, match=r'key "student.model": found an output of shape'):
            run_study(model, tmp_path / "worse", None, engine)
    files = {str(path.relative_to(tmp_path / "here")) for path in (tmp_path / "here").rglob("*")}
    assert {str(path.relative_to(tmp_path / "there")) for path in (tmp_path / "there").rglob("*")} == files


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
    told = node.Order(make_study({}), "", out, "mark", out, {}, node.versions(), cores=1)
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


def test_an_address_is_of_use_with_ray_alone_and_must_answer(tmp_path, monkeypatch):
    (tmp_path / "study.yaml").write_text("seeds: 1\n")
    with pytest.raises(SystemExit) as ended:
        main(["run", str(tmp_path / "study.yaml"), "--address", "here:1", "-o", str(tmp_path / "run")])
    assert ended.value.code == 2
    monkeypatch.setattr(ray, "init", Mock(side_effect=ConnectionError("nobody")))
    message = (
        r"--address: found here:1, where no cluster answers \(nobody\); expected HOST:PORT, as ray start prints it"
    )
    with pytest.raises(UserError, match=message), on_cluster("here:1"):
        pass
