"""Run fastai for benchmarks/training.py: `vision_learner` with a fully trained ResNet-18 and fastai's transforms."""

from __future__ import annotations

import json
import sys
import time
import warnings


def main() -> None:
    warnings.simplefilter("ignore")
    from fastai.callback.core import Callback
    from fastai.learner import Recorder  # noqa: F401  (fills in the learner's defaults)
    from fastai.vision.all import ImageDataLoaders, Resize, accuracy, aug_transforms, resnet18, set_seed, vision_learner

    photos, side, epochs, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    set_seed(0)
    data = ImageDataLoaders.from_folder(
        photos,
        valid_pct=0.2,
        seed=0,
        item_tfms=Resize(side),
        batch_tfms=aug_transforms(),
        bs=batch,
        num_workers=2,
    )
    seen = {"images": 0, "seconds": 0.0}

    class Clock(Callback):
        """Callback that times the training part of each epoch except the first."""

        def before_train(self) -> None:
            self.began = time.perf_counter()

        def after_train(self) -> None:
            if self.learn.epoch or not self.learn.training:
                seen["images"] += len(self.learn.dls.train) * batch
                seen["seconds"] += time.perf_counter() - self.began

    learner = vision_learner(data, resnet18, metrics=accuracy, pretrained=False, cbs=[Clock()])
    with learner.no_bar(), learner.no_logging():
        learner.unfreeze()
        learner.fit_one_cycle(epochs, 1e-3)
    print(json.dumps({**seen, "accuracy": float(learner.validate()[1])}))


if __name__ == "__main__":
    main()
