"""Whether the first run convinces whatever is drawn: samples of other seeds than the built-in one's, plain and augmented.

For each seed draws a sample, builds `sample-plain` and `sample`, trains on both as `make train` does, and prints the
test figures and their difference. Nothing is chosen among the seeds; by the built-in sample, of seed 0, the settings
were. What was built and trained before is kept.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import augment  # after the path to them
import train
from augment.sample import draw

RECIPES = ("sample-plain", "sample")
# As the Makefile has them.
SETTINGS = {"backbone": "demo", "learning_rate": 0.01, "fine_tune_layers": 48, "fine_tune_learning_rate": 0.001}


def trained(seed: int, root: Path) -> list[str]:
    """A table's row of a seed."""
    place = root / f"seed{seed}"
    if not (place / "sample").exists():
        draw(place / "sample", seed)
    runs = {}
    for recipe in RECIPES:
        manifest = augment.build(recipe, place / "sample", root=place, seed=seed).place.manifest
        runs[recipe] = train.fit(
            manifest, train.Settings(seed=seed, **SETTINGS), run=place / "runs" / recipe, root=place
        )
    found = train.compare([place / "runs" / recipe for recipe in RECIPES])
    last = [f"{(place / 'runs' / recipe).as_posix()} fine-tuned" for recipe in RECIPES]
    pair = found[(found["first"] == last[0]) & (found["second"] == last[1])].set_index("figure")
    cells = [str(seed)]
    for name in ("AUROC", "accuracy at the chosen thresholds"):
        for run in runs.values():
            measured = run.metrics["fine-tuned"].measured
            cells.append(str(measured.auroc if name == "AUROC" else measured.decisions["chosen"].accuracy))
        of = pair.loc[name]
        cells.append(f"{of['difference']:+.3f} [{of['low']:+.3f}, {of['high']:+.3f}]")
    return cells


def main() -> None:
    """Train, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="a folder for samples, sets and runs")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    chosen = parser.parse_args()
    rows = [trained(seed, chosen.root.resolve()) for seed in range(1, chosen.seeds + 1)]
    figures = ("AUROC", "accuracy")
    head = ["seed", *(f"{name}{part}" for name in figures for part in (", plain", ", augmented", ", difference"))]
    print(f"| {' | '.join(head)} |\n| {' | '.join(['--:'] * len(head))} |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
