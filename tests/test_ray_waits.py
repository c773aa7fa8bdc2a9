"""What is said while a Ray cluster has no place for a job, and what a search does whose processes die; without Ray."""

from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from subclass_kd import engine_ray
from subclass_kd.errors import UserError
from subclass_kd.study_file import make_study

ray = pytest.importorskip("ray")
pytest.importorskip("optuna")

from optuna.exceptions import StorageInternalError  # noqa: E402

from subclass_kd.tune import cluster as tune_cluster  # noqa: E402
from subclass_kd.tune import worker  # noqa: E402
from subclass_kd.tune.cluster import run_on_cluster  # noqa: E402
from subclass_kd.tune.worker import Search  # noqa: E402

CPU, GPU = ({"Alive": True, "Resources": has} for has in ({"CPU": 4.0}, {"CPU": 4.0, "GPU": 1.0}))
DEAD = {**GPU, "Alive": False}


class Task(SimpleNamespace):
    """Stands for a remote function, each of whose calls gives itself."""

    def remote(self, *given):
        return SimpleNamespace(given=given)


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


@pytest.fixture
def search(tmp_path):
    """Give a function that makes a search by so many processes."""
    return lambda workers=2: Search(make_study({"workers": workers}), tmp_path, "", "a", "data")


def test_a_search_goes_on_when_one_of_its_processes_dies_again_and_again(cluster, search, capsys):
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
def test_a_search_that_ends_early_leaves_no_process_on_a_cluster_that_stays(cluster, search, monkeypatch, end):
    cluster([[CPU]], None, None, None)
    cancelled = Mock()
    monkeypatch.setattr(ray, "cancel", cancelled)
    with pytest.raises((KeyboardInterrupt, UserError)) as caught:
        run_on_cluster(search(3), "cpu", None, Mock(side_effect=end))
    told = "--storage: found a database that was there and does not answer (gone)"
    assert str(caught.value).startswith(told) if isinstance(end, StorageInternalError) else caught.value is end
    assert [call.kwargs for call in cancelled.call_args_list] == [{"force": True}] * 2  # the first had ended


def test_a_search_that_waits_for_a_gpu_says_so(cluster, search, capsys):
    cluster([[CPU, DEAD], [CPU, DEAD], [GPU]], None)
    run_on_cluster(search("auto"), "cuda", None, Mock())
    assert capsys.readouterr().err.count("no machine of the cluster has 1 CPU and 1 GPU") == 1


def test_a_process_of_a_search_checks_packages_folder_and_stored_images_as_one_of_a_run_does(
    cluster, search, tmp_path, monkeypatch
):
    heard, loaded = [], Mock(side_effect=UserError("the data", "read", "no more"))
    monkeypatch.setattr(Task, "remote", lambda self, *given: heard.append(given) or SimpleNamespace())
    monkeypatch.setattr(worker, "load_samples", loaded)

    def watch():  # as a process would, while the search goes on
        given, order = heard[0]
        with pytest.raises(UserError, match="the data: found read"):
            tune_cluster._work(given, order)
        assert loaded.call_args.kwargs == {"verify": True, "test": False}
        with pytest.raises(UserError, match=r"torch on .*: found \S+; expected 1\.0, as where skd was called"):
            tune_cluster._work(given, replace(order, versions={"torch": "1.0"}))
        (tmp_path / "other").mkdir()
        with pytest.raises(UserError, match=r"found no folder of this run; expected a folder that all machines share"):
            tune_cluster._work(given, replace(order, out=tmp_path / "other"))
        assert loaded.call_count == 1

    cluster([[CPU]], None)
    watched = Mock(side_effect=watch)
    run_on_cluster(search(1), "cpu", None, watched)
    assert watched.call_count == 1
    assert [path.name for path in tmp_path.iterdir()] == ["other"]  # nothing is left of what marked the folder
