"""Activations that are computed once and kept, for every run and every set."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest

from train import dataset as datasets
from train.features import backbone as model
from train.features import engine, extract
from train.features.forward import NetworkCache
from train.features.store import FORMAT, stored

TENSORFLOW = engine.Engine("tensorflow", "float32")


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    return model.load_backbone("resnet50v2", "random", (64, 64), seed=0)


def nothing(*_: int) -> None:
    """No progress is shown."""


def agree(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Whether activations are the same but for the last bits, which go by an image's place in its batch."""
    for one, other in zip(first, second, strict=True):
        rounding = 2**-7 if one.dtype.itemsize == 2 else 1e-4  # of bfloat16; of sums in another order
        values, others = one.astype(np.float32), other.astype(np.float32)
        if not np.allclose(values, others, rtol=rounding, atol=1e-5):
            return False
    return True


def whole_pass(dataset: datasets.Dataset, part: model.Cut) -> tuple[list[np.ndarray], np.ndarray]:
    """What Keras makes of all images at once: the tensors that cross the cut, and the pooled output."""
    images = np.concatenate([b.numpy() for b in datasets.images(dataset.paths(dataset.rows), dataset.size, 8)])
    cut_activations = part.frozen(images / 127.5 - 1, training=False)
    return [x.numpy() for x in cut_activations], keras.ops.mean(
        part.tail(cut_activations, training=False), axis=(1, 2)
    ).numpy()


def test_activations_are_those_of_the_frozen_part_and_are_reused(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """They equal a pass over the images, and a second call reads the same from disk without computing."""
    manifest = image_set(train=20)
    dataset = datasets.read(manifest, manifest.parent.parent)
    part = model.cut(backbone, 5)
    seen: list[tuple[int, int]] = []
    first = extract.features(
        dataset, NetworkCache(part, "w", tmp_path / "c"), TENSORFLOW, lambda *step: seen.append(step)
    )
    second = extract.features(
        dataset, NetworkCache(part, "w", tmp_path / "c"), TENSORFLOW, lambda *step: seen.append(step)
    )
    cut_activations, pooled = whole_pass(dataset, part)
    everything = np.arange(len(dataset.rows))
    for array, again, wanted in zip(
        first.cut_activations.take(everything), second.cut_activations.take(everything), cut_activations, strict=True
    ):
        np.testing.assert_allclose(array, wanted, atol=1e-4)
        np.testing.assert_array_equal(array, again)
    np.testing.assert_allclose(first.pooled.take(everything)[0], pooled, atol=1e-4)
    assert (first.computed, second.computed) == (len(dataset.rows), 0)
    assert seen == [(32, len(dataset.rows)), (len(dataset.rows), len(dataset.rows))]


def test_sets_share_what_they_share(image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path) -> None:
    """Of another set only the images that the first doesn't have are computed; each set gets its own in its order."""
    part = model.cut(backbone, 5)
    first = datasets.read(image_set(train=8), tmp_path)
    extract.features(first, NetworkCache(part, "w", tmp_path / "c"), TENSORFLOW, nothing)
    second = datasets.read(image_set(train=11, name="other"), tmp_path)
    kept = extract.features(second, NetworkCache(part, "w", tmp_path / "c"), TENSORFLOW, nothing)
    assert kept.computed == 6
    cut_activations, pooled = whole_pass(second, part)
    rows = np.array([25, 3, 10])
    for array, wanted in zip(kept.cut_activations.take(rows), cut_activations, strict=True):
        np.testing.assert_allclose(array, wanted[rows], atol=1e-4)
    np.testing.assert_allclose(kept.pooled.take(rows)[0], pooled[rows], atol=1e-4)


def test_other_weights_cuts_and_engines_are_not_mixed_up(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """What is kept goes by the weights, the cut and the precision; the pooled output too, whether or not one tunes."""
    dataset = datasets.read(image_set(), tmp_path)
    other = engine.Engine("tensorflow", "bfloat16")
    for layers, weights, chosen in ((5, "a", TENSORFLOW), (5, "b", TENSORFLOW), (2, "a", TENSORFLOW), (5, "a", other)):
        part = model.cut(backbone, layers)
        kept = extract.features(dataset, NetworkCache(part, weights, tmp_path / "c"), chosen, nothing)
        assert kept.computed == len(dataset.rows)
    for layers, computed in ((5, 0), (9, len(dataset.rows))):
        part = model.cut(backbone, layers)
        kept = extract.features(dataset, NetworkCache(part, "a", tmp_path / "c"), TENSORFLOW, nothing, with_tail=False)
        assert (kept.computed, kept.cut_activations) == (computed, None)


def test_the_numbers_depend_on_neither_room_nor_what_was_kept_before(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """Kept in bfloat16: the same with room, without, with room for a part, and after a frozen-only run, but for last bits."""
    dataset = datasets.read(image_set(train=20), tmp_path)
    part = model.cut(backbone, 5)
    chosen = engine.Engine("tensorflow", "bfloat16")
    everything = np.random.default_rng(0).permutation(len(dataset.rows))
    row, pooled = (store.row_bytes for store in extract.addresses(dataset, NetworkCache(part, "w", tmp_path), chosen))
    count, fitting = len(dataset.rows), 10

    def activations(cache: str, limit: int | None) -> tuple[list[np.ndarray], extract.Features]:
        got = extract.features(dataset, NetworkCache(part, "w", tmp_path / cache), chosen, nothing, limit=limit)
        assert got.cut_activations
        arrays = [*got.cut_activations.take(everything), *got.pooled.take(everything)]
        assert [array.dtype.name for array in arrays] == ["bfloat16", "bfloat16", "float32"]
        return arrays, got

    ample, _ = activations("ample", None)
    none, without = activations("none", 0)
    some, partly = activations("some", count * pooled + fitting * row)
    extract.features(dataset, NetworkCache(part, "w", tmp_path / "after"), chosen, nothing, with_tail=False)
    after, _ = activations("after", None)
    assert all(agree(ample, other) for other in (none, some, after))
    assert isinstance(without.cut_activations, extract.Computed)
    assert isinstance(partly.cut_activations, extract.Computed)
    assert without.cut_activations.lacking == count
    assert partly.cut_activations.lacking in (count - fitting, count - fitting + 1)  # descriptions take room as well
    again, kept = activations("ample", 0)
    assert [array.tobytes() for array in again] == [array.tobytes() for array in ample]
    assert (kept.computed, type(kept.cut_activations)) == (0, extract.Kept), "what is there needs no room"


def test_what_was_damaged_is_computed_again_and_said(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """Zeros in the midst, and a file that is cut: the images that they hit are computed again, and all is as before."""
    dataset = datasets.read(image_set(), tmp_path)
    part = model.cut(backbone, 5)
    everything = np.arange(len(dataset.rows))

    def activations(**options: Any) -> tuple[list[np.ndarray], int, list[str]]:
        said: list[str] = []
        got = extract.features(
            dataset, NetworkCache(part, "w", tmp_path / "c"), TENSORFLOW, nothing, say=said.append, **options
        )
        assert got.cut_activations
        return [*got.cut_activations.take(everything), *got.pooled.take(everything)], got.computed, said

    expected, _, _ = activations()
    cut_activations, pooled = extract.addresses(dataset, NetworkCache(part, "w", tmp_path / "c"), TENSORFLOW)
    for store, damage in ((cut_activations, b"\x00" * 4096), (pooled, b"\xff" * 10)):
        with (store.folder / "0.bin").open("r+b") as file:
            file.write(damage)
        for limit in (0, None):  # without room, too, nothing damaged is taken
            got, computed, said = activations(limit=limit)
            assert agree(got, expected)
            if store == cut_activations or limit == 0:
                assert said == [f"{store.folder}: damaged, so computed again: the activations of 1 images"]
                assert computed == (0 if limit == 0 and store == cut_activations else 1)
    os.truncate(
        cut_activations.folder / "1.bin", 5 * (cut_activations.folder / "1.bin").stat().st_size // len(dataset.rows) + 7
    )
    (cut_activations.folder / "about.json").write_text("[" * 50_000)
    got, computed, said = activations()
    assert agree(got, expected)
    # Of the five rows that are whole, the first is the one that was damaged; what took its place was behind the cut.
    assert computed == len(dataset.rows) - 4
    assert said == [f"{cut_activations.folder}: damaged, so computed again: the activations of 1 images"]
    assert [store for store, _ in stored(tmp_path / "c")] == sorted(
        [cut_activations, pooled], key=lambda store: store.folder
    )


def test_activations_of_other_versions_are_not_taken(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """The address has the versions of what computes."""
    dataset = datasets.read(image_set(), tmp_path)
    part = model.cut(backbone, 5)
    for name in ("tensorflow", "openvino"):
        for about in extract.addresses(
            dataset, NetworkCache(part, "w", tmp_path), engine.Engine(name, "float32")
        ).values():
            packages = {"keras", "tensorflow"} | ({"openvino"} if name == "openvino" else set())
            assert about["versions"] == {package: version(package) for package in packages}
            assert about["format"] == FORMAT


def test_an_image_that_is_not_the_manifests_is_refused(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """Its bytes decide: one that was exchanged is named, and nothing of it is kept."""
    dataset = datasets.read(image_set(), tmp_path)
    path = dataset.paths(dataset.rows)[3]
    path.write_bytes(dataset.paths(dataset.rows)[4].read_bytes())
    with pytest.raises(datasets.DatasetError, match=rf"{path}: not the image in the manifest"):
        extract.features(dataset, NetworkCache(model.cut(backbone, 5), "w", tmp_path / "c"), TENSORFLOW, nothing)
    assert all(store.index() == {} for store, _ in stored(tmp_path / "c"))


def test_an_image_cut_short_is_named(image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path) -> None:
    """What can't even be decoded is refused with the same words as any other image that isn't the manifest's."""
    dataset = datasets.read(image_set(), tmp_path)
    path = dataset.paths(dataset.rows)[3]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(datasets.DatasetError, match=rf"{path}: not the image in the manifest"):
        extract.features(dataset, NetworkCache(model.cut(backbone, 5), "w", tmp_path / "c"), TENSORFLOW, nothing)


def test_without_room_for_the_tail_it_is_computed_when_it_is_asked_for(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """Past the limit only the small pooled outputs are kept; what crosses the cut comes out the same."""
    dataset = datasets.read(image_set(train=20), tmp_path)
    part = model.cut(backbone, 5)
    kept = extract.features(dataset, NetworkCache(part, "w", tmp_path / "c"), TENSORFLOW, nothing, limit=100_000)
    assert isinstance(kept.cut_activations, extract.Computed)
    cut_activations, pooled = whole_pass(dataset, part)
    rows = np.arange(40)[::-1]
    for array, wanted in zip(kept.cut_activations.take(rows), cut_activations, strict=True):
        np.testing.assert_allclose(array, wanted[rows], atol=1e-4)
    np.testing.assert_allclose(kept.pooled.take(rows)[0], pooled[rows], atol=1e-4)
    assert sum(len(store.index()) > 0 for store, _ in stored(tmp_path / "c")) == 1


FILL = """
import sys; from pathlib import Path
from train import dataset as datasets
from train.features import backbone as model, engine, extract as features
dataset = datasets.read(Path(sys.argv[1]), Path(sys.argv[2]))
part = model.cut(model.load_backbone("resnet50v2", "random", (64, 64), seed=0), 5)
progress = lambda done, total: print(done, flush=True)
kept = features.features(dataset, features.NetworkCache(part, "w", Path(sys.argv[2]) / "c"), engine.Engine("tensorflow", "float32"), progress)
print("computed", kept.computed)
"""


@pytest.mark.slow
def test_a_killed_pass_goes_on_where_it_was(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """Kill -9 in the middle: what was reported done is kept, the rest is computed, and all is as from one pass."""
    manifest = image_set(train=60, val=20)
    dataset = datasets.read(manifest, tmp_path)
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", FILL, manifest, tmp_path]
    env = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    done = [process.stdout.readline() for _ in range(2)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert done == ["32\n", "64\n"]
    part = model.cut(backbone, 5)
    after = extract.features(dataset, NetworkCache(part, "w", tmp_path / "c"), TENSORFLOW, nothing)
    assert after.computed <= len(dataset.rows) - 64
    once = extract.features(dataset, NetworkCache(part, "w", tmp_path / "d"), TENSORFLOW, nothing)
    everything = np.arange(len(dataset.rows))
    for array, wanted in zip(
        after.cut_activations.take(everything), once.cut_activations.take(everything), strict=True
    ):
        np.testing.assert_array_equal(array, wanted)
    np.testing.assert_array_equal(after.pooled.take(everything)[0], once.pooled.take(everything)[0])


def test_a_run_waits_for_another_that_computes_and_takes_its_activations(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """One line says so; then nothing is computed twice."""
    dataset = datasets.read(image_set(), tmp_path)
    part = model.cut(backbone, 5)
    waiting, said = threading.Event(), list[str]()

    def say(line: str) -> None:
        said.append(line)
        waiting.set()

    with ThreadPoolExecutor(1) as pool:
        second = []

        def first(*_: int) -> None:
            second.append(
                pool.submit(
                    extract.features, dataset, NetworkCache(part, "w", tmp_path / "c"), TENSORFLOW, nothing, say=say
                )
            )
            waiting.wait()

        kept = extract.features(dataset, NetworkCache(part, "w", tmp_path / "c"), TENSORFLOW, first)
        assert kept.computed == len(dataset.rows)
        assert second[0].result().computed == 0
    assert said == [f"Another run is computing activations in {tmp_path / 'c'}; waiting for its end ..."]


def test_openvino_gives_what_tensorflow_gives(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """In the precision of this processor: within 2 % of the largest activation in bfloat16, 1e-4 of it in float32."""
    pytest.importorskip("openvino", reason="python -m pip install -r requirements-openvino.txt")
    dataset = datasets.read(image_set(), tmp_path)
    part = model.cut(backbone, 5)
    chosen = engine.candidates("openvino")[-1]
    kept = extract.features(dataset, NetworkCache(part, "w", tmp_path / "c"), chosen, nothing)
    everything = np.arange(len(dataset.rows))
    cut_activations, pooled = whole_pass(dataset, part)
    got = [*kept.cut_activations.take(everything), *kept.pooled.take(everything)]
    for array, wanted in zip(got, [*cut_activations, pooled], strict=True):
        bound = (2e-2 if chosen.precision == "bfloat16" else 1e-4) * np.abs(wanted).max()
        np.testing.assert_allclose(array.astype(np.float32), wanted, atol=bound)
    assert kept.cut_activations.arrays[0].dtype == chosen.dtype


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells of each mapping")
@pytest.mark.parametrize("rows", [[3, 0, 3], []])
def test_what_is_kept_in_8_bits_is_taken_as_it_is(rows: list[int]) -> None:
    of_each_byte = np.arange(256, dtype=np.uint8).reshape(4, 2, 32).view(ml_dtypes.float8_e4m3fn)
    kept = extract.Kept([of_each_byte], np.arange(4)[::-1])

    (taken,) = kept.take(np.array(rows, np.int64))

    expected = of_each_byte[[3 - row for row in rows]].astype(ml_dtypes.bfloat16)
    assert taken.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(taken.view(np.uint16), expected.view(np.uint16))


def test_what_was_read_does_not_stay_in_memory(tmp_path: Path) -> None:
    """Taking all rows of a kept file, batch by batch, leaves none of its pages in the process."""
    file = tmp_path / "kept.bin"
    np.arange(2**20, dtype=np.float32).tofile(file)

    def resident() -> int:
        """KiB of the file in this process's memory."""
        _, _, progress = Path("/proc/self/smaps").read_text().partition(str(file))
        return int(re.findall(r"^Rss: +(\d+) kB", progress, re.MULTILINE)[0])

    mapped = np.memmap(file, np.float32, "r", shape=(1024, 1024))
    whole = mapped.copy()
    assert resident() == 4096
    kept = extract.Kept([mapped], np.arange(1024)[::-1])

    taken = [kept.take(np.arange(start, start + 32))[0] for start in range(0, 1024, 32)]

    np.testing.assert_array_equal(np.concatenate(taken), whole[::-1])
    assert resident() == 0
