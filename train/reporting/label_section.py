"""The labels that may be wrong, as the page of a run shows them: by class, with the images."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from common.errors import UserError
from train.data_checks import label_errors, label_review
from train.evaluation.results import Finished
from train.reporting import error_analysis
from train.reporting.page_figures import cells

_MOST = 12  # images of a class
_FEW = 3  # of each of many classes


class Doubtful(NamedTuple):
    """An image whose label may be wrong. Where `image` is None there is nothing to show."""

    name: str
    group: str
    label: str
    suggested: str
    given: str  # probability of the label's class, and of the suggested one
    otherwise: str
    twin: str = ""  # the name of the same picture with the other label
    image: str | None = None  # data URLs
    twin_image: str | None = None


class LabelSection(NamedTuple):
    """What the page says of a run's labels; `by_class` is a table's cells, `fault` why something isn't shown."""

    sentence: str
    by_class: list[list[str]]
    doubtful: dict[str, list[Doubtful]]  # by label
    left_out: dict[str, int]  # how many more the run's table has
    twins: list[Doubtful]
    twins_left_out: int
    fault: str


def of_run(folder: Path, run: Finished, rows: pd.DataFrame | None, root: Path) -> LabelSection | None:
    """The section of a cross-validated run; None: it is of another kind.

    Args:
        folder: the run's.
        run: what is read of it.
        rows: of the set's manifest; without, no image is shown. An image whose checksum isn't the manifest's isn't the
            one that was judged, so it isn't shown.
        root: what the manifest's paths are relative to.
    """
    if not run.folds:
        return None
    try:
        review = label_review.of_run(folder, run)
    except UserError as error:
        return LabelSection("", [], {}, {}, [], 0, f"Can't be shown: {error}.")
    known = error_analysis.checksums(rows)
    classes = review.by_class["label"].tolist()
    most = _MOST if len(classes) <= error_analysis.MANY else _FEW
    by_label = {label: review.doubtful[review.doubtful["label"] == label] for label in classes}
    shown = {label: _shown(of_label.head(most), known, root) for label, of_label in by_label.items()}
    twins = _shown(review.twins.head(_MOST), known, root)
    every = [each for of_label in (*shown.values(), twins) for each in of_label]
    missing = sum(each.image is None or bool(each.twin and each.twin_image is None) for each in every)
    fault = f"{missing} of {len(every)} are without their image: it is gone or has changed since." if missing else ""
    return LabelSection(
        f"{review.sentence()}.",
        cells(review.by_class),
        shown,
        {label: len(of_label) - len(shown[label]) for label, of_label in by_label.items()},
        twins,
        len(review.twins) - len(twins),
        fault,
    )


def _shown(table: pd.DataFrame, known: dict[str, str], root: Path) -> list[Doubtful]:
    """Rows of the table with their images."""
    found = []
    for row in table.to_dict("records"):
        twin = label_errors.twin_of(row["why"])
        found.append(
            Doubtful(
                Path(row["path"]).name,
                row["group"],
                row["label"],
                row["suggested"],
                f"{row['p(given)']:.3f}",
                f"{row['p(suggested)']:.3f}",
                Path(twin).name,
                error_analysis.image(root / row["path"], known.get(row["path"])),
                error_analysis.image(root / twin, known.get(twin)),
            )
        )
    return found
