"""The bundle's student as the server asks it: contents of files in, predictions out, in threads of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subclass_kd import __version__
from subclass_kd.bundle import Bundle
from subclass_kd.bundle_files import CARD, MODEL, MODEL_INT8
from subclass_kd.cores import count_cores
from subclass_kd.errors import UserError
from subclass_kd.serve.limits import Limits, RefusedError
from subclass_kd.serve.schema import (
    Fault,
    File,
    Model,
    Prediction,
    Predictions,
    Probability,
    Subclass,
    SubclassProbability,
    Taken,
)
from subclass_kd.serve.uploads import Upload

MOST_WORKERS = 8  # each may hold a decoded image of the most pixels


@dataclass
class Student:
    """A bundle that answers requests.

    As many threads as there are cores, eight at most, each decode and answer one file at a time; the event loop stays
    free, and onnxruntime, opened with one thread, starts no more.

    Args:
        bundle: opened with one thread.
        int8: whether the bundle answers with 8 bits.
        limits: of the server.
    """

    bundle: Bundle
    int8: bool
    limits: Limits

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(min(count_cores(), MOST_WORKERS), "student")
        self.sha256 = str(self.bundle.stated["files"][MODEL_INT8 if self.int8 else MODEL]["sha256"])

    async def ask(self, uploads: Sequence[Upload]) -> Predictions:
        """Ask about files, each by itself; one that cannot be read has an error in its place.

        Raises:
            RefusedError: 422, none could be read; 504, it took too long.
        """
        loop, too_late = asyncio.get_running_loop(), threading.Event()
        futures = [loop.run_in_executor(self._pool, self._one, upload, too_late) for upload in uploads]
        try:
            async with asyncio.timeout(self.limits.answer_seconds):
                rows = await asyncio.gather(*futures)
        except TimeoutError:
            found = f"no answer in {self.limits.answer_seconds:g} s"
            raise RefusedError(504, UserError("the server", found, "one", "Send fewer or smaller files.")) from None
        finally:
            too_late.set()  # what has not begun need not, if nobody waits any more
        failed = [row.error for row in rows if row.error is not None]
        if len(failed) == len(rows):
            raise UnreadableError(rows, failed[0])
        return Predictions(
            model_sha256=self.sha256,
            positive=self.bundle.classes[self.bundle.positive],
            threshold=self.bundle.threshold,
            predictions=rows,
        )

    def _one(self, upload: Upload, too_late: threading.Event) -> Prediction:
        if too_late.is_set():
            raise TimeoutError
        bundle = self.bundle
        try:
            answer = bundle.answer(bundle.decode(upload.content, upload.name, self.limits.pixels)[None])
        except UserError as error:
            return _row(upload.name, error=Fault.of(error))
        probs, decision = answer.class_probs[0].tolist(), int(answer.decisions[0])
        within = [] if answer.subclass_probs is None else answer.subclass_probs[0].tolist()
        parents = [bundle.classes[parent] for parent in bundle.parents]
        return _row(
            upload.name,
            decision=bundle.classes[decision],
            confidence=probs[decision],
            classes=[Probability(name=n, probability=p) for n, p in zip(bundle.classes, probs, strict=True)],
            subclasses=[
                SubclassProbability(name=name, probability=prob, of_class=parent)
                for name, prob, parent in zip(bundle.subclasses, within, parents, strict=False)
            ],
        )

    def describe(self) -> Model:
        """State what the bundle says of itself."""
        bundle, stated = self.bundle, self.bundle.stated
        temperature = stated.get("temperature") or {}
        return Model(
            version=__version__,
            classes=list(bundle.classes),
            subclasses=[
                Subclass(name=name, of_class=bundle.classes[parent])
                for name, parent in zip(bundle.subclasses, bundle.parents, strict=False)
            ],
            positive=bundle.classes[bundle.positive],
            threshold=bundle.threshold,
            rule=stated["decision"].get("rule"),
            int8=self.int8,
            advice=(stated.get("int8") or {}).get("advice") if self.int8 else None,
            model_sha256=self.sha256,
            arm=stated.get("arm"),
            seed=stated.get("seed"),
            temperature=temperature.get("value"),
            preprocessing=stated["preprocessing"],
            files={name: File(**row) for name, row in stated["files"].items()},
            versions=stated.get("versions") or {},
            card=_card(bundle.folder / CARD),
            limits=Taken(
                file_bytes=self.limits.file_bytes,
                request_bytes=self.limits.request_bytes,
                files=self.limits.files,
                pixels=self.limits.pixels,
            ),
        )

    def close(self) -> None:
        """Wait for what is being answered; what has not begun is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class UnreadableError(RefusedError):
    """No file of a request could be read.

    Args:
        rows: of all files, each with its error.
        first: error.
    """

    def __init__(self, rows: list[Prediction], first: Fault) -> None:
        remedy = first.remedy if len(rows) == 1 else f"{first.remedy} None of the {len(rows)} files could be read."
        super().__init__(422, UserError(first.where, first.found, first.expected, remedy.strip()))
        self.rows = rows


def _row(name: str, **parts: Any) -> Prediction:
    blank: dict[str, Any] = {"decision": None, "confidence": None, "classes": [], "subclasses": [], "error": None}
    return Prediction(name=name, **(blank | parts))


def _card(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return None
