"""Refit: after validation, train again on train and val together, up to the best epoch of the first training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sightline.classifier import Classifier
from sightline.training.context import Candidate, Context, with_card
from sightline.training.plan import Plan

FIRST_SHARE = 0.5
"""Share of the time for the validated training if a refit follows it."""
_FOLDER, _BEFORE = "refit", "before.safetensors"


def first_work(context: Context, plan: Plan) -> Context:
    """Return the context of the validated training: if a refit follows, with a part of the time."""
    limited = plan.refit and context.deadline.limited
    return (
        dataclasses.replace(context, deadline=context.deadline.within(FIRST_SHARE * context.deadline.left()))
        if limited
        else context
    )


def plan_for(plan: Plan, epochs: int) -> Plan:
    """Return the plan of the refit, which keeps its last epoch; the learning-rate schedule covers exactly these epochs."""
    return dataclasses.replace(plan, epochs=epochs, keep="last", patience=0, refit=False)


def work_for(context: Context) -> Context:
    """Return the context of the refit: it is never stopped early, and its checkpoint has a folder of its own.

    A continued run copies its checkpoints; the refit always begins from scratch.
    """
    checkpoint: Path | None = None if context.checkpoint is None else context.checkpoint / _FOLDER
    if checkpoint is not None:
        (checkpoint / _BEFORE).unlink(missing_ok=True)
    return dataclasses.replace(context, watch=None, checkpoint=checkpoint)


def replaced(
    candidate: Candidate, classifier: Classifier, *, epochs: int, images: int, steps: int, notes: Sequence[str], seconds: float
) -> Candidate:
    """Return the candidate with the classifier of the refit; the validation scores stay those of the first training.

    Args:
        candidate: Candidate of the validated training.
        classifier: Classifier of the refit; it gets temperature and crops of the first one.
        epochs: Epochs of the refit.
        images: Number of images of the refit.
        steps: Optimizer steps of the refit.
        notes: Notes on the refit beside the standard one.
        seconds: Duration of both trainings.
    """
    card = candidate.classifier.card
    facts = {"epochs": epochs, "images": images}
    made = with_card(
        classifier,
        temperature=card.temperature,
        crops=card.crops,
        data={**classifier.card.data, "refit": facts},
    )
    note = f"trained again on train and val together ({images:,} images)"
    note += f" for {epochs} epoch{'s' if epochs != 1 else ''}, as in the first training" if epochs else ", the head alone"
    note += "; the validation score and the history are those of the first training, on train alone"
    note = "; ".join(n for n in (candidate.note, note, *notes) if n)
    return dataclasses.replace(
        candidate,
        classifier=made,
        note=note,
        detail={**candidate.detail, "refit": facts},
        steps=candidate.steps + steps,
        seconds=seconds,
    )
