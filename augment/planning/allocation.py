"""How many images each source of a class gives, and which of them are augmented.

The class must not be predictable from whether an image is augmented. Where one class is filled up with variants and
another isn't, a network learns their mark (blur of interpolation, repeated edges) as if it were the class; with
`augmented_share` every class of a split holds the same share of variants.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from augment.recipe import EVEN, Recipe
from common.errors import UserError


class AllocationError(UserError):
    """A class can't be brought to its target; the message says why and what to do, but not where."""


def originals(have: int, least: int, split: str, recipe: Recipe) -> tuple[int, int]:
    """How many images a class has in a split, and how many of them are sources as they are.

    Args:
        have: sources of the class in the split.
        least: sources of the class of the split that has fewest.
        split: where.
        recipe: what the set is to be.

    Raises:
        AllocationError: more originals are needed than there are, or there are no transforms to make variants with.
    """
    target = recipe.targets[split]
    images = have if target is None else target
    if recipe.augmented_share is None or split not in recipe.augment:
        shown = min(have, images)
    elif recipe.augmented_share == EVEN:  # the class with fewest sources decides how many variants are needed
        shown = have if target is None else min(least, images)
    else:
        shown = images - round(float(recipe.augmented_share) * images)
        if shown > have:
            raise AllocationError(
                f"augmented_share {recipe.augmented_share} leaves {shown:,} of {images:,} images to be sources as they are, "
                f"but there are {have:,}; set augmented_share to {EVEN}, or to {1 - have / images:.3f} or more"
            )
    if shown < images and recipe.transforms == "[]":
        needs = f"there are {have:,} sources" if shown == have else f"{images - shown:,} of them are to be augmented"
        raise AllocationError(
            f"the recipe wants {images:,} images, but {needs} and it names no transforms to make more with; add "
            "transforms or lower per_class"
        )
    return images, shown


def allocate(
    members: pd.DataFrame, images: int, shown: int, hash_of: Callable[[str], int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Share a class's images out over its sources: equal to within one.

    Args:
        members: its sources, with the columns first_seed and source_sha256.
        images: how many there are to be.
        shown: how many of them are to be sources as they are.
        hash_of: draws, by a text, which sources are shown as they are.

    Returns:
        For each source how many images it gives, and the number of the first: 0, the source itself, or 1.
    """
    have = len(members)
    counts = np.full(have, images // have)
    counts[np.argsort(members["first_seed"].to_numpy(), kind="stable")[: images % have]] += 1
    used = np.flatnonzero(counts)
    first = np.ones(have, dtype=np.int64)
    if 0 < shown < len(used):
        drawn = [hash_of(f"original:{sha256}") for sha256 in members["source_sha256"].iloc[used].tolist()]
        used = used[np.argsort(drawn, kind="stable")]
    first[used[:shown]] = 0
    return counts, first
