"""Recipe files: what the study's resolve to, and that every wrong setting is one line that names it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from augment.list_format import ListFormat
from augment.recipe import KERMANY, RECIPES, Recipe, RecipeError, load


def save(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    """Write a recipe file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | str) -> str:
    """The one line that loading fails with."""
    with pytest.raises(RecipeError) as caught:
        load(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def affine(recipe: Recipe) -> dict[str, float]:
    """The parameters of the only transform, KerasAffine."""
    (step,) = json.loads(recipe.transforms)
    assert list(step) == ["KerasAffine"]
    parameters: dict[str, float] = step["KerasAffine"]
    return parameters


def test_augment1_is_the_studys_first_set() -> None:
    """5,000 a class, 8:2; rotation 10, shear 0.2, shifts 0.05, zoom 0.2; at 224 x 224, split by Kermany's patients."""
    recipe = load("augment1")
    assert recipe.targets == {"train": 4000, "val": 1000, "test": None}
    assert (recipe.val, recipe.keep_source_val, recipe.size, recipe.group) == (0.2, False, (224, 224), KERMANY)
    shifts = {"width_shift_range": 0.05, "height_shift_range": 0.05}
    assert affine(recipe) == {"rotation_range": 10, "shear_range": 0.2, "zoom_range": 0.2, **shifts}


def test_augment2_is_the_studys_second_set() -> None:
    """As augment1 with shear 0.1, shifts 0.1, zoom 0.1; the rotation stays."""
    first, second = load("augment1").as_dict(), load("augment2").as_dict()
    shifts = {"width_shift_range": 0.1, "height_shift_range": 0.1}
    assert affine(load("augment2")) == {"rotation_range": 10, "shear_range": 0.1, "zoom_range": 0.1, **shifts}
    assert {key for key in first if first[key] != second[key]} == {"name", "transforms"}


def test_original_is_the_studys_baseline() -> None:
    """No augmentation, no balancing, the source's own val folder."""
    recipe = load("original")
    assert recipe.targets == {"train": None, "val": None, "test": None}
    assert (recipe.transforms, recipe.keep_source_val, recipe.size) == ("[]", True, (224, 224))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_says_what_it_is_how_to_run_it_and_what_to_expect(path: Path) -> None:
    """The comment at the head holds a description, the command with this recipe's name, and the result to expect."""
    head = path.read_text().partition("\n\n")[0]
    comment = "\n".join(line for line in head.splitlines() if line.startswith("#"))
    assert f"python -m augment build --recipe {path.stem} --source " in comment
    assert re.search(r"^# Expect.*train [\d,]+", comment, re.MULTILINE)
    assert load(path.stem).name == path.stem


def test_a_file_of_ones_own_works_the_same_way(tmp_path: Path) -> None:
    """A path loads what a name loads; the file's stem names the set."""
    text = (RECIPES / "augment1.yaml").read_text()
    assert load(str(save(tmp_path, text, "my-set_2.yml"))).as_dict() == {
        **load("augment1").as_dict(),
        "name": "my-set_2",
    }


def test_every_setting_can_be_set(tmp_path: Path) -> None:
    """All settings at once arrive as they are written."""
    text = """
        per_class: 30
        augmented_share: 0.5
        augment: [val, train]
        val: 0.25
        test: 0
        keep_source_val: true
        size: [64, 48]
        fit: crop
        format: png
        quality: 80
        seed: 9223372036854775807
        max_pixels: 1000000
        value_range: [-1000, 400.5]
        group: (pat\\d+)_
        group_name: coffee cup
        group_tag: PatientID
        list: {label: finding, where: {view: PA}}
        transforms: [HorizontalFlip, {Rotate: {limit: [-5, 5], p: 1}}, {VerticalFlip: }]
    """
    assert load(str(save(tmp_path, text))).as_dict() == {
        "name": "mine",
        "per_class": 30,
        "augmented_share": 0.5,
        "augment": ["train", "val"],
        "val": 0.25,
        "test": 0.0,
        "keep_source_val": True,
        "size": [64, 48],
        "fit": "crop",
        "format": "png",
        "list": {**ListFormat(label="finding").as_dict(), "where": {"view": ["PA"]}},
        "group_name": "coffee cup",
        "group_tag": "PatientID",
        "quality": 80,
        "seed": 2**63 - 1,
        "max_pixels": 1_000_000,
        "value_range": [-1000, 400.5],
        "group": r"(pat\d+)_",
        "transforms": [{"HorizontalFlip": {}}, {"Rotate": {"limit": [-5, 5], "p": 1}}, {"VerticalFlip": {}}],
    }


def test_a_group_is_called_what_the_recipe_calls_it(tmp_path: Path) -> None:
    """A group, unless it says otherwise; the shipped recipes are of patients."""
    assert load(str(save(tmp_path, "size: 32"))).group_names == "groups"
    assert load(str(save(tmp_path, "group_name: coffee cup"))).group_names == "coffee cups"
    assert {load(path.stem).group_name for path in RECIPES.glob("*.yaml")} == {"patient"}
    for wrong in ("''", "<b>", "[patient]", "3", "", "true", "'cup '", "cup_", "a\x00", "x" * 40):
        with pytest.raises(RecipeError, match=r"group_name is .* expected a word such as patient"):
            load(str(save(tmp_path, f"group_name: {wrong!r}" if "\x00" in wrong else f"group_name: {wrong}")))


def test_one_number_is_a_square(tmp_path: Path) -> None:
    """`size: 96` means 96 x 96."""
    assert load(str(save(tmp_path, "size: 96"))).size == (96, 96)


@pytest.mark.parametrize(
    ("per_class", "val", "train", "held_out"),
    [(5000, 0.2, 4000, 1000), (7, 0.2, 6, 1), (10, 0.0, 10, 0), (3, 0.5, 1, 2)],
)
def test_the_targets_of_a_class_add_up(tmp_path: Path, per_class: int, val: float, train: int, held_out: int) -> None:
    """Train and val together hold per_class images, the validation share rounded."""
    recipe = load(str(save(tmp_path, f"per_class: {per_class}\nval: {val}\naugment: [train, val]")))
    assert recipe.targets == {"train": train, "val": held_out, "test": None}


def test_the_seed_of_the_command_line_wins(tmp_path: Path) -> None:
    """--seed takes the place of the recipe's, zero too; without it the recipe's holds."""
    path = str(save(tmp_path, "seed: 5"))
    assert [load(path).seed, load(path, 7).seed, load(path, 0).seed, load("augment1").seed] == [5, 7, 0, 0]


def test_the_card_can_hold_a_recipe() -> None:
    """As a dict a recipe is plain JSON, and says all there is to say."""
    plain = load("augment1").as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain) == set(Recipe.__dataclass_fields__)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("per_class", value) for value in (0, -1, 10**9 + 1, 2.5, "many", True, [5])),
        *(
            (share, value)
            for share in ("val", "test")
            for value in (-0.1, 1, 1.5, "0.2", True, None, float("nan"), [0.2])
        ),
        *(("keep_source_val", value) for value in ("yes please", 1, None)),
        *(
            ("value_range", value)
            for value in (4095, [4095], [0, 1, 2], [1, 1], [5, 2], [0, "4095"], [False, True], "0-4095", {"low": 0})
        ),
        *(("value_range", value) for value in ([0, float("nan")], [float("-inf"), 0], [0, float("inf")])),
        *(
            ("size", value)
            for value in (0, 10_001, -224, "224x224", [224], [224, 224, 3], [224, "x"], None, 22.4, True)
        ),
        *(("quality", value) for value in (0, 101, 9.5, "high", None)),
        *(("max_pixels", value) for value in (0, -1, 1.5, "many", None, True)),
        *(("seed", value) for value in (-1, 2**63, 1.0, "x", None, True)),
        *(("group", value) for value in ("person", "(", 5, None, "(a{99999999999})", "(" * 5000)),
        *(("transforms", value) for value in (None, 5, [5], [None], [["A"]], [{"A": 1, "B": 2}], [{}], [{5: {}}])),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(tmp_path: Path, setting: str, value: Any) -> None:
    """Out of range or of the wrong kind: the message names file, setting and what is expected."""
    path = save(tmp_path, yaml.safe_dump({setting: value}))
    message = refusal(path)
    assert message.startswith(f"{path}: {setting} ")
    assert "expected" in message or "regular expression" in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("transforms: [{Rotate: 10}]", "transform Rotate has 10, expected parameters"),
        ("transforms: [{Rotate: [limit]}]", "transform Rotate has ['limit'], expected parameters"),
        ("transforms: [{Rotate: {5: 6}}]", "transform Rotate has {5: 6}, expected parameters"),
        ("transforms: [{Rotate: {limit: .nan}}]", "transforms holds a value that is no number, text or list"),
        ("transforms: [{Rotate: {limit: 2020-01-01}}]", "transforms holds a value that is no number, text or list"),
        ("transforms: [{Rotate: {limit: !!binary aGk=}}]", "transforms holds a value that is no number, text or list"),
        ("rotation: 10", "unknown setting 'rotation'; known are transforms, per_class"),
        ("name: other", "unknown setting 'name'; known are"),
        ("5: 6", "unknown setting 5; known are"),
        ("", "got NoneType, expected settings"),
        ("- per_class: 5", "got list, expected settings"),
        ("per_class 5", "got str, expected settings"),
        ("per_class: [5", "not YAML: "),
        ("per_class: 5\n\tval: 1", "not YAML: "),
        ("a: \x07", "not YAML: "),
        ("per_class: " + "[" * 20_000, "not YAML: "),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_fault(tmp_path: Path, text: str, named: str) -> None:
    """Wrong structure, unknown settings, no YAML: one line with the file and the fault."""
    path = save(tmp_path, text)
    assert refusal(path).startswith(f"{path}: {named}")


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir [{}]",
        "!!python/object/new:os.mkdir [{}]",
        "!!python/object/apply:pathlib.Path.mkdir [!!python/object/apply:pathlib.Path [{}]]",
        "!!python/name:os.mkdir",
    ],
)
def test_a_recipe_runs_no_code(tmp_path: Path, tag: str) -> None:
    """YAML that would make Python objects or call functions is refused, and nothing is called."""
    victim = tmp_path / "made"
    assert "not YAML: could not determine a constructor" in refusal(save(tmp_path, f"seed: {tag.format(victim)}"))
    assert not victim.exists()


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """A picture in place of a recipe is named as what it is not."""
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    assert refusal(path).startswith(f"{path}: not YAML: ")


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    """A name that is no recipe and no file: the message lists the recipes there are; a folder is none."""
    known = "give a YAML file or one of augment1, augment2, even, original, sample, sample-plain"
    assert refusal("augment9") == f"recipe augment9: No such file or directory; {known}"
    assert refusal(tmp_path) == f"recipe {tmp_path}: Is a directory; {known}"


@pytest.mark.parametrize("name", ["my set.yaml", "-set.yaml", "a;b.yaml"])
def test_a_name_that_makes_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    """The file's stem names folders and files, so it holds nothing that a shell or a file system minds."""
    assert "takes letters, digits" in refusal(save(tmp_path, "seed: 1", name))


def test_a_name_does_not_lead_out_of_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up among the recipes first, and as a path from here second; both must be files."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path, "seed: 3", "augment1")
    assert load("augment1").per_class == 5000
    assert load("./augment1").seed == 3


def test_aliases_are_refused(tmp_path: Path) -> None:
    """Ten lines of YAML aliases can stand for more than memory holds, so none is followed."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(RecipeError, match="aliases") as caught:
        load(str(path))
    assert "\n" not in str(caught.value)


def test_a_share_that_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    """A val that rounds up to all of per_class is an error, rather than an empty train side planned."""
    path = tmp_path / "all.yaml"
    path.write_text("per_class: 2\nval: 0.9\n")
    with pytest.raises(RecipeError, match="nothing to train on"):
        load(str(path))
