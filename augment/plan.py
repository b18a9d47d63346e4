"""Table of sources + recipe -> table of images to be: a pure function, no I/O.

First the groups (patients) are split, stratified by class; then each side of the split is filled to its
target on its own. Every choice goes by SHA-256 of the seed and of what is chosen among, never by position,
so that adding or taking away a source moves few others.
"""

import hashlib
import re
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from augment.recipe import Recipe
from augment.scan import Rejected
from manifests.contract import SPLITS

_UNSAFE = re.compile(r'[<>:"/|?*%]')  # no file system or URL minds the rest; control characters never get here


class PlanError(ValueError):
    """The sources can't make the set that the recipe asks for; the message names the class and the fix."""


class Plan(NamedTuple):
    """What is to be rendered.

    `rows` has the columns path (relative to the image folder), label, split, source, group, variant, seed and
    source_sha256, one row an image, sorted by split, label, source and variant. `left_out` are sources that
    their class has too many of.
    """

    rows: pd.DataFrame
    left_out: list[Rejected]


def plan(sources: pd.DataFrame, recipe: Recipe) -> Plan:
    """Decide every image of a set.

    Args:
        sources: string columns source, split (may be empty), label, group, source_sha256.
        recipe: what the set is to be.

    Raises:
        PlanError: a target that can't be met, or a patient or an image in two of the source's own splits.
    """
    sources = sources.sort_values("source", ignore_index=True)
    sources["split"] = _split(sources, recipe)
    sources["first_seed"] = [variant_seed(recipe.seed, sha256, 0) for sha256 in sources["source_sha256"]]
    counts = np.zeros(len(sources), dtype=np.int64)
    left_out = []
    labels = sorted(sources["label"].unique())
    for (split, label), members in _by_side(sources, labels):
        target = recipe.targets[split]
        counts[members] = _fill(sources.loc[members], target, f"{label} in {split}", recipe)
        for name in sources.loc[members[counts[members] == 0], "source"]:
            reason = f"sampled down: {label} has {len(members):,} sources in {split}, the recipe wants {target:,}"
            left_out.append(Rejected(name, reason))
    return Plan(_rows(sources, counts, recipe), sorted(left_out))


def variant_seed(set_seed: int, source_sha256: str, variant: int) -> int:
    """A variant's own seed, from 0 to 2^63 - 1: a function of these three and of nothing else."""
    return _hash(f"{set_seed}:{source_sha256}:{variant}")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def _split(sources: pd.DataFrame, recipe: Recipe) -> "pd.Series[str]":
    """The split of each source: the source's own where it holds, the pool's groups shared out otherwise."""
    own = ("test", "val") if recipe.keep_source_val else ("test",)
    split = sources["split"].where(sources["split"].isin(own), "")
    if recipe.keep_source_val and (split == "val").any():
        split = split.where(sources["split"] != "train", "train")
    unit = _units(sources)
    _refuse_leaks(sources, split)
    has_val = (split == "val").any()
    pool = sources[split == ""].assign(unit=unit)
    key = pool.groupby("unit")["group"].min()
    stratum = pool.groupby("unit")["label"].agg(lambda labels: tuple(sorted(set(labels))))
    assigned: dict[int, str] = {}
    for _, units in sorted(stratum.groupby(stratum).groups.items()):
        ordered = sorted(units, key=lambda number: _hash(f"{recipe.seed}:split:{key[number]}"))
        test = 0 if (split == "test").any() else _share(recipe.test, len(ordered))
        val = 0 if has_val else _share(recipe.val, len(ordered) - test)
        sides = ["test"] * test + ["val"] * val + ["train"] * (len(ordered) - test - val)
        assigned.update(zip(ordered, sides, strict=True))
    return split.where(split != "", unit.map(assigned))


def _share(share: float, of: int) -> int:
    """The whole number nearest to share * of; but neither nothing nor everything where that can be helped."""
    if share == 0 or of < 2:
        return 0
    return min(max(round(share * of), 1), of - 1)


def _units(sources: pd.DataFrame) -> "pd.Series[int]":
    """Number the sources so that those of one group, or with identical bytes, have the same number."""
    group = pd.factorize(sources["group"])[0]
    bytes_ = pd.factorize(sources["source_sha256"])[0]
    size = len(sources)
    edges = coo_array((np.ones(size, dtype=bool), (group, bytes_ + size)), shape=(2 * size, 2 * size))
    return pd.Series(connected_components(edges, directed=False)[1][group], index=sources.index)


def _refuse_leaks(sources: pd.DataFrame, split: "pd.Series[str]") -> None:
    """The source's own splits share no patient and no image with each other or with the pool."""
    side = split.where(split != "", "train")
    for column, what in (("group", "patient"), ("source_sha256", "identical image")):
        first_side = side.groupby(sources[column]).transform("first")
        if (side != first_side).any():
            at = int((side != first_side).to_numpy().argmax())
            other = int((sources[column] == sources[column].iloc[at]).to_numpy().argmax())
            raise PlanError(
                f"one {what} in two splits: {sources['source'].iloc[other]} is in {side.iloc[other]}, "
                f"{sources['source'].iloc[at]} in {side.iloc[at]}; take one of them out of the source folder"
            )


def _by_side(sources: pd.DataFrame, labels: list[str]) -> list[tuple[tuple[str, str], np.ndarray]]:
    indices = sources.groupby(["split", "label"]).indices
    empty = np.array([], dtype=np.int64)
    return [((split, label), indices.get((split, label), empty)) for split in SPLITS for label in labels]


def _fill(members: pd.DataFrame, target: int | None, where: str, recipe: Recipe) -> np.ndarray:
    """Images for each of `members`: equal to within one, the larger shares drawn by seed; 0 drops a source."""
    have = len(members)
    if where.endswith("in train") and have == 0:
        raise PlanError(f"{where}: no source, so nothing could be learnt; add images or take the class out")
    if target is None or target == have:
        return np.ones(have, dtype=np.int64)
    if have == 0 and target > 0:
        raise PlanError(
            f"{where}: the recipe wants {target:,} images, but no source of that class is there (a class needs at least 2 "
            "groups to be in train and val); add images, or set val: 0"
        )
    if target > have and recipe.transforms == "[]":
        raise PlanError(
            f"{where}: the recipe wants {target:,} images, but there are {have:,} sources and it names no transforms "
            "to make more with; add transforms or lower per_class"
        )
    extra = np.zeros(have, dtype=np.int64)
    extra[np.argsort(members["first_seed"].to_numpy(), kind="stable")[: target % have]] = 1
    return target // have + extra


def _rows(sources: pd.DataFrame, counts: np.ndarray, recipe: Recipe) -> pd.DataFrame:
    sources = sources.assign(stem=_stems(sources), count=counts)
    sources["rank"] = sources["split"].map({name: rank for rank, name in enumerate(SPLITS)})
    sources = sources[sources["count"] > 0].sort_values(["rank", "label", "source"], ignore_index=True)
    rows = sources.loc[sources.index.repeat(sources["count"])]
    variant = np.arange(len(rows)) - np.repeat(
        (sources["count"].cumsum() - sources["count"]).to_numpy(), sources["count"]
    )
    paths = [
        f"{split}/{label}/{stem}-v{number}.jpg"
        for split, label, stem, number in zip(rows["split"], rows["label"], rows["stem"], variant, strict=True)
    ]
    seeds = [variant_seed(recipe.seed, *drawn) for drawn in zip(rows["source_sha256"], variant.tolist(), strict=True)]
    rows = rows.assign(path=paths, variant=variant, seed=seeds)
    columns = ["path", "label", "split", "source", "group", "variant", "seed", "source_sha256"]
    return rows[columns].reset_index(drop=True)


def _stems(sources: pd.DataFrame) -> list[str]:
    """A readable, safe file name for each source, without its ending.

    It is told apart by a piece of the path's checksum where another source of the class has the same name
    (a.png beside a.jpg, train/a.jpg beside val/a.jpg; also on file systems that fold case), or where it
    would be too long to take a suffix.
    """
    stems = sources["source"].str.rpartition("/")[2].str.replace(r"\.[^.]*$", "", regex=True)
    stems = stems.str.replace(_UNSAFE, "_", regex=True)
    short = stems.map(lambda stem: stem.encode()[:180].decode(errors="ignore"))
    folded = (sources["label"] + "/" + short).str.casefold()
    doubtful = folded.duplicated(keep=False) | (short != stems) | (short == "")
    mark = sources["source"].map(lambda source: "-" + hashlib.sha256(source.encode()).hexdigest()[:8])
    return (short + mark.where(doubtful, "")).tolist()
