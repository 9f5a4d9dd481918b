"""Methods that start from a trained network: frozen, finetune and warmstart."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sightline import catalog as catalogs
from sightline import classifier, engine, evaluation, heads
from sightline.deadline import UNLIMITED, Deadline
from sightline.errors import DataError, RequestError, SightlineError
from sightline.records import Recipe
from sightline.store import Cache
from sightline.training import backbone_head, checkpoint, methods, pretrained
from sightline.training.conformal_fit import with_uncertainty
from sightline.training.context import Context
from sightline.training.methods import finetune
from sightline.training.plan import Plan
from tests.conftest import write_few_digits

TINY = Recipe(backbone="cnn(filters=[4, 8])", weights="random", image_size=16, seed=1)
SMALL = Recipe(backbone="resnet10t", weights="random", image_size=32, seed=1)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """120 digits; features are kept from test to test."""
    folder = tmp_path_factory.mktemp("transfer")
    found = catalogs.scan(write_few_digits(folder / "digits", 12))
    cache = Cache(folder / "cache")
    twins = catalogs.find_duplicates(found, cache)
    divided = catalogs.split(found, clusters=twins)
    return Context(divided, catalogs.together(divided, twins), divided.classes, cache)


def fitted(context: Context, method: str, **settings: object) -> methods.Candidate:  # type: ignore[name-defined]
    return methods.fit(context, dataclasses.replace(SMALL, method=method, settings=settings))[0]


@pytest.mark.slow
@pytest.mark.parametrize("head", [[], [[24, 0.2]]])
def test_the_frozen_method_leaves_the_backbone_unchanged(context: Context, head: list[list[float]], tmp_path: Path) -> None:
    before = pretrained.named(context, SMALL)
    best = fitted(context, "frozen", epochs=2, head=head)
    card = best.classifier.card
    assert card.backbone.weights_hash == before.backbone.weights_hash and card.backbone.id == before.backbone.id
    assert card.head == ("mlp" if head else "logistic")
    assert len(best.history) == 2 and best.steps and best.estimate == "val"
    loaded = classifier.load(best.classifier.save(tmp_path / "m.safetensors"))
    again = loaded.predict(context.catalog.where(split="val"), cache=context.cache)
    np.testing.assert_allclose(again.probs, best.val.probs, atol=1e-9)


def test_frozen_layers_keep_weights_and_batchnorm_statistics(context: Context) -> None:
    import torch
    from torch import nn

    from sightline import networks
    from sightline.training import augment, loop

    begin = pretrained.named(context, SMALL)
    found = pretrained.gather(context, begin)
    whole = backbone_head.assemble(begin, found.train_features, (), 10, 0, frozen=True)
    norms = [m for m in whole.base.modules() if isinstance(m, nn.BatchNorm2d)]
    before, counted = networks.tensors(whole.base), [int(m.num_batches_tracked) for m in norms]
    assert norms and any("running_mean" in n for n in before)
    weights = whole.layers()[0].weight.detach().clone()
    data = loop.Pixels(found.train_images, context.labels[found.train])
    seen = begin.backbone.preprocess
    none = loop.Pixels(found.train_images[:0], context.labels[:0])
    plan = Plan(epochs=2, batch_size=16)
    loop.train(whole, data, none, plan=plan, policy=augment.POLICIES["light"], mean=seen.mean, std=seen.std, seed=0)
    after = networks.tensors(whole.base)
    assert all(np.array_equal(before[n], after[n]) for n in before)
    assert counted == [int(m.num_batches_tracked) for m in norms]
    assert not torch.equal(weights, whole.layers()[0].weight)
    assert not whole.train().base.training


@pytest.mark.parametrize("units", [(), ((16, 0.3), (8, 0.0))])
def test_a_head_trained_on_scaled_features_gives_the_same_logits_on_unscaled_ones(
    context: Context, units: tuple[tuple[int, float], ...]
) -> None:
    import torch

    begin = pretrained.named(context, SMALL)
    values = np.random.default_rng(0).normal(3, 2, (40, begin.backbone.features)).astype(np.float32)
    whole = backbone_head.assemble(begin, values, units, 10, 0, frozen=True).eval()
    head = backbone_head.head_of(whole, units, 10, values.mean(axis=0))
    with torch.no_grad():
        direct = whole.head((torch.from_numpy(values) - whole.mean) * whole.factor).numpy()
    np.testing.assert_allclose(heads.logits(head, values), direct, atol=1e-4)


def test_fine_tuning_starts_from_the_fitted_head(context: Context) -> None:
    begin = pretrained.named(context, SMALL)
    found = pretrained.gather(context, begin)
    alone = finetune._head_alone(context, found, finetune.FinetuneSettings(), begin, 0)
    whole = backbone_head.assemble(begin, found.train_features, (), 10, 0, frozen=False)
    whole.set_layers(heads.layers(alone.head))
    again = backbone_head.head_of(whole, (), 10, found.train_features.mean(axis=0))
    np.testing.assert_allclose(heads.logits(again, found.val_features), heads.logits(alone.head, found.val_features), atol=1e-4)


@pytest.mark.slow
def test_fine_tuning_at_a_negligible_learning_rate_keeps_the_scores_of_the_fitted_head(context: Context) -> None:
    """The second phase starts from the fitted head, so its scores equal those of the first if the weights do not move."""
    best = fitted(context, "finetune", epochs=1, learning_rate=1e-9, augment="none")
    first, second = best.history
    assert second["val_loss"] == pytest.approx(first["val_loss"], rel=1e-3)
    assert second["val_accuracy"] == first["val_accuracy"] and best.detail["gain"]["p"] == 1.0


@pytest.mark.parametrize("unfreeze", [pytest.param("all", marks=pytest.mark.slow), 1])
def test_fine_tuning_records_both_phases_in_one_history_and_compares_them(context: Context, unfreeze: str | int) -> None:
    best = fitted(context, "finetune", epochs=3, unfreeze=unfreeze, batch_size=16, learning_rate=2e-3)
    assert [row["phase"] for row in best.history] == [1, 2, 2, 2]
    assert [row["epoch"] for row in best.history] == [0, 1, 2, 3]
    assert len({tuple(row) for row in best.history}) == 1, "rows of one table have the same keys"
    gain, card = best.detail["gain"], best.classifier.card
    assert best.note is not None and "exact McNemar p =" in best.note
    assert best.val_accuracy == max(gain["head_alone"], gain["fine_tuned"])
    only = gain["only_fine_tuned_right"], gain["only_head_alone_right"]
    assert (only[0] - only[1]) / gain["images"] == pytest.approx(gain["fine_tuned"] - gain["head_alone"])
    assert gain["p"] == evaluation.mcnemar(np.arange(sum(only)) < only[0], np.arange(sum(only)) >= only[0])
    untouched = pretrained.named(context, SMALL).backbone.weights_hash
    assert (card.backbone.weights_hash == untouched) == (gain["kept"] == "head alone")


def test_unfreeze_1_trains_only_the_last_stage(context: Context) -> None:
    from sightline import networks

    begin = pretrained.named(context, SMALL)
    found = pretrained.gather(context, begin)
    settings = finetune.FinetuneSettings(plan=Plan(epochs=1, batch_size=16, learning_rate=1e-2), layer_decay=0.5)
    whole = backbone_head.assemble(begin, found.train_features, (), 10, 0, frozen=False)
    whole.base.unfreeze(1)
    before = networks.tensors(whole.base)
    finetune._learn(context, whole, found, begin, settings, SMALL, UNLIMITED)
    after = networks.tensors(whole.base)
    moved = {n for n in before if not np.array_equal(before[n], after[n])}
    last = set(whole.base.stages[-1].parameters)
    assert moved and moved <= last
    assert not any("running" in n for n in moved)


def test_layer_decay_lowers_learning_rates_towards_the_input(context: Context) -> None:
    begin = pretrained.named(context, SMALL)
    whole = backbone_head.assemble(begin, pretrained.gather(context, begin).train_features, (), 10, 0, frozen=False)
    rates = [g["lr"] for g in whole.base.parameter_groups(1.0, decay=0.5)]
    assert rates == sorted(rates) and rates[0] < 0.2 and rates[-1] == 1.0
    assert all(p.requires_grad for s in whole.base.stages for n, p in whole.base.net.named_parameters() if n in s.parameters)


@pytest.mark.slow
@pytest.mark.precision
def test_fine_tuning_that_does_not_help_returns_the_head_alone_with_a_note(context: Context) -> None:
    """At a learning rate that ruins the network, the head alone is returned with a note."""
    plan = {"epochs": 1, "optimizer": "adamw", "learning_rate": 0.05, "warm_up": 0.0, "keep": "last"}
    best = fitted(context, "finetune", layer_decay=1.0, **plan)
    assert best.detail["gain"]["kept"] == "head alone"
    assert best.note is not None and "fine-tuning did not help, so the head alone is kept" in best.note
    assert best.classifier.card.backbone.weights_hash == pretrained.named(context, SMALL).backbone.weights_hash
    assert "did not help" in best.label


@pytest.mark.slow
def test_fine_tuning_is_shortened_or_refused_by_the_time_budget(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone_head, "cost", lambda *_: backbone_head.Cost(100.0, 10.0))
    with pytest.raises(SightlineError, match="not enough time to fine-tune resnet10t: one epoch takes about 115 s"):
        fitted(dataclasses.replace(context, deadline=Deadline.after(60.0)), "finetune")
    best = fitted(dataclasses.replace(context, deadline=Deadline.after(300.0)), "finetune", epochs=12)
    assert best.note is not None and "2 of 12 epochs, by the time budget" in best.note
    assert len(best.history) == 3 and best.classifier.card.recipe.settings["epochs"] == 2


def test_measuring_the_time_of_an_epoch_leaves_the_weights_unchanged(context: Context) -> None:
    from sightline import networks

    begin = pretrained.named(context, SMALL)
    found = pretrained.gather(context, begin)
    whole = backbone_head.assemble(begin, found.train_features, (), 10, 0, frozen=False)
    before = networks.tensors(whole.base)
    seconds = backbone_head.cost(whole, found, begin.backbone, 16, "cpu").epoch_s
    assert 0 < seconds < 60
    assert all(np.array_equal(before[n], a) for n, a in networks.tensors(whole.base).items())
    assert all(p.grad is None for p in whole.parameters())


@pytest.mark.slow
@pytest.mark.precision
def test_the_same_seed_gives_the_same_bits(context: Context) -> None:
    a, b = (fitted(context, "frozen", epochs=1) for _ in range(2))
    assert all(np.array_equal(a.classifier.head.arrays[n], v) for n, v in b.classifier.head.arrays.items())


class InterruptedFitError(Exception):
    """Raised to interrupt a fit."""


@pytest.mark.slow
@pytest.mark.precision
def test_an_interrupted_fine_tuning_resumes_bit_identically(context: Context, tmp_path: Path) -> None:
    def stop(share: float, accuracy: float) -> None:
        if share > 0.5:
            raise InterruptedFitError

    settings = {"epochs": 3, "batch_size": 16, "keep": "last"}
    whole = fitted(dataclasses.replace(context, checkpoint=tmp_path / "whole"), "finetune", **settings)
    kept = tmp_path / "interrupted"
    with pytest.raises(InterruptedFitError):
        fitted(dataclasses.replace(context, checkpoint=kept, watch=stop), "finetune", **settings)
    resumed = fitted(dataclasses.replace(context, checkpoint=kept), "finetune", **settings)
    assert [r["val_loss"] for r in resumed.history] == [r["val_loss"] for r in whole.history]
    assert resumed.classifier.card.backbone.weights_hash == whole.classifier.card.backbone.weights_hash
    assert resumed.detail["gain"] == whole.detail["gain"]


# ------------------------------------------------------------------------------------------------------------ continued


@pytest.fixture(scope="module")
def inverted(context: Context, tmp_path_factory: pytest.TempPathFactory) -> Context:
    """The same digits in black on white: features of another mean and length."""
    folder = tmp_path_factory.mktemp("inverted")
    for file in write_few_digits(folder / "digits", 12).rglob("*.png"):
        with Image.open(file) as image:
            turned = ImageOps.invert(image.convert("L"))
        turned.save(file)
    found = catalogs.scan(folder / "digits")
    divided = catalogs.split(found, clusters=catalogs.find_duplicates(found, context.cache))
    return Context(divided, np.arange(len(divided)), divided.classes, context.cache)


def continued(first: Context, second: Context, method: str, place: Path, **settings: object) -> methods.Candidate:  # type: ignore[name-defined]
    """Return a candidate that is trained on one set and continued on another."""
    fitted(dataclasses.replace(first, checkpoint=place / "first"), method, **settings)
    checkpoint.hand_on(place / "first", place / "second")
    return fitted(dataclasses.replace(second, checkpoint=place / "second"), method, **settings)


@pytest.mark.slow
def test_a_run_continued_on_other_images_returns_the_trained_head(context: Context, inverted: Context, tmp_path: Path) -> None:
    own = {"epochs": 2, "keep": "last", "augment": "none", "label_smoothing": 0.0, "head": [[24, 0.2]]}
    best = continued(context, inverted, "frozen", tmp_path, **own)
    val, temperature = best.val, best.classifier.card.temperature
    logits = heads.log_probs(val.probs) * temperature
    assert heads.log_loss(logits, val.y_true) == pytest.approx(best.history[-1]["val_loss"], rel=1e-3)


@pytest.mark.slow
def test_a_continued_run_that_returns_the_head_alone_says_so_in_a_note(
    context: Context, inverted: Context, tmp_path: Path
) -> None:
    best = continued(context, inverted, "finetune", tmp_path, epochs=1, learning_rate=1e-9, augment="none")
    assert best.detail["gain"]["kept"] == "head alone"
    assert "this classifier contains nothing of the continued run" in (best.note or "")
    before = fitted(context, "finetune", epochs=1, learning_rate=1e-9, augment="none")
    assert "continued" not in (before.note or "")


# ------------------------------------------------------------------------------------------------------------ warmstart


@pytest.mark.parametrize("frozen", [True, False])
def test_a_warm_start_takes_the_earlier_network_for_other_classes(context: Context, frozen: bool, tmp_path: Path) -> None:
    few = few_classes(context)
    earlier = methods.fit(few, Recipe(method="scratch", backbone="cnn(filters=[4, 8])", settings={"epochs": 1}))[0].classifier
    file = earlier.save(tmp_path / "earlier.safetensors")
    recipe = Recipe(method="warmstart", backbone=str(file), settings={"frozen": frozen, "epochs": 1})
    best = methods.fit(context, recipe)[0]
    assert best.classifier.classes == context.classes
    same = best.classifier.card.backbone.weights_hash == earlier.card.backbone.weights_hash
    assert same == (frozen or best.detail["gain"]["kept"] == "head alone")
    assert best.note is not None and "val images were in its train or val" in best.note
    assert np.isin(earlier.seen, best.classifier.seen).all()
    assert methods.source_hashes(recipe) != [] and methods.source_hashes(SMALL) == []


def few_classes(context: Context, count: int = 5) -> Context:
    """Return the context with the first classes only."""
    kept = np.isin(context.labels, range(count))
    return dataclasses.replace(
        context, catalog=context.catalog.rows(kept.tolist()), cluster=context.cluster[kept], classes=context.classes[:count]
    )


def test_fine_tuning_trains_dense_layers_with_the_network(context: Context, tmp_path: Path) -> None:
    settings = {"head": [[24, 0.1], [12, 0]], "epochs": 2, "batch_size": 16, "learning_rate": 2e-3, "augment": "none"}
    best = methods.fit(context, dataclasses.replace(TINY, method="finetune", settings=settings))[0]
    arrays = best.classifier.head.arrays
    assert [arrays[f"weights.{i}"].shape for i in range(3)] == [(24, 8), (12, 24), (10, 12)]
    assert best.history[0]["phase"] == 1 and len(best.history) == 3
    begin = pretrained.named(context, TINY)
    found = pretrained.gather(context, begin)
    chosen = finetune.FinetuneSettings(head=((24, 0.1), (12, 0.0)))
    alone = finetune._head_alone(context, found, chosen, begin, 1)
    whole = finetune._opened(context, found, begin, chosen, 1, alone)
    _, groups = finetune._course(whole, chosen)
    learning = {id(p) for g in groups for p in g["params"]}
    assert all(id(p) in learning for layer in whole.layers() for p in (layer.weight, layer.bias)), "every layer learns"
    again = backbone_head.head_of(whole, alone.units, 10, found.train_features.mean(axis=0))
    np.testing.assert_allclose(heads.logits(again, found.val_features), heads.logits(alone.head, found.val_features), atol=1e-3)
    loaded = classifier.load(best.classifier.save(tmp_path / "m.safetensors"))
    np.testing.assert_allclose(
        loaded.predict(context.catalog.where(split="val"), cache=context.cache).probs, best.val.probs, atol=1e-6
    )


@pytest.mark.slow
def test_a_warm_start_continues_with_the_head_of_the_earlier_classifier(context: Context, tmp_path: Path) -> None:
    """A negligible learning rate shows where the second phase starts."""
    still = {"epochs": 1, "learning_rate": 1e-9, "augment": "none"}
    first = methods.fit(context, dataclasses.replace(TINY, method="frozen", settings={"epochs": 2, "head": [[16, 0.0]]}))[0]
    file = first.classifier.save(tmp_path / "m.safetensors")
    recipe = Recipe(method="warmstart", backbone=str(file), settings=still)
    same = methods.fit(context, recipe)[0]
    assert same.classifier.head.kind == "mlp" and "training continues with the head of that classifier" in (same.note or "")
    np.testing.assert_allclose(same.val.probs, first.val.probs, atol=2e-3)

    other = methods.fit(few_classes(context), recipe)[0]
    arrays, before = other.classifier.head.arrays, first.classifier.head.arrays
    assert [arrays[f"weights.{i}"].shape for i in range(2)] == [(16, 8), (5, 16)]
    np.testing.assert_allclose(arrays["weights.0"], before["weights.0"], atol=1e-5)
    assert "hidden layers of its head (16 units) and a new last layer" in (other.note or "")

    new = methods.fit(context, dataclasses.replace(recipe, settings={**still, "head": [[8, 0.0]]}))[0]
    assert new.classifier.head.arrays["weights.0"].shape == (8, 8) and "as the recipe asks" in (new.note or "")
    forest = methods.fit(context, dataclasses.replace(TINY, head="forest"))[0].classifier.save(tmp_path / "f.safetensors")
    none = methods.fit(context, dataclasses.replace(recipe, backbone=str(forest)))[0]
    assert none.classifier.head.kind == "logistic" and "replaces its forest head" in (none.note or "")


def test_a_reused_head_is_reordered_to_the_classes_of_the_images() -> None:
    layers = [(np.eye(2, dtype=np.float32), np.zeros(2, dtype=np.float32))]
    earlier = finetune._as_head(layers, (), None)
    begin = pretrained.PretrainedStart(None, head=earlier, classes=("a", "b"), temperature=2.0)  # type: ignore[arg-type]
    turned = finetune._same_head(layers, begin, ("b", "a"))
    np.testing.assert_allclose(heads.logits(turned, np.array([[4.0, 0.0]], dtype=np.float32)), [[0.0, 2.0]])


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("scratch", {}),
        ("frozen", {"settings": {"head": [[8, 0.0]]}}),
        ("finetune", {"settings": {"learning_rate": 0.01, "batch_size": 16}}),
        ("finetune", {"settings": {"learning_rate": 1e-9}}),  # the head alone is kept
        ("warmstart", {}),
    ],
)
def test_refit_trains_again_on_train_and_val(context: Context, method: str, changes: dict[str, object], tmp_path: Path) -> None:
    changes = dict(changes)
    settings = {"epochs": 3, "augment": "none", **changes.pop("settings", {})}  # type: ignore[dict-item]
    if method == "warmstart":
        changes["backbone"] = str(
            methods.fit(context, dataclasses.replace(TINY, method="frozen", settings={"epochs": 1}))[0].classifier.save(
                tmp_path / "m.safetensors"
            )
        )
    recipe = dataclasses.replace(TINY, method=method, settings=settings, **changes)  # type: ignore[arg-type]
    place = dataclasses.replace(context, checkpoint=tmp_path / "checkpoint")
    plain = methods.fit(context, recipe)[0]
    again = methods.fit(place, dataclasses.replace(recipe, settings={**settings, "refit": True}))[0]
    np.testing.assert_array_equal(plain.val.probs, again.val.probs)  # the score is that of the validated training
    assert [r["val_loss"] for r in plain.history] == [r["val_loss"] for r in again.history]
    facts = again.classifier.card.data["refit"]
    alone = plain.detail.get("gain", {}).get("kept") == "head alone"
    assert facts == {"epochs": 0 if alone else plain.detail["best_epoch"], "images": len(context.split("train", "val"))}
    assert again.note is not None and "trained again on train and val together" in again.note
    assert again.classifier.card.temperature == plain.classifier.card.temperature
    answers = [c.classifier.predict(context.catalog.where(split="test"), cache=context.cache).probs for c in (plain, again)]
    assert not np.array_equal(*answers)
    limits = with_uncertainty(context, again).classifier.card.uncertainty
    assert limits.images and (limits.ood_threshold is None) == (again.classifier.card.backbone.weights == "run")


def stripes(folder: Path, low: int, high: int, images: int = 24) -> Context:
    """Stripes across and along in values from `low` to `high`; of 16 bits where 8 do not hold them."""
    deep, random = high > 255, np.random.default_rng(0)
    for i in range(images):
        pattern = np.indices((32, 32))[i % 2] // 4 % 2
        values = low + (high - low) * (0.2 + 0.6 * pattern + random.uniform(-0.2, 0.2, (32, 32)))
        place = folder / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(np.uint16 if deep else np.uint8)).save(place / f"{i}.png")
    found = catalogs.scan(folder)
    cache = Cache(folder.parent / "cache")
    divided = found.with_column("split", ["val" if int(Path(path).stem) % 8 < 2 else "train" for path in found.paths])
    return Context(divided, np.arange(len(divided)), divided.classes, cache)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "frozen"), [((0, 255), True), ((0, 1000), False)])
def test_a_warm_start_scales_16_bit_images_by_their_own_value_range(
    before: tuple[int, int], frozen: bool, tmp_path: Path
) -> None:
    """Trained on 8 or 12 bits and continued on 16: with the earlier range all images would be white or nearly black."""
    first, now = stripes(tmp_path / "first", *before), stripes(tmp_path / "now", 29_000, 31_000)
    scratch = Recipe(method="scratch", backbone="cnn(filters=[8, 8])", image_size=32, settings={"epochs": 10, "batch_size": 4})
    earlier = methods.fit(first, scratch)[0].classifier
    file = earlier.save(tmp_path / "earlier.safetensors")
    settings = {"frozen": frozen, "epochs": 8, "batch_size": 4, "augment": "none", "learning_rate": 0.01}
    best = methods.fit(now, Recipe(method="warmstart", backbone=str(file), settings=settings))[0]
    asked, old = best.classifier.card.backbone.preprocess.value_range, earlier.card.backbone.preprocess.value_range
    assert asked is not None and 28_500 < asked[0] < asked[1] < 31_500
    assert (old is None) == (before[1] == 255)
    assert best.note is not None and "scaled to the range of these training images" in best.note
    assert best.val_accuracy > 0.9, "stripes stay stripes"
    back = methods.fit(first, Recipe(method="warmstart", backbone=str(file), settings=settings))[0]
    assert back.classifier.card.backbone.preprocess.value_range == old and "range" not in (back.note or "")


@pytest.fixture(scope="module")
def frozen_file(context: Context, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a classifier that was trained for one epoch."""
    return fitted(context, "frozen", epochs=1).classifier.save(tmp_path_factory.mktemp("frozen") / "m.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "runs/nowhere"}, "runs/nowhere does not exist"),
        ({"settings": {"frozn": True}}, "did you mean 'frozen'"),
        ({"settings": {"epocs": 3}}, "did you mean 'epochs'"),
        ({"image_size": 64}, "takes images of 32 px, not 64"),
    ],
)
def test_a_warm_start_with_invalid_settings_is_refused(
    context: Context, changes: dict[str, object], message: str, frozen_file: Path
) -> None:
    recipe = dataclasses.replace(Recipe(method="warmstart", backbone=str(frozen_file)), **changes)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=message):
        methods.fit(context, recipe)


def test_a_warm_start_from_a_classifier_without_network_is_refused(context: Context, tmp_path: Path) -> None:
    file = methods.fit(context, Recipe(method="baseline"))[0].classifier.save(tmp_path / "b.safetensors")
    with pytest.raises(RequestError, match="has no network"):
        methods.fit(context, Recipe(method="warmstart", backbone=str(file)))


# -------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("frozen", {"head": [[0, 0.5]]}, r"cannot have the layer \[0, 0.5\]"),
        ("frozen", {"head": [[16, 1.0]]}, "cannot have the layer"),
        ("frozen", {"hed": []}, "did you mean 'head'"),
        ("frozen", {"crops": 3}, "crops cannot be 3"),
        ("finetune", {"layer_decay": 0.0}, "layer_decay cannot be 0.0"),
        ("finetune", {"unfreeze": "layer9"}, "did you mean 'layer4'"),
        ("finetune", {"unfreeze": 99}, "99 stages cannot be unfrozen"),
        ("finetune", {"learning_rte": 1e-3}, "did you mean 'learning_rate'"),
    ],
)
def test_invalid_settings_are_refused_by_name(context: Context, method: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        fitted(context, method, **settings)


def test_training_on_the_pixels_backbone_is_refused(context: Context) -> None:
    for method in ("frozen", "finetune"):
        with pytest.raises(RequestError, match="'pixels' is not one"):
            methods.fit(context, Recipe(method=method, backbone="pixels"))


def test_training_without_validation_images_is_refused_before_images_are_decoded(context: Context) -> None:
    splits = ["train" if s == "val" else s for s in context.catalog.column("split")]
    without = dataclasses.replace(context, catalog=context.catalog.with_column("split", splits))
    for method in ("finetune", "frozen", "scratch"):
        looked: list[str] = []
        asked = dataclasses.replace(without, progress=lambda stage, done, total, looked=looked: looked.append(stage))
        with pytest.raises(DataError, match="needs validation images, and the catalog has none") as raised:
            methods.fit(asked, dataclasses.replace(SMALL, method=method))
        assert "sightline split CATALOG --val 0.15 -o new.csv" in (raised.value.hint or "")
        assert not looked, "before anything is decoded"


def test_split_with_val_takes_validation_images_from_train(context: Context) -> None:
    """`split --val` takes them from train, although every image has a split already."""
    splits = ["train" if s == "val" else s for s in context.catalog.column("split")]
    table, twins = context.catalog.with_column("split", splits), catalogs.find_duplicates(context.catalog, context.cache)
    again = catalogs.split(table, val=0.15, test=0.2, clusters=twins).column("split")
    assert "val" in again and [s for s in again if s == "test"] == [s for s in splits if s == "test"]


@pytest.mark.slow
@pytest.mark.realdata
def test_fine_tuning_a_real_network_is_no_worse_than_its_features(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_WEIGHTS", str(shared / "weights"))
    found = catalogs.scan(shared / "data" / "flowers", limit=12)
    cache = Cache(tmp_path / "cache")
    divided = catalogs.split(found, val=0.3, test=0.2, clusters=catalogs.find_duplicates(found, cache))
    real = Context(divided, np.arange(len(divided)), divided.classes, cache, engine.choose_device())
    recipe = Recipe(method="finetune", backbone="mobilenetv2_100", image_size=128, settings={"epochs": 4})
    best = methods.fit(real, recipe)[0]
    gain = best.detail["gain"]
    assert gain["head_alone"] > 0.5, "the pretrained network tells five flowers apart"
    assert gain["fine_tuned"] >= gain["head_alone"] or gain["p"] > 0.05, best.note
    assert best.val_accuracy >= gain["head_alone"]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        pytest.param("frozen", {}, marks=pytest.mark.slow),
        pytest.param("finetune", {"unfreeze": 1}, marks=pytest.mark.slow),
        pytest.param("warmstart", {"unfreeze": 1}, marks=pytest.mark.slow),
    ],
)
def test_the_range_test_starts_from_the_same_state_as_training(
    method: str, settings: dict[str, object], context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuning starts from the fitted head, `frozen` from a random one; rates are those of the last stage."""
    from sightline.training import lr_finder

    learns_head = method == "frozen" or bool(settings.get("frozen"))
    monkeypatch.setattr(lr_finder, "STEPS", 60 if learns_head else 25)
    recipe = dataclasses.replace(SMALL, method=method, settings={**settings, "label_smoothing": 0.0})
    if method == "warmstart":
        file = fitted(context, "features", folds=2).classifier.save(tmp_path / "m.safetensors")
        recipe = dataclasses.replace(recipe, backbone=str(file))
    found = methods.METHODS[method].find_lr(context, recipe)
    assert (found.losses[0] > 0.9 * math.log(10)) == learns_head
    assert lr_finder.LOWEST < found.suggestion < lr_finder.HIGHEST and found.smoothed.min() < found.smoothed[0]
    again = methods.METHODS[method].find_lr(context, recipe)
    assert np.array_equal(found.losses, again.losses)
