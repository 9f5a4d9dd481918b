"""Photographs by id: images of an opened catalog, decoded and encoded again."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from sightline import containers, pixels
from sightline.errors import ImageError, SightlineError
from sightline.records import Catalog
from sightline.serve.local_app.errors import NotFoundError
from sightline.serve.local_app.page import Page
from sightline.serve.local_app.workspace import CurrentWorkspace, image_id
from sightline.store import bytes_digest

SIDES_PX = (160, 320, 640, 1280)
"""Longest sides that photographs are reduced to; others are rounded up to the next of these."""
_AGE_S = 3600
router = APIRouter()


def url(catalog: str, path: str, side_px: int = 320) -> str:
    """Return the address of a photograph.

    Args:
        catalog: Id of the catalog.
        path: Path of the image in the catalog.
        side_px: Longest side.
    """
    return f"/images/{catalog}/{image_id(path)}?side={side_px}"


@router.get("/images/{catalog}/{image}")
def picture(request: Request, workspace: CurrentWorkspace, catalog: str, image: str, side: int = 320) -> Response:
    """Return a photograph as JPEG, upright, reduced and without metadata."""
    opened = workspace.catalog(catalog)
    row = opened.rows.get(image)
    if row is None:
        raise NotFoundError("there is no such image in this catalog", "load the page again")
    side = next((s for s in SIDES_PX if s >= side), SIDES_PX[-1])
    file = inside_root(opened.catalog, opened.catalog.paths[row])
    status = containers.real_file(file)
    stamp = _stamp(status)
    tag = f'"{bytes_digest(f"{opened.catalog.paths[row]} {stamp} {side}".encode("utf-8", "surrogateescape"))[:24]}"'
    headers = {"etag": tag, "cache-control": f"private, max-age={_AGE_S}"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    try:
        array = pixels.upright(file, side)
    except (ImageError, OSError) as error:
        raise NotFoundError(f"this photograph cannot be shown: {_reason(error)}", "scan the folder again") from error
    return Response(encode(array), media_type="image/jpeg", headers=headers)


def encode(array: np.ndarray, kind: str = "JPEG") -> bytes:
    """Return an image uint8 (h, w, 3) as JPEG or PNG without metadata."""
    from PIL import Image

    data = io.BytesIO()
    options = {"quality": 86} if kind == "JPEG" else {}
    Image.fromarray(array).save(data, kind, **options)
    return data.getvalue()


def inside_root(catalog: Catalog, path: str) -> Path:
    """Return the file of an image.

    Raises:
        NotFoundError: If it lies outside the real folder of the catalog, as by a link or by `..`.
    """
    file = catalog.file(path)
    try:
        real = containers.real_file(file).resolve()
        root = containers.real_file(catalog.root).resolve()
    except (SightlineError, OSError, ValueError) as error:
        raise NotFoundError("this photograph cannot be found", "scan the folder again") from error
    if not real.is_relative_to(root) and containers.real_path(file) is None:
        raise NotFoundError("this photograph lies outside the folder of its catalog", "scan the folder that it lies in")
    return file


def _stamp(file: Path) -> str:
    """Return modification time and size of a file; "" if it does not exist."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_mtime_ns} {status.st_size}"


def _reason(error: Exception) -> str:
    """Return the reason of an error without the path of the file."""
    return error.kind if isinstance(error, ImageError) else getattr(error, "strerror", None) or "it cannot be read"


PAGE = Page("Photographs", "/images", router, in_navigation=False)
