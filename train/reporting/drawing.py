"""What another process draws for a run while this one trains.

Light on purpose: this process imports nothing that draws, and that one nothing that trains.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from train.reporting.samples import Samples

if TYPE_CHECKING:
    from train.evaluation.results import Finished

MODULES = ("train.reporting.drawing", "train.reporting.run_figures")  # that it needs


def of_set(chosen: Samples, folder: Path) -> None:
    """Draw rescaling.png, where the source folder is still there, and augmentation.png into `folder`."""
    from train.reporting import run_figures

    run_figures.rescaling(chosen, folder / "rescaling.png")
    run_figures.augmentation(chosen, folder / "augmentation.png")


def of_outcome(run: "Finished", folder: Path) -> dict[str, bytes]:
    """Draw curves.png for a run into `folder`; gives its other figures as PNGs, by name."""
    from train.reporting import plots, run_figures

    name = " - ".join(filter(None, (run.settings["set"], run.settings.get("notice"))))
    run_figures.curves(run.history, f"Training on {name}", folder / "curves.png")
    return plots.pictures(run)
