"""Run Keras for benchmarks/training.py: preprocessing layers, `fit`, and a data set that is decoded once and cached."""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    import keras
    import tensorflow as tf
    from keras import layers

    photos, side, epochs, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    keras.utils.set_random_seed(0)
    options = {"image_size": (side, side), "crop_to_aspect_ratio": True, "validation_split": 0.2, "seed": 0, "verbose": False}
    train = keras.utils.image_dataset_from_directory(photos, subset="training", batch_size=batch, **options)
    val = keras.utils.image_dataset_from_directory(photos, subset="validation", batch_size=64, **options)
    classes = len(train.class_names)
    changes = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(15 / 360),
            layers.RandomShear(0.18, 0.18),
            layers.RandomZoom(0.2),
        ]
    )
    images = sum(int(x.shape[0]) for x, _ in train)
    train = train.cache().map(lambda x, y: (changes(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    train, val = train.prefetch(tf.data.AUTOTUNE), val.cache().prefetch(tf.data.AUTOTUNE)
    parts = [keras.Input((side, side, 3)), layers.Rescaling(1 / 63.75, -2)]
    for filters in (32, 64, 128, 128):
        parts += [layers.Conv2D(filters, 3, padding="same", use_bias=False), layers.BatchNormalization()]
        parts += [layers.ReLU(), layers.MaxPooling2D(2)]
    network = keras.Sequential([*parts, layers.GlobalAveragePooling2D(), layers.Dense(classes, activation="softmax")])
    network.compile(keras.optimizers.AdamW(3e-3, weight_decay=0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    marks: list[float] = []
    mark = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: marks.append(time.perf_counter()))
    network.fit(train, epochs=epochs, verbose=0, callbacks=[mark])
    accuracy = network.evaluate(val, verbose=0)[1]
    print(json.dumps({"images": images * (epochs - 1), "seconds": marks[-1] - marks[0], "accuracy": accuracy}))


if __name__ == "__main__":
    main()
