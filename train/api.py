"""What notebooks and the command line call: `train.fit`, `train.compare`, `train.report`, `train.predict` ..."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from common.console import progress, say
from train.console import import_tensorflow
from train.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from train.data_checks.shift import Shift
    from train.evaluation.results import Finished
    from train.reporting.error_analysis import Heat

# The stages are imported inside the functions: `import train` should take a blink, and TensorFlow takes seconds.

Place = str | PathLike[str]


def fit(
    manifest: Place,
    settings: Settings = Settings(),  # noqa: B008  # frozen
    *,
    run: Place | None = None,
    root: Place | None = None,
    cache: Place | None = None,
    cache_limit: float | None = None,
    engine: str = "auto",
    precision: str = "auto",
    positive: str | None = None,
    cluster: str | None = None,
) -> "Finished":
    """Train on a set: the head on a frozen backbone, then the backbone's last layers too.

    Prints what it does. A run that is finished already is read, not trained again; one that was killed goes on.

    Args:
        manifest: the set's CSV file.
        settings: what decides the run's outcome, beside the set.
        run: the folder for the results; None: runs/NAME OF THE MANIFEST in `root`.
        root: the folder that the manifest's paths are relative to; None: as its card has it.
        cache: the folder for activations; None: data/activations in `root`.
        cache_limit: GB that it may grow to; None: the disk, less 1 GB.
        engine: what runs the frozen layers: auto, tensorflow or openvino.
        precision: of the frozen layers: auto (float32, or bfloat16 where that is faster) or int8 (OpenVINO's).
        positive: the positive one of two classes; None: chosen by its name.
        cluster: the address of a Dask scheduler, or its scheduler file, whose workers run the frozen layers; None: this machine.

    Returns:
        The run: `metrics` by phase (`metrics["fine-tuned"].test.auroc.value`), `settings` as in settings.json, `history` (a row an epoch) and
        `predictions` (a row a held-out image and phase) as DataFrames.

    Raises:
        UserError: the manifest, the weights or the run folder can't be used; the message says why, and the fix.
    """
    import_tensorflow()
    from train import run as stage

    return stage.complete(
        Path(manifest),
        settings,
        run=Path(run) if run else None,
        root=Path(root) if root is not None else None,
        cache=Path(cache) if cache else None,
        limit=None if cache_limit is None else int(cache_limit * 10**9),
        engine=engine,
        precision=precision,
        positive=positive,
        cluster=cluster,
    )


def compare(runs: Sequence[Place], *, out_of_fold: bool = False, against_first: bool = False) -> "pd.DataFrame":
    """Compare runs on the test images that they share, by pairs and between their phases.

    Args:
        runs: folders of finished runs.
        out_of_fold: compare cross-validated runs by their predictions out of fold instead, and leave test alone.
        against_first: compare only the last phase of each with that of the first; of each figure the intervals hold together.

    Returns:
        A row a comparison: `first`, `second`, `figure`, `difference` (second less first) with its 95 % interval
        `low` to `high`, the p-values `p`, `p_holm` (corrected for all) and `p_mcnemar`, `words`, what may be said, and
        the `reason` and `note` that explain what isn't defined and how runs that group images differently are compared.

    Raises:
        UserError: a folder holds no finished run, or the runs can't be compared.
    """
    from train.evaluation import compare as stage
    from train.evaluation import results

    finished = [results.read(run) for run in results.distinct(map(Path, runs))]
    with progress("comparisons", "pairs") as show:
        return stage.differences(finished, show, out_of_fold=out_of_fold, against_first=against_first)


def shift(run: Place) -> "Shift":
    """Whether the test images of a run's set are like its train images, and what else than the content gives the class.

    Args:
        run: the folder of a finished run.

    Returns:
        What `fit` measured; `train.data_checks.shift_summary.summary` puts it into words.

    Raises:
        UserError: the folder holds no finished run, or one of an older version that measured none.
    """
    from train.data_checks import shift as stage
    from train.evaluation.results import ResultsError

    found = stage.read(Path(run))
    if found is None:
        raise ResultsError(
            f"{run} holds no finished run that measured shift; move its folder away and run `python -m train fit` again"
        )
    return found


def report(runs: Sequence[Place], out: Place | None = None, *, root: Place | None = None) -> Path:
    """Write one HTML page of runs, with all that it shows inside. Prints the sentences that it opens with.

    Args:
        runs: folders of finished runs.
        out: the page; None: report.html in the one run, or beside several.
        root: the folder that the manifests' paths are relative to; None: as their cards have it.

    Returns:
        Where the page is.

    Raises:
        UserError: a folder holds no finished run.
    """
    from train.reporting import page

    folders = [Path(run) for run in runs]
    place = Path(out) if out else page.default_out(folders)
    with progress("report", "steps") as show:
        sentences = page.write(folders, Path(root) if root is not None else None, place, _heat, show)
    for sentence in sentences:
        say(sentence)
    return place


def label_errors(run: Place) -> "pd.DataFrame":
    """List the images whose labels may be wrong, by a cross-validated run: each predicted by members that didn't learn it.

    They are images to look at. What makes a label wrong is someone who can read the image, and not a model.

    Args:
        run: the folder of a finished run that was trained with `folds`.

    Returns:
        A row an image and reason, the likeliest first: `path`, `source_sha256`, `label`, `group`, `suggested` (another
        class), `p(given)` and `p(suggested)` (their probabilities), `score` (0: certainly the other class, 1: the label's),
        `rank` within the label, and `why`: `prediction`, or `same picture: PATH` of an image with another label.

    Raises:
        UserError: the folder holds no finished run, it is not cross-validated, or a file of it is damaged.
    """
    from train.data_checks import label_review

    return label_review.read(Path(run)).table


def predict(run: Place, images: Sequence[Place], columns: "Mapping[str, str] | None" = None) -> "pd.DataFrame":
    """Predict images with the model of a run. No medical device: not for use on patients.

    Args:
        run: the folder of a finished run.
        images: files, folders that are searched at any depth, and lists that name files below their own folder.
        columns: how a list calls its column path, where it is called otherwise.

    Returns:
        A row a file: its name, the predicted class, the probability of each class, what the run learnt from it (empty
        for a new image) and why it can't be read (empty if it can).

    Raises:
        UserError: the run has no usable model.
    """
    import_tensorflow()
    from train.data_checks import leaks
    from train.inference import predict as stage
    from train.inference import predictor
    from train.inference.files import listed

    trained = predictor.load(Path(run))
    with progress("predicting", "images") as show:
        found = listed([Path(place) for place in images], columns)
        return stage.predict(trained, found, show, None, leaks.read(Path(run)))


def _heat(run: Path, size: tuple[int, int]) -> "tuple[Heat | None, str]":
    """What maps evidence with a run's model, or why nothing can."""
    import_tensorflow()
    from train.inference import cam, predictor

    try:
        loaded = predictor.load(run)
    except predictor.PredictorError as error:
        return None, str(error)
    if loaded.size != size:
        return None, f"model.keras takes images of {loaded.size[0]} x {loaded.size[1]}, the set has others"
    return cam.GradCam(loaded).heat, ""
