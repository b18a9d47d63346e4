"""What another process draws for a run while this one trains.

Light on purpose: this process imports nothing that draws, and that one nothing that trains.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from train.dataset import Dataset
    from train.outcome import Finished

MODULES = ("train.artist", "train.report")  # that it needs
PAIRS = 12  # images that the loss by rescaling is measured on
VARIANTS = 5  # images a class that augmentation is shown by


class Samples(NamedTuple):
    """What two of the figures show of a set, little enough to hand to another process."""

    title: str
    size: tuple[int, int]  # width, height
    originals: list[Path]  # files of sources, spread evenly over the set
    variants: dict[str, list[tuple[Path, int]]]  # by class, of the sources with most: image file and number


def samples(dataset: "Dataset", root: Path) -> Samples:
    """Choose what `of_set` is to show; the sources lie where the card says, seen from `root`."""
    names = dataset.rows.loc[dataset.rows["variant"] == 0, "source"].sort_values().tolist()
    source = root / dataset.card.get("source", "")
    originals = [source / name for name in names[:: max(1, len(names) // PAIRS)][:PAIRS]]
    rows, variants = dataset.of("train"), {}
    for label in dataset.classes:
        of_label = rows[rows["label"] == label]
        in_all = of_label.groupby("source")["path"].transform("size")
        most = of_label.assign(in_all=in_all).sort_values(
            ["in_all", "source", "variant"], ascending=[False, True, True]
        )[:VARIANTS]
        variants[label] = list(zip(dataset.paths(most), most["variant"].tolist(), strict=True))
    title = " - ".join(filter(None, (dataset.card.get("name"), dataset.card.get("notice"))))
    return Samples(title, dataset.size, originals, variants)


def of_set(chosen: Samples, folder: Path) -> None:
    """Draw rescaling.png, where the source folder is still there, and augmentation.png into `folder`."""
    from train import report

    report.rescaling(chosen, folder / "rescaling.png")
    report.augmentation(chosen, folder / "augmentation.png")


def of_outcome(run: "Finished", folder: Path) -> dict[str, bytes]:
    """Draw curves.png for a run into `folder`; gives its other figures as PNGs, by name."""
    from train import plots, report

    name = " - ".join(filter(None, (run.settings["set"], run.settings.get("notice"))))
    report.curves(run.history, f"Training on {name}", folder / "curves.png")
    return plots.pictures(run)
