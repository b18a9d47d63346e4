"""The command that trains: fit."""

from pathlib import Path
from typing import Any

import click

import train
from common.console import as_json, of_root, on_cluster, one_line_errors, print_json, quiet, say
from train.console import RESUME, table
from train.settings import ENGINES, OPTIMIZERS, PRECISIONS, SCHEDULES, Settings

_DEFAULTS = Settings()


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "--run", "run", type=click.Path(path_type=Path), help="Where the results go.  [default: runs/NAME OF THE MANIFEST]"
)
@click.option(
    "--weights",
    default=_DEFAULTS.weights,
    metavar="imagenet|random|FILE",
    help="The backbone's weights.",
    show_default=True,
)
@click.option(
    "--backbone",
    default=_DEFAULTS.backbone,
    type=click.Choice(["resnet50v2", "resnet101v2", "resnet152v2", "demo"]),
    help="The network under the new dense layer: ResNetV2 with 50, 101 or 152 layers; demo: a small one with weights of "
    "its own, for the built-in sample only.",
    show_default=True,
)
@click.option(
    "--epochs",
    default=_DEFAULTS.epochs,
    type=click.IntRange(1),
    help="Most epochs with the backbone frozen; training stops earlier when the validation loss no longer falls.",
    show_default=True,
)
@click.option(
    "--fine-tune-epochs",
    default=_DEFAULTS.fine_tune_epochs,
    type=click.IntRange(0),
    help="Most epochs of fine-tuning; 0: none.",
    show_default=True,
)
@click.option(
    "--fine-tune-layers",
    default=_DEFAULTS.fine_tune_layers,
    type=click.IntRange(0),
    help="How many of the backbone's last layers are fine-tuned.",
    show_default=True,
)
@click.option(
    "--batch-size",
    default=_DEFAULTS.batch_size,
    type=click.IntRange(1),
    help="Images in a training step.",
    show_default=True,
)
@click.option(
    "--learning-rate",
    default=_DEFAULTS.learning_rate,
    type=click.FloatRange(0, min_open=True),
    help="The optimizer's, with the backbone frozen.",
    show_default=True,
)
@click.option(
    "--fine-tune-learning-rate",
    default=_DEFAULTS.fine_tune_learning_rate,
    type=click.FloatRange(0, min_open=True),
    help="The optimizer's, while fine-tuning.",
    show_default=True,
)
@click.option(
    "--optimizer",
    default=_DEFAULTS.optimizer,
    type=click.Choice(OPTIMIZERS),
    help="adamw: Adam with Keras's weight decay, 0.004; sgd: with a momentum of 0.9.",
    show_default=True,
)
@click.option(
    "--schedule",
    default=_DEFAULTS.schedule,
    type=click.Choice(SCHEDULES),
    help="cosine: the learning rate falls along a cosine, to 0 at the end of a phase's epochs; plateau: it is halved when "
    "the validation loss hasn't fallen for half of --patience.",
    show_default=True,
)
@click.option(
    "--patience",
    default=_DEFAULTS.patience,
    type=click.IntRange(1),
    help="Epochs without a better validation loss before a phase stops.",
    show_default=True,
)
@click.option(
    "--label-smoothing",
    default=_DEFAULTS.label_smoothing,
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of each label that is spread over all classes, in the training and the validation loss.",
    show_default=True,
)
@click.option(
    "--dropout",
    default=_DEFAULTS.dropout,
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of the backbone's features that is left out before the new layer, anew in each step of training.",
    show_default=True,
)
@click.option(
    "--engine",
    default="auto",
    type=click.Choice(ENGINES),
    help="What runs the frozen layers; auto: what is fastest, measured once for a machine; tensorflow: that, all in float32.",
    show_default=True,
)
@click.option(
    "--precision",
    default="auto",
    type=click.Choice(PRECISIONS),
    help="Of the frozen layers; auto: float32, or bfloat16 where that is faster; int8: 8 bits, by OpenVINO and NNCF, for a "
    "fast pass on processors without bfloat16, in a quarter of float32's disk. What is held out stays in float32.",
    show_default=True,
)
@click.option(
    "--class-weight",
    default=_DEFAULTS.class_weight,
    type=click.Choice(["none", "balanced"]),
    help="balanced: the loss of each class weighs the same in all, however few images it has.",
    show_default=True,
)
@click.option(
    "--folds",
    default=_DEFAULTS.folds,
    type=click.IntRange(0),
    help="Cross-validate by patient over train and val in so many folds, from one pass of the frozen layers: figures with "
    "their spread from predictions out of fold, and a model that is the ensemble of all folds; 0: train once.",
    show_default=True,
)
@click.option(
    "--repeats",
    default=_DEFAULTS.repeats,
    type=click.IntRange(1),
    help="How often the cross-validation is repeated, each time with other folds.",
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
    default=_DEFAULTS.seed,
    type=click.IntRange(0, 2**31 - 1),
    help="Of the new layer's first weights and of the order of the images.",
    show_default=True,
)
@on_cluster
@quiet
@as_json
@of_root
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
    root: Path | None,
    cache: Path | None,
    cache_limit: float | None,
    engine: str,
    precision: str,
    positive: str | None,
    cluster: str | None,
    **options: Any,
) -> None:
    """Train on MANIFEST: the head on a frozen backbone, then the backbone's last layers too.

    \b
    Example:
      python -m train fit manifests/augment1.csv
      python -m train fit manifests/sample.csv --backbone demo
      python -m train fit manifests/augment1.csv --folds 5 --repeats 3 --run runs/augment1-folds
    """
    with one_line_errors(RESUME):
        settings = Settings(**{name: options[name] for name in options.keys() - {"quiet", "as_json"}})
        finished = train.fit(
            manifest,
            settings,
            run=run,
            root=root,
            cache=cache,
            cache_limit=cache_limit,
            engine=engine,
            precision=precision,
            positive=positive,
            cluster=cluster,
        )
        from train.data_checks import shift, shift_summary
        from train.evaluation import results
        from train.evaluation.phase_metrics import to_json

    from manifests.contract import root_of

    folder = run or root_of(manifest, root) / "runs" / manifest.stem
    print_json({"run": folder.as_posix(), "settings": finished.settings, "metrics": to_json(finished.metrics)})
    say("\n".join(table(each) for each in results.summaries(finished)))
    if found := shift.read(folder):  # an older version measured none
        for part in shift_summary.summary(found, finished.settings)[:2]:
            say("\n".join((part.title, *(f"  {finding}" for finding in part.findings))))
        say(f"What that means, and what to do: python -m train shift {folder}")
    name = finished.group_name
    say(f"In brackets: 95 % intervals by 1,000 resamplings of the {name}s. Not measured: {name}s of other places.")
    tables = "out_of_fold.csv, predictions.csv" if finished.folds else "predictions.csv"
    say(f"Results: {folder} (figures, metrics.json, {tables}, model.keras, tensorboard)")
