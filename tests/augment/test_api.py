"""The builder called from Python, as notebooks do."""

from pathlib import Path

import pytest

import augment
from common.errors import UserError
from manifests import contract


@pytest.fixture
def place(tmp_path: Path, make_source) -> Path:
    """A folder with a source and a recipe."""
    make_source(tmp_path / "source", {"train/0": 6, "train/01": 9, "test/0": 2, "test/01": 2})
    (tmp_path / "set.yaml").write_text(
        "per_class: 15\naugment: [train, val]\nsize: 32\ntransforms: [{KerasAffine: {rotation_range: 9}}]\n"
    )
    return tmp_path


def test_a_set_is_built_from_python(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the command builds it, with text or paths; a dry run plans the same and writes nothing."""
    recipe, source = str(place / "set.yaml"), place / "source"
    planned = augment.dry_run(recipe, source, workers=2)
    assert not (place / "manifests").exists()
    built = augment.build(recipe, str(source), root=place, workers=2, seed=3)
    rows = contract.read(built.place.manifest)
    assert built.place.manifest == place / "manifests" / "set.csv"
    assert built.rendered == len(rows)
    assert built.build_plan.counts["images"].sum() == len(rows)
    assert planned.counts.equals(built.build_plan.counts)
    again = augment.build(recipe, source, root=place, workers=1, seed=3)
    assert (again.rendered, again.reused) == (0, len(rows))
    assert capsys.readouterr().err == ""


def test_a_mistake_is_an_exception(place: Path) -> None:
    """And no end of the process: what is wrong, and the fix."""
    with pytest.raises(UserError, match="no such folder"):
        augment.build(str(place / "set.yaml"), place / "nowhere", root=place)
    with pytest.raises(UserError, match="give a YAML file or one of"):
        augment.dry_run("none", place / "source")
