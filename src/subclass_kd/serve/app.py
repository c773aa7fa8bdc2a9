"""The paths of the server."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.routing import Route

from subclass_kd import __version__
from subclass_kd.errors import UserError
from subclass_kd.serve.access import OPEN, Access
from subclass_kd.serve.guard import Guard, fault_of_ours, refuse
from subclass_kd.serve.limits import Limits, RefusedError
from subclass_kd.serve.metrics import Metrics
from subclass_kd.serve.room import Room
from subclass_kd.serve.schema import NOTICE, Failure, Health, Model, Predictions
from subclass_kd.serve.student import Student, UnreadableError
from subclass_kd.serve.uploads import FIELD, read_uploads

_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_WHY = {
    400: "The body is no whole multipart.",
    401: "The token is missing or another one.",
    403: "Another site's page asks.",
    408: "The upload was too slow, or stopped.",
    413: "A file or the request is too large.",
    415: "The body is of another type.",
    421: "The header Host has a name of another computer.",
    422: "There is no file, or too many, or none that could be read; `predictions` has each file's error.",
    500: "A fault of the server.",
    503: "Too much at a time; Retry-After says when to try again.",
    504: "The answer took too long.",
}


def make_app(student: Student, model: Model, limits: Limits, access: Access) -> Guard:
    """Give the ASGI app that serves a student.

    Args:
        student: that answers.
        model: what is stated of it.
        limits: of the server.
        access: what a request must show.
    """
    room = Room(limits)
    metrics = Metrics(model, room)
    app = FastAPI(
        title="skd serve",
        version=__version__,
        summary="A student taught by subclass knowledge distillation, asked about images.",
        description=f"{NOTICE} Nothing that is sent is stored.",
        docs_url=None,  # FastAPI's pages for people come from a CDN
        redoc_url=None,
        redirect_slashes=False,  # it would answer with the name in the header Host
        openapi_url=None,
    )

    @app.post(
        "/v1/predictions", responses=_failures(*_WHY), openapi_extra=_body(limits), operation_id="predict", tags=["v1"]
    )
    async def predict(request: Request) -> Predictions:
        """Ask about images: each file by itself, in memory.

        If at least one file could be read, the status is 200, and a file that could not has its error in its place.
        """
        header = request.headers.get
        with room.enter() as held:
            uploads = await read_uploads(
                header("content-type"), header("content-length"), request.stream(), limits, held
            )
            try:
                answer = await student.ask(uploads)
            except UnreadableError as refusal:
                metrics.images(refusal.rows)
                raise
        metrics.images(answer.predictions)
        return answer

    @app.get("/v1/model", responses=_failures(401, 403, 421), operation_id="model", tags=["v1"])
    async def describe() -> Model:
        """Say what answers: names, threshold, preprocessing, checksums, model card, limits."""
        return model

    @app.get("/healthz", responses=_failures(421), operation_id="health", tags=["operation"])
    async def health() -> Health:
        """Say that the server lives."""
        return Health()

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses=_failures(401, 403, 421),
        operation_id="metrics",
        tags=["operation"],
    )
    async def figures() -> Response:
        """Give figures for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def openapi(_: Request) -> Response:
        return Response(document, media_type="application/json")

    document = _document(app, access)
    app.router.routes.append(Route("/openapi.json", openapi))
    for path, (name, media_type) in _PAGE.items():
        app.router.routes.append(Route(path, _static(name, media_type)))
    app.add_exception_handler(RefusedError, _on_refusal)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_fault)
    return Guard(app, access, metrics.request)


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Failure, "description": _WHY[status]} for status in statuses}


def _body(limits: Limits) -> dict[str, Any]:
    """Describe the multipart body: FastAPI's own way to declare it would also parse it, onto the disk."""
    files = {
        "type": "array",
        "description": f"Images. At most {limits.file_bytes:,} bytes each, {limits.request_bytes:,} together.",
        "items": {"type": "string", "format": "binary"},
        "minItems": 1,
        "maxItems": limits.files,
    }
    schema = {"type": "object", "required": [FIELD], "properties": {FIELD: files}, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _document(app: FastAPI, access: Access) -> bytes:
    """Give the OpenAPI document, with the token where there is one."""
    described = app.openapi()
    if access.token is not None:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in described["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in OPEN else [{"token": []}]
    return json.dumps(described, ensure_ascii=False).encode()


def _static(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = (files(__package__) / "page" / name).read_bytes()

    async def give(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return give


async def _on_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101 - for the type checker
    return refuse(error, error.rows if isinstance(error, UnreadableError) else None)


async def _on_http(_: Request, error: Exception) -> Response:
    """Answer what FastAPI itself refuses: paths and methods that there are not."""
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker
    found = {404: "no such path", 405: "a method that this path does not take"}.get(error.status_code, error.detail)
    reason = UserError("the request", found, "one of /openapi.json", "It lists every path and its methods.")
    return refuse(RefusedError(error.status_code, reason, dict(error.headers or {})))


async def _on_fault(_: Request, __: Exception) -> Response:
    return fault_of_ours()
