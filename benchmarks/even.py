"""What even augmentation is worth: the study's data, balanced in several ways, over several seeds.

For each seed of the set and of training, builds and trains: the data as they are; the same with class weights; augment1,
the study's recipe; augment1 with a validation of originals; and `even`, where both classes have the same share of
augmented images. All are measured on the same test images. What was built and trained before is not done again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from train import tables  # after the path to it
from train.evaluation.intervals import bootstrap, interval
from train.evaluation.metrics import Ranked

WAYS = {  # name -> recipe, options of `fit`
    "original": ("original", ()),
    "class weights": ("original", ("--class-weight", "balanced")),
    "augment1": ("augment1", ()),
    "augment1, clean validation": ("augment1-clean", ()),
    "even": ("even", ()),
}
FIGURES = ("accuracy at 0.5", "accuracy at the chosen threshold", "AUROC")
Floats = NDArray[np.floating[Any]]


def trained(way: str, seed: int, source: Path, root: Path, weights: str) -> Path:
    """The folder of a finished run on a set with this seed."""
    recipe, options = WAYS[way]
    if recipe == "augment1-clean":
        text = (ROOT / "augment" / "recipes" / "augment1.yaml").read_text(encoding="utf-8")
        recipe = str(root / "augment1-clean.yaml")
        Path(recipe).write_text(text.replace("augment: [train, val]", "augment: [train]"), encoding="utf-8")
    place = root / f"seed{seed}"
    manifest = place / "manifests" / f"{Path(recipe).stem}.csv"
    run = place / "runs" / way.replace(" ", "-").replace(",", "")
    build = ["augment", "build", "--recipe", recipe, "--source", str(source), "--root", str(place), "--seed", str(seed)]
    fit = ["train", "fit", str(manifest), "--root", str(place), "--run", str(run), "--seed", str(seed)]
    fit += ["--cache", str(root / "activations"), "--weights", weights, *options]
    prune = ["train", "cache", "--prune", "--root", str(place), "--cache", str(root / "activations")]
    commands = [build, prune, fit] if way == next(iter(WAYS)) else [build, fit]  # of other seeds only originals stay
    for command in commands if not (run / "metrics.json").is_file() else ():
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}:\n{done.stderr or done.stdout}")
    print(f"seed {seed}: {way} is trained", file=sys.stderr, flush=True)
    return run


def tested(run: Path) -> dict[str, pd.DataFrame]:
    """By phase the run's test images, sorted: label, group, probability, and whether each decision is right."""
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    rows = tables.read(run / "predictions.csv", tables.predictions(settings["classes"]))
    rows = rows[rows["split"] == "test"].sort_values("source_sha256", kind="stable")
    rows["score"] = rows[tables.probability(settings["positive"])]
    rows["positive"] = rows["label"] == settings["positive"]
    for point, figure in (("0.5", FIGURES[0]), ("chosen", FIGURES[1])):
        rows[figure] = rows[f"predicted ({point})"] == rows["label"]
    return {phase: part.reset_index(drop=True) for phase, part in rows.groupby("phase")}


def figures(runs: list[pd.DataFrame], weights: Floats) -> dict[str, Floats]:
    """Each figure's mean over runs (seeds), (resamples,), by how often each image counts, (resamples, images)."""
    found = {name: np.mean([weights @ run[name] for run in runs], axis=0) / weights.sum(axis=1) for name in FIGURES[:2]}
    rankings = (Ranked(run["positive"].to_numpy(), run["score"].to_numpy()) for run in runs)
    return found | {FIGURES[2]: np.mean([ranking.areas(weights)[0] for ranking in rankings], axis=0)}


def line(first: list[pd.DataFrame], second: list[pd.DataFrame] | None) -> list[str]:
    """Figures of runs, or what they are more than those of others: mean, 95 % interval over patients, range of seeds."""
    names, patients = np.unique(first[0]["group"].astype(str), return_inverse=True)

    def of(runs: tuple[list[pd.DataFrame], list[pd.DataFrame] | None], weights: Floats) -> dict[str, Floats]:
        one, other = (figures(side, weights) if side else None for side in runs)
        assert one is not None
        return {name: one[name] - (other[name] if other else 0) for name in FIGURES}

    drawn = bootstrap(lambda weights: of((first, second), weights), patients)
    ones = np.ones((1, len(patients)))
    sign = "+" if second else ""
    cells = []
    for name in FIGURES:
        value = float(of((first, second), ones)[name][0])
        low, high = interval(value, drawn[name], len(names), (-1.0 if second else 0.0, 1.0))
        each = [float(of(([run], [second[at]] if second else None), ones)[name][0]) for at, run in enumerate(first)]
        cells.append(
            f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]; {min(each):{sign}.3f} to {max(each):{sign}.3f}"
        )
    return cells


def main() -> None:
    """Train, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="the folder of the study's X-rays")
    parser.add_argument("root", type=Path, help="a folder for sets and runs; it takes about 15 GB")
    parser.add_argument("--weights", default="imagenet", help="as `fit` takes them")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    chosen = parser.parse_args()
    root = chosen.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    weights = str(Path(chosen.weights).resolve()) if Path(chosen.weights).is_file() else chosen.weights
    runs: dict[str, list[dict[str, pd.DataFrame]]] = {way: [] for way in WAYS}
    for seed in range(chosen.seeds):
        for way in WAYS:
            runs[way].append(tested(trained(way, seed, chosen.source.resolve(), root, weights)))
    print(f"Mean over {chosen.seeds} seeds [95 % interval over the test patients]; least to most of the seeds\n")
    print(f"| | phase | {' | '.join(FIGURES)} |\n| --- | --- | --: | --: | --: |")
    for way, of_way in runs.items():
        for phase in ("frozen", "fine-tuned"):
            print(f"| {way} | {phase} | {' | '.join(line([run[phase] for run in of_way], None))} |")
    print(f"\n| difference | phase | {' | '.join(FIGURES)} |\n| --- | --- | --: | --: | --: |")
    for other in list(WAYS)[:-1]:
        for phase in ("frozen", "fine-tuned"):
            first, second = ([run[phase] for run in runs[way]] for way in ("even", other))
            print(f"| even - {other} | {phase} | {' | '.join(line(first, second))} |")


if __name__ == "__main__":
    main()
