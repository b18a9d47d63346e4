"""The plan, a pure function of (sources, recipe): its properties, over sources of every shape."""

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from augment.planning import PlanError
from augment.planning.plan import Plan, plan, variant_seed
from augment.recipe import Recipe, load
from augment.sources.scan import scan

THREADS = ThreadPoolExecutor(2)

FLIP = json.dumps([{"HorizontalFlip": {}}])
COLUMNS = ["source", "split", "label", "group", "source_sha256"]
ROW = ["path", "label", "split", "source", "group", "variant", "seed", "source_sha256"]


def sha(text: object) -> str:
    """A checksum to stand for some bytes."""
    return hashlib.sha256(str(text).encode()).hexdigest()


def table(rows: list[tuple[str, str, str, str, str]]) -> pd.DataFrame:
    """A table of sources, sorted as a scan gives it."""
    return pd.DataFrame(sorted(rows), columns=COLUMNS, dtype=object)


def recipe(**values: Any) -> Recipe:
    """A recipe with one transform."""
    return Recipe(**{"name": "set", "transforms": FLIP, "augment": ("train", "val"), **values})


def same(first: Plan, second: Plan) -> bool:
    """Whether two plans are equal in every cell."""
    return first.rows.equals(second.rows) and first.left_out == second.left_out


@st.composite
def folders(draw: st.DrawFn, own_test: bool | None = None, own_val: bool | None = None, least: int = 3) -> pd.DataFrame:
    """Sources of 2 to 4 classes, each with `least` to 8 patients of 1 to 4 images; no two share anything."""
    own_test = draw(st.booleans()) if own_test is None else own_test
    own_val = draw(st.booleans()) if own_val is None else own_val
    splits = ["train", *["val"] * own_val, *["test"] * own_test] if own_test or own_val or draw(st.booleans()) else [""]
    rows = []
    for label in ["A", "b", "class three", "größe"][: draw(st.integers(2, 4))]:
        for split in splits:
            for patient in range(draw(st.integers(least if split in ("", "train") else 1, 8))):
                for image in range(draw(st.integers(1, 4))):
                    source = f"{split}/{label}/p{patient}_{image}.png".removeprefix("/")
                    rows.append((source, split, label, f"{split}{label}{patient}", sha(source)))
    return table(rows)


@st.composite
def entangled(draw: st.DrawFn) -> pd.DataFrame:
    """Sources that share patients and bytes in any way, over classes and, in half of the cases, over splits too."""
    apart = draw(st.booleans())
    rows = {}
    for number in range(draw(st.integers(2, 30))):
        split = draw(st.sampled_from(["train", "train", "val", "test"]))
        label = draw(st.sampled_from(["A", "B"]))
        group, bytes_ = (f"{split * apart}{draw(st.integers(0, 40))}" for _ in range(2))
        rows[number] = (f"{split}/{label}/{number}.jpg", split, label, group, sha(bytes_))
    return table(list(rows.values()))


TARGETS = st.integers(10, 80)
SEEDS = st.integers(0, 2**63 - 1)
PROPERTY = settings(max_examples=40, deadline=None)


@given(folders(), TARGETS, st.sampled_from([0.1, 0.2, 0.5]), SEEDS)
@PROPERTY
def test_every_class_meets_its_target_exactly(sources: pd.DataFrame, per_class: int, val: float, seed: int) -> None:
    """Train and val hold as many images of each class as the recipe says, whatever the sources."""
    wanted = recipe(per_class=per_class, val=val, seed=seed)
    sizes = plan(sources, wanted).rows.groupby(["split", "label"]).size()
    for label in sources["label"].unique():
        assert sizes["train", label] == wanted.targets["train"]
        assert sizes["val", label] == wanted.targets["val"]
    assert set(sizes.index.get_level_values("split")) == {"train", "val", "test"}


@given(folders(), TARGETS, SEEDS)
@PROPERTY
def test_variants_are_spread_evenly(sources: pd.DataFrame, per_class: int, seed: int) -> None:
    """Within a class and split no source has two images more than another, and each has variants 0, 1, 2, ..."""
    planned = plan(sources, recipe(per_class=per_class, seed=seed))
    for (split, label), side in planned.rows.groupby(["split", "label"]):
        counts = [*side.groupby("source").size(), *[0] * len(left_out_of(planned, split, label))]
        assert max(counts) - min(counts) <= 1
    for _, of_source in planned.rows.groupby("source"):
        assert of_source["variant"].tolist() == list(range(len(of_source)))


def left_out_of(planned: Plan, split: str, label: str) -> list[str]:
    """The sources that were sampled down in one class and split."""
    return [
        entry.source
        for entry in planned.left_out
        if entry.reason.startswith(f"sampled down: {label} has") and f" in {split}," in entry.reason
    ]


@given(folders(), st.integers(2, 40), SEEDS)
@PROPERTY
def test_no_source_is_lost(sources: pd.DataFrame, per_class: int, seed: int) -> None:
    """Every source is in the plan or left out, never both; it is left out only where a class has too many."""
    wanted = recipe(per_class=per_class, seed=seed)
    planned = plan(sources, wanted)
    left_out = [entry.source for entry in planned.left_out]
    assert sorted([*left_out, *planned.rows["source"].unique()]) == sources["source"].tolist()
    assert left_out == sorted(set(left_out))
    for entry in planned.left_out:
        parts = re.fullmatch(
            r"sampled down: (.+) has ([\d,]+) sources in (train|val), the recipe wants ([\d,]+)", entry.reason
        )
        assert parts
        label, have, split, target = parts.groups()
        side = planned.rows[(planned.rows["label"] == label) & (planned.rows["split"] == split)]
        assert len(side) == side["source"].nunique() == int(target) == wanted.targets[split]
        assert int(have) == len(side) + len(left_out_of(planned, split, label)) > int(target)


@given(entangled(), st.booleans(), st.booleans(), st.sampled_from([None, 20]), SEEDS)
@settings(max_examples=120, deadline=None)
def test_no_patient_and_no_identical_image_is_in_two_splits(
    sources: pd.DataFrame, keep_source_val: bool, drop_conflicts: bool, per_class: int | None, seed: int
) -> None:
    """However patients and bytes are entangled, the plan keeps them together, or refuses the source's own splits."""
    wanted = recipe(keep_source_val=keep_source_val, per_class=per_class, seed=seed)
    try:
        rows = plan(sources, wanted, drop_conflicts=drop_conflicts).rows
    except PlanError as error:
        assert "\n" not in str(error)  # noqa: PT017  # refusing is as right as keeping apart
        rows = None
    if rows is not None:
        for column in ("group", "source_sha256"):
            assert rows.groupby(column)["split"].nunique().max() == 1
        assert rows.groupby("source_sha256")["label"].nunique().max() == 1
    if drop_conflicts:
        sources = sources[sources.groupby("source_sha256")["label"].transform("nunique") == 1]
    own = sources["split"].where(sources["split"].eq("test") | (sources["split"].eq("val") & keep_source_val), "train")
    leaks = len(sources) > 0 and any(
        own.groupby(sources[column]).nunique().max() > 1 for column in ("group", "source_sha256")
    )
    if leaks:
        assert rows is None


@given(entangled(), st.booleans(), SEEDS)
@settings(max_examples=120, deadline=None)
def test_leaks_can_be_dropped_from_the_train_side(sources: pd.DataFrame, keep_source_val: bool, seed: int) -> None:
    """With drop_leaks nothing is refused for a leak: test keeps its images, and what is dropped is listed with its twin."""
    wanted = recipe(keep_source_val=keep_source_val, seed=seed)
    try:
        planned = plan(sources, wanted, drop_leaks=True, drop_conflicts=True)
    except PlanError as error:
        assert "in two splits" not in str(error)  # noqa: PT017  # a class may be left without any image
        return
    for column in ("group", "source_sha256"):
        assert planned.rows.groupby(column)["split"].nunique().max() == 1
    dropped = {entry.source: entry.reason for entry in planned.left_out}
    assert sorted([*dropped, *planned.rows["source"].unique()]) == sources["source"].tolist()
    clear = sources[sources.groupby("source_sha256")["label"].transform("nunique") == 1]
    assert set(clear.loc[clear["split"] == "test", "source"]) <= set(planned.rows["source"])
    for source, reason in dropped.items():
        if source not in set(clear["source"]):
            assert re.fullmatch(r"dropped: the same image is [AB] too \(.+\)", reason)
            continue
        twin = re.fullmatch(r"dropped: its group or image is in (test|val) too \((.+)\)", reason)
        assert twin
        assert source not in twin[2]
        assert (sources["source"] == twin[2]).any()


@given(folders(own_test=True), st.sampled_from([None, 10, 60]), SEEDS)
@PROPERTY
def test_test_images_are_all_there_and_never_augmented(sources: pd.DataFrame, per_class: int | None, seed: int) -> None:
    """The source's test folder is the test split: each image once, as variant 0, and nothing else."""
    rows = plan(sources, recipe(per_class=per_class, seed=seed)).rows
    tested = rows[rows["split"] == "test"]
    assert sorted(tested["source"]) == sources.loc[sources["split"] == "test", "source"].tolist()
    assert set(tested["variant"]) == {0}


@given(folders(own_val=True), st.sampled_from([None, 10, 60]), SEEDS)
@PROPERTY
def test_the_sources_own_val_folder_is_kept_if_wanted(sources: pd.DataFrame, per_class: int | None, seed: int) -> None:
    """With keep_source_val the val split is made of the val folder's images and the train split of train's."""
    rows = plan(sources, recipe(per_class=per_class, seed=seed, keep_source_val=True)).rows
    own = dict(zip(sources["source"], sources["split"], strict=True))
    validating = rows[rows["split"] == "val"]
    assert {own[source] for source in validating["source"]} == {"val"}
    assert {own[source] for source in rows.loc[rows["split"] == "train", "source"]} == {"train"}
    if per_class is None:
        assert sorted(validating["source"]) == sources.loc[sources["split"] == "val", "source"].tolist()


@given(folders(own_val=True, own_test=False), st.sampled_from([0, 0.3]), SEEDS)
@PROPERTY
def test_a_source_with_val_and_no_test_gives_up_some_of_its_train(
    sources: pd.DataFrame, test: float, seed: int
) -> None:
    """Val is kept as it is, and train is shared out between train and test, by patient and in each class."""
    rows = plan(sources, recipe(test=test, seed=seed, keep_source_val=True)).rows
    by_split = {split: set(of_split["source"]) for split, of_split in rows.groupby("split")}
    own = {split: set(of_split["source"]) for split, of_split in sources.groupby("split")}
    assert by_split["val"] == own["val"]
    assert by_split["train"] | by_split.get("test", set()) == own["train"]
    tested = rows.loc[rows["split"] == "test", "label"].unique()
    assert sorted(tested) == (sorted(sources["label"].unique()) if test else [])


@given(folders(own_val=True), SEEDS)
@PROPERTY
def test_the_sources_val_folder_is_pooled_with_train_otherwise(sources: pd.DataFrame, seed: int) -> None:
    """Without keep_source_val the patients of train and val are shared out anew: which folder they lay in is gone."""
    moved = sources.assign(split=sources["split"].replace("val", "train"))
    assert same(plan(sources, recipe(per_class=50, seed=seed)), plan(moved, recipe(per_class=50, seed=seed)))


@given(
    folders(own_test=False, own_val=False), SEEDS, st.sampled_from([0.1, 0.2, 0.4]), st.sampled_from([0.1, 0.2, 0.4])
)
@PROPERTY
def test_without_folders_the_shares_hold_for_each_class(
    sources: pd.DataFrame, seed: int, test: float, val: float
) -> None:
    """No test and no val folder: of each class's patients the recipe's shares test and validate, at least one each."""
    rows = plan(sources, recipe(seed=seed, test=test, val=val)).rows
    for label, of_label in sources.groupby("label"):
        patients = of_label["group"].nunique()
        got = rows[rows["label"] == label].groupby("split")["group"].nunique()
        assert got["test"] == max(1, round(test * patients))
        assert got["val"] == min(max(1, round(val * patients)), patients - got["test"] - 1)
        assert got["train"] == patients - got["test"] - got["val"]


def test_shares_of_nothing_give_nothing() -> None:
    """`test: 0` and `val: 0` put every patient into train."""
    sources = table(
        [(f"{label}/{n}.png", "", label, f"{label}{n}", sha(f"{label}{n}")) for label in "AB" for n in range(5)]
    )
    assert set(plan(sources, recipe(test=0.0, val=0.0, per_class=9)).rows["split"]) == {"train"}


@given(folders(), TARGETS, SEEDS)
@PROPERTY
def test_seeds_are_functions_of_set_seed_bytes_and_variant(sources: pd.DataFrame, per_class: int, seed: int) -> None:
    """Each row's seed can be had from three values alone, by a formula that other programs can follow."""
    rows = plan(sources, recipe(per_class=per_class, seed=seed)).rows
    for row in rows.itertuples():
        digest = hashlib.sha256(f"{seed}:{row.source_sha256}:{row.variant}".encode()).digest()
        assert row.seed == int.from_bytes(digest[:8], "big") // 2 == variant_seed(seed, row.source_sha256, row.variant)
    assert rows["seed"].between(0, 2**63 - 1).all()
    assert rows["seed"].is_unique


@given(folders(least=4), st.data(), TARGETS, SEEDS)
@PROPERTY
def test_taking_a_patient_away_moves_few_others(
    sources: pd.DataFrame, data: st.DataObject, per_class: int, seed: int
) -> None:
    """One patient less: what stays keeps its seeds, and at most two other patients of the class change sides."""
    wanted = recipe(per_class=per_class, seed=seed)
    pooled = sources[sources["split"] != "test"]
    gone = data.draw(st.sampled_from(sorted(pooled["group"].unique())))
    label = pooled.loc[pooled["group"] == gone, "label"].iloc[0]
    assume(pooled.loc[pooled["label"] == label, "group"].nunique() > 3)
    before, after = (plan(some, wanted).rows for some in (sources, sources[sources["group"] != gone]))
    both = before.merge(after, on=["source", "variant"], suffixes=("", "_after"))
    assert (both["seed"] == both["seed_after"]).all()
    moved = both[both["split"] != both["split_after"]]
    assert set(moved["label"]) <= {label}
    assert moved["group"].nunique() <= 2


def test_two_shares_that_round_to_one_less_move_two_patients() -> None:
    """Of 8 patients 0.2 and 0.2 are 2 and 2, of 7 they are 1 and 1: whoever goes, no third patient moves."""
    sources = table([(f"{c}/{n}.png", "", c, f"{c}{n}", sha(f"{c}{n}")) for c in "AB" for n in range(8)])
    before = plan(sources, recipe()).rows.set_index("group")["split"]
    for gone in sorted(set(sources["group"])):
        after = plan(sources[sources["group"] != gone], recipe()).rows.set_index("group")["split"]
        assert (after != before[after.index]).sum() <= 2, gone


@given(folders(), TARGETS, SEEDS, st.randoms(use_true_random=False))
@PROPERTY
def test_the_order_of_the_sources_does_not_matter(
    sources: pd.DataFrame, per_class: int, seed: int, random: Any
) -> None:
    """Shuffled rows give the same plan, and the table that was handed in stays as it was."""
    order = list(range(len(sources)))
    random.shuffle(order)
    shuffled = sources.iloc[order]
    copy = shuffled.copy()
    wanted = recipe(per_class=per_class, seed=seed)
    assert same(plan(shuffled, wanted), plan(sources, wanted))
    assert shuffled.equals(copy)


@given(folders(least=6))
@settings(max_examples=8, deadline=None)
def test_another_seed_is_another_set(sources: pd.DataFrame) -> None:
    """The seed decides who validates, and every variant's own seed."""
    plans = [plan(sources, recipe(per_class=40, seed=seed)).rows for seed in range(8)]
    assert len({tuple(sorted(rows.loc[rows["split"] == "val", "group"].unique())) for rows in plans}) > 1
    assert len(set().union(*(rows["seed"] for rows in plans))) == sum(len(rows) for rows in plans)


def test_a_larger_target_keeps_what_a_smaller_one_had() -> None:
    """Raising per_class adds variants: every image of the smaller set is in the larger one, so it can be reused."""
    sources = table([(f"train/{c}/{n}.png", "train", c, f"{c}{n}", sha(f"{c}{n}")) for c in "AB" for n in range(9)])
    small, large = (plan(sources, recipe(per_class=count)).rows for count in (50, 63))
    kept = small.merge(large, on=ROW)
    assert len(kept) == len(small) < len(large)


NAMES = st.text(st.sampled_from('aAbBßẞİi.-_v0 %*:?"<>|é肺ﬁ'), min_size=1, max_size=5).map("x".__add__)


@given(
    st.lists(
        st.tuples(st.sampled_from(["A", "a", "B"]), NAMES, st.sampled_from([".jpg", ".png", ".JPG", ""])),
        unique=True,
        min_size=12,
        max_size=40,
    )
)
@settings(max_examples=60, deadline=None)
def test_paths_are_unique_even_where_case_is_folded(names: list[tuple[str, str, str]]) -> None:
    """a.png beside a.jpg, A.jpg beside a.jpg, odd characters: each image has a path of its own, safe on any system."""
    sources = table(
        [(f"{label}/{stem}{ending}", "", label, f"{n}", sha(n)) for n, (label, stem, ending) in enumerate(names)]
    )
    sources = sources.drop_duplicates("source")
    rows = plan(sources, recipe(per_class=None, val=0.0, test=0.0)).rows
    assert rows["path"].str.casefold().is_unique
    for row in rows.itertuples():
        split, label, name = row.path.split("/")
        assert (split, label) == (row.split, row.label)
        assert not re.search(r'[<>:"|?*%\\\x00-\x1f]', name)
        assert name.endswith(f"-v{row.variant}.jpg")


def test_plain_names_are_kept() -> None:
    """A name that needs no care is the image's, without its ending; equal names in different classes too."""
    sources = table([(f"train/{c}/IM-{n}.jpeg", "train", c, f"{c}{n}", sha(f"{c}{n}")) for c in "AB" for n in range(3)])
    rows = plan(sources, recipe(per_class=10)).rows
    assert {re.sub(r"-v\d+\.jpg$", "", path.split("/", 1)[1]) for path in rows["path"]} == {
        f"{c}/IM-{n}" for c in "AB" for n in range(3)
    }


def test_long_names_are_cut_and_stay_different() -> None:
    """Names as long as a file system takes leave room for what is added to them, and stay apart."""
    long = ["肺" * 80 + ending for ending in ("a.jpg", "b.jpg")] + ["y" * 250 + ".png"]
    sources = table([(f"{c}/{n}", "", c, c + n, sha(c + n)) for c in "AB" for n in long])
    rows = plan(sources, recipe(val=0.0, test=0.0, per_class=1000)).rows
    assert rows["path"].is_unique
    assert rows["path"].map(lambda path: len(path.split("/")[-1].encode())).max() < 230


@given(folders(), TARGETS)
@settings(max_examples=20, deadline=None)
def test_rows_are_sorted_and_complete(sources: pd.DataFrame, per_class: int) -> None:
    """Rows come by split, label, source and variant, with what is known of the source beside it."""
    rows = plan(sources, recipe(per_class=per_class)).rows
    assert list(rows.columns) == ROW
    ranks = [
        (["train", "val", "test"].index(row.split), row.label, row.source, row.variant) for row in rows.itertuples()
    ]
    assert ranks == sorted(ranks)
    known = sources.set_index("source")
    for row in rows.itertuples():
        assert (row.label, row.group, row.source_sha256) == tuple(
            known.loc[row.source, ["label", "group", "source_sha256"]]
        )


@given(folders(), SEEDS)
@PROPERTY
def test_without_a_target_every_source_is_there_once(sources: pd.DataFrame, seed: int) -> None:
    """No per_class: no balancing, no augmentation, nothing left out."""
    planned = plan(sources, Recipe(name="set", seed=seed))
    assert sorted(planned.rows["source"]) == sources["source"].tolist()
    assert set(planned.rows["variant"]) == {0}
    assert planned.left_out == []


KERMANY = [
    ("test/N/IM-1-1.jpg", "test", "N", "IM-1", sha(1)),
    ("test/P/person9_virus_1.jpg", "test", "P", "person9_virus", sha(2)),
    ("train/N/IM-2-1.jpg", "train", "N", "IM-2", sha(3)),
    ("train/N/IM-3-1.jpg", "train", "N", "IM-3", sha(4)),
    ("train/P/person1_virus_1.jpg", "train", "P", "person1_virus", sha(5)),
    ("train/P/person2_virus_1.jpg", "train", "P", "person2_virus", sha(6)),
    ("val/N/IM-4-1.jpg", "val", "N", "IM-4", sha(7)),
    ("val/P/person4_virus_1.jpg", "val", "P", "person4_virus", sha(8)),
]


@pytest.mark.parametrize(
    ("change", "keep_source_val", "named"),
    [
        (
            {"group": "IM-1"},
            False,
            ("one group in two splits", "test/N/IM-1-1.jpg is in test, train/N/IM-2-1.jpg in train"),
        ),
        (
            {"source_sha256": sha(2)},
            False,
            ("one identical image in two splits", "test/P/person9_virus_1.jpg", "train/N/IM-2-1.jpg"),
        ),
        (
            {"group": "IM-4"},
            True,
            ("one group in two splits", "train/N/IM-2-1.jpg is in train, val/N/IM-4-1.jpg in val"),
        ),
        (
            {"source_sha256": sha(8)},
            True,
            ("one identical image in two splits", "train/N/IM-2-1.jpg", "val/P/person4_virus_1.jpg"),
        ),
    ],
)
def test_a_leak_in_the_source_names_both_files(
    change: dict[str, str], keep_source_val: bool, named: tuple[str, ...]
) -> None:
    """One patient or one image in two of the source's own splits: the message names both and what to do."""
    sources = table(KERMANY)
    plan(sources, recipe(keep_source_val=keep_source_val))
    for column, value in change.items():
        sources.loc[sources["source"] == "train/N/IM-2-1.jpg", column] = value
    with pytest.raises(PlanError) as caught:
        plan(sources, recipe(keep_source_val=keep_source_val))
    for part in (*named, "take one of them out"):
        assert part in str(caught.value)


def test_what_is_shared_by_folders_that_are_pooled_is_no_leak() -> None:
    """A patient in both train and val is fine where the two are pooled: it goes to one side as a whole."""
    sources = table(KERMANY)
    sources.loc[sources["source"] == "val/N/IM-4-1.jpg", "group"] = "IM-2"
    rows = plan(sources, recipe(per_class=20)).rows
    assert rows.groupby("group")["split"].nunique().max() == 1


def test_one_patient_of_two_classes_stays_on_one_side() -> None:
    """Who shows in both classes goes to one split with all images; the classes' other patients fill the rest."""
    rows = [(f"{c}/{n}.png", "", c, f"g{n}", sha(f"{c}{n}")) for c in "AB" for n in range(6)]
    rows += [(f"{c}/own{n}.png", "", c, f"{c}{n}", sha(f"{c}own{n}")) for c in "AB" for n in range(4)]
    planned = plan(table(rows), recipe(per_class=30)).rows
    assert planned.groupby("group")["split"].nunique().max() == 1


@pytest.mark.parametrize(
    ("sources", "values", "named"),
    [
        (
            KERMANY,
            {"per_class": 10, "transforms": "[]"},
            r"N in train: the recipe wants 8 images, but there are \d+ sources .* add transforms or lower per_class",
        ),
        (
            [row for row in KERMANY if "P/person" not in row[0] or "1.jpg" not in row[0]] + [KERMANY[4]],
            {"per_class": 10},
            (
                r"P in val: the recipe wants 2 images, but the class has 1 group and needs at least 2, one each for "
                "train, val; add images of other groups, or set val: 0"
            ),
        ),
        (
            [(f"{c}/{n}.png", "", c, f"{c}{n}", sha(f"{c}{n}")) for c in "NP" for n in range(5 if c == "N" else 2)],
            {"per_class": 10},
            (
                r"P in val: the recipe wants 2 images, but the class has 2 groups and needs at least 3, one each for "
                "train, val, test; add images of other groups, or set val: 0 or test: 0"
            ),
        ),
        (
            [row for row in KERMANY if row[0] != "val/P/person4_virus_1.jpg"],
            {"per_class": 10, "keep_source_val": True},
            (
                r"P in val: the recipe wants 2 images, but the source's own val folder has no image of that class; add some, or "
                "leave keep_source_val out of the recipe"
            ),
        ),
        (
            [row for row in KERMANY if not row[0].startswith(("train/P", "val/P"))],
            {},
            r"P in train: nothing could be learnt, but the class has 0 groups",
        ),
        (
            [row for row in KERMANY if not row[0].startswith("train/P")],
            {"keep_source_val": True},
            r"P in train: nothing could be learnt, but the source's own train folder has no image of that class",
        ),
    ],
)
def test_a_target_that_cannot_be_met_names_class_and_split(
    sources: list[Any], values: dict[str, Any], named: str
) -> None:
    """Nothing to make images from: one line that names class, split and the fix."""
    with pytest.raises(PlanError, match=named) as caught:
        plan(table(sources), recipe(**values))
    assert "\n" not in str(caught.value)


def test_test_and_val_are_shares_of_all_patients() -> None:
    """Of 100 patients a class, test 0.2 and val 0.2 leave 60 to train, as the README says."""
    sources = table([(f"{c}/{n}.png", "", c, f"{c}{n}", sha(f"{c}{n}")) for c in "AB" for n in range(100)])
    sizes = plan(sources, recipe(test=0.2, val=0.2)).rows.groupby(["label", "split"]).size()
    assert {split: sizes["A", split] for split in ("train", "val", "test")} == {"train": 60, "val": 20, "test": 20}


def test_a_class_that_a_split_lacks_is_named() -> None:
    """The source's test has no B: it is in `absent`; splits without any image are not."""
    rows = [(f"train/{c}/{n}.png", "train", c, f"{c}{n}", sha(f"{c}{n}")) for c in "AB" for n in range(5)]
    rows += [(f"test/A/{n}.png", "test", "A", f"t{n}", sha(f"t{n}")) for n in range(3)]
    assert plan(table(rows), recipe(val=0.0)).absent == [("test", "B")]


def contradicting() -> pd.DataFrame:
    """Two classes of six patients; one image of A stands in B as well, under other names and patients."""
    rows = [(f"{c}/{n}.png", "", c, f"{c}{n}", sha(f"{c}{n}")) for c in "AB" for n in range(6)]
    return table([*rows, ("B/copy of 3.png", "", "B", "B9", sha("A3"))])


def test_one_image_in_two_classes_is_refused() -> None:
    """A contradiction in the labels: one line with both names, both classes and the fix."""
    named = r"one image in two classes: A/3\.png is A, B/copy of 3\.png, the same to the byte, is B \(2 files in all\).*drop"
    with pytest.raises(PlanError, match=named):
        plan(contradicting(), recipe())


def test_contradicting_images_are_dropped_on_request() -> None:
    """All copies go, each with the name of the other; the rest is planned as if they had never been there."""
    sources = contradicting()
    planned = plan(sources, recipe(), drop_conflicts=True)
    assert planned.left_out == [
        ("A/3.png", "dropped: the same image is B too (B/copy of 3.png)", ""),
        ("B/copy of 3.png", "dropped: the same image is A too (A/3.png)", ""),
    ]
    clean = sources[~sources["source"].isin(["A/3.png", "B/copy of 3.png"])]
    assert planned.rows.equals(plan(clean, recipe()).rows)


def test_sampling_down_needs_no_transforms() -> None:
    """A class above its target is sampled down; only growing needs transforms."""
    sources = table([(f"train/{c}/{n}.png", "train", c, f"{c}{n}", sha(f"{c}{n}")) for c in "AB" for n in range(40)])
    planned = plan(sources, recipe(per_class=10, transforms="[]", test=0.0))
    assert planned.rows.groupby(["split", "label"]).size().to_dict() == {
        ("train", "A"): 8,
        ("train", "B"): 8,
        ("val", "A"): 2,
        ("val", "B"): 2,
    }
    assert len(planned.left_out) == 60


def test_who_is_sampled_down_or_gets_one_more_goes_by_the_seed() -> None:
    """Neither the first by name nor always the same: each seed leaves out others and gives others the extra image."""
    sources = table([(f"train/{c}/{n:02}.png", "train", c, f"{c}{n}", sha(f"{c}{n}")) for c in "AB" for n in range(40)])
    left_out, one_more = set(), set()
    for seed in range(5):
        left_out.add(tuple(plan(sources, recipe(per_class=10, seed=seed, val=0.0, test=0.0)).left_out))
        rows = plan(sources, recipe(per_class=50, seed=seed, val=0.0, test=0.0)).rows
        one_more.add(tuple(rows.loc[rows["variant"] == 1, "source"]))
    assert len(left_out) == len(one_more) == 5


def test_identical_images_get_identical_variants() -> None:
    """Seeds go by bytes: a copy under another name is rendered the same, and stays in the split of its twin."""
    rows = [(f"{c}/{n}.png", "", c, f"{c}{n}", sha(f"{c}{n}")) for c in "AB" for n in range(8)]
    rows.append(("A/copy.png", "", "A", "another patient", sha("A3")))
    planned = plan(table(rows), recipe(per_class=400, test=0.0)).rows
    twin, copy = (planned[planned["source"] == name] for name in ("A/3.png", "A/copy.png"))
    both = twin.merge(copy, on="variant", suffixes=("", "_copy"))
    assert len(both) > 10
    assert (both["seed"] == both["seed_copy"]).all()
    assert set(twin["split"]) == set(copy["split"])


def test_a_million_rows_are_planned() -> None:
    """A set of 1,000,000 images from 20,000 sources is planned, exactly."""
    rows = [(f"train/{c}/{n}.png", "train", c, f"{c}{n // 3}", sha(f"{c}{n}")) for c in "AB" for n in range(10_000)]
    planned = plan(table(rows), recipe(per_class=500_000, test=0.0)).rows
    assert planned.groupby("label").size().to_dict() == {"A": 500_000, "B": 500_000}
    assert planned["path"].is_unique


def test_the_real_set_as_the_study_split_it(xrays_224) -> None:
    """The three recipes on the published set: the counts of the study, 8 + 8 in `original`'s val."""
    sources = scan(xrays_224, load("original").group, THREADS).sources
    counts = {}
    for name in ("original", "augment1", "augment2"):
        rows = plan(sources, load(name)).rows
        counts[name] = rows.groupby(["split", "label"]).size().to_dict()
        assert rows.groupby("group")["split"].nunique().max() == 1
        assert rows.groupby("source_sha256")["split"].nunique().max() == 1
    test = {("test", "NORMAL"): 234, ("test", "PNEUMONIA"): 390}
    train = {("train", "NORMAL"): 1341, ("train", "PNEUMONIA"): 3875}
    assert counts["original"] == {**train, ("val", "NORMAL"): 8, ("val", "PNEUMONIA"): 8, **test}
    sides = {
        (split, label): count for split, count in (("train", 4000), ("val", 1000)) for label in ("NORMAL", "PNEUMONIA")
    }
    assert counts["augment1"] == counts["augment2"] == {**sides, **test}


def test_dropping_leaks_resolves_no_contradiction() -> None:
    """The same bytes as A in train and as B in test: which label is right, no split says."""
    rows = [
        (f"{split}/{c}/{n}.png", split, c, f"{split}{c}{n}", sha(f"{split}{c}{n}"))
        for split in ("train", "test")
        for c in "AB"
        for n in range(5)
    ]
    rows += [("train/A/x.png", "train", "A", "x", sha("x")), ("test/B/y.png", "test", "B", "y", sha("x"))]
    with pytest.raises(PlanError, match=r"one image in two classes: test/B/y\.png is B, train/A/x\.png"):
        plan(table(rows), recipe(), drop_leaks=True)
    left_out = plan(table(rows), recipe(), drop_conflicts=True).left_out
    assert [entry.source for entry in left_out if "the same image" in entry.reason] == ["test/B/y.png", "train/A/x.png"]


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (0.6, 0.6), (0.9, 0.2)])
def test_val_and_test_leave_something_to_train_on(val: float, test: float) -> None:
    """Shares of all patients that add up to all are refused, unless the source has a test folder of its own."""
    rows = [(f"{c}/{n}.png", "", c, f"{c}{n}", sha(f"{c}{n}")) for c in "AB" for n in range(9)]
    with pytest.raises(PlanError, match=f"val {val:g} and test {test:g} are shares of all groups"):
        plan(table(rows), recipe(val=val, test=test))
    own = [(f"test/{c}/{n}.png", "test", c, f"t{c}{n}", sha(f"t{c}{n}")) for c in "AB" for n in range(3)]
    assert len(plan(table(rows + own), recipe(val=val, test=test)).rows)


def test_a_source_of_test_images_alone_says_so() -> None:
    """Nothing to train on is no lack of patients."""
    rows = [(f"test/{c}/{n}.png", "test", c, f"{c}{n}", sha(f"{c}{n}")) for c in "AB" for n in range(9)]
    with pytest.raises(PlanError, match="no image to train on: all lie in the source's own test folder"):
        plan(table(rows), recipe())


def test_a_class_that_is_all_contradictions_says_so() -> None:
    """Dropping the images of two classes may leave a class without any."""
    rows = [(f"A/{n}.png", "", "A", f"A{n}", sha(f"A{n}")) for n in range(9)]
    rows += [(f"B/{n}.png", "", "B", f"B{n}", sha(f"A{n}")) for n in range(3)]
    with pytest.raises(PlanError, match="B: each of its images stands in another class too"):
        plan(table(rows), recipe(), drop_conflicts=True)
