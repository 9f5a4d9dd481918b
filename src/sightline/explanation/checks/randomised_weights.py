"""Classifiers with randomised weights, from the top layers down: a heatmap has to change with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from sightline import networks
from sightline.classifier import Classifier, backbone_tensors
from sightline.store import Cache, stream

RANDOMISED = "randomised"
"""Value of `Backbone.weights` for such weights."""


def randomised(classifier: Classifier, cache: Cache, seed: int) -> Iterator[tuple[str, Classifier]]:
    """Yield copies of a classifier with more and more of the network randomised.

    The numbers within each tensor are permuted, batch statistics included: scale and spread stay, what was learnt is lost. The
    head is unchanged, so that only the network's part in the heatmap is tested. First the last stage alone is randomised, then
    all weights; for an ensemble, those of every member.

    Source: Adebayo et al., Sanity Checks for Saliency Maps (2018), cascading randomisation, in two steps.

    Args:
        classifier: With a network, or an ensemble with one; for any other nothing is yielded.
        cache: Where a named network's weights are stored.
        seed: Seed of the permutations.

    Yields:
        A description of the randomised part, and the classifier.
    """
    if classifier.members:
        yield from _of_members(classifier, cache, seed)
        return
    backbone = classifier.card.backbone
    if not backbone.is_network:
        return
    tensors = dict(classifier.tensors or backbone_tensors(backbone, cache))
    built = dataclasses.replace(backbone, name=classifier.code) if classifier.code else backbone
    stages = networks.build(built, tensors=tensors).stages
    top = {f"{module}." for module in stages[-1].modules}
    last = {name for name in tensors if any(name.startswith(prefix) for prefix in top)}
    for words, names in (("the last stage", last), ("all weights", set(tensors))):
        changed = {n: _permuted(a, seed, n) if n in names else a for n, a in tensors.items()}
        yield words, _with_weights(classifier, changed)


def _permuted(values: np.ndarray, seed: int, name: str) -> np.ndarray:
    order = stream(seed, "weights drawn anew", name).permutation(values.size)
    return np.ascontiguousarray(values.ravel()[order].reshape(values.shape))


def _with_weights(classifier: Classifier, tensors: Mapping[str, np.ndarray]) -> Classifier:
    """Return the classifier with other weights and a new identity."""
    backbone = dataclasses.replace(
        classifier.card.backbone, weights=RANDOMISED, weights_hash=networks.weights_hash(dict(tensors))
    )
    return dataclasses.replace(classifier, card=dataclasses.replace(classifier.card, backbone=backbone), tensors=tensors)


def _of_members(classifier: Classifier, cache: Cache, seed: int) -> Iterator[tuple[str, Classifier]]:
    """Yield ensembles of randomised members; members without a network are unchanged."""
    parts = [dict(randomised(member, cache, seed)) for member in classifier.members]
    for words in dict.fromkeys(w for part in parts for w in part):
        members = tuple(part.get(words, member) for part, member in zip(parts, classifier.members, strict=True))
        yield words, dataclasses.replace(classifier, members=members)
