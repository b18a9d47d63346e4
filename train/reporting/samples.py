"""Which images of a set its figures show."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from train.dataset import Dataset

PAIRS = 12  # images that the loss by rescaling is measured on
VARIANTS = 5  # images a class that augmentation is shown by


class Samples(NamedTuple):
    """What two of the figures show of a set."""

    title: str
    size: tuple[int, int]  # width, height
    originals: list[Path]  # files of sources, spread evenly over the set
    variants: dict[str, list[tuple[Path, int]]]  # by class, of the sources with most: image file and number


def choose(dataset: "Dataset", root: Path) -> Samples:
    """Choose what is shown; the sources lie where the card says, seen from `root`."""
    names = dataset.rows.loc[dataset.rows["variant"] == 0, "source"].sort_values().tolist()
    source = root / dataset.card.get("source", "")
    originals = [source / name for name in names[:: max(1, len(names) // PAIRS)][:PAIRS]]
    rows, variants = dataset.of("train"), {}
    for label in dataset.classes:
        of_label = rows[rows["label"] == label]
        of_source = of_label.groupby("source")["variant"]
        # Sources that are there as they are come first: else there is an after without a before.
        most = of_label.assign(first=of_source.transform("min"), in_all=of_source.transform("size")).sort_values(
            ["first", "in_all", "source", "variant"], ascending=[True, False, True, True]
        )[:VARIANTS]
        variants[label] = list(zip(dataset.paths(most), most["variant"].tolist(), strict=True))
    title = " - ".join(filter(None, (dataset.card.get("name"), dataset.card.get("notice"))))
    return Samples(title, dataset.size, originals, variants)
