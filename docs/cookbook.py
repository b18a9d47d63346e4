"""Draws docs/cookbook.jpg: a synthetic image for each recipe of the cookbook, and what the recipe makes of it.

python docs/cookbook.py
"""

import re
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from augment.recipe import Recipe, resolve  # after the path to it
from augment.rendering.render import render
from augment.rendering.tasks import Style, Variant
from augment.sample import draw
from common.images.pixels import Pixels

SIDE, COUNT, GAP = 150, 6, 6  # pixels; images a row; pixels


def recipes() -> dict[str, Recipe]:
    """The cookbook's recipes by name, in their order."""
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n# (\S+)\.yaml\n(.*?)```", text, re.DOTALL)
    return {name: resolve(name, yaml.safe_load(block) | {"size": SIDE}, name) for name, block in blocks}


def photograph() -> Pixels:
    """A cup on a table."""
    picture = np.zeros((300, 300, 3), np.uint8)
    picture[:] = (196, 214, 228)
    picture[200:] = (122, 84, 52)
    cv2.ellipse(picture, (205, 150), (38, 42), 0, 0, 360, (196, 60, 48), 14, cv2.LINE_AA)
    cv2.fillPoly(picture, [np.array([(90, 95), (200, 95), (185, 232), (105, 232)])], (214, 72, 56), cv2.LINE_AA)
    cv2.ellipse(picture, (145, 95), (55, 16), 0, 0, 360, (92, 48, 30), cv2.FILLED, cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), 1.2).astype(np.uint8)


def cells() -> Pixels:
    """Stained tissue: nuclei in pink."""
    drawn = np.random.default_rng(4)
    picture = np.full((300, 300, 3), (236, 190, 214), np.uint8)
    for _ in range(70):
        centre, axes = drawn.integers(0, 300, 2).tolist(), drawn.integers(8, 17, 2).tolist()
        colour = (int(drawn.integers(88, 130)), 60, int(drawn.integers(120, 165)))
        cv2.ellipse(picture, centre, axes, float(drawn.uniform(0, 180)), 0, 360, colour, cv2.FILLED, cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), 1.5).astype(np.uint8)


def mole() -> Pixels:
    """A dark spot on skin."""
    noise = cv2.GaussianBlur(np.random.default_rng(5).normal(0, 60, (300, 300, 1)), (0, 0), 9)[..., None]
    y, x = np.mgrid[-150:150, -150:150] / 100
    spot = 1 / (
        1
        + np.exp(
            12 * (x**2 + 1.6 * y**2 - 0.6 + 0.08 * np.sin(3 * np.arctan2(y, x)) + 0.05 * np.cos(7 * np.arctan2(y, x)))
        )
    )
    picture = np.array([226, 178, 152]) - spot[..., None] * np.array([120, 110, 105]) + noise
    return np.clip(picture, 0, 255).astype(np.uint8)


def row(picture: Pixels, recipe: Recipe) -> Pixels:
    """The picture at the recipe's size, and its first variants beside it."""
    _, data = cv2.imencode(".png", picture if picture.ndim == 2 else picture[..., ::-1])
    wanted = [Variant(f"{number}.jpg", number, 1000 + number) for number in range(COUNT)]
    images = [
        cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1) for jpeg, _ in render(data.tobytes(), wanted, Style.of(recipe))
    ]
    return np.hstack(
        [cv2.copyMakeBorder(image, *[GAP // 2] * 4, cv2.BORDER_CONSTANT, value=(255,) * 3) for image in images]
    )


def montage() -> Pixels:
    """A row for each recipe of the cookbook, blue first."""
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder) / "sample")
        first = min(Path(folder, "sample", "train", "PNEUMONIA").iterdir())
        xray = np.asarray(cv2.imread(str(first), cv2.IMREAD_GRAYSCALE), np.uint8)
    pictures = {"photo": photograph(), "microscopy": cells(), "dermatoscopy": mole()}
    return np.vstack([row(pictures.get(name, xray), recipe) for name, recipe in recipes().items()])


if __name__ == "__main__":
    cv2.imwrite(str(ROOT / "docs" / "cookbook.jpg"), montage(), [cv2.IMWRITE_JPEG_QUALITY, 85])
