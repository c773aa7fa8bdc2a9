"""What is said while a Ray cluster has no place for a job, and what a search does whose processes die; without Ray."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from subclass_kd import engine_ray
from subclass_kd.errors import UserError
from subclass_kd.study_file import make_study

ray = pytest.importorskip("ray")
pytest.importorskip("optuna")

from optuna.exceptions import StorageInternalError  # noqa: E402

from subclass_kd.tune.cluster import run_on_cluster  # noqa: E402

CPU, GPU = ({"Alive": True, "Resources": has} for has in ({"CPU": 4.0}, {"CPU": 4.0, "GPU": 1.0}))
DEAD = {**GPU, "Alive": False}


class Task(SimpleNamespace):
    """Stands for a remote function, each of whose calls gives itself."""

    def remote(self, *_):
        return SimpleNamespace()


@pytest.fixture
def cluster(monkeypatch):
    """Give a function that says which machines there are, look by look, and how each task ends."""

    def have(looks, *ends):
        looks, ends, options, waited = list(looks), list(ends), [], []

        def wait(left, timeout):
            waited.append(timeout)
            assert len(waited) < 20, "nobody looks at the machines"
            return ([], left) if len(looks) > 1 else (left[:1], left[1:])

        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray, "nodes", lambda: looks.pop(0) if len(looks) > 1 else looks[0])
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(len(ends))})
        monkeypatch.setattr(ray, "remote", lambda **given: options.append(given) or (lambda task: Task()))
        monkeypatch.setattr(ray, "wait", wait)
        monkeypatch.setattr(ray, "get", Mock(side_effect=ends))
        return options

    return have


def test_a_study_that_waits_for_a_gpu_says_so_once_each_time(cluster, tmp_path, capsys):
    cluster([[CPU], [CPU], [CPU], [CPU, GPU], [CPU, DEAD], [CPU, DEAD]], ("failed", UserError("here", "a", "b")))
    study = make_study({"device": "cuda"})
    with pytest.raises(UserError, match="here: found a"):
        engine_ray.run_jobs(study, SimpleNamespace(fingerprint=""), tmp_path, [], Mock(), Mock())
    line = "skd: no machine of the cluster has 1 CPU and 1 GPU, which a job takes: waiting for one (see ray status)\n"
    assert capsys.readouterr().err == 2 * line


def search(workers=2):
    return SimpleNamespace(study=make_study({"workers": workers}))


def test_a_search_goes_on_when_one_of_its_processes_dies_again_and_again(cluster, capsys):
    options = cluster([[CPU]], ray.exceptions.WorkerCrashedError(), None)
    run_on_cluster(search(), "cpu", None, Mock())
    died = "skd: a process of the search died again and again (WorkerCrashedError); is there enough memory?"
    assert capsys.readouterr().err == f"{died} The others go on.\n"
    assert options == [{"num_cpus": 1, "max_retries": engine_ray.RETRIES}]
    cluster([[CPU]], None, ray.exceptions.OutOfMemoryError("full"))
    run_on_cluster(search(), "cpu", None, Mock())
    assert capsys.readouterr().err == f"{died.replace('WorkerCrashedError', 'OutOfMemoryError')}\n"
    cluster([[CPU]], ray.exceptions.WorkerCrashedError(), ray.exceptions.OutOfMemoryError("full"))
    with pytest.raises(RuntimeError, match=r"every process of the search died again and again \(OutOfMemoryError\)"):
        run_on_cluster(search(), "cpu", None, Mock())


@pytest.mark.parametrize("end", [KeyboardInterrupt(), UserError("here", "a", "b"), StorageInternalError("gone")])
def test_a_search_that_ends_early_leaves_no_process_on_a_cluster_that_stays(cluster, monkeypatch, end):
    cluster([[CPU]], None, None, None)
    cancelled = Mock()
    monkeypatch.setattr(ray, "cancel", cancelled)
    with pytest.raises((KeyboardInterrupt, UserError)) as caught:
        run_on_cluster(search(3), "cpu", None, Mock(side_effect=end))
    told = "--storage: found a database that was there and does not answer (gone)"
    assert str(caught.value).startswith(told) if isinstance(end, StorageInternalError) else caught.value is end
    assert [call.kwargs for call in cancelled.call_args_list] == [{"force": True}] * 2  # the first had ended


def test_a_search_that_waits_for_a_gpu_says_so(cluster, capsys):
    cluster([[CPU, DEAD], [CPU, DEAD], [GPU]], None)
    run_on_cluster(search("auto"), "cuda", None, Mock())
    assert capsys.readouterr().err.count("no machine of the cluster has 1 CPU and 1 GPU") == 1
