"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from sightline.errors import RequestError, unknown

FITS = ("crop", "pad", "squash")
POOLS = ("avg", "flatten")
HEATMAPS = ("none", "few", "all")
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

Photos = Annotated[
    str,
    typer.Argument(
        metavar="PHOTOS", help="A folder per class, train/val/test folders of those, a flat folder, or a CSV or Parquet."
    ),
]
CatalogFile = Annotated[
    str, typer.Argument(metavar="CATALOG", help="A table made by scan or split, or a folder of photographs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value to standard output and nothing else there.")]
Seed = Annotated[int, typer.Option(help="Every random draw is a function of it.")]
Val = Annotated[str, typer.Option(metavar="SHARE|COUNT", help="Share (0.15) or number (300) of images for validation.")]
Test = Annotated[str, typer.Option(metavar="SHARE|COUNT", help="Share (0.2) or number (400) of images for the test.")]
GroupBy = Annotated[
    str | None,
    typer.Option(metavar="COLUMN|REGEX", help="Images of one group (a person, a place) stay in one split."),
]
LabelFrom = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="Where the class stands in a file's name: its first group, or the whole match."),
]
PathColumn = Annotated[str | None, typer.Option(help="The column of a table that names the file.")]
LabelColumn = Annotated[str | None, typer.Option(help="The column of a table that names the class.")]
Split = Annotated[
    str | None,
    typer.Option(metavar="train|val|test|all", help="Whose images of CATALOG are asked about; else its test split, or all."),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(metavar="[NEW=]OLD,...", help='Take these classes only, and rename them: chicken="hong kong chicken",salmon.'),
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many images of each class.")]
AllowTruncated = Annotated[bool, typer.Option("--allow-truncated", help="Use what a truncated JPEG still shows.")]
Backbones = Annotated[
    list[str] | None,
    typer.Option("--backbone", metavar="NAME,...", help="Networks by name, pixels, or your own as my_net.py:build."),
]
Weights = Annotated[str, typer.Option(metavar="pretrained|random|FILE", help="Where a network's weights come from.")]
Methods = Annotated[
    list[str] | None, typer.Option(metavar="NAME,...", help="Methods to compare, such as baseline,shortcut,features.")
]
Head = Annotated[str, typer.Option(metavar="NAME|auto", help="What decides on the features: logistic, ridge, knn, forest, ...")]
Positive = Annotated[
    str | None, typer.Option(metavar="CLASS", help="The class whose score curves are drawn for; else the rarer.")
]
Threshold = Annotated[
    str | None,
    typer.Option(
        metavar="half|youden|eer|f1|cost=5:1|fpr=0.01",
        help="For two classes: how the probability is chosen, on held-out images, from which on --positive is the answer.",
    ),
]
Fit = Annotated[str | None, typer.Option(metavar="|".join(FITS), help="How an image that is not square becomes one.")]
ImageSize = Annotated[int | None, typer.Option(min=1, metavar="PIXELS", help="Side of the square that the network sees.")]
Pool = Annotated[str, typer.Option(metavar="|".join(POOLS), help="What becomes of the network's last map.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where networks run.")]
Code = Annotated[
    str | None,
    typer.Option(metavar="FILE.py:FUNCTION", help="What builds the network, where that is your own code; it is run."),
]
Crops = Annotated[
    int | None,
    typer.Option(metavar="1|5|10", help="The mean over centre, corners, mirror images; else as the classifier says."),
]
Sets = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="The classes among which the right one is with this chance, such as 0.9."),
]
Budget = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="How long the run may take, heatmaps and report included: 90s, 10m, 1h. Default: 10m."),
]
Heatmaps = Annotated[
    str, typer.Option(metavar="|".join(HEATMAPS), help="Heatmaps to draw and check: all mistakes, a few of them, or none.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same request.")]


def items(values: list[str] | None) -> tuple[str, ...]:
    """A repeatable, comma-separated option as names; commas inside brackets belong to a name.

    Example:
        >>> items(["cnn(filters=[8, 16], kernel=5),resnet18"])
        ('cnn(filters=[8, 16], kernel=5)', 'resnet18')
        >>> items(["baseline, shortcut", "features"])
        ('baseline', 'shortcut', 'features')
    """
    found: list[str] = []
    for value in values or []:
        depth, name = 0, ""
        for letter in f"{value},":
            depth += (letter in "([{") - (letter in ")]}")
            if letter == "," and depth <= 0:
                found.append(name.strip())
                depth, name = 0, ""
            else:
                name += letter
        if name.strip():  # a bracket that is never closed: whoever reads the name says so
            found.append(name.rstrip(","))
    return tuple(name for name in found if name)


def classes(values: list[str] | None) -> dict[str, str] | None:
    """`--classes` as new name → old name. Double quotes keep a comma or an equals sign inside a name.

    Example:
        >>> classes(['chicken="hong kong chicken",salmon'])
        {'chicken': 'hong kong chicken', 'salmon': 'salmon'}

    Raises:
        RequestError: A name is empty, or a new name is given twice.
    """
    if not values:
        return None
    name = r'(?:"[^"]*"|[^",=])*'
    chosen: dict[str, str] = {}
    for value in values:
        if not re.fullmatch(rf"{name}(={name})?(,{name}(={name})?)*", value):
            raise RequestError(f"--classes {value!r} cannot be read", 'write it as new="old name",other')
        for new, old in re.findall(rf"({name})(?:=({name}))?(?:,|$)", value):
            new, old = new.replace('"', "").strip(), (old or new).replace('"', "").strip()
            if not new:
                continue
            if new in chosen:
                raise RequestError(f"--classes names {new!r} twice", "give each new name one class")
            chosen[new] = old
    return chosen or None


def seconds(text: str) -> float:
    """A length of time such as `90s`, `10m`, `1h30m` or `600`, in seconds.

    Example:
        >>> seconds("1h30m")
        5400.0

    Raises:
        RequestError: It is none.
    """
    if not re.fullmatch(r"\s*(\d+(\.\d+)?\s*[smh]\s*)+|\s*\d+(\.\d+)?\s*", text):
        raise RequestError(f"--budget {text!r} is not a length of time", "write 90s, 10m or 1h")
    total = sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)\s*([smh]?)", text))
    if not 0 < total <= 366 * 86400:
        raise RequestError(f"--budget {text!r} leaves no usable time", "write 90s, 10m or 1h")
    return total


def share(option: str, text: str) -> float | int:
    """A share such as `0.2` as a float, or a number of images such as `300` as an int.

    Example:
        >>> share("--val", "0.15"), share("--test", "300")
        (0.15, 300)

    Raises:
        RequestError: It is neither.
    """
    if re.fullmatch(r"\d+", text):
        return int(text)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise RequestError(f"{option} {text!r} is neither a share nor a number of images", "write 0.15 or 300")
    return value


def choice(option: str, value: str | None, known: tuple[str, ...]) -> Any:
    """`value`, if it is among the known ones or None.

    Raises:
        RequestError: It is not.
    """
    if value is not None and value not in known:
        raise unknown(f"choice of {option}", value, known)
    return value


def assignments(values: list[str] | None) -> dict[str, Any]:
    """`--set key=value`, values read as TOML reads them, else taken as text.

    Example:
        >>> assignments(["epochs=12", "augment=photo", "settings.units=[64, 32]"])
        {'epochs': 12, 'augment': 'photo', 'settings.units': [64, 32]}

    Raises:
        RequestError: There is no equals sign.
    """
    import tomllib

    found: dict[str, Any] = {}
    for text in values or []:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RequestError(f"--set {text!r} is not key=value", "write --set epochs=12")
        try:
            found[key.strip()] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value.strip()
    return found


def output(path: str) -> Path:
    """A path that the user named for a result, with `~` resolved."""
    return Path(path).expanduser()
