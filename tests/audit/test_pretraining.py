"""The network's own classes are mapped to the user's on one half of the images and measured on the other."""

from __future__ import annotations

import numpy as np

from sightline.audit.pretraining import pretraining_overlap


def test_a_known_class_has_its_names_and_an_unknown_one_has_no_high_auc() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 3
    logits = rng.normal(size=(200, 10))
    logits[labels == 0, 4] += 6  # only class 0 is known, as "tabby"
    names = [f"name {i}" if i != 4 else "tabby" for i in range(10)]
    rows = np.arange(200)
    found = pretraining_overlap(
        logits, names, labels, ("cat", "vase", "cup"), fitted=rows[::2], measured=rows[1::2], network="net"
    )
    assert found.classes[0].known_as is not None and found.classes[0].known_as.startswith("tabby")
    assert (found.classes[0].auc or 0) > 0.95 > 0.8 > (found.classes[1].auc or 0)
    assert found.zero_training_accuracy is not None and 0.5 < found.zero_training_accuracy < 0.85
    assert found.images == 100 and "1 of the 3 classes" in found.sentence
