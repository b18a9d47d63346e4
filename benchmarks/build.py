"""Evenset's builder beside others, and beside the floor, in one run: `make bench`.

Takes a folder of full-size class folders, repeats its images under new names until there are 2,000, and lets each
contender make 4,000 balanced images of 224 x 224 from them. Start-up counts for Evenset and not for the others.
"""

import argparse
import contextlib
import hashlib
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ.update(NO_ALBUMENTATIONS_UPDATE="1", TF_CPP_MIN_LOG_LEVEL="3")

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
SOURCES, OUTPUTS, SIZE, QUALITY = 2000, 4000, 224, 95
FEWER = 10  # the slow ones make this part of the outputs only, which leaves their speed as it is
AFFINE = (
    "KerasAffine: {rotation_range: 10, shear_range: 0.2, width_shift_range: 0.05, height_shift_range: 0.05, "
    "zoom_range: 0.2}"
)


def affine() -> list[A.BasicTransform]:
    """Albumentations' nearest to it."""
    return [A.Affine(rotate=(-10, 10), shear=(-0.2, 0.2), translate_percent=0.05, scale=(0.8, 1.2), p=1.0)]


class Job(NamedTuple):
    """What a contender makes: `outputs` images in `out`, of the files of each class below `source`."""

    files: dict[str, list[str]]
    source: Path
    out: Path
    workers: int
    outputs: int = OUTPUTS
    transforms: tuple[str, ...] = (AFFINE,)  # Evenset's
    pipeline: Callable[[], list[A.BasicTransform]] = affine  # the others'


def repeated(folder: Path, into: Path) -> dict[str, list[str]]:
    """Repeat the JPEGs below folder/CLASS under new names until there are SOURCES; gives the files of each class.

    Each has a comment of its own after its first marker: copies of one image would be looked into as such.
    """
    originals = sorted(path for path in folder.glob("*/*") if path.is_file())
    files: dict[str, list[str]] = {}
    for number in range(SOURCES):
        original = originals[number % len(originals)]
        copy = into / original.parent.name / f"{number:04}-{original.name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        comment = f"{number:04}".encode()
        copy.write_bytes(b"\xff\xd8\xff\xfe\0\x06" + comment + original.read_bytes()[2:])
        files.setdefault(original.parent.name, []).append(str(copy))
    return files


def evenset(job: Job) -> None:
    """Our own command, as a user runs it."""
    recipe = job.out / "bench.yaml"
    lines = [
        f"per_class: {job.outputs // 2}",
        "val: 0",
        "test: 0",
        "transforms:",
        *(f"  - {each}" for each in job.transforms),
    ]
    recipe.write_text("\n".join(lines))
    command = [sys.executable, "-m", "augment", "build", "--recipe", str(recipe), "--source", str(job.source)]
    options = ["--root", str(job.out), "--workers", str(job.workers)]
    subprocess.run([*command, *options], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def keras_generator(job: Job) -> None:
    """ImageDataGenerator with save_to_dir, class by class."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    drawn = {"rotation_range": 10, "shear_range": 0.2, "width_shift_range": 0.05, "height_shift_range": 0.05}
    generator = ImageDataGenerator(**drawn, zoom_range=0.2)
    for label in job.files:
        flow = generator.flow_from_directory(
            str(job.source),
            classes=[label],
            target_size=(SIZE, SIZE),
            color_mode="grayscale",
            batch_size=50,
            save_to_dir=str(folder_of(job.out, label)),
            save_format="jpeg",
        )
        for _ in range(job.outputs // FEWER // len(job.files) // 50):
            next(flow)


def augmentor(job: Job) -> None:
    """Augmentor's sample with its threads."""
    import Augmentor

    for label in job.files:
        pipeline = Augmentor.Pipeline(str(job.source / label), output_directory=str(folder_of(job.out, label)))
        pipeline.rotate(probability=1, max_left_rotation=10, max_right_rotation=10)
        pipeline.shear(probability=1, max_shear_left=1, max_shear_right=1)  # degrees; it takes no smaller ones
        pipeline.zoom(probability=1, min_factor=1.0, max_factor=1.2)
        pipeline.resize(probability=1, width=SIZE, height=SIZE)
        pipeline.sample(job.outputs // FEWER // len(job.files), multi_threaded=True)


def plain_loop(job: Job) -> None:
    """What one writes with albumentations: read, resize, transform, write, an output at a time."""
    one_after_the_other(job, 0, tasks(job)[::FEWER])


def process_pool(job: Job) -> None:
    """The same, with a process a core."""
    listed, workers = tasks(job), job.workers
    with ProcessPoolExecutor(workers) as pool:
        parts = [listed[start::workers] for start in range(workers)]
        list(pool.map(partial(one_after_the_other, job), range(workers), parts))


def one_after_the_other(job: Job, seed: int, listed: list[tuple[str, str]]) -> None:
    """Make one output after the other with albumentations."""
    cv2.setNumThreads(1)
    resize = A.Resize(SIZE, SIZE, interpolation=cv2.INTER_AREA)
    pipeline = A.Compose([resize, *job.pipeline()], seed=seed)
    for read, write in listed:
        cv2.imwrite(write, pipeline(image=pixels(read))["image"], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def pixels(read: str) -> NDArray[np.uint8]:
    """The gray levels of a file, uint8 (height, width)."""
    if read.endswith(".dcm"):
        import pydicom

        return np.asarray(pydicom.dcmread(read).pixel_array, np.uint8)
    return np.asarray(cv2.imread(read, cv2.IMREAD_GRAYSCALE), np.uint8)


def floor(job: Job) -> None:
    """Decode every source once, encode and write every output once, with the fastest calls, and nothing else."""
    parts = by_source(job)
    with ProcessPoolExecutor(job.workers) as pool:
        list(pool.map(codec_only, parts))


def codec_only(items: list[tuple[str, list[str]]]) -> None:
    """The floor's work of one process."""
    cv2.setNumThreads(1)
    for read, written in items:
        data = np.fromfile(read, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_REDUCED_GRAYSCALE_4)
        image = np.ascontiguousarray(image[:SIZE, :SIZE])
        for write in written:
            cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tofile(write)


def duties(job: Job) -> None:
    """The floor, and what any builder of a trusted set does besides, each by its fastest call and without start-up.

    Every source hashed before it is planned with and again when it is used, averaged down to the size, warped and
    hashed, all of it on disk at the end. No plan, no journal, no manifest, no errors.
    """
    parts = by_source(job)
    with ProcessPoolExecutor(job.workers) as pool:
        list(pool.map(hashed, [[read for read, _ in items] for items in parts]))
        list(pool.map(codec_and_duties, parts))
    os.sync()


def hashed(files: list[str]) -> list[str]:
    """The SHA-256 of each file."""
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]


def codec_and_duties(items: list[tuple[str, list[str]]]) -> None:
    """The second pass of one process."""
    cv2.setNumThreads(1)
    turned = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), 5, 1.1)
    for read, written in items:
        data = Path(read).read_bytes()
        hashlib.sha256(data).hexdigest()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_4)
        image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        for number, write in enumerate(written):
            if number:
                image = cv2.warpAffine(image, turned, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
            jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
            hashlib.sha256(jpeg).hexdigest()
            Path(write).write_bytes(jpeg)


def tasks(job: Job) -> list[tuple[str, str]]:
    """(read, write) of all outputs, as many for each class, spread evenly over its sources."""
    listed = []
    for label, of_label in job.files.items():
        folder, count = folder_of(job.out, label), job.outputs // len(job.files)
        listed += [(of_label[number % len(of_label)], str(folder / f"{number}.jpg")) for number in range(count)]
    return listed


def by_source(job: Job) -> list[list[tuple[str, list[str]]]]:
    """For each worker, its sources with all that is to be written of each."""
    grouped: dict[str, list[str]] = {}
    for read, write in tasks(job):
        grouped.setdefault(read, []).append(write)
    items = sorted(grouped.items())
    return [items[start :: job.workers] for start in range(job.workers)]


def folder_of(out: Path, label: str) -> Path:
    """The output folder of a class."""
    (out / label).mkdir(parents=True, exist_ok=True)
    return out / label


CONTENDERS: dict[str, tuple[Callable[[Job], None], float]] = {
    # name: (how, what Evenset is to be times as fast as it at least; the floor the other way round)
    "Keras ImageDataGenerator": (keras_generator, 12),
    "Augmentor, multi-threaded": (augmentor, 60),
    "albumentations, plain loop": (plain_loop, 0),
    "albumentations, process pool": (process_pool, 4),
    "the floor and what it takes to be trusted": (duties, 0),
    "the floor (codec only)": (floor, 0),
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the contenders print, TensorFlow's notes and bars of their own, out of the table."""
    kept, nothing = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    try:
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        yield
    finally:
        sys.stdout.flush()
        for number, copy in enumerate(kept, 1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nothing)


def timed(how: Callable[[Job], None], job: Job) -> float:
    """Outputs a second."""
    # A folder of its own each time, and none deleted before the end: ext4 is slow at making files after deleting some.
    job = job._replace(out=Path(tempfile.mkdtemp(dir=job.out)))
    os.sync()  # Evenset syncs what it wrote before it names it, and should not wait for what others wrote
    start = time.perf_counter()
    with quiet():
        how(job)
    seconds = time.perf_counter() - start
    written = sum(1 for _ in job.out.rglob("*.jp*g"))
    if written < 0.9 * job.outputs / FEWER:
        raise SystemExit(f"{how.__name__} wrote {written} images only")
    return written / seconds


@contextlib.contextmanager
def prepared(folder: Path) -> Iterator[Job]:
    """The sources in a folder of their own and in memory, and a folder for what is made, until the end."""
    random.seed(0)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch) / "source", Path(scratch) / "out"
        files = repeated(folder, source)
        out.mkdir()
        for path in source.rglob("*.*"):
            path.read_bytes()  # everybody reads from memory
        yield Job(files, source, out, len(os.sched_getaffinity(0)))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="class folders of full-size images")
    parser.add_argument("--rounds", type=int, default=3, help="how often Evenset, the pool and the floor take turns")
    chosen = parser.parse_args()
    with prepared(chosen.folder) as job:
        speeds: dict[str, list[float]] = {"Evenset": [], "Evenset, 1 worker": []}
        for turn in range(chosen.rounds):
            speeds["Evenset"].append(timed(evenset, job))
            for name, (how, _) in CONTENDERS.items():
                if turn == 0 or name.startswith("the floor") or how is process_pool:
                    speeds.setdefault(name, []).append(timed(how, job))
        speeds["Evenset, 1 worker"].append(timed(evenset, job._replace(workers=1)))
    workers = job.workers
    ours = float(np.median(speeds["Evenset"]))
    print(
        f"{SOURCES:,} sources, {OUTPUTS:,} outputs of {SIZE} x {SIZE}; {workers} workers; {platform.processor() or platform.machine()}"
    )
    print("| | images/s | Evenset is | at least |\n| --- | --: | --: | --: |")
    print(f"| Evenset, all of it | {ours:.0f} | 1 x | |")
    for name, (how, least) in CONTENDERS.items():
        speed = float(np.median(speeds[name]))
        if name.startswith("the floor"):
            relation, wanted = f"within {speed / ours:.2f} x", "within 1.3 x" if how is floor else ""
        else:
            relation, wanted = f"{ours / speed:.1f} x", f"{least:.0f} x" if least else ""
        print(f"| {name} | {speed:.0f} | {relation} | {wanted} |")
    one = float(np.median(speeds["Evenset, 1 worker"]))
    print(f"| Evenset, 1 worker | {one:.0f} | efficiency of {workers}: {ours / one / workers:.0%} | |")


if __name__ == "__main__":
    main()
