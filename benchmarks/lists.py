"""A list of a million images, from its rows to the plan, without hashing their bytes: seconds and peak memory.

    python benchmarks/lists.py [IMAGES]

Writes empty files and a list in NIH ChestX-ray14's columns into a temporary folder; each stage in the order of a build.
"""

import hashlib
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from augment.planning.plan import plan
from augment.recipe import load
from augment.sources.lists import read_list

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,Width,Height,X,Y,"
FINDINGS = ("Pneumonia|Effusion", "No Finding", "No Finding", "Pneumonia", "Mass", "No Finding")


def write(folder: Path, count: int) -> Path:
    """A list and its images: 10,000 in a folder, three of each patient, nine of ten of them PA."""
    names = [f"{number // 3:08}_{number % 3:03}.png" for number in range(count)]
    for number, name in enumerate(names):
        place = folder / f"images_{number // 10_000:03}"
        if number % 10_000 == 0:
            place.mkdir()
        (place / name).touch()
    with (folder / "list.csv").open("w", encoding="utf-8") as file:
        file.write(HEADER + "\n")
        for number, name in enumerate(names):
            view = "AP" if number % 10 == 0 else "PA"
            file.write(f"{name},{FINDINGS[number // 3 % 6]},0,{number // 3},58,M,{view},2682,2749,0.143,0.143,\n")
    border = count * 4 // 15 * 3  # between two patients
    for split, first, last in (("train_val", 0, border), ("test", border, count)):
        (folder / f"{split}_list.txt").write_text("\n".join(names[first:last]), encoding="utf-8")
    return folder / "list.csv"


def main() -> None:
    """Measure, and print a line a stage."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    recipe = load(str(ROOT / "docs" / "lists" / "nih.yaml"))
    assert recipe.list
    with tempfile.TemporaryDirectory() as scratch:
        source = write(Path(scratch), count)
        begun = time.perf_counter()
        listing = read_list(source, recipe.list)
        read = time.perf_counter()
        sources = listing.files
        # As hashing would add them; empty files have one checksum, and would be duplicates.
        sources["source_sha256"] = [hashlib.sha256(name.encode()).hexdigest() for name in sources["source"]]
        hashed = time.perf_counter()
        rows = plan(sources, recipe).rows
        planned = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{count:,} rows: read and looked up in {read - begun:.1f} s, {len(sources):,} images, {len(listing.rejected):,} left out"
    )
    print(f"planned in {planned - hashed:.1f} s: {len(rows):,} rows; peak memory {peak:.2f} GB")


if __name__ == "__main__":
    main()
