"""FastAPI application: routes of the HTTP service."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from sightline import __version__
from sightline.classifier import Decoded
from sightline.commands.prediction_rows import of_predictions
from sightline.errors import ImageError, RequestError, closest, unknown
from sightline.explanation.cover_region import parse_region
from sightline.records import Predictions
from sightline.serve import schemas
from sightline.serve.batching import QueueFullError
from sightline.serve.metrics import Metrics
from sightline.serve.served_model import ServedModel
from sightline.store import log, plain

MOST_IMAGES = 64
"""Maximum number of images in one request."""
_FAILURES = {"too large": 413, "not an image": 415, "unsupported": 415, "empty": 415}
"""Status of a request whose images all fail, by the kind of the first error; 422 for any other."""
_PAGE = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/try.css": ("try.css", "text/css"),
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Error, "description": description}
    for status, description in (
        (400, "The request is malformed."),
        (401, "The token is missing or wrong."),
        (403, "The request comes from a page of another site, or addresses this server by an unknown name."),
        (404, "There is no such model."),
        (408, "The request arrives too slowly."),
        (413, "The request or the image is too large."),
        (415, "The request contains no image."),
        (422, "No image of the request can be decoded, or a parameter is invalid."),
        (503, "Too many requests wait; try again after the seconds in Retry-After."),
    )
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "maxItems": MOST_IMAGES,
                            "description": "Image files: JPEG, PNG, WebP, TIFF and others, up to 64 MB together.",
                        }
                    },
                }
            }
        },
    }
}
_ModelName = Annotated[str | None, Query(description="Name of the model; the first one by default.", max_length=200)]


@dataclass(frozen=True, slots=True)
class Options:
    """Query parameters of `/predict`.

    Args:
        crops: Crops per image; None as trained.
        sets: Coverage of prediction sets; None for none.
        top: Number of classes that are listed; None for all probabilities.
        heatmap: Whether to draw heatmaps.
        similar: Whether to find similar training images.
        method, target: Explanation method, and the class that is explained; None for the predicted one.
        cover: Region to cover, as text for `parse_region`; None for none.
    """

    crops: int | None = None
    sets: float | None = None
    top: int | None = None
    heatmap: bool = False
    similar: bool = False
    method: str = "auto"
    target: str | None = None
    cover: str | None = None


def query_options(
    sets: Annotated[float | None, Query(gt=0, lt=1, description="Coverage of prediction sets, such as 0.9.")] = None,
    crops: Annotated[int | None, Query(description="Crops per image: 1, 5 or 10; as trained by default.")] = None,
    top: Annotated[int | None, Query(ge=1, le=10_000, description="List the most probable classes.")] = None,
    heatmap: Annotated[bool, Query(description="Whether to draw a heatmap, for at most 4 images.")] = False,
    similar: Annotated[bool, Query(description="Whether to find similar training images, where they are at hand.")] = False,
    method: Annotated[str, Query(description="Method of the heatmap.", max_length=40)] = "auto",
    target: Annotated[str | None, Query(description="Class of the heatmap; the predicted one by default.")] = None,
    cover: Annotated[
        str | None, Query(description="Cover the region x,y,width,height in pixels and predict again, for at most 4 images.")
    ] = None,
) -> Options:
    """Return the query parameters of `/predict`."""
    return Options(crops, sets, top, heatmap, similar, method=method, target=target, cover=cover)


def create_app(models: Sequence[ServedModel], metrics: Metrics) -> FastAPI:
    """Return the application.

    Args:
        models: Served classifiers with different names; the first one is the default.
        metrics: Counters that `/metrics` shows.
    """
    app = FastAPI(
        title="Sightline",
        version=__version__,
        description="Image classification. Images are uploaded, predicted and forgotten; nothing is stored.",
        docs_url=None,
        redoc_url=None,
    )
    by_name = {model.name: model for model in models}
    metrics.waiting = lambda: sum(model.batcher.waiting for model in models)
    _add_error_handlers(app)
    _add_page(app)
    _add_information(app, by_name, metrics)

    @app.post("/predict", response_model=schemas.Predictions, responses=_ERRORS, openapi_extra=_BODY)
    async def predict(
        request: Request, options: Annotated[Options, Depends(query_options)], model: _ModelName = None
    ) -> Response:
        """Predict one image or several."""
        served = _model(by_name, model)
        rows = await predict_form(request, served, options)
        for row in rows:
            metrics.images(row.get("kind") or "predicted")
        return predictions_response(served, rows)

    return app


async def predict_form(request: Request, served: ServedModel, options: Options) -> list[dict[str, Any]]:
    """Return an entry for each image that a form uploads, in order.

    Raises:
        RequestError: If a parameter is not possible for this classifier.
        HTTPException: If there is no image, or too many wait.
    """
    _check(served, options)
    async with request.form(max_files=MOST_IMAGES, max_fields=16) as form:
        uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        return await _predict(served, uploads, options)


def predictions_response(served: ServedModel, rows: Sequence[dict[str, Any]]) -> Response:
    """Return the answer to a request for predictions."""
    return JSONResponse({"model": served.name, "predictions": list(rows)}, _status(rows))


def describe(served: ServedModel, names: Sequence[str]) -> dict[str, Any]:
    """Return the description of a classifier for the page: its card, its classes, and the methods of heatmaps.

    Args:
        served: The classifier.
        names: Names of all classifiers.
    """
    card = plain(served.model.card.to_json())
    fields = {"model": served.name, "models": list(names), "classes": list(served.model.classes), "card": card}
    return {**fields, "methods": explanation_methods()}


def explanation_methods() -> dict[str, str]:
    """Return the explanation methods, name → title, the automatic choice first."""
    from sightline.explanation.methods import METHODS

    return {"auto": "automatic", **{name: method.title for name, method in METHODS.items()}}


def _model(by_name: Mapping[str, ServedModel], name: str | None) -> ServedModel:
    """Return the model of a name, the first one for None."""
    if name is None:
        return next(iter(by_name.values()))
    if name not in by_name:
        likely = closest(name, by_name)
        raise HTTPException(404, f"there is no model {name[:100]!r}" + (f"; did you mean {likely}?" if likely else ""))
    return by_name[name]


def _check(served: ServedModel, options: Options) -> None:
    """Check the parameters that depend on the model.

    Raises:
        RequestError: If the number of crops or the coverage is not possible.
    """
    if options.crops is not None:
        served.resident.check_crops(options.crops)
    if options.sets is not None:
        served.resident.check_coverage(options.sets)
    if options.method not in (methods := explanation_methods()):
        raise unknown("method", options.method[:40], methods)
    if options.target is not None and options.target not in served.model.classes:
        raise unknown("class", options.target[:200], served.model.classes)
    if options.cover is not None:
        parse_region(options.cover)


async def _predict(served: ServedModel, uploads: Sequence[UploadFile], options: Options) -> list[dict[str, Any]]:
    """Return an entry for each upload, in order."""
    if not uploads:
        raise HTTPException(415, "the request contains no image: send multipart/form-data with the image files in `images`")
    if (options.heatmap or options.cover) and len(uploads) > 4:
        raise HTTPException(400, "heatmaps are drawn, and regions covered, for at most 4 images of one request")
    try:
        served.batcher.reserve(len(uploads))
    except QueueFullError as error:
        raise HTTPException(503, "too many images wait; try again in a second", {"Retry-After": "1"}) from error
    loop = asyncio.get_running_loop()
    try:
        names = [(upload.filename or f"image {i}")[:200] for i, upload in enumerate(uploads, 1)]
        tasks = [
            loop.run_in_executor(served.decoders, served.decode, upload.file, name, options.crops)
            for upload, name in zip(uploads, names, strict=True)
        ]
        decoded = await asyncio.gather(*tasks)
        good = [i for i, one in enumerate(decoded) if not isinstance(one, ImageError)]
        rows: list[dict[str, Any]] = [
            {"path": name, "error": one.message, "kind": one.kind} if isinstance(one, ImageError) else {}
            for name, one in zip(names, decoded, strict=True)
        ]
        if good:
            images: list[Decoded] = [decoded[i] for i in good]  # type: ignore[misc]
            predictions = await asyncio.wrap_future(served.batcher.submit(images, options.crops))
            for i, row in zip(good, _rows(served, predictions, options, len(good)), strict=True):
                rows[i] = {**row, "path": names[i]}
            await _extras(served, uploads, decoded, rows, options)
    finally:
        served.batcher.release(len(uploads))
    return rows


def _rows(served: ServedModel, predictions: Predictions, options: Options, count: int) -> list[dict[str, Any]]:
    """Return the entries of predictions named "0" to "count - 1", in this order."""
    uncertainty = served.resident.uncertainty(predictions, options.sets)
    entries = of_predictions(predictions, uncertainty, with_sets=options.sets is not None, top=options.top)
    by_name = {entry["path"]: entry for entry in entries}
    return [{"kind": "not finite", **by_name[str(i)]} if "error" in by_name[str(i)] else by_name[str(i)] for i in range(count)]


async def _extras(
    served: ServedModel,
    uploads: Sequence[UploadFile],
    decoded: Sequence[Decoded | ImageError],
    rows: Sequence[dict[str, Any]],
    options: Options,
) -> None:
    """Add heatmaps and similar training images to entries, in place; one at a time, since they take longer."""
    loop = asyncio.get_running_loop()
    classes = {name: i for i, name in enumerate(served.model.classes)}
    for upload, image, row in zip(uploads, decoded, rows, strict=True):
        if isinstance(image, ImageError) or "error" in row:
            continue
        if options.heatmap:
            target = classes[options.target or row["label"]]
            draw = functools.partial(served.heatmap, upload.file, row["path"], target, method=options.method)
            row |= await loop.run_in_executor(served.extras, draw)
        if options.cover is not None:
            hide = functools.partial(served.cover, upload.file, row["path"], classes[row["label"]], options.cover)
            row["covered"] = await loop.run_in_executor(served.extras, hide)
        if options.similar:
            row["similar"] = await loop.run_in_executor(served.extras, served.similar, image, options.crops)


def _status(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return 200 if any image was predicted, else the status of the first error."""
    if any("error" not in row for row in rows):
        return 200
    return _FAILURES.get(rows[0]["kind"], 422)


def _add_information(app: FastAPI, by_name: Mapping[str, ServedModel], metrics: Metrics) -> None:
    """Add the routes that tell about the service."""
    few: dict[int | str, dict[str, Any]] = {status: _ERRORS[status] for status in (400, 401, 403, 404, 422)}

    @app.get("/model", response_model=schemas.ModelCard, responses=few)
    async def model(model: _ModelName = None) -> Response:
        """Return the card of a classifier."""
        return JSONResponse(describe(_model(by_name, model), list(by_name)))

    @app.get("/healthz", response_model=schemas.Health)
    async def healthz() -> Response:
        """Return whether the service answers."""
        return JSONResponse({"status": "ok", "models": list(by_name)})

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, 401: _ERRORS[401]})
    async def metrics_text() -> Response:
        """Return counters in the text format of Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> None:
    """Add the page on which to try a classifier, and its files."""
    folder = resources.files("sightline.serve") / "page"
    for path, (name, kind) in _PAGE.items():
        content = (folder / name).read_bytes()

        def page(content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=f"{kind}; charset=utf-8")

        app.add_route(path, functools.partial(_static, page), include_in_schema=False)


async def _static(page: Any, request: Request) -> Response:
    """Return a file of the page."""
    response: Response = page()
    return response


def _add_error_handlers(app: FastAPI) -> None:
    """Answer every error with JSON: `error`, and `hint` where there is one."""

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return JSONResponse({"error": error.message, "hint": error.hint}, 422)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        log.error("%s %s failed: %r", request.method, request.url.path, error)
        return JSONResponse({"error": "the server failed; its log says why"}, 500)
