"""`predict.py`: the script beside an exported file that predicts without Sightline."""

from __future__ import annotations

_SCRIPT = '''\
"""Predict the class of images without Sightline: python predict.py IMAGE...   (pip install {packages})"""
import json, pathlib, sys
import numpy as np, {module}
from PIL import Image, ImageOps
file = pathlib.Path(__file__).with_name("{file}")
{load}
def read(path):
    image = Image.open(path)
    times = {{"min": min, "max": max}}[facts["draft"][2]](image.height / facts["draft"][0], image.width / facts["draft"][1])
    scale = next((s for s, t in ((8, 24), (4, 10), (2, 4)) if times >= t and image.mode != "CMYK"), 1)
    image.draft(None, (image.width // scale, image.height // scale))  # a JPEG is decoded at 1/2, 1/4 or 1/8
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # more than 8 bits per pixel
        (low, high), values = facts["value_range"] or (0, 1 if image.mode == "F" else 65535), np.asarray(image, np.float32)
        return np.stack([np.clip(np.rint((values - low) * 255 / (high - low)), 0, 255).astype(np.uint8)] * 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (facts["background"],) * 3 + (255,)), image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))
def predict(path):
    return {run}
if __name__ == "__main__":
    for path in sys.argv[1:]:
        probs, positive = predict(path), facts["positive_index"]
        best = int(probs.argmax()) if positive is None else positive if probs[positive] >= facts["threshold"] else 1 - positive
        named = dict(zip(facts["classes"], probs.tolist()))
        print(json.dumps({{"path": path, "label": facts["classes"][best], "probabilities": named}}))
'''
_ONNX = {
    "packages": "onnxruntime numpy pillow",
    "module": "onnxruntime",
    "load": """session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
facts = {k[10:]: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items() if k[:10] == "sightline."}""",
    "run": 'session.run(["probabilities"], {"image": read(path)})[0]',
}
_OPENVINO = {
    "packages": "openvino numpy pillow",
    "module": "openvino",
    "load": """model = openvino.Core().read_model(file)
facts = json.loads(model.get_rt_info(["sightline", "facts"]).value)
compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # other precisions change the resize""",
    "run": 'np.array(compiled({"image": read(path)})["probabilities"])',
}


def onnx_script(file: str) -> str:
    """Return the script for onnxruntime beside a file of this name."""
    return _SCRIPT.format(file=file, **_ONNX)


def openvino_script(file: str) -> str:
    """Return the script for OpenVINO beside a file of this name."""
    return _SCRIPT.format(file=file, **_OPENVINO)
