"""Table of sources + recipe -> table of images to be: a pure function, no I/O.

First the groups (patients) are split, stratified by class; then each side of the split is filled to its
target on its own. Every choice goes by SHA-256 of the seed and of what is chosen among, never by position,
so that adding or taking away a source moves few others.
"""

import hashlib
import re
import unicodedata
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from augment.planning import PlanError, splits
from augment.planning.allocation import AllocationError, allocate, originals
from augment.planning.splits import drawn
from augment.recipe import LARGEST, SMALLEST, Recipe
from augment.sources.layout import Rejected
from manifests.contract import SPLITS

Numbers = NDArray[np.int64]  # one a source
_UNSAFE = re.compile(r'[<>:"/|?*%]')  # no file system or URL minds the rest; control characters never get here


class Plan(NamedTuple):
    """What is to be rendered.

    `rows` has the columns path (relative to the image folder), label, split, source, group, variant, seed and
    source_sha256, one row an image, sorted by split, label, source and variant. `left_out` are sources that
    their class has too many of, and those that were dropped as leaks or conflicts. `absent` are the (split, label)
    without an image in a split that has images of other classes.
    """

    rows: pd.DataFrame
    left_out: list[Rejected]
    absent: list[tuple[str, str]]


def plan(sources: pd.DataFrame, recipe: Recipe, *, drop_leaks: bool = False, drop_conflicts: bool = False) -> Plan:
    """Decide every image of a set.

    Args:
        sources: string columns source, split (may be empty), label, group, source_sha256.
        recipe: what the set is to be.
        drop_leaks: leave out of train (and of val) what shares a patient or an image with test (or val), rather
            than to refuse it.
        drop_conflicts: leave out every copy of an image that stands in two classes, rather than to refuse it.

    Raises:
        PlanError: a target that can't be met, a patient or an image in two of the source's own splits, or an image in
            two classes.
    """
    labels = sorted(sources["label"].unique())
    sources, left_out = splits.assign(sources, recipe, drop_leaks=drop_leaks, drop_conflicts=drop_conflicts)
    recipe = _with_number(recipe, sources)
    sources["first_seed"] = [variant_seed(recipe.seed, sha256, 0) for sha256 in sources["source_sha256"].tolist()]
    counts, first = np.zeros((2, len(sources)), dtype=np.int64)
    sides = _by_side(sources, labels)
    least = {
        split: min(filter(None, (len(of) for (where, _), of in sides if where == split)), default=0) for split in SPLITS
    }
    for (split, label), members in sides:
        if len(members) == 0:
            if split == "train" or recipe.targets[split]:
                raise PlanError(_lack(sources, split, label, recipe))
            continue
        try:
            images, shown = originals(len(members), least[split], split, recipe)
        except AllocationError as error:
            raise PlanError(f"{label} in {split}: {error}") from None
        draw = partial(drawn, recipe.seed)
        drawn_by = sources.loc[members, ["first_seed", "source_sha256"]]
        counts[members], first[members] = allocate(drawn_by, images, shown, draw)
        reason = f"sampled down: {label} has {len(members):,} sources in {split}, the recipe wants {images:,}"
        left_out += [Rejected(name, reason) for name in sources.loc[members[counts[members] == 0], "source"].tolist()]
    rows = _rows(sources, np.concatenate([members for _, members in sides]), counts, first, recipe)
    absent = [
        (split, label)
        for split in SPLITS
        for label in sorted(set(labels) - set(rows.loc[rows["split"] == split, "label"].unique()))
        if (rows["split"] == split).any()
    ]
    return Plan(rows, sorted(left_out, key=attrgetter("source")), absent)


def _with_number(recipe: Recipe, sources: pd.DataFrame) -> Recipe:
    """The recipe with as many images a class as its largest or smallest has sources to train and validate with."""
    if recipe.per_class not in (LARGEST, SMALLEST):
        return recipe
    sizes = sources.loc[sources["split"] != "test", "label"].value_counts()
    return replace(recipe, per_class=int(sizes.max() if recipe.per_class == LARGEST else sizes.min()))


def _lack(sources: pd.DataFrame, split: str, label: str, recipe: Recipe) -> str:
    """Why a class has no source in a split that needs one, and what to do."""
    in_pool = sources["in_pool"]
    pool = sources[in_pool]
    if pool.empty and (sources["split"] != "train").all():
        own = " and ".join(sorted(sources["split"].unique()))
        return f"no image to train on: all lie in the source's own {own} folder; put the others beside it, in train"
    groups = pool.loc[pool["label"] == label, "unit"].nunique()
    shared_out = {"train": True, "val": recipe.val > 0, "test": recipe.test > 0}
    wanted = [name for name in SPLITS if shared_out[name] and (sources.loc[~in_pool, "split"] != name).all()]
    wants = f"the recipe wants {recipe.targets[split]:,} images" if recipe.targets[split] else "nothing could be learnt"
    if split not in wanted:
        return (
            f"{label} in {split}: {wants}, but the source's own {split} folder has no image of that class; add some"
            + (", or leave keep_source_val out of the recipe" if recipe.keep_source_val else "")
        )
    if groups < len(wanted):
        return (
            f"{label} in {split}: {wants}, but the class has {groups} {recipe.group_names if groups != 1 else recipe.group_name} "
            f"and needs at least {len(wanted)}, one each for {', '.join(wanted)}; add images of other {recipe.group_names}, or set "
            + " or ".join(f"{name}: 0" for name in wanted if name != "train")
        )
    return (
        f"{label} in {split}: {wants}, but no source of that class came to be there: its {groups} {recipe.group_names} stand "
        "in other classes too, in too many combinations; add images, or set val: 0"
    )


def variant_seed(set_seed: int, source_sha256: str, variant: int) -> int:
    """A variant's own seed, from 0 to 2^63 - 1: a function of these three and of nothing else."""
    return drawn(set_seed, f"{source_sha256}:{variant}")


def _by_side(sources: pd.DataFrame, labels: list[str]) -> list[tuple[tuple[str, str], np.ndarray]]:
    indices = sources.groupby(["split", "label"]).indices
    empty = np.array([], dtype=np.int64)
    return [((split, label), indices.get((split, label), empty)) for split in SPLITS for label in labels]


def _rows(sources: pd.DataFrame, order: Numbers, counts: Numbers, first: Numbers, recipe: Recipe) -> pd.DataFrame:
    """The rows of the images that sources give, in this order of the sources: `counts` of each, numbered from `first` on."""
    rows = sources.assign(stem=_stems(sources)).take(np.repeat(order, counts[order]))
    start = first[order] - counts[order].cumsum() + counts[order]
    variant = np.arange(len(rows)) + np.repeat(start, counts[order])
    ending = "png" if recipe.format == "png" else "jpg"
    splits, labels, stems = (rows[name].tolist() for name in ("split", "label", "stem"))
    numbers = variant.tolist()
    paths = [
        f"{split}/{label}/{stem}-v{number}.{ending}"
        for split, label, stem, number in zip(splits, labels, stems, numbers, strict=True)
    ]
    drawn_by = zip(rows["first_seed"].tolist(), rows["source_sha256"].tolist(), numbers, strict=True)
    seeds = [variant_seed(recipe.seed, sha256, number) if number else first for first, sha256, number in drawn_by]
    rows = rows.assign(path=paths, variant=variant, seed=seeds)
    columns = ["path", "label", "split", "source", "group", "variant", "seed", "source_sha256"]
    return rows[columns].reset_index(drop=True)


def _stems(sources: pd.DataFrame) -> list[str]:
    """A readable, safe file name for each source, without its ending.

    It is made unique by a piece of the path's checksum where another source of the class has the same name
    (a.png beside a.jpg, train/a.jpg beside val/a.jpg; also on file systems that fold case), or where it
    would be too long to take a suffix.
    """
    paths = sources["source"].tolist()
    lines = "\n".join(
        [path.rpartition("/")[2].rsplit(".", 1)[0] for path in paths]
    )  # one search, not a million; no name has a line break
    names = _UNSAFE.sub("_", lines).split("\n")
    short = [name if len(name) <= 45 else name.encode()[:180].decode(errors="ignore") for name in names]
    pairs = zip(sources["label"].tolist(), short, strict=True)
    folded = [unicodedata.normalize("NFC", f"{label}/{stem}").casefold() for label, stem in pairs]
    repeated = pd.Series(folded, dtype=object).duplicated(keep=False).tolist()
    return [
        f"{stem}-{hashlib.sha256(path.encode()).hexdigest()[:8]}" if again or stem != name or not stem else stem
        for path, name, stem, again in zip(paths, names, short, repeated, strict=True)
    ]
