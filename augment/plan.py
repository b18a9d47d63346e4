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

from augment.allocation import AllocationError, allocate, originals
from augment.recipe import LARGEST, SMALLEST, Recipe
from augment.sources.layout import Rejected
from common.errors import UserError
from manifests.contract import SPLITS

Numbers = NDArray[np.int64]  # one a source
_UNSAFE = re.compile(r'[<>:"/|?*%]')  # no file system or URL minds the rest; control characters never get here


class PlanError(UserError):
    """The sources can't make the set that the recipe asks for; the message names the class and the fix."""


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
    sources = sources.astype(object)  # pandas's own text is slow to go through
    sources = sources.sort_values("source", kind="stable", ignore_index=True)  # stable: fast where it is sorted already
    left_out: list[Rejected] = []
    if drop_conflicts:
        sources, left_out = _without_conflicts(sources)
        for label in sorted(set(labels) - set(sources["label"])):
            raise PlanError(
                f"{label}: each of its images stands in another class too, so that dropping those leaves none; take the "
                "wrong ones out of the source folder"
            )
    elif drop_leaks:  # first: which of two labels is right, no split says
        _refuse_conflicts(sources)
    sources = sources.assign(unit=_units(sources), split=_own_split(sources, recipe))
    sources, leaking = _without_leaks(sources, recipe.group_name, drop_leaks=drop_leaks)
    if not drop_conflicts:
        _refuse_conflicts(sources)
    left_out += leaking
    in_pool = sources["split"] == ""
    sources["split"] = _split(sources, recipe)
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
                raise PlanError(_lack(sources, in_pool, split, label, recipe))
            continue
        try:
            images, shown = originals(len(members), least[split], split, recipe)
        except AllocationError as error:
            raise PlanError(f"{label} in {split}: {error}") from None
        draw = partial(_drawn, recipe.seed)
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


def _lack(sources: pd.DataFrame, in_pool: "pd.Series[bool]", split: str, label: str, recipe: Recipe) -> str:
    """Why a class has no source in a split that needs one, and what to do."""
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
    return _hash(f"{set_seed}:{source_sha256}:{variant}")


def _drawn(set_seed: int, text: str) -> int:
    return _hash(f"{set_seed}:{text}")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def _own_split(sources: pd.DataFrame, recipe: Recipe) -> "pd.Series[str]":
    """The source's own split of each source where the recipe keeps it; empty for the pool that is shared out.

    With val, train is kept too, unless it has to give up some for a test that the source lacks.
    """
    own = ("test", "val") if recipe.keep_source_val else ("test",)
    split = sources["split"].where(sources["split"].isin(own), "")
    needs_test = recipe.test > 0 and (split != "test").all()
    if recipe.keep_source_val and (split == "val").any() and not needs_test:
        split = split.where(sources["split"] != "train", "train")
    return split


def _split(sources: pd.DataFrame, recipe: Recipe) -> "pd.Series[str]":
    """The split of each source: its own if it has one; the pool's units are shared out, stratified by class.

    `test` and `val` are both shares of a stratum's units, so that 0.2 and 0.2 leave 0.6 for train.
    """
    split = sources["split"]
    has_test, has_val = (split == "test").any(), (split == "val").any()
    if not has_test and not has_val and recipe.val + recipe.test >= 1:
        raise PlanError(
            f"val {recipe.val:g} and test {recipe.test:g} are shares of all {recipe.group_names}, and leave none to train on; "
            "lower one"
        )
    pool = sources.loc[split == "", ["unit", "group", "label"]].drop_duplicates()  # a patient has several images
    names: dict[int, str] = {}  # of each unit, the first of its groups
    labels: dict[int, tuple[str, ...]] = {}
    for unit, group, label in zip(*(pool[name].tolist() for name in pool), strict=True):
        names[unit] = min(names.get(unit, group), group)
        if label not in labels.setdefault(unit, (label,)):
            labels[unit] = tuple(sorted((*labels[unit], label)))
    strata: dict[tuple[str, ...], list[int]] = {}
    for unit in sorted(labels, key=lambda unit: _hash(f"{recipe.seed}:split:{names[unit]}")):
        strata.setdefault(labels[unit], []).append(unit)
    assigned: dict[int, str] = {}
    for units in strata.values():
        test = 0 if has_test else _share(recipe.test, len(units))
        val = 0 if has_val else min(_share(recipe.val, len(units)), max(len(units) - test - 1, 0))
        # val and test from either end: if both shares round to one less, one patient each moves, and no third between them
        sides = ["val"] * val + ["train"] * (len(units) - test - val) + ["test"] * test
        assigned.update(zip(units, sides, strict=True))
    return split.where(split != "", [assigned.get(unit, "") for unit in sources["unit"].tolist()])


def _share(share: float, of: int) -> int:
    """The whole number nearest to share * of; but neither nothing nor everything where that can be helped."""
    if share == 0 or of < 2:
        return 0
    return min(max(round(share * of), 1), of - 1)


def _conflicting(sources: pd.DataFrame) -> pd.DataFrame:
    """The sources whose bytes stand in two classes, with one of another class as `other` and `other_label`."""
    twice = sources[sources["source_sha256"].duplicated(keep=False)]
    conflicting = twice[twice.groupby("source_sha256")["label"].transform("nunique") > 1]
    copies = conflicting[["source_sha256", "source", "label"]]
    pairs = copies.merge(copies, on="source_sha256", suffixes=("", "_other"))
    pairs = pairs[pairs["label"] != pairs["label_other"]].drop_duplicates("source").sort_values("source")
    return pairs.rename(columns={"source_other": "other", "label_other": "other_label"})


def _without_conflicts(sources: pd.DataFrame) -> tuple[pd.DataFrame, list[Rejected]]:
    """Leave out all copies of an image whose bytes stand in two classes: nobody here knows which label is right."""
    conflicting = _conflicting(sources)
    left_out = [
        Rejected(row.source, f"dropped: the same image is {row.other_label} too ({row.other})")
        for row in conflicting.itertuples()
    ]
    return sources[~sources["source"].isin(conflicting["source"])].reset_index(drop=True), left_out


def _refuse_conflicts(sources: pd.DataFrame) -> None:
    conflicting = _conflicting(sources)
    for row in conflicting.head(1).itertuples():
        raise PlanError(
            f"one image in two classes: {row.source} is {row.label}, {row.other}, the same to the byte, is "
            f"{row.other_label} ({len(conflicting)} files in all); take the wrong ones out of the source folder, or let "
            "--on-conflict drop leave all of them out"
        )


def _units(sources: pd.DataFrame) -> np.ndarray:
    """Number the sources so that those of one group, or with identical bytes, have the same number."""
    group, groups = pd.factorize(sources["group"])
    first: dict[str, int] = {}  # of each image that is there twice, the first group it is in
    joined = list(range(len(groups)))

    def root(number: int) -> int:
        while joined[number] != number:
            number = joined[number]
        return number

    twice = sources["source_sha256"].duplicated(keep=False)
    for sha256, number in zip(sources.loc[twice, "source_sha256"], group[twice], strict=True):
        joined[root(number)] = root(first.setdefault(sha256, int(number)))
    return np.array([root(number) for number in joined], dtype=np.int64)[group]


def _without_leaks(sources: pd.DataFrame, name: str, *, drop_leaks: bool) -> tuple[pd.DataFrame, list[Rejected]]:
    """Refuse or leave out what shares a group (called `name`) or an image with another of the source's own splits."""
    rank = sources["split"].map({"": 0, "train": 0, "val": 1, "test": 2})
    leaks = sources[rank < rank.groupby(sources["unit"]).transform("max")]
    if leaks.empty:
        return sources, []
    if not drop_leaks:
        _refuse_leaks(sources, name)
    strict = sources.loc[rank.sort_values(kind="stable").index].drop_duplicates("unit", keep="last").set_index("unit")
    left_out = [
        Rejected(
            leak.source,
            f"dropped: its {name} or image is in {strict.split[leak.unit]} too ({strict.source[leak.unit]})",
        )
        for leak in leaks.itertuples()
    ]
    return sources.drop(leaks.index).reset_index(drop=True), left_out


def _refuse_leaks(sources: pd.DataFrame, name: str) -> None:
    side = sources["split"].replace("", "train")
    for column, what in (("group", name), ("source_sha256", "identical image")):
        first_side = side.groupby(sources[column]).transform("first")
        if (side != first_side).any():
            at = int((side != first_side).to_numpy().argmax())
            other = int((sources[column] == sources[column].iloc[at]).to_numpy().argmax())
            raise PlanError(
                f"one {what} in two splits: {sources['source'].iloc[other]} is in {side.iloc[other]}, "
                f"{sources['source'].iloc[at]} in {side.iloc[at]}; take one of them out of the source folder, or let "
                "--on-leak drop leave it out of train"
            )


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
