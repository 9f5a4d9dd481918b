"""The registry of explanation methods, and the function that applies one to images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sightline import heads
from sightline.errors import RequestError, SightlineError, unknown
from sightline.explanation.feature_map import MapSession, grid_size
from sightline.explanation.layers import Place, find_layer, open_layer
from sightline.explanation.methods import (
    activation,
    contribution,
    gradcam,
    gradcam_plus_plus,
    gradient_input,
    hirescam,
    integrated_gradients,
    masks,
    occlusion,
    patches,
    saliency,
    smoothgrad,
)
from sightline.explanation.methods.record import Method
from sightline.explanation.options import ExplainOptions
from sightline.explanation.score import Score
from sightline.records import Explanation, Head, Progress, silent

_BATCH = 16

METHODS: Mapping[str, Method] = {
    "gradcam": gradcam.METHOD,
    "gradcam++": gradcam_plus_plus.METHOD,
    "hirescam": hirescam.METHOD,
    "patches": patches.METHOD,
    "contribution": contribution.METHOD,
    "masks": masks.METHOD,
    "activation": activation.METHOD,
    "saliency": saliency.METHOD,
    "gradient-input": gradient_input.METHOD,
    "smoothgrad": smoothgrad.METHOD,
    "integrated-gradients": integrated_gradients.METHOD,
    "occlusion": occlusion.METHOD,
}


def choose_method(session: MapSession, head: Head, layer: str | None = None) -> str:
    """Return the method that `auto` selects: exact for a linear head, random masks for any other, occlusion without a map."""
    has_map, linear = session.backbone.map_shape is not None, heads.linear(head) is not None
    flattened = session.backbone.pool == "flatten"
    if layer is not None and (not has_map or (linear and flattened)):
        return "gradcam" if heads.layers(head) is not None else "masks"
    if not has_map:
        return "occlusion"
    if not linear:
        return "masks"
    return "contribution" if flattened else "gradcam"


def check_method(name: str) -> None:
    """Check that a name is `auto` or in `METHODS`.

    Raises:
        RequestError: If it is not.
    """
    if name not in ("auto", *METHODS):
        raise unknown("method", name, ["auto", *METHODS])


def check_contrast(name: str, target: int | None, contrast: int | None) -> None:
    """Check that a class, called `name`, is not compared with itself.

    Raises:
        RequestError: If it is.
    """
    if target is not None and target == contrast:
        raise RequestError(f"{name!r} cannot be compared with itself", "name another class as --contrast")


def layer(session: MapSession) -> str:
    """Return a description of the network's last feature map."""
    channels, height, width = grid_size(session.backbone)
    if session.backbone.source == "pixels":
        return f"the image itself, {height}×{width}"
    where = "last patches that are read" if session.backbone.layout == "tokens" else "last map"
    return f"{where}, {channels} channels of {height}×{width}"


def explain(
    session: MapSession,
    head: Head,
    images: np.ndarray,
    *,
    paths: Sequence[str],
    targets: Sequence[int],
    classes: Sequence[str],
    boxes: Sequence[tuple[float, float, float, float]],
    options: ExplainOptions | None = None,
    maps: np.ndarray | None = None,
    progress: Progress = silent,
) -> list[Explanation]:
    """Explain images by one method.

    Args:
        session: The network.
        head: The head on its features.
        images: uint8 (n, height, width, 3), as `pixels.decode` returns them; where `maps` is given, only methods on pixels and
            layers by name use them.
        paths: n names.
        targets: n class indices.
        classes: k names.
        boxes: n times (top, left, height, width), the input of the network in pixels of the upright original.
        options: The method and its settings; the defaults if None.
        maps: The last maps of these images, float32 (n, …), if available: then the network is not run.
        progress: Called after each image.

    Returns:
        n explanations, raw. An image alone and in a batch has the same explanation.

    Raises:
        RequestError: If the method or layer is unknown or does not fit the head or backbone, or a target is not a class.
        SightlineError: If a heatmap is not finite.
    """
    explainer = _Explainer.checked(session, head, classes, options or ExplainOptions())
    explanations: list[Explanation] = []
    for start in range(0, len(paths), _BATCH):
        part = range(start, min(start + _BATCH, len(paths)))
        last = maps[part.start : part.stop] if maps is not None else None
        if last is None and explainer.on_last_map:
            last = session.run(images[part.start : part.stop], maps=True)[1]
        for row in part:
            image = images[row] if len(images) > row else None
            one = last[row - start][None] if last is not None else None
            explanations.append(explainer.explain(image, one, paths[row], targets[row], boxes[row]))
            progress("explaining", len(explanations), len(paths))
    return explanations


@dataclass(slots=True)
class _Explainer:
    """One method for one head on one network.

    Args:
        session, head, classes: As in `explain`.
        name: The method's name in `METHODS`.
        options: As in `explain`.
        layer: The module that gives the map; None for the network's last map.
    """

    session: MapSession
    head: Head
    classes: Sequence[str]
    name: str
    options: ExplainOptions
    layer: str | None
    _place: Place | None = None
    _planes: dict[tuple[int, int | None], tuple[np.ndarray, float]] = dataclasses.field(default_factory=dict)

    @classmethod
    def checked(cls, session: MapSession, head: Head, classes: Sequence[str], options: ExplainOptions) -> _Explainer:
        """Return the explainer after checking that the method fits the head, the backbone and the layer.

        Raises:
            RequestError: If it does not.
        """
        check_method(options.method)
        layer = None if options.layer == "auto" else options.layer
        name = choose_method(session, head, layer) if options.method == "auto" else options.method
        if layer is not None and METHODS[name].needs == "pixels":
            raise RequestError(f"the method {name!r} explains pixels and takes no layer", "leave out --layer")
        if METHODS[name].needs == "map" and layer is None:
            grid_size(session.backbone)
        if METHODS[name].heads == "gradient":
            Score(session, head, 0).layers()
        return cls(session, head, classes, name, options, layer)

    @property
    def method(self) -> Method:
        """Return the record of the method."""
        return METHODS[self.name]

    @property
    def on_last_map(self) -> bool:
        """Return whether the network's last map is needed."""
        return self.method.needs == "map" and self.layer is None

    def explain(
        self,
        image: np.ndarray | None,
        last: np.ndarray | None,
        path: str,
        target: int,
        box: tuple[float, float, float, float],
    ) -> Explanation:
        """Return the explanation of one image, checked to be finite."""
        contrast = self.options.contrast
        for number in (target, contrast):
            if number is not None and not 0 <= number < len(self.classes):
                raise RequestError(f"class {number} of {path} is not one of the {len(self.classes)} classes")
        check_contrast(self.classes[target], target, contrast)
        score = Score(
            session=self.session,
            head=self.head,
            target=target,
            seed=self.options.seed,
            contrast=contrast,
            image=image,
            coarse=self.options.coarse,
            planes=self._planes,
        )
        score, last = self._at_layer(score, last)
        attribution = self.method.explain(score, last)
        if not np.isfinite(attribution.values).all():
            raise SightlineError(f"the heatmap of {path} is not finite", "the weights or the image contain NaN or infinity")
        return Explanation(
            path=path,
            target=self.classes[target],
            method=self.name,
            layer=self._describe(score, attribution.values),
            heat=np.ascontiguousarray(attribution.values, dtype=np.float32),
            box=box,
            neutral=attribution.neutral,
            contrast="" if contrast is None else self.classes[contrast],
            missed=attribution.missed,
        )

    def _at_layer(self, score: Score, last: np.ndarray | None) -> tuple[Score, np.ndarray]:
        """Return the score at the requested layer, and its feature map.

        Raises:
            RequestError: If the method cannot explain tokens at the last map and no other layer fits.
        """
        tokens = self.session.backbone.layout == "tokens" and score.image is not None
        if self.layer is None and self.method.layer_for is not None and tokens and last is not None:
            self.layer = self.method.layer_for(score, last)
        if self.layer is None:
            return score, np.zeros((1, 0), dtype=np.float32) if last is None else last
        if self._place is None:
            self._place = find_layer(self.session, self.layer, score.pixels)
        at = open_layer(self.session, self._place, score.pixels)
        return dataclasses.replace(score, session=at), at.last

    def _describe(self, score: Score, heatmap: np.ndarray) -> str:
        """Return a description of where the heatmap was computed."""
        if self.method.needs == "pixels":
            return f"the image's pixels, {heatmap.shape[0]}×{heatmap.shape[1]}"
        if self.layer is None:
            return layer(self.session)
        channels, height, width = grid_size(score.session.backbone)
        return f"{self.layer}, {channels} channels of {height}×{width}"
