"""The recipes in docs/recipes.md work as they stand there."""

import re
from pathlib import Path

import numpy as np
import pytest

from augment.recipe import EVEN, load
from augment.rendering.render import render
from augment.rendering.tasks import Style, Variant
from manifests.contract import SPLITS

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:20])
def test_a_recipe_of_the_docs_renders(tmp_path: Path, block: str) -> None:
    """It is resolved, and its transforms change an image."""
    import cv2

    path = tmp_path / "set.yaml"
    path.write_text(block, encoding="utf-8")
    recipe = load(str(path))
    assert recipe.augmented_share in (EVEN, 1)
    assert recipe.augment == ("train",)
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image = cv2.resize(noise, (600, 400), interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".png", image)[1].tobytes()
    variants = [Variant(f"{SPLITS[0]}/{number}.jpg", number, 12345 + number) for number in range(4)]
    rendered = [jpeg for jpeg, _ in render(data, variants, Style.of(recipe))]
    assert len(set(rendered)) == 4


def test_the_docs_show_every_setting() -> None:
    """The block with all of them names each that a recipe may hold."""
    from dataclasses import fields

    from augment.recipe import Recipe

    shown = set(re.findall(r"(?m)^(\w+):", BLOCKS[0]))
    assert shown == {field.name for field in fields(Recipe)} - {"name"}


def test_the_cookbooks_picture_has_a_row_for_each_recipe() -> None:
    """As the script in docs draws it: the image as it is, and others of it, no two alike."""
    import cv2

    from docs import cookbook

    shown = cv2.imread(str(Path(cookbook.__file__).with_name("cookbook.jpg")))
    recipes = cookbook.recipes()
    assert len(recipes) == len(BLOCKS) - 1, "all but the block of every setting"
    assert shown.shape[0] == len(recipes) * (cookbook.SIDE + cookbook.GAP)
    drawn = cookbook.row(cookbook.photograph(), recipes["photo"])
    tiles = np.hsplit(drawn, cookbook.COUNT)
    assert len({tile.tobytes() for tile in tiles}) == cookbook.COUNT
