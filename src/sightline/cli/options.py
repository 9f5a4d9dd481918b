"""Command-line arguments and options shared by several commands, and the parsers of their values."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.errors import RequestError, unknown

if TYPE_CHECKING:
    from sightline.records import Recipe

FITS = ("crop", "pad", "squash")
POOLS = ("avg", "flatten")
HEATMAPS = ("none", "few", "all")
PRECISIONS = ("auto", "f32", "bf16", "int8")
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

Photos = Annotated[
    str,
    typer.Argument(
        metavar="PHOTOS",
        help="Folder with one subfolder per class, train/val/test folders of those, a flat folder, an archive of any of these "
        "(.zip, .tar.gz), a CSV or Parquet table, or arrays with labels (.npz, .h5).",
    ),
]
CatalogFile = Annotated[
    str,
    typer.Argument(metavar="CATALOG", help="Table written by scan or split, or PHOTOS as for scan (folder, archive, arrays)."),
]
ClassifierFile = Annotated[str, typer.Argument(metavar="RUN|MODEL", help="Run folder, or classifier file (.safetensors).")]
Json = Annotated[bool, typer.Option("--json", help="Print the result to standard output as one JSON value.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Val = Annotated[str, typer.Option(metavar="SHARE|COUNT", help="Fraction (0.15) or number (300) of validation images.")]
Test = Annotated[str, typer.Option(metavar="SHARE|COUNT", help="Fraction (0.2) or number (400) of test images.")]
GroupBy = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN|REGEX", help="Keep images of the same group (a person, a place) in one split: table column or regex."
    ),
]
LabelFrom = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="Regex that extracts the class from the file name (first group, or whole match)."),
]
LabelLevel = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Folder level that is the class: 1 is the top folder (inside train/val/test), -1 the lowest folder."
    ),
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Follow symbolic links to files outside the folder, and to folders.")
]
PathColumn = Annotated[str | None, typer.Option(help="Table column with the image file, or array with the images.")]
LabelColumn = Annotated[str | None, typer.Option(help="Table column, or array, with the class.")]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="train|val|test|all", help="Split of CATALOG to use. Default: the test split if there is one, else all images."
    ),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(metavar="[NEW=]OLD,...", help='Use only these classes, and rename them: chicken="hong kong chicken",salmon.'),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Maximum number of images per class.")]
AllowTruncated = Annotated[bool, typer.Option("--allow-truncated", help="Use the decodable part of truncated JPEG files.")]
Backbones = Annotated[
    list[str] | None,
    typer.Option("--backbone", metavar="NAME,...", help="Backbones: network names, pixels, or your own as my_net.py:build."),
]
Weights = Annotated[str, typer.Option(metavar="pretrained|random|FILE", help="Initial weights of the backbone.")]
Methods = Annotated[
    list[str] | None, typer.Option(metavar="NAME,...", help="Training methods to compare, such as baseline,shortcut,features.")
]
Head = Annotated[
    str, typer.Option(metavar="NAME|auto", help="Classifier on top of the features: logistic, ridge, knn, forest, ...")
]
Positive = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS", help="Two classes: the positive class of threshold and curves. Default: the less frequent one."
    ),
]
Threshold = Annotated[
    str | None,
    typer.Option(
        metavar="half|youden|eer|f1|cost=5:1|fpr=0.01",
        help="Two classes: criterion for the decision threshold of --positive on held-out images. Default: half (0.5).",
    ),
]
Fit = Annotated[
    str | None, typer.Option(metavar="|".join(FITS), help="How to make non-square images square. Default: that of the weights.")
]
ImageSize = Annotated[int | None, typer.Option(min=1, metavar="PIXELS", help="Side of the square input image, in pixels.")]
Pool = Annotated[
    str, typer.Option(metavar="|".join(POOLS), help="How to pool the last feature map: average, or flatten all of it.")
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Device for computing with networks.")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="|".join(PRECISIONS),
        help="Precision of frozen networks. auto: the fastest whose features classify these images as float32 features do.",
    ),
]
On = Annotated[
    str,
    typer.Option(
        metavar="local|ray",
        help="Where the heavy work runs: this machine, or a Ray cluster: that of RAY_ADDRESS, else one that is started here.",
    ),
]
Code = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:FUNCTION", help="Function that builds your own network. Sightline executes this file: trust it first."
    ),
]
Crops = Annotated[
    int | None,
    typer.Option(metavar="1|5|10", help="Average the prediction over 1, 5 or 10 crops per image. Default: as trained."),
]
Sets = Annotated[
    float | None,
    typer.Option(
        metavar="COVERAGE", help="Print prediction sets that contain the true class with this probability, such as 0.9."
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Time limit, heatmaps and report included: 90s, 10m, 1h. Default: 10m."),
]
Heatmaps = Annotated[
    str, typer.Option(metavar="|".join(HEATMAPS), help="Heatmaps to draw and check: for all mistakes, for a few, or none.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Resume an interrupted run with the same arguments.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe; write nested keys with dots. Repeatable."),
]


def items(values: list[str] | None) -> tuple[str, ...]:
    """Return the names in a repeatable, comma-separated option; commas inside brackets belong to a name.

    Example:
        >>> items(["cnn(filters=[8, 16], kernel=5),resnet18"])
        ('cnn(filters=[8, 16], kernel=5)', 'resnet18')
        >>> items(["baseline, shortcut", "features"])
        ('baseline', 'shortcut', 'features')
    """
    return tuple(name for value in values or [] for name in split_commas(value))


def split_commas(text: str) -> list[str]:
    """Split text at commas outside brackets and double quotes, and drop empty parts.

    Example:
        >>> split_commas('a, cnn(filters=[8, 16]), "b,c",')
        ['a', 'cnn(filters=[8, 16])', '"b,c"']
    """
    parts, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def classes(values: list[str] | None) -> dict[str, str] | None:
    """Return the mapping new name → old name of `--classes`. Double quotes protect commas and equals signs in names.

    Example:
        >>> classes(['chicken="hong kong chicken",salmon'])
        {'chicken': 'hong kong chicken', 'salmon': 'salmon'}

    Raises:
        RequestError: If the syntax is wrong or a new name occurs twice.
    """
    if not values:
        return None
    name = r'(?:"[^"]*"|[^",=])*'
    names: dict[str, str] = {}
    for value in values:
        if not re.fullmatch(rf"{name}(={name})?(,{name}(={name})?)*", value):
            raise RequestError(f"--classes {value!r} cannot be parsed", 'write --classes new="old name",other')
        for new, old in re.findall(rf"({name})(?:=({name}))?(?:,|$)", value):
            new, old = new.replace('"', "").strip(), (old or new).replace('"', "").strip()
            if not new:
                continue
            if new in names:
                raise RequestError(f"--classes names {new!r} twice", "give each new name one class")
            names[new] = old
    return names or None


def seconds(text: str) -> float:
    """Return a duration such as `90s`, `10m`, `1h30m` or `600` in seconds.

    Example:
        >>> seconds("1h30m")
        5400.0

    Raises:
        RequestError: If the text is not a duration between 0 and 366 days.
    """
    if not re.fullmatch(r"\s*(\d+(\.\d+)?\s*[smh]\s*)+|\s*\d+(\.\d+)?\s*", text):
        raise RequestError(f"--budget {text!r} is not a duration", "write 90s, 10m or 1h")
    total = sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)\s*([smh]?)", text))
    if not 0 < total <= 366 * 86400:
        raise RequestError(f"--budget {text!r} must be more than 0 s and at most 366 days", "write 90s, 10m or 1h")
    return total


def share(option: str, text: str) -> float | int:
    """Return a fraction such as `0.2` as a float, or a number of images such as `300` as an int.

    Example:
        >>> share("--val", "0.15"), share("--test", "300")
        (0.15, 300)

    Raises:
        RequestError: If the text is neither.
    """
    if re.fullmatch(r"\d+", text):
        return int(text)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise RequestError(
            f"{option} must be a fraction below 1 or a number of images, not {text!r}", f"write {option} 0.15 or {option} 300"
        )
    return value


def choice(option: str, value: str | None, known: tuple[str, ...]) -> Any:
    """Return `value` if it is None or one of `known`.

    Raises:
        RequestError: If it is neither.
    """
    if value is not None and value not in known:
        raise unknown(f"value of {option}", value, known)
    return value


def toml_value(text: str) -> Any:
    """Return text parsed as a TOML value, or the text itself if it is not one.

    Example:
        >>> toml_value("12"), toml_value("photo"), toml_value("[64, 32]")
        (12, 'photo', [64, 32])
    """
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def assignments(values: list[str] | None) -> dict[str, Any]:
    """Return the mapping key → value of `--set key=value`.

    Example:
        >>> assignments(["epochs=12", "augment=photo", "settings.units=[64, 32]"])
        {'epochs': 12, 'augment': 'photo', 'settings.units': [64, 32]}

    Raises:
        RequestError: If there is no equals sign or no key.
    """
    result: dict[str, Any] = {}
    for text in values or []:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RequestError(f"--set {text!r} is not KEY=VALUE", "write --set epochs=12")
        result[key.strip()] = toml_value(value)
    return result


def grid(sweeps: list[str] | None) -> dict[str, list[Any]]:
    """Return the mapping key → values of `--sweep key=a,b,c`; commas inside brackets or double quotes belong to a value.

    Example:
        >>> grid(["augment.rotation=0,15", 'augment.rgb_shift="10,40,10",0', "network=cnn(filters=[8, 16]),resnet18"])
        {'augment.rotation': [0, 15], 'augment.rgb_shift': ['10,40,10', 0], 'network': ['cnn(filters=[8, 16])', 'resnet18']}

    Raises:
        RequestError: If there is no equals sign, or a key occurs twice.
    """
    result: dict[str, list[Any]] = {}
    for text in sweeps or []:
        key, equals, values = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise RequestError(f"--sweep {text!r} is not KEY=A,B,C", "write --sweep learning_rate=1e-3,3e-3")
        if key in result:
            raise RequestError(f"--sweep names {key} twice", f"list all values in one option: --sweep {key}=A,B,C")
        result[key] = [toml_value(part) for part in split_commas(values)]
    return result


def recipe(file: str | None, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe in a TOML file, or the default recipe, with some keys changed.

    Args:
        file: The TOML file; the default recipe if None.
        changes: Key → value; dots separate the parts of nested keys.

    Raises:
        RequestError: If the file is missing or not a recipe, or a key or the backbone is unknown.
    """
    from sightline import inputs, networks, records, store
    from sightline.studies import change
    from sightline.training.methods import method_of

    base = records.Recipe() if file is None else inputs.read_recipe(path(file))
    changed = change(base, changes)
    if method_of(changed).network != "classifier":  # there the backbone is a run
        networks.check_name(changed.backbone, store.Cache())
    return changed


def path(text: str) -> Path:
    """Return a path given by the user, with `~` expanded."""
    return Path(text).expanduser()
