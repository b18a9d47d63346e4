"""Small sets to train on, written as the contract has them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from manifests import contract


@pytest.fixture
def image_set(tmp_path: Path) -> Callable[..., Path]:
    """Make a set of noisy images whose brightness tells the class; gives its manifest, two folders below the root."""

    def make(classes: int = 2, train: int = 8, val: int = 4, test: int = 4, size: int = 64, name: str = "tiny") -> Path:
        rows = []
        for split, count in (("train", train), ("val", val), ("test", test)):
            for label in range(classes):
                rows += [_image(tmp_path, name, split, label, number, size) for number in range(count)]
        manifest = tmp_path / "manifests" / f"{name}.csv"
        card = {"name": name, "notice": "", "source": "source", "images": f"data/{name}", "rejected": []}
        contract.write(manifest, pd.DataFrame(rows, columns=contract.COLUMNS), card)
        return manifest

    return make


def _image(root: Path, name: str, split: str, label: int, number: int, size: int) -> tuple[object, ...]:
    key = f"{split}/class{label}/{number}"
    drawn = np.random.default_rng(int(hashlib.sha256(key.encode()).hexdigest()[:8], 16))
    pixels = np.clip(drawn.normal(80 + 40 * label, 30, (size, size)), 0, 255).astype(np.uint8)
    path = root / "data" / name / f"{key}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    relative = path.relative_to(root).as_posix()
    return (relative, f"class{label}", split, f"{key}.png", key, 0, number, "", size, size, sha256, sha256)
