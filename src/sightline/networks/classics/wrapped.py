"""The classics that torchvision has: its own networks, not written again; only size, channels and classes are ours.

    alexnet     Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks": one tower. The network of
                2012 had two, 60,965,224 parameters where this has 61,100,840.
    vgg…        Simonyan and Zisserman 2014, "Very deep convolutional networks for large-scale image recognition", without
                BatchNorm.
    googlenet   Szegedy et al. 2014, "Going deeper with convolutions", with BatchNorm, and 3×3 where the paper has 5×5.
    resnet…     He et al. 2015, "Deep residual learning for image recognition", the stride of a bottleneck in its 3×3.

Where images have another number of channels than 3, the first convolution is replaced by one that takes it. `classes=1` is one
sigmoid unit. All end in a mean to a fixed size, so they see any image from the smallest one on.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from sightline.networks.classics.whole import check


def alexnet(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """AlexNet, torchvision's: five convolutions, three linear layers. From 63 px."""
    return _torchvision("alexnet", 63, image_size, channels, classes)


def vgg11(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """VGG-11, torchvision's: eight convolutions 3×3, three linear layers. From 32 px."""
    return _torchvision("vgg11", 32, image_size, channels, classes)


def vgg13(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """VGG-13, torchvision's: ten convolutions 3×3, three linear layers. From 32 px."""
    return _torchvision("vgg13", 32, image_size, channels, classes)


def vgg16(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """VGG-16, torchvision's: thirteen convolutions 3×3, three linear layers. From 32 px."""
    return _torchvision("vgg16", 32, image_size, channels, classes)


def vgg19(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """VGG-19, torchvision's: sixteen convolutions 3×3, three linear layers. From 32 px."""
    return _torchvision("vgg19", 32, image_size, channels, classes)


def googlenet(*, auxiliary: bool = False, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """GoogLeNet, torchvision's: nine inception modules. From 15 px.

    Args:
        auxiliary: Whether it has its two auxiliary classifiers. In training mode it then gives torchvision's
            `GoogLeNetOutputs`: logits, those of the second and of the first auxiliary classifier, each (n, classes), whose
            losses the paper adds with weight 0.3. In evaluation mode it gives the logits alone.
        image_size: Height and width of the input, in pixels.
        channels: Of the input.
        classes: Logits.
    """
    # Said, so that torchvision does not announce a change of its default.
    return _torchvision("googlenet", 15, image_size, channels, classes, aux_logits=auxiliary, init_weights=True)


def resnet18(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """ResNet-18, torchvision's: eight blocks of two layers."""
    return _torchvision("resnet18", 1, image_size, channels, classes)


def resnet34(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """ResNet-34, torchvision's: sixteen blocks of two layers."""
    return _torchvision("resnet34", 1, image_size, channels, classes)


def resnet50(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """ResNet-50, torchvision's: sixteen bottlenecks."""
    return _torchvision("resnet50", 1, image_size, channels, classes)


def resnet101(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """ResNet-101, torchvision's: 33 bottlenecks."""
    return _torchvision("resnet101", 1, image_size, channels, classes)


def resnet152(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """ResNet-152, torchvision's: 50 bottlenecks."""
    return _torchvision("resnet152", 1, image_size, channels, classes)


def _torchvision(name: str, smallest: int, image_size: int, channels: int, classes: int, **arguments: Any) -> nn.Module:
    """torchvision's network of that name without weights.

    Raises:
        RequestError: The image is too small (the smallest size is named), or a number is below 1.
    """
    check(name, image_size=image_size, channels=channels, classes=classes, smallest=smallest)
    import torchvision.models as models

    network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **arguments)
    if channels != 3:
        _take(network, channels)
    network.image_size, network.channels = image_size, channels  # type: ignore[assignment]
    return network


def _take(network: nn.Module, channels: int) -> None:
    """Replace the first convolution by one that takes so many channels."""
    name, old = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    network.set_submodule(name, new)
