"""The same weights give the same numbers as timm and torchvision, under either library's key names; and on real photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sightline import networks
from sightline.store import Cache


def _awake(network: torch.nn.Module) -> None:
    """BatchNorm statistics and scales that do something."""
    generator = torch.Generator().manual_seed(2)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            low = 0.5 if name.endswith(("running_var", "weight", "layer_scale")) else -0.1
            value.copy_(torch.rand(value.shape, generator=generator) * 0.4 + low)


@pytest.mark.parametrize(
    ("name", "twin", "size", "suffix"),
    [
        ("mobilenetv2_100", "mobilenet_v2", 64, ".safetensors"),
        ("mnasnet_050", "mnasnet0_5", 64, ".pth"),
        ("squeezenet1_1", "squeezenet1_1", 64, ".safetensors"),
        pytest.param("resnet18", "resnet18", 64, ".pth", marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", "efficientnet_b0", 64, ".safetensors", marks=pytest.mark.slow),
        pytest.param("densenet121", "densenet121", 64, ".pth", marks=pytest.mark.slow),
        pytest.param("convnext_tiny", "convnext_tiny", 64, ".safetensors", marks=pytest.mark.slow),
        pytest.param("vgg11", "vgg11", 224, ".pth", marks=pytest.mark.slow),
        pytest.param("inception_v3", "inception_v3", 96, ".safetensors", marks=pytest.mark.slow),
    ],
)
def test_torchvision_weights(tmp_path: Path, name: str, twin: str, size: int, suffix: str) -> None:
    import torchvision.models as models
    from safetensors.torch import save_file

    arguments = {"init_weights": True} if twin == "inception_v3" else {}
    theirs = models.get_model(twin, weights=None, **arguments).eval()
    _awake(theirs)
    file = tmp_path / f"{name}{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, file)
    else:
        save_file(theirs.state_dict(), file)
    backbone = networks.describe(name, weights=str(file), image_size=size)
    network = networks.build(backbone, weights_file=file, classifier=True)
    x = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(x)
        assert float((network.logits(x) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
        body = networks.build(backbone)
        assert torch.allclose(body(x)[1], network(x)[1], atol=1e-5)


def test_timm_weights_under_a_torchvision_name(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    theirs = timm.create_model("mobilenetv2_100").eval()
    _awake(theirs)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    backbone = networks.describe("mobilenet_v2", weights=str(tmp_path / "w.safetensors"), image_size=64)
    network = networks.build(backbone)
    x = torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(x), pre_logits=True)
        assert float((network(x)[1] - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.slow
@pytest.mark.realdata
def test_imagenet_photographs(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """58 ImageNet photographs: the same answers as timm's own network behind timm's own transform, which share no code with us.

    The floor of 34 right is the 1 % quantile of 58 draws at the published 72.97 % top-1 on ImageNet's validation set. Measured
    here: 42 (72.4 %) by either way. The 84 % that is told of these weights is of 1,000 other photographs of unknown split.
    """
    import timm
    from PIL import Image
    from safetensors.torch import load_file
    from timm.data import ImageNetInfo, create_transform

    from sightline import pixels

    monkeypatch.setenv("SIGHTLINE_WEIGHTS", str(shared / "weights"))
    wnids = ImageNetInfo().label_names()
    files = sorted((shared / "data" / "imagenet_sample").iterdir())
    true = np.array([wnids.index(f.name.split("_")[0]) for f in files])
    backbone = networks.describe("mobilenetv2_100")
    network = networks.build(backbone, classifier=True)
    theirs = timm.create_model("mobilenetv2_100").eval()
    theirs.load_state_dict(load_file(shared / "weights" / "mobilenetv2_100.safetensors"))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    transform = create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.875, mean=mean, std=std)
    images = np.stack([pixels.decode(f, backbone.preprocess) for f in files])
    x = _normalised(images, backbone.preprocess.mean, backbone.preprocess.std)
    y = torch.stack([transform(Image.open(f).convert("RGB")) for f in files])
    with torch.inference_mode():
        ours = torch.cat([network.logits(part) for part in x.split(16)]).argmax(1).numpy()
        reference = torch.cat([theirs(part) for part in y.split(16)]).argmax(1).numpy()
    assert len(files) == 58
    assert int((ours != reference).sum()) <= 1, "a grey level may tip one photograph, not two"
    assert int((ours == true).sum()) >= 34


def _normalised(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@pytest.mark.realdata
def test_inception_of_2015(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """float16, without a classifier, two convolutions zero: as it comes."""
    monkeypatch.setenv("SIGHTLINE_WEIGHTS", str(shared / "weights"))
    backbone = networks.describe("inception_v3", image_size=128, cache=Cache())
    assert (backbone.features, backbone.weights, backbone.preprocess.mean) == (
        2048,
        "inception_v3.safetensors",
        (0.5, 0.5, 0.5),
    )
    arrays = networks.tensors(networks.build(backbone))
    assert all(a.dtype == np.float32 for a in arrays.values())
    assert not arrays["Mixed_7c.branch3x3dbl_2.conv.weight"].any()
