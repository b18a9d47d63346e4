"""How planning, and writing and reading a manifest, grow with the set: a table, and planning.svg beside this file.

Run by `make bench`. Sources are made up: 200 images a thousand rows, two classes, a patient for each three images.
"""

import hashlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from augment.planning.plan import plan
from augment.recipe import resolve
from manifests import contract

SIZES = (10_000, 100_000, 300_000, 1_000_000)


def measure(size: int) -> None:
    """Print rows, seconds to plan, to write and to read, and the peak memory in MB."""
    sources = made_up(size // 5)
    recipe = resolve("bench", {"per_class": size // 2, "transforms": ["HorizontalFlip"]}, "bench")
    start = time.perf_counter()
    rows = plan(sources, recipe).rows
    planned = time.perf_counter()
    added = {"transform": "", "width": 224, "height": 224, "sha256": rows["source_sha256"]}
    rows = rows.assign(**added)
    rows.loc[rows["variant"] > 0, "transform"] = '[{"HorizontalFlip":{}}]'
    rows = rows[list(contract.COLUMNS)]
    with tempfile.TemporaryDirectory() as scratch:
        manifest = Path(scratch) / "bench.csv"
        began = time.perf_counter()
        contract.write(manifest, rows, {})
        written = time.perf_counter()
        del rows, sources
        contract.read(manifest)
        read = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{size} {planned - start:.2f} {written - began:.2f} {read - written:.2f} {peak:.0f}")


def made_up(count: int) -> pd.DataFrame:
    """A table of sources as `scan` gives it."""
    return pd.DataFrame(
        {
            "source": [f"{'AB'[number % 3 == 0]}/{number:07}.jpg" for number in range(count)],
            "split": "",
            "label": ["AB"[number % 3 == 0] for number in range(count)],
            "group": [f"{'AB'[number % 3 == 0]}{number // 9}" for number in range(count)],
            "source_sha256": [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)],
        }
    )


def main() -> None:
    """Measure each size in a process of its own, print the table and draw it."""
    lines = []
    for size in SIZES:
        command = [sys.executable, __file__, str(size)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        lines.append([float(value) for value in done.stdout.split()])
    table = pd.DataFrame(lines, columns=["rows", "plan, s", "write, s", "read, s", "peak memory, MB"])
    print(table.to_string(index=False, float_format="{:,.1f}".format))
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    for name in ("plan, s", "write, s", "read, s"):
        axis.plot(table["rows"], table[name], marker="o", label=name)
    axis.set(xlabel="rows", ylabel="seconds")
    axis.legend()
    with mpl.rc_context({"svg.hashsalt": "evenset"}):  # so that it changes only where the figures do
        figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    measure(int(sys.argv[1])) if len(sys.argv) > 1 else main()
