"""The command line of `train`: wires the stages together, prints, and turns errors into one line."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.console import as_json, at_root, one_line_errors, print_json, progress, quiet, say
from train.console import RESUME, import_tensorflow, table
from train.inference import cli as inference
from train.reporting import cli as reporting

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from train.dataset import Dataset
    from train.evaluation.results import Finished
    from train.features.activations import Activations
    from train.features.backbone import Cut
    from train.features.engine import Engine
    from train.features.extract import Features, Progress
    from train.fitting.fit import Fitted, Settings

# The stages are imported inside the commands: `--help` should answer in a blink, and TensorFlow takes seconds.


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train a ResNetV2 on a manifest's images, frozen and then fine-tuned, compare what came of it, and use it.

    No medical device: nothing that it trains may be used on patients.

    \b
    Example:
      python -m train fit manifests/augment1.csv
    """


@main.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "--run", "run", type=click.Path(path_type=Path), help="Where the results go.  [default: runs/NAME OF THE MANIFEST]"
)
@click.option(
    "--weights", default="imagenet", metavar="imagenet|random|FILE", help="The backbone's weights.", show_default=True
)
@click.option(
    "--backbone",
    default="resnet50v2",
    type=click.Choice(["resnet50v2", "resnet101v2", "resnet152v2"]),
    help="The network under the new dense layer: ResNetV2 with 50, 101 or 152 layers.",
    show_default=True,
)
@click.option(
    "--epochs",
    default=10,
    type=click.IntRange(1),
    help="Most epochs with the backbone frozen; training stops earlier when the validation loss no longer falls.",
    show_default=True,
)
@click.option(
    "--fine-tune-epochs",
    default=10,
    type=click.IntRange(0),
    help="Most epochs of fine-tuning; 0: none.",
    show_default=True,
)
@click.option(
    "--fine-tune-layers",
    default=5,
    type=click.IntRange(0),
    help="How many of the backbone's last layers are fine-tuned.",
    show_default=True,
)
@click.option("--batch-size", default=32, type=click.IntRange(1), help="Images in a training step.", show_default=True)
@click.option(
    "--learning-rate",
    default=1e-3,
    type=click.FloatRange(0, min_open=True),
    help="Adam's, with the backbone frozen.",
    show_default=True,
)
@click.option(
    "--fine-tune-learning-rate",
    default=1e-5,
    type=click.FloatRange(0, min_open=True),
    help="Adam's, while fine-tuning.",
    show_default=True,
)
@click.option(
    "--engine",
    default="auto",
    type=click.Choice(["auto", "tensorflow", "openvino"]),
    help="What runs the frozen layers; auto: what is fastest, measured once for a machine.",
    show_default=True,
)
@click.option(
    "--class-weight",
    default="none",
    type=click.Choice(["none", "balanced"]),
    help="balanced: the loss of each class weighs the same in all, however few images it has.",
    show_default=True,
)
@click.option("--calibrate", is_flag=True, help="Scale the probabilities by a temperature fitted on validation.")
@click.option(
    "--positive",
    metavar="CLASS",
    help="The positive one of two classes: what sensitivity and the threshold are about.  [default: the one whose name "
    "doesn't say negative, as NORMAL, healthy, no_finding or 0 do; else the alphabetically second]",
)
@click.option(
    "--sensitivity",
    type=click.FloatRange(0, 1, min_open=True),
    help="Choose the threshold that finds this share of the positives on validation.  [default: the one with the best "
    "balanced accuracy]",
)
@click.option(
    "--seed",
    default=0,
    type=click.IntRange(0, 2**31 - 1),
    help="Of the new layer's first weights and of the order of the images.",
    show_default=True,
)
@quiet
@as_json
@at_root
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Where activations are kept.  [default: data/activations in the root]",
)
@click.option(
    "--cache-limit",
    type=click.FloatRange(0),
    metavar="GB",
    help="What that folder may grow to; images past it are computed anew in each epoch.  [default: the disk, less 1 GB]",
)
def fit(
    manifest: Path,
    run: Path | None,
    root: Path,
    cache: Path | None,
    cache_limit: float | None,
    engine: str,
    positive: str | None,
    **options: Any,
) -> None:
    """Train on MANIFEST: the head on a frozen backbone, then the backbone's last layers too.

    \b
    Example:
      python -m train fit manifests/augment1.csv
      python -m train fit manifests/sample.csv --weights random --epochs 3 --fine-tune-epochs 3
    """
    from common.process_pool import ProcessPool
    from train.reporting import drawing, samples

    with one_line_errors(RESUME), ProcessPool(1, drawing.MODULES) as drawer:  # which imports while TensorFlow does
        import_tensorflow()
        from train import dataset as datasets
        from train.evaluation import results
        from train.features import activations, selection
        from train.features import backbone as model
        from train.features import engine as engines
        from train.fitting import fit as fitting
        from train.fitting import leaks
        from train.fitting import run_folder as runs

        settings = fitting.Settings(**{name: options[name] for name in options.keys() - {"quiet", "as_json"}})
        dataset = datasets.read(manifest, root, positive)
        if settings.sensitivity is not None and len(dataset.classes) > 2:
            raise click.UsageError(f"--sensitivity is for two classes, {manifest} has {len(dataset.classes)}")
        folder = run or root / "runs" / manifest.stem
        with model.strategy().scope():
            backbone = model.load_backbone(settings.backbone, settings.weights, dataset.size, settings.seed)
            weights = model.digest(backbone)
            part = model.cut(backbone, settings.fine_tune_layers)
            cache = cache or root / "data" / "activations"
            with_tail = min(settings.fine_tune_epochs, settings.fine_tune_layers) > 0
            chosen = selection.choose(
                engine,
                dataset,
                part,
                weights,
                cache,
                batch_size=settings.batch_size,
                with_tail=with_tail,
                before=runs.begun(folder, runs.describe(manifest, dataset, settings, weights, engines.PLAIN)),
            )
            description = runs.describe(manifest, dataset, settings, weights, chosen.engine, chosen.fine_tune_precision)
            finished = None
            if not runs.is_finished(folder, description):
                _print_set(description, dataset.reason, datasets.warnings(dataset))
                say(f"Engine: {chosen.reason}")
                with runs.written(folder, description, say) as unfinished:
                    if unfinished:
                        drawn = drawer.submit(drawing.of_set, samples.choose(dataset, root), unfinished)
                        with progress("checking", "images") as check, progress("activations", "images") as show:
                            make = partial(
                                _features,
                                part,
                                weights,
                                cache,
                                with_tail=with_tail,
                                limit=None if cache_limit is None else int(cache_limit * 10**9),
                                checking=check,
                                say=say,
                            )
                            kept = activations.of_shares(dataset, chosen.engine, make, show)
                        _print_kept(kept, cache)
                        leaks.write(unfinished, dataset, cache)
                        with progress("training", "batches") as show:
                            fitted = fitting.fit(
                                dataset,
                                part,
                                kept,
                                settings,
                                unfinished,
                                _print_epoch,
                                show,
                                precision=chosen.fine_tune_precision,
                            )
                        drawn.result()
                        finished = _finish(dataset, part, kept, fitted, backbone, settings, unfinished, drawer)
            if finished is None:
                say("This very run is finished already; move its folder away to run it again.")
                finished = results.read(folder)
        _print_run(folder, finished)


def _features(
    part: "Cut",
    weights: str,
    cache: Path,
    dataset: "Dataset",
    engine: "Engine",
    show: "Progress",
    **options: Any,
) -> "Features":
    """The activations of a share of a set, in the order that `activations.of_shares` asks for them."""
    from train.features import extract

    return extract.features(dataset, part, weights, cache, engine, show, **options)


def _finish(
    dataset: "Dataset",
    part: "Cut",
    kept: "Activations",
    fitted: "Fitted",
    backbone: Any,
    settings: "Settings",
    unfinished: Path,
    drawer: "Executor",
) -> "Finished":
    """Measure a trained run, and write everything that its folder holds; `drawer` draws beside that."""
    from train.evaluation import augmentation, evaluate, results
    from train.features import backbone as model
    from train.fitting import fit as fit_stage
    from train.fitting import run_folder as runs
    from train.fitting import tensorboard
    from train.reporting import drawing

    judged = {
        phase: evaluate.judge(dataset, of_all, calibrate=settings.calibrate, sensitivity=settings.sensitivity)
        for phase, of_all in fitted.probabilities.items()
    }
    phase, last = list(judged.items())[-1]
    model.apply_temperature(fitted.head, last.temperature)
    threshold = last.threshold.value if last.threshold else None
    compared = augmentation.measure(dataset, kept, phase, part.tail, fitted.head, threshold)
    if compared:
        last.metrics["augmentation"] = compared
    runs.write(unfinished, fitted, judged, dataset)
    finished = results.read(unfinished)  # from here on everybody has what is on disk
    drawn = drawer.submit(drawing.of_outcome, finished, unfinished)
    model.inference_model(backbone, fitted.head).save(unfinished / "model.keras")
    with fit_stage.python_errors():
        tensorboard.write(finished, drawn.result(), unfinished)
    return finished


def _print_run(folder: Path, finished: "Finished") -> None:
    from train.evaluation import results

    print_json({"run": folder.as_posix(), "settings": finished.settings, "metrics": finished.metrics})
    say(table(results.summary(finished)))
    say("In brackets: 95 % intervals by 1,000 resamplings of the patients. Not measured: patients of other places.")
    say(f"Results: {folder} (figures, metrics.json, predictions.csv, model.keras, tensorboard)")


for command in (
    reporting.compare,
    reporting.report,
    inference.predict,
    inference.evaluate,
    inference.export,
    inference.cache,
):
    main.add_command(command)


def _print_set(description: dict[str, Any], reason: str, warnings: list[str]) -> None:
    images = ", ".join(f"{count:,} {split}" for split, count in description["images"].items())
    say(f"{description['set']}: {images} images of {' and '.join(description['classes'])}")
    if description["positive"] is not None:
        say(f"Positive class: {description['positive']} ({reason}; --positive CLASS sets it)")
    if description["notice"]:
        say(description["notice"])
    for warning in warnings:
        say(f"Note: {warning}")
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
    say(
        f"{row['phase']:>10}  epoch {row['epoch']:>3}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
        f"val loss {row['val_loss']:.4f}  val accuracy {row['val_accuracy']:.4f}"
    )
