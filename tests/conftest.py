"""Fixtures for all tests: tiny source folders of real images, and the real X-rays where they are at hand."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeSource = Callable[..., Path]


@pytest.fixture(scope="session")
def make_source() -> MakeSource:
    """A function (folder, {"train/NORMAL": 6, ...}) -> folder that writes class folders of small noisy JPEGs.

    With keys of SPLIT/CLASS it makes the Kermany layout, with keys of CLASS the plain one. The names are
    Kermany's: NORMAL has one image a patient, any other class three. No two images are alike, and no patient
    is in two folders.
    """

    def make(folder: Path, counts: dict[str, int], size: tuple[int, int] = (48, 36), suffix: str = ".jpeg") -> Path:
        patient = 0
        for place, count in counts.items():
            (folder / place).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                if place.endswith("NORMAL"):
                    patient += 1
                    name = f"IM-{patient:04d}-0001"
                else:
                    patient += number % 3 == 0
                    name = f"person{patient}_virus_{number}"
                rng = np.random.default_rng([patient, number])
                coarse = Image.fromarray(rng.integers(0, 256, (6, 8), dtype=np.uint8))
                coarse.resize(size, Image.Resampling.BICUBIC).save(folder / place / f"{name}{suffix}")
            patient += 1
        return folder

    return make


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment for a process that runs the programs from another folder: `cwd` need not be the repository."""
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.fixture(scope="session")
def xrays_full() -> Path:
    """240 real X-rays at full size: train/{NORMAL,PNEUMONIA}/*.jpeg. Read only."""
    return _xrays("chest_xray_full")


@pytest.fixture(scope="session")
def xrays_224() -> Path:
    """The whole Kermany set at 224 x 224: {train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg. Read only."""
    return _xrays("chest_xray_224")


def _xrays(name: str) -> Path:
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EVENSET_XRAYS", shared)) / name
    if not folder.is_dir():
        pytest.skip(f"no real X-rays at {folder}; set EVENSET_XRAYS to the folder that holds {name}")
    return folder
