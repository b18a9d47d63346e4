"""Recipe files: what a set is to be.

A recipe is a short YAML file. The ones under augment/recipes are named by their stem; a user's own is
named by its path and works the same way. Which transforms exist is checked where they are used, in
render.py, so that reading a recipe stays quick.
"""

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from augment import list_format
from augment.list_format import ListFormat
from common.errors import UserError
from common.images import MAX_PIXELS
from manifests.contract import GROUP_NAME

RECIPES = Path(__file__).parent / "recipes"
KERAS_AFFINE = "KerasAffine"  # the transforms that are Evenset's own; all others are albumentations'
ONE_OF = "OneOf"  # applies one of several
LARGEST, SMALLEST = "largest", "smallest"  # per_class: as many as that class has sources
FITS, FORMATS = ("stretch", "pad", "crop"), ("jpeg", "png")
# Kermany's naming: kind and number together make the patient.
KERMANY = r"(person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+)"
EVEN = "even"  # augmented_share: as much in each class as the one with fewest sources needs
_NAME = re.compile(r"[\w][\w.-]*")


class RecipeError(UserError):
    """A recipe can't be used; the message names the recipe, the value and the fix."""


class _Loader(yaml.SafeLoader):
    """YAML of plain values, without aliases: a few lines of those can stand for more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                None, None, "aliases (*name) are not taken", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_document(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == "list":
                    _keep_text(value)
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT002  # yaml's
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                mark = node.value[number][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands there twice", mark)
        return super().construct_mapping(node, deep)


def _keep_text(node: yaml.Node) -> None:
    """Make numbers and dates the text that stands there: of a list's cells `010` is no 8, and `1.10` no 1.1."""
    if isinstance(node, yaml.ScalarNode):
        if node.tag.rpartition(":")[2] in ("int", "float", "timestamp"):
            node.tag = "tag:yaml.org,2002:str"
    else:
        for inner in node.value:
            for each in inner if isinstance(inner, tuple) else (inner,):
                _keep_text(each)


@dataclass(frozen=True)
class Recipe:
    """A recipe as resolved: every setting has a value. Field by field, what a recipe file may hold."""

    name: str
    transforms: str = "[]"  # JSON: a list of {name: {parameter: value}}, applied in order
    # Images a class in train and val together, or as many as the largest or smallest has; None keeps the sources as they are.
    per_class: int | str | None = None
    augmented_share: float | str | None = None  # of each class's images; EVEN, a share, or None: what fills a class up
    augment: tuple[str, ...] = ("train",)  # splits that are brought to per_class; the others keep their sources
    val: float = 0.2  # share of each class's groups, and of per_class, that validates
    test: float = 0.2  # the share that tests, where the source has no test folder of its own
    keep_source_val: bool = False  # use the source's own val folder, rather than pooling it with train
    size: tuple[int, int] = (224, 224)  # width, height
    fit: str = "stretch"  # to the size; pad: whole and centred, on black; crop: the middle, filling it
    format: str = "jpeg"  # of the written images, or png
    quality: int = 95  # of the written JPEGs
    max_pixels: int = MAX_PIXELS  # a source that declares more is rejected before it is decoded
    value_range: tuple[float, float] | None = None  # samples of more than 8 bits that are black, white; None: declared
    seed: int = 0
    group: str = KERMANY  # matched at the start of a file name; its first group is whom the image shows
    group_name: str = "group"  # what messages and pages call a group, in the singular: patient, cup
    group_tag: str | None = (
        None  # of DICOM files, the tag that says whom they show, as PatientID; it is hashed with a key
    )
    list: ListFormat | None = None  # how a list of images is read, where the source is one

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values, for the card."""
        lists = {
            "size": list(self.size),
            "augment": list(self.augment),
            "value_range": list(self.value_range) if self.value_range else None,
            "list": self.list.as_dict() if self.list else None,
        }
        return {**asdict(self), **lists, "transforms": json.loads(self.transforms)}

    @property
    def uses_albumentations(self) -> bool:
        """Whether it names a transform of albumentations', which take long to import."""
        return not names_of(json.loads(self.transforms)) <= {KERAS_AFFINE, ONE_OF}

    @property
    def group_names(self) -> str:
        """What several groups are called."""
        return f"{self.group_name}s"

    @property
    def targets(self) -> dict[str, int | None]:
        """Images a class for each split; None: as many as there are sources, or as the classes' sizes will say."""
        if not isinstance(self.per_class, int):
            return {"train": None, "val": None, "test": None}
        val = round(self.per_class * self.val)
        return {"train": self.per_class - val, "val": val if "val" in self.augment else None, "test": None}


def load(name_or_file: str, seed: int | None = None) -> Recipe:
    """Read a recipe by name (`augment1`) or path (`my/recipe.yaml`).

    Args:
        name_or_file: a name under augment/recipes, or a path to a YAML file.
        seed: takes the place of the recipe's own seed.

    Raises:
        RecipeError: no such recipe, not YAML, or a setting that is unknown or out of range.
    """
    path = RECIPES / f"{name_or_file}.yaml" if _NAME.fullmatch(name_or_file) else Path(name_or_file)
    if not path.is_file():
        path = Path(name_or_file)
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  # a SafeLoader, and stricter
    except OSError as error:
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
        raise RecipeError(f"recipe {name_or_file}: {error.strerror}; give a YAML file or one of {known}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise RecipeError(f"{path}: got {type(settings).__name__}, expected settings such as `per_class: 5000`")
    if not _NAME.fullmatch(path.stem):
        raise RecipeError(f"{path}: the file's name names the set, so it takes letters, digits, '.', '_' and '-' only")
    if seed is not None:
        settings["seed"] = seed
    return resolve(path.stem, settings, str(path))


def resolve(name: str, settings: dict[Any, Any], path: str) -> Recipe:
    """Check settings and fill in what they leave out; `path` is what messages call the recipe by.

    Raises:
        RecipeError: a setting that is unknown or out of range.
    """
    known = [field.name for field in fields(Recipe) if field.name != "name"]
    for key in settings:
        if key not in known:
            raise RecipeError(f"{path}: unknown setting {key!r}; known are {', '.join(known)}")

    def whole(key: str, value: Any, least: int, most: int, words: str = "") -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise RecipeError(f"{path}: {key} is {value!r}, expected {words}a whole number from {least:,} to {most:,}")
        return value

    def share(key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise RecipeError(f"{path}: {key} is {value!r}, expected a share from 0 to below 1, such as 0.2")
        return float(value)

    checked = dict(settings)
    if checked.get("per_class") not in (None, LARGEST, SMALLEST):
        checked["per_class"] = whole("per_class", checked["per_class"], 1, 10**9, f"{LARGEST}, {SMALLEST} or ")
    for key in {"val", "test"} & checked.keys():
        checked[key] = share(key, checked[key])
    if checked.get("augmented_share") is not None:
        checked["augmented_share"] = _augmented_share(checked["augmented_share"], path)
    called = checked.get("group_name", "group")
    if not (isinstance(called, str) and GROUP_NAME.fullmatch(called)):
        raise RecipeError(f"{path}: group_name is {called!r}, expected a word such as patient")
    if "augment" in checked:
        checked["augment"] = _splits(checked["augment"], path)
    if not isinstance(checked.get("keep_source_val", False), bool):
        raise RecipeError(f"{path}: keep_source_val is {checked['keep_source_val']!r}, expected true or false")
    if "size" in checked:
        sides = checked["size"] if isinstance(checked["size"], list) else [checked["size"]] * 2
        if len(sides) != 2:
            raise RecipeError(f"{path}: size is {checked['size']!r}, expected 224 or [width, height]")
        checked["size"] = (whole("size", sides[0], 1, 10_000), whole("size", sides[1], 1, 10_000))
    if "max_pixels" in checked:
        checked["max_pixels"] = whole("max_pixels", checked["max_pixels"], 1, 10**12)
    if checked.get("value_range") is not None:
        checked["value_range"] = _range(checked["value_range"], path)
    for key, known_values in (("fit", FITS), ("format", FORMATS)):
        if checked.get(key, known_values[0]) not in known_values:
            raise RecipeError(f"{path}: {key} is {checked[key]!r}, expected one of {', '.join(known_values)}")
    if "quality" in checked:
        checked["quality"] = whole("quality", checked["quality"], 1, 100)
    if "seed" in checked:
        checked["seed"] = whole("seed", checked["seed"], 0, 2**63 - 1)
    if "group" in checked:
        checked["group"] = _pattern(checked["group"], path)
    if not isinstance(checked.get("group_tag", ""), (str, type(None))):
        raise RecipeError(f"{path}: group_tag is {checked['group_tag']!r}, expected a DICOM keyword such as PatientID")
    if checked.get("list") is not None:
        checked["list"] = list_format.resolve(checked["list"], path)
    if "transforms" in checked:
        checked["transforms"] = _transforms(checked["transforms"], path)
    recipe = Recipe(name=name, **checked)
    if recipe.targets["train"] == 0:
        raise RecipeError(
            f"{path}: val {recipe.val} of per_class {recipe.per_class} leaves nothing to train on; lower val"
        )
    return recipe


def _augmented_share(given: Any, path: str) -> float | str:
    if given == EVEN:
        return EVEN
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= 1:
        raise RecipeError(f"{path}: augmented_share is {given!r}, expected {EVEN}, or a share from 0 to 1, such as 0.5")
    return float(given)


def _splits(given: Any, path: str) -> tuple[str, ...]:
    if given not in (["train"], ["train", "val"], ["val", "train"]):
        raise RecipeError(
            f"{path}: augment is {given!r}, expected [train] or [train, val]; test images are never augmented"
        )
    return tuple(sorted(given))


def _range(given: Any, path: str) -> tuple[float, float]:
    numbers = given if isinstance(given, list) else []
    if len(numbers) == 2 and all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in numbers):
        low, high = numbers
        if -1e300 < low < high < 1e300:
            return low, high
    raise RecipeError(
        f"{path}: value_range is {given!r}, expected the samples that are black and white, such as [0, 4095]"
    )


def _pattern(pattern: Any, path: str) -> str:
    try:
        if isinstance(pattern, str) and re.compile(pattern).groups >= 1:
            return pattern
        fault = "expected a regular expression with one (group), such as '(patient\\d+)_'"
    except (re.error, OverflowError, RecursionError) as error:
        fault = f"not a regular expression: {error}"
    raise RecipeError(f"{path}: group is {pattern!r}, {fault}")


def _transforms(transforms: Any, path: str) -> str:
    """Canonical JSON of the transforms: `- Name` and `- Name: {parameter: value}` alike."""
    try:
        return json.dumps(_listed(transforms, path), allow_nan=False)
    except (TypeError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{path}: transforms holds a value that is no number, text or list: {error}") from None


def _listed(transforms: Any, path: str) -> list[dict[str, Any]]:
    """Each transform as {name: parameters}, those of OneOf too."""
    listed: list[dict[str, Any]] = []
    for given in transforms if isinstance(transforms, list) else [transforms]:
        entry = {given: {}} if isinstance(given, str) else given
        if not (isinstance(entry, dict) and len(entry) == 1 and all(isinstance(name, str) for name in entry)):
            raise RecipeError(f"{path}: transforms holds {entry!r}, expected entries such as `- Rotate: {{limit: 10}}`")
        ((name, parameters),) = entry.items()
        parameters = {} if parameters is None else parameters
        if not (isinstance(parameters, dict) and all(isinstance(key, str) for key in parameters)):
            raise RecipeError(f"{path}: transform {name} has {parameters!r}, expected parameters such as {{limit: 10}}")
        if name == ONE_OF:
            parameters = {**parameters, "transforms": _listed(parameters.get("transforms", []), path)}
            if len(parameters["transforms"]) < 2 or parameters.keys() - {"transforms", "p"}:
                raise RecipeError(f"{path}: OneOf has {parameters!r}, expected {{transforms: [two or more], p: 0.5}}")
        listed.append({name: parameters})
    return listed


def names_of(transforms: list[dict[str, Any]]) -> set[str]:
    """The names of transforms, and of those in a OneOf."""
    inner = [
        names_of(parameters["transforms"])
        for entry in transforms
        for name, parameters in entry.items()
        if name == ONE_OF
    ]
    return {name for entry in transforms for name in entry}.union(*inner)
