"""Export to one HTML file that classifies photographs offline in a browser.

The page holds onnxruntime-web (vendored by `scripts/vendor_onnxruntime_web.py`), the network with weights in float16, and
Pillow's resize in JavaScript. Its Content-Security-Policy allows no connection at all.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import html
import importlib.resources
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sightline import pixels
from sightline.errors import ImageError, SightlineError
from sightline.export import model as graphs
from sightline.export import runtime
from sightline.export.format import ExportFormat, ExportRequest, Written
from sightline.export.resize import vertical_may_be_first
from sightline.files import open_regular
from sightline.store import plain, write_bytes

if TYPE_CHECKING:
    import onnx

MOST_BYTES = 30_000_000
"""Maximum size of the page."""
TESTED = "Chromium and Firefox on Linux"
"""Browsers in which the page is tested; the page says so."""
_SMALLEST = 256
"""Tensors with fewer numbers stay in float32."""


def write(request: ExportRequest) -> Written:
    """Write the page.

    Raises:
        SightlineError: If it would be larger than 30 MB.
    """
    core = graphs.build(request.model, request.cache, from_pixels=True, real=np.float32, small=True)
    halve_weights(core.proto)
    page = _page(request, core)
    if len(page) > MOST_BYTES:
        raise SightlineError(
            f"the page would have {len(page) / 1e6:,.1f} MB; at most {MOST_BYTES / 1e6:.0f} MB are allowed",
            "train with a smaller network such as mobilenetv2_100, or export --to onnx",
        )
    file = f"{request.stem}.html"
    write_bytes(request.folder / file, page)
    run = runtime.run_onnx(core.proto)

    def predict(path: Path) -> np.ndarray:
        image = browser_pixels(path)
        return run([pixels.decode_array(image, preprocess)[None] for preprocess in core.inputs])

    return Written((file,), (file,), predict)


def browser_pixels(path: Path) -> np.ndarray:
    """Return the pixels that a browser gives the page: upright, 8 bits, fully decoded; uint8 (h, w, 3 | 4).

    Raises:
        ImageError: If Pillow cannot read the file.
    """
    with open_regular(path) as stream:
        try:
            image = Image.open(stream)
            array = pixels.image_array(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ImageError("broken", f"{path} cannot be decoded ({error})") from error
    if array.dtype != np.uint8:
        array = np.clip(array / (257 if array.max() > 255 else 1), 0, 255).astype(np.uint8)
    return array


def halve_weights(proto: onnx.ModelProto) -> None:
    """Store large float32 constants as float16, followed by a cast to float32, in place."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _SMALLEST or np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}/f16"))
        casts.append(helper.make_node("Cast", [f"{name}/f16"], [name], name=f"{name}/cast", to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _page(request: ExportRequest, core: graphs.GraphModel) -> bytes:
    """Return the page."""
    blocks = {
        "worker": gzip.compress(_worker().encode(), 9, mtime=0),
        "model": gzip.compress(core.proto.SerializeToString(), 9, mtime=0),
        "wasm": _vendored("ort-wasm-simd-threaded.wasm.gz"),
        "notices": _vendored("notices.txt.gz"),
    }
    script, style = _text("page.js"), _text("page.css")
    card = request.model.card
    parts = {
        "TITLE": html.escape(_title(card.classes)),
        "SCRIPT_HASH": _csp_hash(script),
        "STYLE_HASH": _csp_hash(style),
        "STYLE": style,
        "SCRIPT": script,
        "FACTS": json.dumps(_facts(request, core, blocks), ensure_ascii=True).replace("<", "\\u003c"),
        **{name.upper(): base64.b64encode(data).decode() for name, data in blocks.items()},
    }
    return re.sub(r"@([A-Z_]+)@", lambda match: parts[match.group(1)], _text("page.html")).encode()


def _facts(request: ExportRequest, core: graphs.GraphModel, blocks: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the facts that the page shows and computes with."""
    facts = {name.removeprefix("sightline."): json.loads(text) for name, text in graphs.metadata(request.model).items()}
    kept = ("classes", "positive_index", "threshold", "prediction_set", "ood_threshold")
    vendored = json.loads(_text("VENDORED.json"))
    card = request.card
    about = {
        "Network": facts_of_network(request),
        "Licence of the weights": ", ".join(facts["licence"]) or "none",
        "Scores": "; ".join(f"{s.accuracy:.1%} on {s.images:,} images ({s.split})" for s in card.scores) if card else "",
        "Cautions": "; ".join(card.cautions) if card else "",
        "Made with": f"Sightline {facts['software'].get('sightline', '')}, onnxruntime-web {vendored['version']}",
        "Browsers tried": TESTED,
    }
    return {
        **{name: facts[name] for name in kept},
        "inputs": [plain(preprocess) for preprocess in core.inputs],
        "vertical_first": vertical_may_be_first(),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in blocks.items()},
        "about": {name: text for name, text in about.items() if text},
    }


def facts_of_network(request: ExportRequest) -> str:
    """Return the networks and heads of a classifier for people."""
    parts = [part.card for part in request.model.members or (request.model,)]
    return ", ".join(dict.fromkeys(f"{part.backbone.name} + {part.head}" for part in parts))


def _title(classes: tuple[str, ...]) -> str:
    """Return the heading of the page."""
    named = ", ".join(classes[:4]) if len(classes) <= 4 else f"{', '.join(classes[:3])} and {len(classes) - 3:,} more"
    return f"Which class? {named}"


@functools.cache
def _worker() -> str:
    """Return the worker: onnxruntime-web as a classic script that defines `ort`, then Sightline's part.

    `import.meta` is not allowed in a classic script. Its address is used only to find files, of which none is needed.
    """
    source = _text("ort.wasm.bundle.min.mjs").partition("\n//# sourceMappingURL")[0]
    source = source.replace("import.meta.url", '"https://localhost/"')
    names = re.search(r"export\{([^}]*)\};?\s*$", source)
    assert names is not None
    pairs = [name.split(" as ") for name in names.group(1).split(",")]
    exports = ",".join(f"{pair[-1].strip()}:{pair[0].strip()}" for pair in pairs)
    return f"const ort=(()=>{{{source[: names.start()]}return{{{exports}}}}})();\n{_text('worker.js')}"


def _csp_hash(text: str) -> str:
    """Return the hash of an inline script or style for a Content-Security-Policy."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    """Return a text file of the package."""
    return _vendored(name).decode()


def _vendored(name: str) -> bytes:
    """Return a file of the package."""
    return importlib.resources.files("sightline.export").joinpath("web", name).read_bytes()


FORMAT = ExportFormat(
    name="html",
    title="one web page",
    suffix=".html",
    precisions=("f16",),
    write=write,
    note="8-bit networks are slower and less accurate in a browser",
)
