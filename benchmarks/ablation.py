"""Does a recipe help, and which part of it? It is built and trained whole, and without each of its parts.

    make ablation SOURCE=data/chest_xray RECIPE=even

The variants of a recipe: without each of its transforms (where it has several); `filled-up`, without the even share of
augmented images; `unbalanced`, classes in their own proportion, half of each class's images augmented; `plain`, the sources
as they are; and `class-weight`, these with the loss weighed by class. Each is cross-validated, and compared with the whole
recipe by the predictions out of fold, on the sources that all sets show as they are. Test isn't looked at.
"""

import argparse
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import augment
import train
from augment.api import CORES
from augment.recipe import RECIPES
from common.console import say
from common.files import write_atomically
from train.console import table
from train.evaluation.compare import as_text

FIGURES = ("AUROC", "accuracy at 0.5", "accuracy at the chosen thresholds", "accuracy, most probable")


def variants(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The recipe's variants by name, as what their YAML files hold; the whole recipe first.

    Args:
        settings: what the recipe's file holds.
    """
    listed = settings.get("transforms") or []
    transforms = listed if isinstance(listed, list) else [listed]
    names = [next(iter(each)) if isinstance(each, dict) else str(each) for each in transforms]
    found = {"": settings}
    if len(transforms) > 1:
        for place, name in enumerate(names):
            again = f"-{names[:place].count(name) + 1}" if names.count(name) > 1 else ""
            rest = [each for other, each in enumerate(transforms) if other != place]
            found[f"without-{name}{again}"] = settings | {"transforms": rest}
    if settings.get("augmented_share") is not None:
        found["filled-up"] = {key: value for key, value in settings.items() if key != "augmented_share"}
    if transforms:
        found["unbalanced"] = {key: value for key, value in settings.items() if key != "per_class"} | {
            "augmented_share": 0.5
        }
    plain = {
        key: value
        for key, value in settings.items()
        if key not in ("per_class", "augmented_share", "transforms", "augment")
    }
    return found | {"plain": plain}


def recipe_of(name_or_file: str) -> Path:
    """The recipe's file."""
    named = RECIPES / f"{name_or_file}.yaml"
    return named if named.is_file() else Path(name_or_file)


def picture(found: pd.DataFrame, title: str) -> bytes:
    """The differences to the whole recipe as a forest plot: a PNG, a panel a figure."""
    figures = [name for name in FIGURES if (found["figure"] == name).any()]
    drawn = Figure(figsize=(4 * len(figures) + 2, 0.45 * found["second"].nunique() + 1.4), layout="constrained")
    drawn.suptitle(f"{title}: each variant less the whole recipe")
    for axis, name in zip(drawn.subplots(1, len(figures), squeeze=False, sharey=True)[0], figures, strict=True):
        rows = found[found["figure"] == name].iloc[::-1]
        ends = [rows["difference"] - rows["low"], rows["high"] - rows["difference"]]
        axis.axvline(0, color="gray", linestyle=":")
        axis.errorbar(rows["difference"], rows["second"], xerr=ends, fmt="o", color="#0072B2", capsize=3)
        axis.locator_params(axis="x", nbins=5)  # more would run into each other
        axis.set_xlabel(name, parse_math=False)
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()


def run(options: argparse.Namespace) -> None:
    """Build, train and compare all variants; what is there already is taken up."""
    file = recipe_of(options.recipe)
    out = Path("runs") / f"{file.stem}-ablation"
    folders = {}
    for name, of_variant in variants(yaml.safe_load(file.read_text(encoding="utf-8")) or {}).items():
        stem = f"{file.stem}-{name}" if name else file.stem
        write_atomically(out / "recipes" / f"{stem}.yaml", yaml.safe_dump(of_variant, sort_keys=False))
        say(f"\n{stem}")
        built = augment.build(
            str(out / "recipes" / f"{stem}.yaml"), options.source, seed=options.seed or None, workers=options.workers
        )
        settings = train.Settings(
            **{key: value for key, value in vars(options).items() if key not in ("recipe", "source", "workers")}
        )
        folders[name or "whole"] = out / stem
        train.fit(built.place.manifest, settings, run=out / stem)
        if name == "plain":
            folders["class-weight"] = out / f"{stem}-class-weight"
            train.fit(built.place.manifest, replace(settings, class_weight="balanced"), run=folders["class-weight"])
    found = train.compare(list(folders.values()), out_of_fold=True, against_first=True)
    names = dict(zip((folder.as_posix() for folder in folders.values()), folders, strict=True))
    for side in ("first", "second"):
        found[side] = found[side].map(lambda text: names[text.rpartition(" ")[0]])
    found.to_csv(out / "ablation.csv", index=False)
    write_atomically(out / "ablation.png", picture(found, file.stem))
    images = {name: json.loads((folder / "metrics.json").read_text()) for name, folder in folders.items()}
    for name, metrics in images.items():
        val = list(metrics.values())[-1]["val"]
        say(f"{name:>24}  out of fold on {val['images']:,} images: AUROC {val['auroc']['value']:.4f}")
    say(f"\n{table(as_text(found))}\n")
    say(f"Table and picture: {out / 'ablation.csv'}, {out / 'ablation.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a recipe's name or file")
    parser.add_argument("--source", required=True, help="the folder or list of images")
    parser.add_argument("--workers", type=int, default=CORES, help="processes that build")
    parser.add_argument("--folds", type=int, default=5)
    defaults = train.Settings()
    for name in ("weights", "backbone", "epochs", "fine_tune_epochs", "fine_tune_layers", "repeats", "seed"):
        value = getattr(defaults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help="as for `train fit`")
    for name in ("learning_rate", "fine_tune_learning_rate"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(defaults, name))
    run(parser.parse_args())
