"""What even augmentation is worth: the study's data, balanced in several ways, over several seeds.

For each seed of the set and of training, builds and trains: the data as they are; the same with class weights; augment1,
the study's recipe; augment1 with a validation of originals; and `even`, where both classes have the same share of
augmented images. All are measured on the same test images. The predictions of seeds that were trained before lie in benchmarks/even
(image, patient, class and scores of the published test set), so that the tables can be made without training.
"""

import argparse
import gzip
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
PHASES = ("frozen", "fine-tuned")
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


def tested(run: Path) -> pd.DataFrame:
    """A run's test images, by checksum: label, group, and by phase the score and whether the decisions are right."""
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    rows = tables.read(run / "predictions.csv", tables.predictions(settings["classes"]))
    rows = rows[rows["split"] == "test"].sort_values("source_sha256", kind="stable")
    first = rows[rows["phase"] == PHASES[0]].reset_index(drop=True)
    found = first[["label", "group"]].assign(positive=first["label"] == settings["positive"])
    for phase in PHASES:
        part = rows[rows["phase"] == phase].reset_index(drop=True)
        found[f"{phase}: score"] = part[tables.probability(settings["positive"])]
        for point, figure in (("0.5", FIGURES[0]), ("chosen", FIGURES[1])):
            found[f"{phase}: {figure}"] = (part[f"predicted ({point})"] == part["label"]).astype(int)
    return found


def of_seed(seed: int, chosen: argparse.Namespace, root: Path, weights: str) -> dict[str, pd.DataFrame]:
    """Each way's test images for one seed: as kept in the folder of results, or trained, and then kept there."""
    file = chosen.results / f"seed{seed}.csv.gz"
    if not file.is_file():
        ways = [tested(trained(way, seed, chosen.source.resolve(), root, weights)).assign(way=way) for way in WAYS]
        chosen.results.mkdir(parents=True, exist_ok=True)
        text = pd.concat(ways).to_csv(index=False, lineterminator="\n", float_format="%.7g")
        file.write_bytes(gzip.compress(text.encode(), mtime=0))
    rows = pd.read_csv(file, dtype={"label": str, "group": str, "way": str}, keep_default_na=False)
    return {str(way): part.reset_index(drop=True) for way, part in rows.groupby("way")}


def of_phase(rows: pd.DataFrame, phase: str) -> pd.DataFrame:
    """A way's test images with the columns of one phase."""
    return rows.rename(columns=lambda name: name.removeprefix(f"{phase}: "))


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
    kept = Path(__file__).with_suffix("")
    parser.add_argument(
        "--results", type=Path, default=kept, help="each seed's predictions; what is there is not trained"
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    chosen = parser.parse_args()
    root = chosen.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    weights = str(Path(chosen.weights).resolve()) if Path(chosen.weights).is_file() else chosen.weights
    seeds = [of_seed(seed, chosen, root, weights) for seed in range(chosen.seeds)]
    runs = {(way, phase): [of_phase(seed[way], phase) for seed in seeds] for way in WAYS for phase in PHASES}
    print(f"Mean over {chosen.seeds} seeds [95 % interval over the test patients]; least to most of the seeds\n")
    print(f"| | phase | {' | '.join(FIGURES)} |\n| --- | --- | --: | --: | --: |")
    for (way, phase), of_way in runs.items():
        print(f"| {way} | {phase} | {' | '.join(line(of_way, None))} |")
    print(f"\n| difference | phase | {' | '.join(FIGURES)} |\n| --- | --- | --: | --: | --: |")
    for (way, phase), of_way in runs.items():
        if way != "even":
            print(f"| even - {way} | {phase} | {' | '.join(line(runs['even', phase], of_way))} |")


if __name__ == "__main__":
    main()
