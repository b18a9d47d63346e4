"""The split of each source: by patient, stratified by class, and without an image or a patient on two sides.

Every choice goes by SHA-256 of the seed and of what is chosen among, never by position.
"""

import hashlib

import numpy as np
import pandas as pd

from augment.planning import PlanError
from augment.recipe import Recipe
from augment.sources.layout import Rejected


def assign(
    sources: pd.DataFrame, recipe: Recipe, *, drop_leaks: bool, drop_conflicts: bool
) -> tuple[pd.DataFrame, list[Rejected]]:
    """Give each source its split: its own where the recipe keeps it, else by its patient, stratified by class.

    Args:
        sources: as `plan` takes them.
        recipe: its shares of val and test, and its seed.
        drop_leaks: as `plan` has it.
        drop_conflicts: as `plan` has it.

    Returns:
        The sources sorted by name, with the columns `unit` (a number that patients who share an image have in common) and
        `in_pool` (whether it had no split of its own), and those that were dropped.

    Raises:
        PlanError: as `plan` has it.
    """
    sources = sources.astype(object)  # pandas's own text is slow to go through
    sources = sources.sort_values("source", kind="stable", ignore_index=True)  # stable: fast where it is sorted already
    left_out: list[Rejected] = []
    if drop_conflicts:
        labels = set(sources["label"])
        sources, left_out = _without_conflicts(sources)
        for label in sorted(labels - set(sources["label"])):
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
    sources["in_pool"] = sources["split"] == ""
    sources["split"] = _shared_out(sources, recipe)
    return sources, left_out


def drawn(set_seed: int, text: str) -> int:
    """A number from 0 to 2^63 - 1 by SHA-256 of the seed and what is drawn for: a function of these and of nothing else."""
    return int.from_bytes(hashlib.sha256(f"{set_seed}:{text}".encode()).digest()[:8]) >> 1


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


def _shared_out(sources: pd.DataFrame, recipe: Recipe) -> "pd.Series[str]":
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
    for unit in sorted(labels, key=lambda unit: drawn(recipe.seed, f"split:{names[unit]}")):
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
