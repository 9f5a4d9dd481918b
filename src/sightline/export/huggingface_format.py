"""Export as a model repository for the Hugging Face hub: model card, classifier file, ONNX and script."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from sightline.errors import RequestError
from sightline.export import onnx_format
from sightline.export.format import ExportFormat, ExportRequest, Written
from sightline.records.model_card import ModelCard
from sightline.store import write_text

_LICENCES = {
    *("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0", "gpl-3.0"),
}
"""Identifiers of the hub that occur as licences of weights; any other licence is `other`."""


def write(request: ExportRequest) -> Written:
    """Write `README.md`, `classifier.safetensors`, `model.onnx` and `predict.py`.

    Raises:
        RequestError: If the request has no model card.
    """
    if request.card is None:
        raise RequestError("a model repository needs a model card", "pass the card of the classifier")
    request.model.save(request.folder / "classifier.safetensors")
    written = onnx_format.write(dataclasses.replace(request, stem="model"))
    write_text(request.folder / "README.md", readme(request.card))
    files = ("README.md", "classifier.safetensors", *written.files)
    return dataclasses.replace(written, files=files, counted=files)


def readme(card: ModelCard) -> str:
    """Return the model card in the format of the Hugging Face hub: YAML, then Markdown.

    Source: https://huggingface.co/docs/hub/model-cards
    """
    licences = sorted(set(card.licences.values()))
    licence = licences[0].lower() if len(licences) == 1 and licences[0].lower() in _LICENCES else "other"
    lines = ["---", f"license: {licence}"]
    if licence == "other":
        lines += [f"license_name: {json.dumps(' and '.join(licences) or 'unknown')}"]
    lines += ["library_name: sightline", "pipeline_tag: image-classification", "tags:", "- image-classification", "- onnx"]
    score = card.best_score
    if score is not None:
        split = "test" if score.split == "test" else "validation"
        lines += [
            *("metrics:", "- accuracy", "model-index:", f"- name: {json.dumps(card.backbone)}", "  results:"),
            *("  - task:", "      type: image-classification", "    dataset:", "      name: own photographs"),
            *("      type: image-folder", f"      split: {split}", "    metrics:", "    - type: accuracy"),
            f"      value: {score.accuracy:.4f}",
        ]
    lines += ["---", "", f"# Image classifier: {_listed(card.classes, 6)}", "", *_description(card), *_use(card)]
    return "\n".join(lines) + "\n"


def _description(card: ModelCard) -> list[str]:
    """Return the paragraphs on network, data, scores and limits."""
    lines = [
        f"Trained with [Sightline](https://pypi.org/project/sightline) {card.software.get('sightline', '')}: method "
        f"`{card.method}`, network `{card.backbone}`, head `{card.head}`, input {card.input_px[0]}×{card.input_px[1]} px.",
        "",
    ]
    lines += [f"- `{name}`: licence {text}; pretrained on {card.pretrained_on[name]}." for name, text in card.licences.items()]
    lines += ["", "## Training data", "", "| class | train | val | test |", "|---|---|---|---|"]
    for name in card.classes:
        counts = card.images_per_class.get(name, {})
        cell = name.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| {cell} | {' | '.join(f'{counts.get(split, 0):,}' for split in ('train', 'val', 'test'))} |")
    lines += ["", "## Evaluation", ""]
    for score in card.scores:
        interval = "" if score.low is None or score.high is None else f", 95 % CI [{score.low:.3f}, {score.high:.3f}]"
        lines.append(f"- accuracy {score.accuracy:.3f}{interval} on {score.images:,} images ({score.split})")
    lines += ["", "## Limits", "", *(f"- {caution[0].upper()}{caution[1:]}." for caution in card.cautions)]
    lines.append(
        "- It always answers with one of these classes. Photographs unlike the training images are not recognised as such "
        "unless `ood_score` is compared with `ood_threshold`."
    )
    return [*lines, ""]


def _use(card: ModelCard) -> list[str]:
    """Return the section on how to predict."""
    return [
        *("## Use", "", "With Sightline:", "", "```console", "sightline predict classifier.safetensors photo.jpg", "```", ""),
        *("Without Sightline, in onnxruntime:", "", "```console", "pip install onnxruntime numpy pillow"),
        *("python predict.py photo.jpg", "```"),
    ]


def _listed(names: Sequence[str], most: int) -> str:
    """Return the first names, and how many more there are."""
    texts = [name.replace("<", "&lt;") for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most:,} more" if len(texts) > most else "")


FORMAT = ExportFormat(
    name="huggingface",
    title="a model repository for the Hugging Face hub",
    suffix=".md",
    precisions=("f32", "int8"),
    write=write,
)
