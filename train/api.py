"""What notebooks and the command line call: `train.fit`, `train.compare`, `train.report`, `train.predict` ..."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.console import progress, say
from train.console import import_tensorflow
from train.settings import DEMO, Settings

if TYPE_CHECKING:
    import pandas as pd

    from train.data_checks.shift import Shift
    from train.dataset import Dataset
    from train.evaluation.results import Finished
    from train.features.activations import Activations
    from train.features.backbone import Cut
    from train.features.engine import Engine
    from train.features.extract import Features, Progress
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
        positive: the positive one of two classes; None: chosen by its name.
        cluster: the address of a Dask scheduler, or its scheduler file, whose workers run the frozen layers; None: this machine.

    Returns:
        The run: `metrics` by phase (`metrics["fine-tuned"].test.auroc.value`), `settings` as in settings.json, `history` (a row an epoch) and
        `predictions` (a row a held-out image and phase) as DataFrames.

    Raises:
        UserError: the manifest, the weights or the run folder can't be used; the message says why, and the fix.
    """
    import_tensorflow()
    from manifests import contract
    from train import dataset as datasets
    from train.evaluation import results
    from train.features import backbone as model
    from train.features import engine as engines
    from train.features import selection
    from train.fitting import folds, label_review, leaks, training
    from train.fitting import run_folder as runs

    manifest = Path(manifest)
    base = contract.root_of(manifest, Path(root) if root is not None else None)
    dataset = datasets.read(manifest, base, positive, pooled=settings.folds > 0)
    _expect_possible(settings, dataset, manifest)
    learnt_from = folds.pooled(dataset) if settings.folds else dataset
    folder = Path(run) if run else base / "runs" / manifest.stem
    cache = Path(cache) if cache else base / "data" / "activations"
    with model.strategy().scope():
        backbone = model.load_backbone(settings.backbone, settings.weights, dataset.size, settings.seed)
        weights = model.digest(backbone)
        part = model.cut(backbone, settings.fine_tune_layers)
        with_tail = min(settings.fine_tune_epochs, settings.fine_tune_layers) > 0
        chosen = selection.choose(
            engine,
            learnt_from,
            part,
            weights,
            cache,
            batch_size=settings.batch_size,
            with_tail=with_tail,
            before=runs.begun(folder, runs.describe(manifest, dataset, settings, weights, engines.PLAIN)),
        )
        description = runs.describe(manifest, dataset, settings, weights, chosen.engine, chosen.fine_tune_precision)
        if runs.is_finished(folder, description):
            say("This very run is finished already; move its folder away to run it again.")
        else:
            _print_set(description, dataset.reason, datasets.warnings(dataset, pooled=settings.folds > 0))
            say(f"Engine: {chosen.reason}")
        with runs.written(folder, description, say) as unfinished:
            if unfinished:
                kept = _activations(learnt_from, part, weights, cache, chosen.engine, with_tail, cache_limit, cluster)
                leaks.write(unfinished, learnt_from, cache, say)
                with progress("training", "batches") as show:
                    fitted = training.fit_and_measure(
                        learnt_from,
                        part,
                        kept,
                        settings,
                        unfinished,
                        _print_epoch,
                        show,
                        precision=chosen.fine_tune_precision,
                    )
                with progress("comparing test with train", "files") as show:
                    _compare_data(dataset, part, weights, cache, chosen.engine, base, unfinished, show)
                network = backbone if fitted.part is part else model.joined(fitted.part, f"{backbone.name}_ensemble")
                model.inference_model(network, fitted.head).save(unfinished / "model.keras")
                _draw(dataset, base, unfinished)
                if settings.folds:
                    say(label_review.write(unfinished).sentence(folder / label_review.NAME))
    return results.read(folder)


def compare(runs: Sequence[Place], *, out_of_fold: bool = False, against_first: bool = False) -> "pd.DataFrame":
    """Compare runs on the test images that they share, by pairs and between their phases.

    Args:
        runs: folders of finished runs.
        out_of_fold: compare cross-validated runs by their predictions out of fold instead, and leave test alone.
        against_first: compare only the last phase of each with that of the first, with intervals that hold together.

    Returns:
        A row a comparison: `first`, `second`, `figure`, `difference` (second less first) with its 95 % interval
        `low` to `high`, the p-values `p`, `p_holm` (corrected for all) and `p_mcnemar`, and `words`, what may be said.

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
        raise ResultsError(f"{run} holds no finished run that measured shift; run `python -m train fit` again")
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
    from train.fitting import label_review

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
    from train.fitting import leaks
    from train.inference import predict as stage
    from train.inference import predictor
    from train.inference.files import listed

    trained = predictor.load(Path(run))
    with progress("predicting", "images") as show:
        found = listed([Path(place) for place in images], columns)
        return stage.predict(trained, found, show, None, leaks.read(Path(run)))


def _activations(
    dataset: "Dataset",
    part: "Cut",
    weights: str,
    cache: Path,
    engine: "Engine",
    with_tail: bool,  # one caller
    limit: float | None,
    cluster: str | None,
) -> "Activations":
    """The activations of a set, from the cache or computed now, by a cluster perhaps."""
    from train.features import activations, cluster_pass, extract

    with (
        cluster_pass.connect(cluster, engine) as workers,
        progress("checking", "images") as check,
        progress("activations", "images") as show,
    ):

        def make(share: "Dataset", engine: "Engine", show: "Progress") -> "Features":
            return extract.features(
                share,
                part,
                weights,
                cache,
                engine,
                show,
                with_tail=with_tail,
                limit=None if limit is None else int(limit * 10**9),
                checking=check,
                say=say,
                cluster=workers,
            )

        kept = activations.of_shares(dataset, engine, make, show)
    _print_kept(kept, cache)
    return kept


def _compare_data(
    dataset: "Dataset",
    part: "Cut",
    weights: str,
    cache: Path,
    engine: "Engine",
    base: Path,
    folder: Path,
    show: "Progress",
) -> None:
    """Measure shift and shortcuts, all in float32: what is computed in another arithmetic differs by that."""
    import numpy as np

    from train.data_checks import shift
    from train.features import extract

    def pooled_of(some: "Dataset") -> Any:
        precise = engine._replace(precision="float32")
        found = extract.features(some, part, weights, cache, precise, lambda *_: None, with_tail=False)
        (pooled,) = found.pooled.take(np.arange(len(some.rows)))
        return pooled

    shift.write(folder, shift.measure(dataset, pooled_of, base / str(dataset.card.get("source", "")), show))


def _expect_possible(settings: Settings, dataset: "Dataset", manifest: Path) -> None:
    """That the settings can be had of this set."""
    from train.fitting import folds, options
    from train.fitting.fit import FitError

    options.check(settings)
    if settings.sensitivity is not None and len(dataset.classes) > 2:
        raise FitError(f"sensitivity is for two classes, {manifest} has {len(dataset.classes)}; leave it out")
    if settings.folds == 1 or settings.folds < 0 or settings.repeats < 1:
        raise FitError(f"--folds {settings.folds} --repeats {settings.repeats}: folds start at 2, repeats at 1")
    if settings.repeats > 1 and not settings.folds:
        raise FitError(f"--repeats {settings.repeats} is of a cross-validation; give --folds 5, say, or leave it out")
    if settings.folds:  # so that what can't be divided is known before anything is computed
        folds.assign(folds.pooled(dataset), settings.folds, settings.repeats, settings.seed)
    if settings.backbone == "demo" and not dataset.is_sample:
        raise FitError(
            f"--backbone demo is for the built-in sample only, and {manifest} is of other images; take resnet50v2, the default"
        )


def _draw(dataset: "Dataset", root: Path, folder: Path) -> None:
    """Draw the figures of a run whose numbers are written."""
    from train.evaluation import results
    from train.fitting import tensorboard
    from train.fitting.fit import python_errors
    from train.reporting import plots, run_figures, samples

    chosen = samples.choose(dataset, root)
    run_figures.rescaling(chosen, folder / "rescaling.png")
    run_figures.augmentation(chosen, folder / "augmentation.png")
    finished = results.read(folder)
    name = " - ".join(filter(None, (finished.settings["set"], finished.settings.get("notice"))))
    run_figures.curves(finished.history, f"Training on {name}", folder / "curves.png")
    with python_errors():
        tensorboard.write(finished, plots.pictures(finished), folder)


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


def _print_set(description: dict[str, Any], reason: str, warnings: list[str]) -> None:
    images = ", ".join(f"{count:,} {split}" for split, count in description["images"].items())
    say(f"{description['set']}: {images} images of {' and '.join(description['classes'])}")
    if description["positive"] is not None:
        say(f"Positive class: {description['positive']} ({reason}; --positive CLASS sets it)")
    if description["notice"]:
        say(description["notice"])
    for warning in warnings:
        say(f"Note: {warning}")
    if description["backbone"] == "demo":
        say(DEMO)
    if description["weights"] == "random":
        say("Random weights: the backbone has learnt nothing yet, so expect no more than chance.")


def _print_kept(kept: "Activations", cache: Path) -> None:
    engine = kept.train.features.engine
    there = kept.different - kept.computed
    say(f"Frozen layers ({engine.name}, {engine.precision}): {kept.computed:,} images computed, {there:,} from {cache}")
    if engine.precision != "float32":
        say(
            "Losses and accuracies of the epochs are of that precision; all other figures are the saved model's, float32."
        )
    lacking = getattr(kept.train.features.cut_activations, "lacking", 0)
    if lacking:
        say(f"No room to keep them all: each epoch of fine-tuning computes those of {lacking:,} images again.")


def _print_epoch(row: dict[str, Any]) -> None:
    fold = f"repeat {row['repeat']} fold {row['fold']}  " if "fold" in row else ""
    say(
        f"{fold}{row['phase']:>10}  epoch {row['epoch']:>3}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
        f"val loss {row['val_loss']:.4f}  val accuracy {row['val_accuracy']:.4f}"
    )
