"""Which method explains which classifier, and the verb that explains images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sightline import heads
from sightline.errors import RequestError, SightlineError, unknown
from sightline.explanation.feature_map import MapSession, grid_size
from sightline.explanation.layers import Place, behind_norm, find_layer, open_layer
from sightline.explanation.methods import gradients, on_map
from sightline.explanation.methods.on_map import Heat
from sightline.explanation.score import Score
from sightline.records import Explanation, Head, Progress, silent

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Method:
    """A record of METHODS.

    Args:
        explain: (what is explained, its map float32 (1, …) where it needs one) → heat.
        title: Its name in the field.
        needs: The layer's `map`, or the image's `pixels`.
        heads: `any`, or those with a `gradient` (linear and MLP), or `linear` ones alone.
        signed: Whether heat below zero speaks against the target; else it has no sign, and says "matters" alone.
        unit: Of the heat.
        reduction: How channels become one number.
    """

    explain: Callable[[Score, np.ndarray], Heat]
    title: str
    needs: Literal["map", "pixels"]
    heads: Literal["any", "gradient", "linear"]
    signed: bool
    unit: str
    reduction: str


def choose_method(session: MapSession, head: Head) -> str:
    """What `auto` means: exact where the head is linear, random masks for any other, occlusion where there is no map."""
    if session.backbone.map_shape is None:
        return "occlusion"
    if heads.linear(head) is None:
        return "masks"
    return "contribution" if session.backbone.pool == "flatten" else "gradcam"


def check_method(name: str) -> None:
    """Refuse a name that is neither a method's nor `auto`.

    Raises:
        RequestError: It is.
    """
    if name not in ("auto", *METHODS):
        raise unknown("method", name, ["auto", *METHODS])


def check_contrast(name: str, target: int | None, contrast: int | None) -> None:
    """Refuse a class, called `name`, that is set against itself.

    Raises:
        RequestError: It is.
    """
    if target is not None and target == contrast:
        raise RequestError(f"{name!r} cannot be set against itself", "name another class as --contrast")


def layer(session: MapSession) -> str:
    """Where the map is taken, in words."""
    channels, height, width = grid_size(session.backbone)
    if session.backbone.source == "pixels":
        return f"the image itself, {height}×{width}"
    where = "last patches that are read" if session.backbone.layout == "tokens" else "last map"
    return f"{where}, {channels} channels of {height}×{width}"


# -------------------------------------------------------------------------------------------------------------- the verb


def explain(
    session: MapSession,
    head: Head,
    images: np.ndarray,
    paths: Sequence[str],
    targets: Sequence[int],
    classes: Sequence[str],
    boxes: Sequence[tuple[float, float, float, float]],
    *,
    method: str = "auto",
    seed: int = 0,
    maps: np.ndarray | None = None,
    layer: str | None = None,
    contrast: Sequence[int] | None = None,
    coarse: bool = False,
    progress: Progress = silent,
) -> list[Explanation]:
    """Where the classifier looked, for each image and the class that is asked about.

    Args:
        session: The network.
        head: The head on its features.
        images: uint8 (n, height, width, 3), as `pixels.decode` gives them; where `maps` is given, only methods on pixels and
            layers by name look at them.
        paths: n names.
        targets: n class indices.
        classes: k names.
        boxes: n times (top, left, height, width), what the network sees in pixels of the upright original.
        method: A name of `METHODS`, or `auto`.
        seed: Of random masks and noise.
        maps: The last maps of these images, float32 (n, …), where they are at hand: then nothing goes through the network.
        layer: The module whose output is the map; None or `auto` for the last map, which the network declares.
        contrast: n class indices that the targets are set against; None for all other classes together.
        coarse: As in `Subject`.
        progress: Told after each image.

    Returns:
        n explanations, raw. An image alone and one in a batch give the same.

    Raises:
        RequestError: An unknown method or layer, a head or backbone that it does not fit, or a target that is no class.
        SightlineError: The network's answer is not finite, so there is nothing to draw.
    """
    asked = _Request.checked(session, head, classes, method, seed, None if layer == "auto" else layer, coarse)
    found: list[Explanation] = []
    for start in range(0, len(paths), _BATCH):
        part = range(start, min(start + _BATCH, len(paths)))
        last = maps[part.start : part.stop] if maps is not None else None
        if last is None and asked.on_last_map:
            last = session.run(images[part.start : part.stop], maps=True)[1]
        for row in part:
            image = images[row] if len(images) > row else None
            one = last[row - start][None] if last is not None else None
            against = None if contrast is None else contrast[row]
            found.append(asked.explanation(image, one, paths[row], targets[row], against, boxes[row]))
            progress("explaining", len(found), len(paths))
    return found


@dataclass(slots=True)
class _Request:
    """What is asked about every image.

    Args:
        session, head, classes, method, seed, layer, coarse: As in `explain`; the method's name is one of METHODS.
    """

    session: MapSession
    head: Head
    classes: Sequence[str]
    method: str
    seed: int
    layer: str | None
    coarse: bool
    _place: Place | None = None
    _planes: dict[tuple[int, int | None], tuple[np.ndarray, float]] = dataclasses.field(default_factory=dict)

    @classmethod
    def checked(
        cls,
        session: MapSession,
        head: Head,
        classes: Sequence[str],
        method: str,
        seed: int,
        layer: str | None,
        coarse: bool,
    ) -> _Request:
        """It, if it can be done.

        Raises:
            RequestError: It cannot.
        """
        check_method(method)
        name = choose_method(session, head) if method == "auto" else method
        record = METHODS[name]
        if layer is not None and method == "auto" and name in ("contribution", "occlusion"):
            name = "gradcam" if heads.layers(head) is not None else "masks"
            record = METHODS[name]
        if layer is not None and record.needs == "pixels":
            raise RequestError(f"the method {name!r} looks at the image's pixels, at no layer", "leave out --layer")
        if record.needs == "map" and layer is None:
            grid_size(session.backbone)
        if record.heads == "gradient":
            Score(session, head, 0).layers()
        return cls(session, head, classes, name, seed, layer, coarse)

    @property
    def on_last_map(self) -> bool:
        """Whether the network's last map is needed."""
        return METHODS[self.method].needs == "map" and self.layer is None

    def explanation(
        self,
        image: np.ndarray | None,
        last: np.ndarray | None,
        path: str,
        target: int,
        contrast: int | None,
        box: tuple[float, float, float, float],
    ) -> Explanation:
        """The heat of one image, checked."""
        for number in (target, contrast):
            if number is not None and not 0 <= number < len(self.classes):
                raise RequestError(f"class {number} of {path} is not one of the {len(self.classes)} classes")
        check_contrast(self.classes[target], target, contrast)
        subject = Score(self.session, self.head, target, self.seed, contrast, image, self.coarse, self._planes)
        where, last = self._where(subject, last)
        heat = METHODS[self.method].explain(where, last)
        if not np.isfinite(heat.values).all():
            raise SightlineError(f"the heat of {path} is not finite", "the weights or the image hold NaN or infinity")
        against = "" if contrast is None else self.classes[contrast]
        words = self._words(where, heat.values)
        values = np.ascontiguousarray(heat.values, dtype=np.float32)
        return Explanation(
            path, self.classes[target], self.method, words, values, box, heat.neutral, contrast=against, missed=heat.missed
        )

    def _where(self, subject: Score, last: np.ndarray | None) -> tuple[Score, np.ndarray]:
        """The subject with its map, at the layer that was asked for.

        Raises:
            RequestError: HiResCAM would add up to nothing at every place.
        """
        tokens = self.session.backbone.layout == "tokens" and subject.image is not None
        if self.layer is None and self.method == "hirescam" and tokens and last is not None and on_map.cancels(subject, last):
            self.layer = behind_norm(self.session, subject.pixels)
            if self.layer is None:
                what = f"HiResCAM is 0 at every patch of {self.session.backbone.name}: their size does not change its score"
                raise RequestError(what, "use --method patches or gradcam")
        if self.layer is None:
            return subject, np.zeros((1, 0), dtype=np.float32) if last is None else last
        if self._place is None:
            self._place = find_layer(self.session, self.layer, subject.pixels)
        at = open_layer(self.session, self._place, subject.pixels)
        return dataclasses.replace(subject, session=at), at.last

    def _words(self, subject: Score, heat: np.ndarray) -> str:
        """Where the heat was taken."""
        if METHODS[self.method].needs == "pixels":
            return f"the image's pixels, {heat.shape[0]}×{heat.shape[1]}"
        if self.layer is None:
            return layer(self.session)
        channels, height, width = grid_size(subject.session.backbone)
        return f"{self.layer}, {channels} channels of {height}×{width}"


# ----------------------------------------------------------------------------------------------------------- the registry


def _pixels(function: Callable[[Score], np.ndarray]) -> Callable[[Score, np.ndarray], Heat]:
    """A method on pixels as METHODS takes it."""
    return lambda subject, _: Heat(function(subject))


def _integrated(subject: Score, _: np.ndarray) -> Heat:
    """Integrated gradients and how far they are from complete."""
    heat, missed = gradients.integrated_gradients(subject)
    return Heat(heat, missed=missed)


_LOGIT, _ODDS, _SLOPE = "logit", "log odds", "logit per normalised value"

METHODS: Mapping[str, Method] = {
    # name: function, title, needs, heads, signed, unit, reduction over channels
    "gradcam": Method(on_map.gradcam, "Grad-CAM", "map", "gradient", True, _LOGIT, "sum, each times its mean gradient"),
    "gradcam++": Method(
        on_map.gradcam_plus_plus, "Grad-CAM++", "map", "gradient", True, _LOGIT, "sum, each times its weighted gradient above 0"
    ),
    "hirescam": Method(on_map.hirescam, "HiResCAM", "map", "gradient", True, _LOGIT, "sum of gradient × map"),
    "patches": Method(on_map.patches, "patch map", "map", "gradient", True, _LOGIT, "sum of gradient × (patch − mean patch)"),
    "contribution": Method(on_map.contribution, "exact shares", "map", "linear", True, _LOGIT, "sum of weight × difference"),
    "masks": Method(on_map.masks, "random masks", "map", "any", True, _ODDS, "all channels of a cell are hidden at once"),
    "activation": Method(on_map.activation, "activation", "map", "any", False, "activation", "root of the mean square"),
    "saliency": Method(_pixels(gradients.saliency), "saliency", "pixels", "gradient", False, _SLOPE, "largest absolute value"),
    "gradient-input": Method(_pixels(gradients.gradient_input), "gradient × input", "pixels", "gradient", True, _LOGIT, "sum"),
    "smoothgrad": Method(
        _pixels(gradients.smoothgrad), "SmoothGrad", "pixels", "gradient", False, _SLOPE, "largest absolute value of the mean"
    ),
    "integrated-gradients": Method(_integrated, "integrated gradients", "pixels", "gradient", True, _LOGIT, "sum"),
    "occlusion": Method(
        _pixels(gradients.occlusion), "occlusion", "pixels", "any", True, _ODDS, "all channels are covered at once"
    ),
}
