"""Run timm for benchmarks/features.py: timm's transforms, an image folder, a DataLoader, channels-last."""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    import timm
    import torch
    from timm.data import create_transform, resolve_data_config
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import ImageFolder

    photos, network, setting, limit = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    name = {"xception": "legacy_xception", "mobilenetv3": "mobilenetv3_large_100"}.get(network, network)
    chosen = dict(part.split("=") for part in setting.split(","))
    torch.set_num_threads(int(chosen["threads"]))
    model = timm.create_model(name, pretrained=False, num_classes=0).eval().to(memory_format=torch.channels_last)
    folder = ImageFolder(photos, create_transform(**resolve_data_config({}, model=model)))
    data = Subset(folder, range(min(limit, len(folder))))
    loader = DataLoader(data, batch_size=32, num_workers=int(chosen["workers"]))
    with torch.inference_mode():
        model(torch.zeros(32, *model.default_cfg["input_size"]).contiguous(memory_format=torch.channels_last))
        started = time.perf_counter()
        rows = [model(images.contiguous(memory_format=torch.channels_last)) for images, _ in loader]
        shape = tuple(torch.cat(rows).shape)
    seconds = time.perf_counter() - started
    print(json.dumps({"images": len(data), "seconds": seconds, "shape": shape}))


if __name__ == "__main__":
    main()
