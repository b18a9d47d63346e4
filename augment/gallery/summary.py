"""What a set's manifest and card say of it, as the gallery shows it: balance, rejected sources, recipe."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import pandas as pd
import yaml

from augment.recipe import RECIPES, Recipe, load, resolve
from manifests.contract import SPLITS

_SAMPLED_DOWN = re.compile(r"sampled down: (?P<label>.*) has [\d,]+ sources in (?P<split>\w+), ")  # plan.py says so

_TIE = "\N{NO-BREAK SPACE}"  # keeps a parameter's name and value on one line


class Side(NamedTuple):
    """A class in a split: how many sources it had, images it has, and its shares of the split's, in percent."""

    split: str
    label: str
    before: int  # with those that were sampled down
    after: int
    augmented: int  # of the images after
    before_share: float
    after_share: float


class Reason(NamedTuple):
    """Why files are not in the set, and which."""

    reason: str
    sources: list[str]


class Making(NamedTuple):
    """How to make the set again: the command, and the recipe as YAML. `shipped`: Evenset has that recipe itself."""

    command: str
    recipe: str
    file: str  # the recipe's file, for a recipe that isn't shipped
    shipped: bool


def balance(rows: pd.DataFrame, card: dict[str, Any]) -> list[Side]:
    """Sources and images of each split and class, in the order of the splits."""
    by_side = rows.assign(augmented=rows["variant"] > 0).groupby(["split", "label"])
    sides = by_side.agg(before=("source", "nunique"), after=("path", "size"), augmented=("augmented", "sum"))
    for entry in _entries(card):
        if match := _SAMPLED_DOWN.match(entry[1]):
            side = (match["split"], match["label"])
            if side in sides.index:
                sides.loc[side, "before"] += 1
    in_split = sides.groupby("split")
    shares = 100 * sides / in_split.transform("sum")
    listed = [
        Side(
            split,
            label,
            *(int(count) for count in counts[["before", "after", "augmented"]]),
            *shares.loc[(split, label), ["before", "after"]],
        )
        for (split, label), counts in sides.iterrows()
    ]
    return sorted(listed, key=lambda side: (SPLITS.index(side.split), side.label))


def describe_balance(sides: list[Side]) -> list[str]:
    """The balance in words, a line for each split."""
    lines = []
    for split in dict.fromkeys(side.split for side in sides):
        before, after = zip(*((side.before, side.after) for side in sides if side.split == split), strict=True)
        if before == after:
            lines.append(f"{split}: {_span(after)} images a class, the sources as they are")
        else:
            lines.append(f"{split}: {_span(after)} images a class, made of {_span(before)} sources a class")
    return lines


def _span(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def rejected(card: dict[str, Any]) -> list[Reason]:
    """The files that were found and are not in the set, by reason, the most frequent first."""
    by_reason: dict[str, list[str]] = {}
    for source, reason in _entries(card):
        by_reason.setdefault(reason, []).append(source)
    reasons = [Reason(reason, sorted(sources)) for reason, sources in by_reason.items()]
    return sorted(reasons, key=lambda found: (-len(found.sources), found.reason))


def _entries(card: dict[str, Any]) -> list[tuple[str, str]]:
    """Source and reason of each rejected file; a card may have been written or changed by anyone."""
    listed = card.get("rejected")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return [(str(entry.get("source", "")), str(entry.get("reason", ""))) for entry in entries]


def groups(card: dict[str, Any]) -> str:
    """What is known of the patients: "known", "unknown", or "some" where some file names show none."""
    listed = card.get("groups")
    if not isinstance(listed, dict) or not isinstance(matched := listed.get("matched"), int):
        return "unknown"
    if listed.get("known") is not True:
        return "unknown"
    return "known" if matched == listed.get("of") else "some"


def source_folder(card: dict[str, Any], *, private: bool) -> str:
    """The card's source folder; of an absolute path only its name where the page leaves this machine."""
    source = str(card.get("source", ""))
    return PurePath(source).name if private and PurePath(source).is_absolute() else source


def recipe_of(card: dict[str, Any]) -> Recipe | None:
    """The recipe in a card; None where it can't be used: a card may come from anyone."""
    try:
        settings = dict(card["recipe"])
        return resolve(str(settings.pop("name")), settings, "the card's recipe")
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def making(card: dict[str, Any], manifest: str, *, private: bool) -> Making | None:
    """How the set behind a card is made again; None where the card's recipe can't be used.

    Args:
        card: as read.
        manifest: the manifest's path from where the command is to run.
        private: as `source_folder` has it.
    """
    recipe = recipe_of(card)
    if recipe is None:
        return None
    try:
        settings = {key: value for key, value in card["recipe"].items() if key != "name"}
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None, width=60)
        source = str(card.get("list") or source_folder(card, private=private))
        if private:
            source = PurePath(source).name if PurePath(source).is_absolute() else source
    except (KeyError, TypeError, ValueError, RecursionError, yaml.YAMLError):  # a card may come from anyone
        return None
    shipped = recipe.name in {path.stem for path in RECIPES.glob("*.yaml")} and load(recipe.name, recipe.seed) == recipe
    file = f"{recipe.name}.yaml"
    words = ["python", "-m", "augment", "build", "--recipe", recipe.name if shipped else file, "--source", source]
    if shipped and load(recipe.name).seed != recipe.seed:
        words += ["--seed", str(recipe.seed)]
    images = str(card.get("images", ""))
    if images != f"data/augmented/{recipe.name}":
        words += ["--images", images]
    if manifest != f"manifests/{recipe.name}.csv":
        words += ["--manifest", manifest]
    if card.get("on_leak") == "drop":
        words += ["--on-leak", "drop"]
    return Making(shlex.join(words), text, file, shipped)


def image_form(card: dict[str, Any]) -> str:
    """Size, fit and format of a set's images in words; nothing where the card doesn't say."""
    recipe: Any = card.get("recipe")
    try:
        made = resolve("of the card", {key: recipe[key] for key in ("size", "fit", "format") if key in recipe}, "")
    except (TypeError, ValueError):  # a card may come from anyone
        return ""
    width, height = made.size
    fits = {
        "stretch": "stretched to that size",
        "pad": "padded with black to that size",
        "crop": "cropped to that size",
    }
    return f"{width} x {height} pixels, {fits[made.fit]}, as {made.format.upper()}"


def parameters(transform: str) -> str:
    """A manifest's `transform` in short, numbers to two places: `KerasAffine: theta 4.01, tx -3.74`."""
    try:
        steps = [(name, drawn) for step in json.loads(transform or "[]") for name, drawn in step.items()]
        texts = [
            (name, ", ".join(f"{key}{_TIE}{_short(value)}" for key, value in drawn.items())) for name, drawn in steps
        ]
        return "; ".join(f"{name}: {text}" if text else name for name, text in texts)
    except (AttributeError, TypeError, ValueError, RecursionError):  # not as the builder writes it
        return transform


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
