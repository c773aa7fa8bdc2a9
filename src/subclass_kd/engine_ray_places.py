"""Whether a Ray cluster has any machine on which a job finds place: Ray itself waits for one without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subclass_kd.cli_shared import say


class Places:
    """Tells the user when no machine has what a job takes, once each time that it comes to that.

    Waiting is right, as an autoscaler may bring a machine that sees the job wait.

    Args:
        share: of a machine that each job takes, as options of a Ray task.
    """

    def __init__(self, share: Mapping[str, float]) -> None:
        self._needs = {name.removeprefix("num_").removesuffix("s").upper(): amount for name, amount in share.items()}
        self._told = False

    def look(self) -> None:
        """Look at the machines that are there now."""
        import ray

        ray_api: Any = ray  # its types differ from version to version
        there = any(
            each["Alive"] and all(each["Resources"].get(name, 0) >= amount for name, amount in self._needs.items())
            for each in ray_api.nodes()
        )
        if not there and not self._told:
            takes = " and ".join(f"{amount:g} {name}" for name, amount in self._needs.items())
            say(f"no machine of the cluster has {takes}, which a job takes: waiting for one (see ray status)")
        self._told = not there

    def await_end(self, task: Any) -> Any:
        """Give a task when it has ended, looking at the machines meanwhile."""
        import ray

        self.look()
        while not ray.wait([task], timeout=1)[0]:
            self.look()
        return task
