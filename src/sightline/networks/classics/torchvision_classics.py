"""Classic networks of torchvision, with image size, channels and classes as arguments.

    alexnet     Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks": one tower, 61,100,840
                parameters. The network of 2012 had two towers and 60,965,224 parameters.
    vgg…        Simonyan and Zisserman 2014, "Very deep convolutional networks for large-scale image recognition", without
                BatchNorm.
    googlenet   Szegedy et al. 2014, "Going deeper with convolutions", with BatchNorm, and 3×3 instead of the paper's 5×5.
    resnet…     He et al. 2015, "Deep residual learning for image recognition", bottlenecks with the stride in the 3×3.

For other than 3 channels the first convolution is replaced. `classes=1` is a single sigmoid unit. All of them pool to a fixed
size before the classifier, so they accept any image of at least the smallest size.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from sightline.networks.classics.classic_network import check


def alexnet(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """Build torchvision's AlexNet: five convolutions, three linear layers. At least 63 px."""
    return _torchvision("alexnet", 63, image_size, channels, classes)


def vgg11(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """Build torchvision's VGG-11: eight convolutions 3×3, three linear layers. At least 32 px."""
    return _torchvision("vgg11", 32, image_size, channels, classes)


def vgg13(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """Build torchvision's VGG-13: ten convolutions 3×3, three linear layers. At least 32 px."""
    return _torchvision("vgg13", 32, image_size, channels, classes)


def vgg16(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """Build torchvision's VGG-16: thirteen convolutions 3×3, three linear layers. At least 32 px."""
    return _torchvision("vgg16", 32, image_size, channels, classes)


def vgg19(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """Build torchvision's VGG-19: sixteen convolutions 3×3, three linear layers. At least 32 px."""
    return _torchvision("vgg19", 32, image_size, channels, classes)


def googlenet(*, auxiliary: bool = False, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """Build torchvision's GoogLeNet: nine inception modules. At least 15 px.

    Args:
        auxiliary: Whether to add the two auxiliary classifiers. In training mode the network then returns torchvision's
            `GoogLeNetOutputs`: logits and those of the second and first auxiliary classifier, each (n, classes). The paper
            adds the auxiliary losses with weight 0.3. In evaluation mode it returns the logits only.
        image_size: Height and width of the input in px.
        channels: Number of input channels.
        classes: Number of logits.
    """
    # Explicit, since torchvision warns of a change of the default.
    return _torchvision("googlenet", 15, image_size, channels, classes, aux_logits=auxiliary, init_weights=True)


def resnet18(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """Build torchvision's ResNet-18: eight blocks of two layers."""
    return _torchvision("resnet18", 1, image_size, channels, classes)


def resnet34(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """Build torchvision's ResNet-34: sixteen blocks of two layers."""
    return _torchvision("resnet34", 1, image_size, channels, classes)


def resnet50(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """Build torchvision's ResNet-50: sixteen bottlenecks."""
    return _torchvision("resnet50", 1, image_size, channels, classes)


def resnet101(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """Build torchvision's ResNet-101: 33 bottlenecks."""
    return _torchvision("resnet101", 1, image_size, channels, classes)


def resnet152(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """Build torchvision's ResNet-152: 50 bottlenecks."""
    return _torchvision("resnet152", 1, image_size, channels, classes)


def _torchvision(name: str, smallest: int, image_size: int, channels: int, classes: int, **arguments: Any) -> nn.Module:
    """Build torchvision's network of that name with random weights.

    Raises:
        RequestError: If the image is too small (the message names the smallest size), or a number is below 1.
    """
    check(name, image_size=image_size, channels=channels, classes=classes, smallest=smallest)
    import torchvision.models as models

    network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **arguments)
    if channels != 3:
        _replace_first_convolution(network, channels)
    network.image_size, network.channels = image_size, channels  # type: ignore[assignment]
    return network


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    """Replace the first convolution by one with another number of input channels."""
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
