"""Evenset's builder beside a process pool of albumentations, by the kind of source, the recipe and the size of the set.

    python benchmarks/kinds.py FOLDER

Takes a folder of full-size class folders, as `benchmarks/build.py` does. JPEGs are made into 4,000 and into 20,000 images, by
which start-up and rate are told apart; with the affine map, and with transforms of albumentations alone. PNG and DICOM
files are made into 4,000. In images a second, start-up included; of the pool without.
"""

import argparse
import platform
from collections.abc import Callable
from pathlib import Path

import albumentations as A
import build
import cv2
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

SMALL, LARGE = 4000, 20_000
GRAY_LEVELS = (
    "RandomBrightnessContrast: {p: 1.0}",
    "GaussNoise: {p: 1.0}",
    "CLAHE: {p: 1.0}",
)


def gray_levels() -> list[A.BasicTransform]:
    """The same of albumentations itself."""
    return [A.RandomBrightnessContrast(p=1.0), A.GaussNoise(p=1.0), A.CLAHE(p=1.0)]


def written_as(ending: str, job: build.Job, into: Path) -> build.Job:
    """A job on the same images in another format."""
    files = {}
    for label, of_label in job.files.items():
        (into / label).mkdir(parents=True)
        files[label] = [str(into / label / f"{Path(file).stem}{ending}") for file in of_label]
        for number, (file, copy) in enumerate(zip(of_label, files[label], strict=True)):
            image = build.pixels(file)
            image[0, :2] = divmod(number, 256)  # copies of one image would be looked into as such
            cv2.imwrite(copy, image) if ending == ".png" else dicom(image).save_as(copy, enforce_file_format=True)
    return job._replace(files=files, source=into)


def dicom(image: np.ndarray) -> FileDataset:
    """A file with 8 bits a pixel, not compressed, uint8 (height, width)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = image.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = image.tobytes() + b"\0" * (image.size % 2)
    return data


def speed(how: Callable[[build.Job], None], job: build.Job, rounds: int) -> float:
    """Images a second, the median."""
    return float(np.median([build.timed(how, job) for _ in range(rounds)]))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="class folders of full-size images")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    chosen = parser.parse_args()
    print("| sources | transforms | images | Evenset | process pool | Evenset is | the floor and its duties | within |")
    print("| --- | --- | --: | --: | --: | --: | --: | --: |")
    with build.prepared(chosen.folder) as jpegs:
        levels = jpegs._replace(transforms=GRAY_LEVELS, pipeline=gray_levels)
        jobs = [("JPEG", "affine", jpegs), ("JPEG", "gray levels", levels)]
        for kind, transforms, job in jobs:
            found = {}
            for outputs in (SMALL, LARGE):
                found[outputs] = row(kind, transforms, job._replace(outputs=outputs), chosen.rounds)
            seconds = {outputs: outputs / ours for outputs, ours in found.items()}
            rate = (LARGE - SMALL) / (seconds[LARGE] - seconds[SMALL])
            print(
                f"Start-up, end and each source once {seconds[SMALL] - SMALL / rate:.1f} s, then {rate:,.0f} images/s"
            )
        for ending, kind in ((".png", "PNG"), (".dcm", "DICOM")):
            row(kind, "affine", written_as(ending, jpegs, jpegs.source.with_name(kind)), chosen.rounds)
    print(f"{build.SOURCES:,} sources; {jpegs.workers} workers; {platform.processor() or platform.machine()}")


def row(kind: str, transforms: str, job: build.Job, rounds: int) -> float:
    """Measure, print a row, and give Evenset's speed. The floor decodes JPEGs, and maps."""
    ours, pool = (speed(how, job, rounds) for how in (build.evenset, build.process_pool))
    floor = speed(build.duties, job, rounds) if (kind, transforms) == ("JPEG", "affine") else None
    beside = f"{floor:,.0f} | {floor / ours:.2f} x" if floor else " | "
    print(
        f"| {kind} | {transforms} | {job.outputs:,} | {ours:,.0f} | {pool:,.0f} | {ours / pool:.1f} x | {beside} |",
        flush=True,
    )
    return ours


if __name__ == "__main__":
    main()
