"""How much of each class is augmented. Where classes differ in it, a network can learn the augmentation as the class."""

import pandas as pd

from manifests.contract import SPLITS

_APART = 0.10  # by so much classes may differ in their share of augmented images before it is worth a warning


def augmented_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """The share of augmented images, 0 to 1, by split (rows, in the order of the splits) and class (columns, sorted)."""
    rows = rows.assign(augmented=rows["variant"] > 0)
    shares = rows.pivot_table("augmented", "split", "label", "mean")
    return shares.reindex([split for split in SPLITS if split in shares.index])


def unevenness(rows: pd.DataFrame) -> list[str]:
    """A warning for each split whose classes differ by more than 10 points in their share of augmented images."""
    found = []
    for split, shares in augmented_shares(rows).iterrows():
        if shares.max() - shares.min() > _APART:
            fix = "augmented_share: even" if split == "train" else "augment: [train]"
            found.append(
                f"{split}: {shares.max():.0%} of the images of {shares.idxmax()} are augmented and {shares.min():.0%} of "
                f"{shares.idxmin()}'s, so being augmented hints at the class, and a network learns that; put `{fix}` into "
                "the recipe"
            )
    return found
