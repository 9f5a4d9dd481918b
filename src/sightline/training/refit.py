"""`refit`: after validation, train again on train and val together for as many epochs as were kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sightline.classifier import Classifier
from sightline.training.context import Candidate, Context, with_card
from sightline.training.plan import Plan

FIRST_SHARE = 0.5
"""The share of the time that the validated training gets where another one follows it."""
_FOLDER, _BEFORE = "refit", "before.safetensors"


def first_work(context: Context, plan: Plan) -> Context:
    """Return what the validated training is given: a part of the time where another training follows it."""
    limited = plan.refit and context.deadline.limited
    return (
        dataclasses.replace(context, deadline=context.deadline.within(FIRST_SHARE * context.deadline.left()))
        if limited
        else context
    )


def plan_for(plan: Plan, epochs: int) -> Plan:
    """Return the plan of the second training: its last epoch is kept, and the rate's course is laid out for these epochs."""
    return dataclasses.replace(plan, epochs=epochs, keep="last", patience=0, refit=False)


def work_for(context: Context) -> Context:
    """Return what the second training is given: nobody gives it up, and its checkpoint has a folder of its own.

    A run that is continued hands its checkpoints on; the second training always begins at the beginning.
    """
    kept: Path | None = None if context.checkpoint is None else context.checkpoint / _FOLDER
    if kept is not None:
        (kept / _BEFORE).unlink(missing_ok=True)
    return dataclasses.replace(context, watch=None, checkpoint=kept)


def replaced(
    candidate: Candidate, classifier: Classifier, *, epochs: int, images: int, steps: int, notes: Sequence[str], seconds: float
) -> Candidate:
    """Return the candidate with the classifier of the second training; its validation scores stay those of the first.

    Args:
        candidate: Of the validated training.
        classifier: Of the second one. It takes over temperature and crops.
        epochs: Of the second training.
        images: That it learnt from.
        steps: Of its optimizer.
        notes: What a reader should know of it beside the usual note.
        seconds: Of both trainings.
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
    note += f" for {epochs} epoch{'s' if epochs != 1 else ''}, as many as were kept" if epochs else ", the head alone"
    note += "; the validation score and the history are those of the training before it, on train alone"
    told = "; ".join(n for n in (candidate.note, note, *notes) if n)
    return dataclasses.replace(
        candidate,
        classifier=made,
        note=told,
        detail={**candidate.detail, "refit": facts},
        steps=candidate.steps + steps,
        seconds=seconds,
    )
