"""The variants of a recipe that `make ablation` builds; each is a recipe that can be built."""

from typing import Any

import pandas as pd
import pytest
import yaml

from augment import recipe
from benchmarks import ablation
from common.images.pixels import decode

WHOLE: dict[str, Any] = {
    "per_class": 300,
    "augmented_share": "even",
    "group": "(p\\d+)",
    "transforms": [{"KerasAffine": {"rotation_range": 10}}, "HorizontalFlip", {"KerasAffine": {"zoom_range": 0.1}}],
}


def test_each_part_is_left_out_once() -> None:
    """Each transform by its name, the even share, the balance, and all of it; what isn't about that stays."""
    found = ablation.variants(WHOLE)
    assert list(found) == [
        "", "without-KerasAffine-1", "without-HorizontalFlip", "without-KerasAffine-2", "filled-up", "unbalanced", "plain",
    ]  # fmt: skip
    assert found[""] == WHOLE
    assert found["without-HorizontalFlip"]["transforms"] == [WHOLE["transforms"][0], WHOLE["transforms"][2]]
    assert found["without-KerasAffine-2"]["transforms"] == WHOLE["transforms"][:2]
    assert found["filled-up"] == {key: value for key, value in WHOLE.items() if key != "augmented_share"}
    assert found["unbalanced"]["augmented_share"] == 0.5
    assert "per_class" not in found["unbalanced"]
    assert found["plain"] == {"group": WHOLE["group"]}


@pytest.mark.parametrize("name", [path.stem for path in sorted(recipe.RECIPES.glob("*.yaml"))])
def test_every_variant_of_a_shipped_recipe_is_a_recipe(name: str) -> None:
    """Also where it has one transform, or none."""
    settings = yaml.safe_load(ablation.recipe_of(name).read_text(encoding="utf-8"))
    for variant, of_variant in ablation.variants(settings).items():
        assert recipe.resolve(f"{name}-{variant}", of_variant, "here").name == f"{name}-{variant}"


def test_the_picture_has_a_panel_a_figure() -> None:
    """A PNG, whatever is not defined."""
    rows = [("whole", f"without-{number}", figure) for number in range(3) for figure in ablation.FIGURES[:3]]
    found = pd.DataFrame(rows, columns=["first", "second", "figure"]).assign(difference=0.1, low=0.0, high=0.2)
    found.loc[0, ["low", "high"]] = float("nan")
    assert decode(ablation.picture(found, "$a$")).shape[1] > 1000
