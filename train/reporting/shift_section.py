"""The report's section on shift and shortcuts: words, tables, and the test images least like train."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from train.data_checks import shift, shift_summary
from train.evaluation.results import Finished
from train.reporting import error_analysis
from train.reporting.page_figures import cells


class Part(NamedTuple):
    """A part of it: sentences, and a table's cells, the header first."""

    title: str
    sentences: list[str]
    cells: list[list[str]]


class Unlike(NamedTuple):
    """A test image that is least like train; `image` is None where it isn't at hand as it was."""

    name: str
    image: str | None
    probability: str


class Section(NamedTuple):
    """All of it; `unlike` by class."""

    parts: list[Part]
    unlike: dict[str, list[Unlike]]


def section(folder: Path, run: Finished, rows: pd.DataFrame | None, root: Path) -> Section | None:
    """The section of a run; None if an older version trained it.

    Args:
        folder: the run's.
        run: as it was read.
        rows: of its set's manifest; without, no image is shown.
        root: what the manifest's paths are relative to.

    Raises:
        ResultsError: what was measured is damaged.
    """
    found = shift.read(folder)
    if found is None:
        return None
    known = error_analysis.checksums(rows)

    def shown(each: shift.Unlike) -> Unlike:
        image = error_analysis.image(root / each.path, each.sha256) if known.get(each.path) == each.sha256 else None
        return Unlike(Path(each.path).name, image, f"{each.probability:.3f}")

    parts = [Part(part.title, part.sentences, cells(part.table)) for part in shift_summary.summary(found, run.settings)]
    return Section(parts, {label: list(map(shown, of.unlike)) for label, of in found.classes.items() if of.unlike})
