"""Classic networks by name: LeNet, AlexNet, VGG, ResNet, Xception and small CNNs from courses. One file per family."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from sightline.errors import unknown
from sightline.networks.classics.course_cnns import basic_cnn, cnn, happy_cnn, simple_net
from sightline.networks.classics.lenet import lenet5
from sightline.networks.classics.nin import nin
from sightline.networks.classics.residual import plain18, plain34, plain50
from sightline.networks.classics.resnet9 import resnet9
from sightline.networks.classics.torchvision_classics import (
    alexnet,
    googlenet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    vgg11,
    vgg13,
    vgg16,
    vgg19,
)
from sightline.networks.classics.xception import xception
from sightline.schema import check_value


@dataclass(frozen=True, slots=True)
class Classic:
    """A classic network.

    Args:
        build: Function that returns the network with random weights. Keyword arguments: `image_size`, `channels`, `classes`
            and those of its signature.
        title: Name for people.
        paper: Authors, year and title; "" if there is none.
        year: Year of the paper, None if there is none.
        image_size: Default side of the square input in px.
        smallest: Side of the smallest image that it accepts with its default arguments, in px.
        channels: Default number of input channels.
        classes: Default number of logits; 1 is a single sigmoid unit, the logit of the second of two classes.
        wraps: The library function that builds it, such as `torchvision.models.alexnet`; None if it is implemented here.
    """

    build: Callable[..., nn.Module]
    title: str
    paper: str
    year: int | None
    image_size: int
    smallest: int
    channels: int = 3
    classes: int = 1000
    wraps: str | None = None


_LECUN = "LeCun et al. 1998, Gradient-based learning applied to document recognition"
_KRIZHEVSKY = "Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks"
_SIMONYAN = "Simonyan and Zisserman 2014, Very deep convolutional networks for large-scale image recognition"
_LIN = "Lin et al. 2013, Network in network"
_SZEGEDY = "Szegedy et al. 2014, Going deeper with convolutions"
_HE = "He et al. 2015, Deep residual learning for image recognition"
_XCEPTION = "Chollet 2016, Xception: deep learning with depthwise separable convolutions"
_PAGE = "Page 2018, How to train your ResNet"
_BOOK = "Chollet 2017, Deep learning with Python"


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Check the names and types of a classic network's arguments without building it.

    Raises:
        RequestError: If the network has no argument of that name, or not of that type.
    """
    build = CLASSICS[name].build
    parameters = inspect.signature(build).parameters
    hints = typing.get_type_hints(build)
    for key, value in arguments.items():
        if key not in parameters:
            raise unknown(f"argument of {name}", key, parameters)
        check_value(hints[key], value, f"{key} of {name}", parameters[key].default)


CLASSICS: dict[str, Classic] = {
    "lenet5": Classic(lenet5, "LeNet-5", _LECUN, 1998, 32, 16, channels=1, classes=10),
    "alexnet": Classic(alexnet, "AlexNet", _KRIZHEVSKY, 2014, 224, 63, wraps="torchvision.models.alexnet"),
    "vgg11": Classic(vgg11, "VGG-11", _SIMONYAN, 2014, 224, 32, wraps="torchvision.models.vgg11"),
    "vgg13": Classic(vgg13, "VGG-13", _SIMONYAN, 2014, 224, 32, wraps="torchvision.models.vgg13"),
    "vgg16": Classic(vgg16, "VGG-16", _SIMONYAN, 2014, 224, 32, wraps="torchvision.models.vgg16"),
    "vgg19": Classic(vgg19, "VGG-19", _SIMONYAN, 2014, 224, 32, wraps="torchvision.models.vgg19"),
    "nin": Classic(nin, "Network in Network", _LIN, 2013, 224, 1),
    "googlenet": Classic(googlenet, "GoogLeNet", _SZEGEDY, 2014, 224, 15, wraps="torchvision.models.googlenet"),
    "resnet18": Classic(resnet18, "ResNet-18", _HE, 2015, 224, 1, wraps="torchvision.models.resnet18"),
    "resnet34": Classic(resnet34, "ResNet-34", _HE, 2015, 224, 1, wraps="torchvision.models.resnet34"),
    "resnet50": Classic(resnet50, "ResNet-50", _HE, 2015, 224, 1, wraps="torchvision.models.resnet50"),
    "resnet101": Classic(resnet101, "ResNet-101", _HE, 2015, 224, 1, wraps="torchvision.models.resnet101"),
    "resnet152": Classic(resnet152, "ResNet-152", _HE, 2015, 224, 1, wraps="torchvision.models.resnet152"),
    "plain18": Classic(plain18, "plain network of 18 layers", _HE, 2015, 224, 1),
    "plain34": Classic(plain34, "plain network of 34 layers", _HE, 2015, 224, 1),
    "plain50": Classic(plain50, "plain network of 50 layers", _HE, 2015, 224, 1),
    "resnet9": Classic(resnet9, "ResNet-9", _PAGE, 2018, 32, 8, classes=10),
    "xception": Classic(xception, "Xception", _XCEPTION, 2016, 299, 7),
    "basic_cnn": Classic(basic_cnn, "convolutions and max pooling in turn", _BOOK, 2017, 150, 46, classes=5),
    "happy_cnn": Classic(happy_cnn, "Happy House", "", None, 64, 2, classes=1),
    "simple_net": Classic(simple_net, "three convolutions 7×7", "", None, 256, 50, classes=2),
    "cnn": Classic(cnn, "a network from plain lists", "", None, 64, 16, classes=2),
}
