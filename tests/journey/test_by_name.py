"""A published network by its name, real weights in, answers with its own classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.explanation.heatmaps import heatmaps_of
from sightline.explanation.options import ExplainOptions
from sightline.explanation.subject import find_subject
from sightline.store import Cache


@pytest.mark.slow
@pytest.mark.realdata
def test_a_classifier_of_places_answers_and_is_explained(shared: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """SqueezeNet's answers are those of torchvision's network, and its heat is its own scores at each place."""
    from safetensors.torch import load_file
    from torchvision.models import squeezenet1_1
    from torchvision.transforms import v2

    monkeypatch.setenv("SIGHTLINE_WEIGHTS", str(shared / "weights"))
    found = find_subject("squeezenet1_1", cache)
    files = sorted((shared / "data" / "imagenet_sample").iterdir())[5:9]
    answers = found.model.predict(files, cache=cache, device="cpu")
    theirs = squeezenet1_1(weights=None).eval()
    theirs.load_state_dict(load_file(shared / "weights" / "squeezenet1_1.safetensors"))
    p = found.model.card.backbone.preprocess
    steps = [
        v2.Resize(256),
        v2.CenterCrop(224),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(p.mean, p.std),
    ]
    x = torch.stack([v2.Compose(steps)(Image.open(f).convert("RGB")) for f in files])
    with torch.inference_mode():
        places = theirs.classifier[:3](theirs.features(x)).numpy()  # (4, 1000, 13, 13)
    expected = torch.softmax(torch.from_numpy(places.mean(axis=(2, 3))), dim=1).numpy()
    assert (answers.y_pred == expected.argmax(1)).all()
    assert np.abs(answers.probs - expected).max() < 0.05  # a grey level more or less
    targets = [int(i) for i in answers.y_pred]
    heats, errors = heatmaps_of(
        found.model, files, [f.name for f in files], targets, ExplainOptions(cache=cache, method="gradcam")
    )
    assert not errors
    for i, heat in enumerate(heats):
        own = places[i, targets[i]] - np.delete(places[i], targets[i], axis=0).mean(axis=0)
        assert np.corrcoef(heat.heat.ravel(), own.ravel())[0, 1] > 0.98
