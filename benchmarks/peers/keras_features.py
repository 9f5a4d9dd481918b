"""Run Keras for benchmarks/features.py: `image_dataset_from_directory` with prefetching, and `predict`."""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    import keras
    import tensorflow as tf

    photos, network, _, limit = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    side = {"xception": 299}.get(network, 224)
    build = {
        "xception": keras.applications.Xception,
        "mobilenetv3": keras.applications.MobileNetV3Large,
        "resnet50": keras.applications.ResNet50,
    }[network]
    scale = {
        "xception": keras.applications.xception.preprocess_input,
        "mobilenetv3": keras.applications.mobilenet_v3.preprocess_input,
        "resnet50": keras.applications.resnet.preprocess_input,
    }[network]
    model = build(weights=None, include_top=False, pooling="avg", input_shape=(side, side, 3))
    options = {"image_size": (side, side), "interpolation": "bicubic", "crop_to_aspect_ratio": True, "shuffle": False}
    data = keras.utils.image_dataset_from_directory(photos, batch_size=32, label_mode=None, verbose=False, **options)
    data = data.take(max(1, limit // 32)).map(scale, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    model.predict(tf.zeros((32, side, side, 3)), verbose=0)
    started = time.perf_counter()
    features = model.predict(data, verbose=0)
    seconds = time.perf_counter() - started
    print(json.dumps({"images": len(features), "seconds": seconds, "shape": features.shape}))


if __name__ == "__main__":
    main()
