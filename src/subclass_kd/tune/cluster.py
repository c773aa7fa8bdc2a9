"""Ray as what starts a search's processes on the nodes of a cluster."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from subclass_kd import engine_ray_node as node
from subclass_kd.cli_shared import say
from subclass_kd.engine_ray import PASSED_ON, RETRIES, connected
from subclass_kd.engine_ray_places import Places
from subclass_kd.errors import UserError
from subclass_kd.tune import storage
from subclass_kd.tune.worker import Search, work


def run_on_cluster(search: Search, device: str, address: str | None, watch: Callable[[], None]) -> None:
    """Let processes of a Ray cluster take trials; Ray starts one anew whose node has died.

    If one dies again and again, the others go on, and take what it had begun.

    Args:
        search: its folder and database must be reached from every node by the same path and URL.
        device: that they compute on, as :class:`Choices` names it.
        address: of the cluster, as for :func:`subclass_kd.engine_ray.connected`.
        watch: called while they work.

    Raises:
        UserError: there is no such cluster, the machines do not share the folder or the packages' versions, or what
            else a process found is the user's to mend.
        RuntimeError: a process failed otherwise, or all died again and again.
    """
    import ray

    on_gpu = not device.startswith("cpu")
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    name = f".{uuid.uuid4().hex}.part"
    order = node.Order(search.study, search.data, search.out, name, None, Path.cwd(), passed, node.versions(), cores=1)
    with connected(address, runtime_env={"env_vars": passed}), _marked(search.out / name):
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        there = int(resources.get("GPU" if on_gpu else "CPU", 0))
        count = there if search.study.workers == "auto" else search.study.workers
        share = {"num_cpus": 1} | ({"num_gpus": 1} if on_gpu else {})
        remote: Any = ray.remote  # its types differ from version to version
        task = remote(**share, max_retries=RETRIES)(_work)
        left = [task.remote(search, order) for _ in range(max(1, count))]
        places, ended = Places(share), 0
        try:
            while left:
                places.look()
                done, left = ray.wait(left, timeout=1)
                storage.lost(watch)
                for each in done:
                    try:
                        ray.get(each)
                        ended += 1
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause if isinstance(error.cause, UserError) else RuntimeError(str(error)) from None
                    except ray.exceptions.RayError as error:
                        died = f"died again and again ({type(error).__name__}); is there enough memory?"
                        if not left and not ended:
                            raise RuntimeError(f"every process of the search {died}") from error
                        say(f"a process of the search {died}{' The others go on.' if left else ''}")
        finally:  # a connection that was there before stays, and its tasks would with it
            for each in left:
                ray.cancel(each, force=True)


@contextlib.contextmanager
def _marked(path: Path) -> Iterator[None]:
    """Let a file lie there for a while, by which a process knows the folder."""
    path.touch()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _work(search: Search, order: node.Order) -> None:
    node.check_versions(order)
    node.check_shared(order)
    with contextlib.chdir(order.folder):  # relative paths of the study start there
        work(search, verify=True)  # what this machine has stored of the images, nobody has looked at in this search
