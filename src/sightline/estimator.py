"""scikit-learn interface: a classifier of images, and a transformer of images to features.

Both take images where scikit-learn takes X: file paths, Pillow images, arrays, or a list of these; one array (n, h, w[, c]); or
a catalog. Features are read from the cache, so that cross-validation and searches run the network once per image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from sightline import classifier as classifiers
from sightline import engine, features, heads, networks, pixels
from sightline.classifier import Classifier
from sightline.commands import api
from sightline.errors import DataError, ImageError, RequestError
from sightline.records import Backbone, Card, Catalog, Explanation, Predictions, Recipe
from sightline.store import Cache
from sightline.training.context import Candidate, cv_estimate, folds_of
from sightline.training.methods.features import simplest_first
from sightline.training.pretrained import weighted

Source = Path | np.ndarray
_HINT = "pass a list of files, Pillow images or arrays (h, w[, c]), or one array (n, h, w[, c])"
_FOLDS = 5


class FeatureExtractor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Transformer of images to the features of a pretrained network, for use before any scikit-learn model.

    Args:
        backbone: Name of a network, `pixels`, or `file.py:function` for your own network.
        weights: `pretrained`, `random`, or a file.
        image_size: Side of the network's square input in pixels; None for the size that its weights were trained with.
        resize: How a non-square image is fitted to the square: `crop`, `pad` or `squash`; None for that of the weights.
        pool: Pooling of the last map: `avg`, or `flatten` for the whole map.
        device: `auto`, `cpu`, `cuda` or `mps`.
        cache: Folder of the feature cache; None for the user's cache.

    Attributes:
        backbone_: Description of the network and its preprocessing.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((4, 12, 10, 3), dtype=np.uint8)
        >>> FeatureExtractor(backbone="pixels", image_size=4).fit_transform(images).shape
        (4, 48)
    """

    backbone_: Backbone

    def __init__(
        self,
        backbone: str = Recipe().backbone,
        *,
        weights: str = "pretrained",
        image_size: int | None = None,
        resize: Literal["crop", "pad", "squash"] | None = None,
        pool: Literal["avg", "flatten"] = "avg",
        device: str = "auto",
        cache: str | Path | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.resize = resize
        self.pool = pool
        self.device = device
        self.cache = cache

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Find the network, and the value range of files with more than 8 bits per channel. The weights stay as they are.

        Args:
            X: Images.
            y: Ignored.

        Raises:
            RequestError: If `X` holds no images, or the network is unknown.
            WeightsError: If its weights are not available.
        """
        recipe = Recipe(
            backbone=self.backbone, weights=self.weights, image_size=self.image_size, fit=self.resize, pool=self.pool
        )
        self.backbone_ = _backbone(recipe, _sources(X), _cache(self.cache))
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the features of images, float32 (n, d).

        Raises:
            ImageError: If an image cannot be decoded; the message names it.
        """
        check_is_fitted(self)
        return _features(_sources(X), self.backbone_, _cache(self.cache), self.device)[0]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features, object (d,): the network's name and a number."""
        check_is_fitted(self)
        return np.array([f"{self.backbone_.name}_{i}" for i in range(self.backbone_.features)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        return _image_tags(super().__sklearn_tags__())


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Image classifier with scikit-learn's interface: a head fitted on the features of a pretrained network.

    The settings of the head are chosen by cross-validation, and probabilities are calibrated on the same folds, as `sightline
    train` does with the method `features`.

    Args:
        backbone, weights, image_size, resize, pool: As in `FeatureExtractor`.
        head: Name in `sightline.heads.HEADS`; `auto` compares the fast ones.
        head_settings: Settings of the head, such as `{"C": [0.1, 1.0]}`; None for its defaults.
        class_weight: `balanced` gives each class the same weight; `auto` does so if one class has more than 3 times the images
            of another; None gives each image the same weight.
        random_state: Random seed.
        device, cache: As in `FeatureExtractor`.

    Attributes:
        classes_: Labels in the order of the columns of `predict_proba`.
        classifier_: The fitted `sightline.Classifier`.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((8, 12, 10), dtype=np.uint8)
        >>> images[4:] = 200
        >>> model = ImageClassifier("pixels", head="centroid", image_size=4).fit(images, ["dark"] * 4 + ["light"] * 4)
        >>> model.predict(images[3:5]).tolist()
        ['dark', 'light']
    """

    classes_: np.ndarray
    classifier_: Classifier

    def __init__(
        self,
        backbone: str = Recipe().backbone,
        head: str = Recipe().head,
        *,
        weights: str = "pretrained",
        image_size: int | None = None,
        resize: Literal["crop", "pad", "squash"] | None = None,
        pool: Literal["avg", "flatten"] = "avg",
        head_settings: Mapping[str, Any] | None = None,
        class_weight: Literal["auto", "balanced"] | None = "auto",
        random_state: int = 0,
        device: str = "auto",
        cache: str | Path | None = None,
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.weights = weights
        self.image_size = image_size
        self.resize = resize
        self.pool = pool
        self.head_settings = head_settings
        self.class_weight = class_weight
        self.random_state = random_state
        self.device = device
        self.cache = cache

    @classmethod
    def from_classifier(cls, model: Classifier | str | Path, **params: Any) -> Self:
        """Return a fitted estimator that predicts with an existing classifier.

        Args:
            model: Classifier, run folder or classifier file.
            params: Parameters such as `device` and `cache`.
        """
        loaded = model if isinstance(model, Classifier) else classifiers.load(model)
        recipe = loaded.card.recipe
        settings = {
            "backbone": recipe.backbone,
            "head": recipe.head,
            "weights": recipe.weights,
            "image_size": recipe.image_size,
        }
        made = cls(**{**settings, "resize": recipe.fit, "pool": recipe.pool, "random_state": recipe.seed, **params})
        made.classes_, made.classifier_ = np.array(loaded.classes), loaded
        return made

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fit the head on labelled images.

        Args:
            X: n images.
            y: n labels: strings, integers or booleans.

        Raises:
            RequestError: If `X` holds no images, or the network, the head or a setting is unknown.
            DataError: If there are fewer than two classes, or the numbers of images and labels differ.
            ImageError: If an image cannot be decoded; the message names it.
        """
        recipe = Recipe(
            backbone=self.backbone,
            weights=self.weights,
            head=self.head,
            image_size=self.image_size,
            fit=self.resize,
            pool=self.pool,
            seed=int(self.random_state),
            settings={"head": dict(self.head_settings or {})},
        )
        kinds = heads.to_compare(recipe.head, self.head_settings or {})
        sources, cache = _sources(X), _cache(self.cache)
        if y is None:  # scikit-learn's checks look for these words
            raise ValueError("requires y to be passed, but the target y is None")
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        if len(labels) != len(sources):
            raise DataError(f"there are {len(sources):,} images and {len(labels):,} labels", "pass one label per image")
        self.classes_, target = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"all images have the label {self.classes_[0]!r}", "pass images of at least 2 classes")
        backbone = _backbone(recipe, sources, cache)
        values, contents = _features(sources, backbone, cache, self.device)
        self.classifier_ = self._fitted(recipe, backbone, kinds, values=values, target=target, contents=contents, cache=cache)
        return self

    def _fitted(
        self,
        recipe: Recipe,
        backbone: Backbone,
        kinds: Mapping[str, Mapping[str, Any]],
        values: np.ndarray,
        target: np.ndarray,
        contents: list[str],
        cache: Cache,
    ) -> Classifier:
        """Return the best classifier of the heads to compare, calibrated on held-out images."""
        try:
            folds = folds_of(target, np.unique(contents, return_inverse=True)[1], _FOLDS, recipe.seed)
        except DataError:  # one image per class: nothing can be held out
            folds = [(np.arange(len(target)), np.zeros(0, dtype=np.int64))]
        names = tuple(str(c) for c in self.classes_)
        tensors = classifiers.backbone_tensors(backbone, cache) if backbone.is_network else {}
        seen = np.unique(classifiers.content_keys(contents))
        candidates = []
        for kind, settings in kinds.items():
            fit = heads.fit(
                kind,
                values,
                target,
                len(names),
                folds=folds,
                settings=settings,
                seed=recipe.seed,
                class_weight=weighted(self.class_weight or "none", target),
            )
            held = np.flatnonzero(np.isfinite(fit.logits).all(axis=1))
            temperature = heads.temperature(fit.logits[held], target[held]) if len(held) else 1.0
            card = Card(
                names,
                backbone,
                kind,
                dict(fit.head.settings),
                "features",
                dataclasses.replace(recipe, head=kind),
                temperature=temperature,
                data={"images": {name: {"train": int((target == i).sum())} for i, name in enumerate(names)}},
                precision={"used": "f32"},
                software=classifiers.versions(),
            )
            made = Classifier(card, fit.head, tensors, seen, backbone.name if backbone.source == "user" else None)
            probs = heads.softmax(fit.logits[held] / temperature)
            val = Predictions(tuple(f"image {i}" for i in held), names, target[held], probs)
            candidates.append(Candidate(made, kind, val, cv_estimate(len(folds)), fit.seconds))
        if len(candidates) == 1 or not len(candidates[0].val):
            return candidates[0].classifier
        return simplest_first(sorted(candidates, key=lambda c: (-c.val_accuracy, c.val_log_loss)))[0].classifier

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return calibrated probabilities of images, float64 (n, k), in the order of `classes_`.

        Raises:
            ImageError: If an image cannot be decoded; the message names it.
        """
        return self._predictions(X)[0]

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the labels of images, (n,): the most probable class, or by the classifier's decision threshold."""
        return np.asarray(self.classes_[self._predictions(X)[1]])

    def _predictions(self, X: Any) -> tuple[np.ndarray, np.ndarray]:  # noqa: N803
        """Return probabilities float64 (n, k) and predicted class indices int64 (n,)."""
        check_is_fitted(self)
        sources = _sources(X)
        probs, predicted = np.empty((len(sources), len(self.classes_))), np.empty(len(sources), dtype=np.int64)
        for kind in (Path, np.ndarray):
            rows = [i for i, source in enumerate(sources) if isinstance(source, kind)]
            if not rows:
                continue
            chosen: list[Any] = [sources[i] for i in rows]
            made = self.classifier_.predict(chosen, cache=_cache(self.cache), device=self.device)
            for name, why in made.errors.items():
                raise ImageError("unreadable", why if why.startswith(name) else f"{name}: {why}", "leave it out")
            probs[rows], predicted[rows] = made.probs, made.y_pred
        return probs, predicted

    def explain(self, X: Any, **options: Any) -> list[Explanation]:  # noqa: N803
        """Return one heatmap per image, in order.

        Args:
            X: Images, either all files or all in memory.
            options: As in `sightline.explain`: `target`, `method`, `layer`, `contrast`, `seed`, `progress`.
        """
        check_is_fitted(self)
        sources: Any = _sources(X)
        return api.explain(self.classifier_, sources, cache=_cache(self.cache), device=self.device, **options)

    def save(self, file: str | Path) -> Path:
        """Write the fitted classifier as a `.safetensors` file, which every command and `sightline.load` take."""
        check_is_fitted(self)
        return self.classifier_.save(file)

    def __sklearn_tags__(self) -> Any:
        return _image_tags(super().__sklearn_tags__())


def _image_tags(tags: Any) -> Any:
    """Return an estimator's tags for input that is not a table of numbers."""
    tags.input_tags.two_d_array, tags.input_tags.three_d_array, tags.input_tags.string = False, True, True
    return tags


def _cache(folder: str | Path | None) -> Cache:
    """Return the feature cache in a folder, or the user's."""
    return Cache() if folder is None else Cache(Path(folder))


def _backbone(recipe: Recipe, sources: list[Source], cache: Cache) -> Backbone:
    """Return a recipe's network, with the value range of the files that have more than 8 bits per channel.

    Raises:
        RequestError: If it takes no images.
    """
    backbone = networks.describe_recipe(recipe, cache)
    files = [source for source in sources if isinstance(source, Path)]
    deep = pixels.value_range(files) if files else None
    return dataclasses.replace(backbone, preprocess=dataclasses.replace(backbone.preprocess, value_range=deep))


def _features(sources: list[Source], backbone: Backbone, cache: Cache, device: str) -> tuple[np.ndarray, list[str]]:
    """Return the features of images, float32 (n, d), and the hash of each image's content.

    Raises:
        ImageError: If an image cannot be decoded.
    """
    contents, device = [features.content(source) for source in sources], engine.choose_device(device)

    def session(count: int) -> engine.Session:
        return engine.open_session(backbone, cache=cache, device=device, expected=count)

    extracted = features.extract(sources, contents, backbone, session=session, precision="f32", cache=cache, device=device)
    for row in sorted(extracted.problems):
        kind, message = extracted.problems[row]
        raise ImageError(kind, message, "leave it out")
    return extracted.values, contents


def _sources(images: Any) -> list[Source]:
    """Return images as files and arrays.

    Raises:
        RequestError: If there are none, or an element has another type.
    """
    if isinstance(images, Catalog):
        return list(images.files())
    if isinstance(images, np.ndarray) and images.dtype.kind not in "UO" and images.ndim not in (3, 4):
        raise RequestError(f"an array of shape {images.shape} holds no images", _HINT)
    if isinstance(images, str | bytes | Path | Mapping) or not isinstance(images, Iterable):
        raise RequestError(f"images cannot be of type {type(images).__name__}", _HINT)
    sources = [_source(image) for image in images]
    if not sources:
        raise RequestError("there are no images", _HINT)
    return sources


def _source(image: Any) -> Source:
    """Return one image as a file or an array.

    Raises:
        RequestError: If it is neither, nor a Pillow image.
    """
    if isinstance(image, str | Path):
        return Path(image)
    if isinstance(image, Image.Image):
        return pixels.image_array(image)
    if isinstance(image, np.ndarray):
        fault = pixels.array_fault(image)
        if fault is not None:
            raise RequestError(f"an array {fault}: it is not an image", _HINT)
        return image
    raise RequestError(f"an image cannot be of type {type(image).__name__}", _HINT)
