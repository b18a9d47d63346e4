"""A run, from the manifest to its finished folder: the stages of `fit` in their order, and what it prints on the way."""

from pathlib import Path
from typing import Any

import numpy as np

from common.console import progress, say
from manifests import contract
from train import dataset as datasets
from train.data_checks import label_review, leaks, shift
from train.dataset import Dataset
from train.evaluation import results
from train.evaluation.results import Finished
from train.features import activations, cluster_pass, extract, selection
from train.features import backbone as model
from train.features import engine as engines
from train.features.activations import Activations
from train.features.engine import Engine
from train.features.extract import Features, Progress
from train.features.forward import NetworkCache
from train.fitting import folds, options, tensorboard, training
from train.fitting import run_folder as runs
from train.fitting.fit import FitError, python_errors
from train.reporting import plots, run_figures, samples
from train.settings import DEMO, Settings


def complete(
    manifest: Path,
    settings: Settings,
    *,
    run: Path | None,
    root: Path | None,
    cache: Path | None,
    limit: int | None,
    engine: str,
    precision: str,
    positive: str | None,
    cluster: str | None,
) -> Finished:
    """Train on a set, or go on, and write the run's folder; `train.fit` has the arguments, `limit` is in bytes.

    Raises:
        UserError: the manifest, the weights or the run folder can't be used; the message says why, and the fix.
    """
    base = contract.root_of(manifest, root)
    dataset = datasets.read(manifest, base, positive, pooled=settings.folds > 0)
    _expect_possible(settings, dataset, manifest)
    learnt_from, divided = dataset, list[folds.Fold]()
    if settings.folds:  # first, so that what can't be divided is known before anything is computed
        learnt_from = folds.pooled(dataset)
        divided = folds.assign(learnt_from, settings.folds, settings.repeats, settings.seed)
    folder = run or base / "runs" / manifest.stem
    cache = cache or base / "data" / "activations"
    with model.strategy().scope():
        backbone = model.load_backbone(settings.backbone, settings.weights, dataset.size, settings.seed)
        weights = model.digest(backbone)
        part = model.cut(backbone, settings.fine_tune_layers)
        network_cache = NetworkCache(part, weights, cache)
        with_tail = min(settings.fine_tune_epochs, settings.fine_tune_layers) > 0
        is_demo = settings.backbone == "demo"  # in float32: the README's figures vary enough by processor
        chosen = selection.choose(
            "tensorflow" if is_demo and (engine, precision) == ("auto", "auto") else engine,
            learnt_from,
            network_cache,
            batch_size=settings.batch_size,
            with_tail=with_tail,
            precision=precision,
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
                kept = _activations(learnt_from, network_cache, chosen.engine, with_tail, limit, cluster)
                _print_kept(kept, cache, settings)
                # Before training, which changes the backbone's last layers.
                _compare_data(dataset, network_cache, chosen.engine, base, unfinished, cluster)
                leaks.write(unfinished, learnt_from, cache, say)
                with progress("training", "batches") as show:
                    fitted = training.fit_and_measure(
                        learnt_from,
                        divided,
                        part,
                        kept,
                        settings,
                        unfinished,
                        _print_epoch,
                        show,
                        precision=chosen.fine_tune_precision,
                    )
                network = backbone if fitted.part is part else model.joined(fitted.part, f"{backbone.name}_ensemble")
                model.inference_model(network, fitted.head).save(unfinished / "model.keras")
                _draw(dataset, base, unfinished)
                if settings.folds:
                    say(label_review.write(unfinished).sentence(folder / label_review.NAME))
    return results.read(folder)


def _activations(
    dataset: Dataset,
    cache: NetworkCache,
    engine: Engine,
    with_tail: bool,  # one caller
    limit: int | None,
    cluster: str | None,
) -> Activations:
    """The activations of a set, from the cache or computed now, by a cluster perhaps."""
    with (
        cluster_pass.connect(cluster, engine) as workers,
        progress("checking", "images") as check,
        progress("activations", "images") as show,
    ):

        def make(share: Dataset, engine: Engine, show: Progress) -> Features:
            return extract.features(
                share,
                cache,
                engine,
                show,
                with_tail=with_tail,
                limit=limit,
                checking=check,
                say=say,
                cluster=workers,
            )

        return activations.of_shares(dataset, engine, make, show)


def _compare_data(
    dataset: Dataset,
    cache: NetworkCache,
    engine: Engine,
    base: Path,
    folder: Path,
    cluster: str | None,
) -> None:
    """Measure shift and shortcuts, all in float32: what is computed in another arithmetic differs by that. Once for a set."""
    if (folder / shift.NAME).is_file():  # by the run that was killed
        return
    precise = engine._replace(precision="float32")
    source, value_range = str(dataset.card.get("source", "")), contract.value_range(dataset.card.get("recipe"))
    place = None if "://" in source else base / source

    def measure() -> shift.Shift:
        with (
            cluster_pass.connect(cluster, precise) as workers,
            progress("comparing test with train", "images") as computing,
            progress("comparing test with train", "files") as reading,
        ):

            def pooled_of(some: Dataset) -> Any:
                found = extract.features(some, cache, precise, computing, with_tail=False, say=say, cluster=workers)
                (pooled,) = found.pooled.take(np.arange(len(some.rows)))
                return pooled

            return shift.measure(dataset, pooled_of, place, reading, value_range)

    *_, pooled = extract.addresses(dataset, cache, precise)
    about = {
        "manifest": dataset.sha256,
        "classes": [*dataset.classes, dataset.positive],
        "activations": pooled.folder.name,
        "sources": [source, place is not None and place.exists()],
        "value_range": value_range,
    }
    shift.write(folder, shift.once(cache.folder, about, measure))


def _expect_possible(settings: Settings, dataset: Dataset, manifest: Path) -> None:
    """That the settings can be had of this set."""
    options.check(settings)
    if settings.sensitivity is not None and len(dataset.classes) > 2:
        raise FitError(f"sensitivity is for two classes, {manifest} has {len(dataset.classes)}; leave it out")
    whole = all(isinstance(number, int) for number in (settings.folds, settings.repeats))
    if not whole or settings.folds == 1 or settings.folds < 0 or settings.repeats < 1:
        raise FitError(f"--folds {settings.folds} --repeats {settings.repeats}: folds start at 2, repeats at 1")
    if settings.repeats > 1 and not settings.folds:
        raise FitError(f"--repeats {settings.repeats} is of a cross-validation; give --folds 5, say, or leave it out")
    if settings.backbone == "demo" and not dataset.is_sample:
        raise FitError(
            f"--backbone demo is for the built-in sample only, and {manifest} is of other images; take resnet50v2, the default"
        )


def _draw(dataset: Dataset, root: Path, folder: Path) -> None:
    """Draw the figures of a run whose numbers are written."""
    chosen = samples.choose(dataset, root)
    run_figures.rescaling(chosen, folder / "rescaling.png")
    run_figures.augmentation(chosen, folder / "augmentation.png")
    finished = results.read(folder)
    name = " - ".join(filter(None, (finished.settings["set"], finished.settings.get("notice"))))
    run_figures.curves(finished.history, f"Training on {name}", folder / "curves.png")
    with python_errors():
        tensorboard.write(finished, plots.pictures(finished), folder)


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


def _print_kept(kept: Activations, cache: Path, settings: Settings) -> None:
    engine = kept.train.features.engine
    there = kept.different - kept.computed
    say(f"Frozen layers ({engine.name}, {engine.precision}): {kept.computed:,} images computed, {there:,} from {cache}")
    if engine.precision != "float32":
        out_of_fold = ", and predictions out of fold," if settings.folds else ""
        say(
            f"Losses and accuracies of the epochs{out_of_fold} are of that precision; all other figures are the saved model's, "
            "float32."
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
