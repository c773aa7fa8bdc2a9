"""Figures for Prometheus: requests, images, what is inside, the process. No name out of a request goes in."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from subclass_kd.serve.room import Room
from subclass_kd.serve.schema import Model, Prediction

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What one server has done so far.

    Args:
        model: whose name and checksum are given.
        room: that is looked into when figures are asked for.
    """

    def __init__(self, model: Model, room: Room) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        about = {"version": model.version, "arm": model.arm or "", "sha256": model.model_sha256}
        Info("skd_model", "The student that answers.", registry=registry).info(about)
        self._requests = Counter(
            "skd_requests", "Requests that ended.", ["method", "path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "skd_request_seconds", "From the first line to the answer.", ["path"], buckets=_SECONDS, registry=registry
        )
        self._images = Counter("skd_images", "Images that were answered.", ["decision"], registry=registry)
        self._errors = Counter("skd_image_errors", "Files that could not be read.", registry=registry)
        for name in model.classes:
            self._images.labels(name)  # there from the start, as 0
        inside = Gauge("skd_requests_inside", "Requests that send or wait for an answer.", registry=registry)
        inside.set_function(lambda: room.requests)
        held = Gauge("skd_bytes_held", "Bytes of their bodies.", registry=registry)
        held.set_function(lambda: room.bytes)

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def images(self, rows: Iterable[Prediction]) -> None:
        """Count the images of a request."""
        for row in rows:
            if row.decision is None:
                self._errors.inc()
            else:
                self._images.labels(row.decision).inc()

    def text(self) -> bytes:
        """Give all of it as Prometheus reads it."""
        return generate_latest(self._registry)
