"""Which engine and precision a run takes."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train import dataset as datasets
from train.features import backbone, engine, extract, selection
from train.features.forward import NetworkCache


class StandIn:
    """A clock that stands still but while a run of a scripted length goes on."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, list[str]()

    def __call__(self) -> float:
        """Seconds since its start."""
        return self.now

    def run(self, name: str, *seconds: float) -> Callable[[], None]:
        """A run that takes so long the first time, the second, ...; and then as long as the last time."""
        left = list(seconds)

        def passing() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return passing


TF, OV, BF = "tensorflow float32", "openvino float32", "openvino bfloat16"


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ({TF: 33, OV: 37, BF: 24}, OV),  # an Intel Xeon with avx512_bf16 and without AMX, as it was measured
        ({TF: 33, OV: 37, BF: 165}, BF),  # with AMX
        ({TF: 33, OV: 34.5, BF: 34.6}, TF),  # noise
        ({TF: 33, OV: 40, BF: 41.9}, OV),  # bfloat16 has to bring more than noise
        ({TF: 33, OV: 20, BF: 10}, TF),
        ({TF: 33, OV: 34.7, BF: 36}, OV),
    ],
)
def test_the_fastest_is_taken_and_of_equals_the_most_exact(speeds: dict[str, float], expected: str) -> None:
    """By what the runs take on the clock, whatever the processor lists."""
    clock = StandIn()
    seconds = selection.timed({name: clock.run(name, 32 / speed) for name, speed in speeds.items()}, clock)
    assert seconds == pytest.approx({name: 32 / speed for name, speed in speeds.items()})
    assert selection.fastest(seconds) == expected


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=4))
def test_what_is_taken_is_never_slower_than_the_plain_one(seconds: list[float]) -> None:
    """The first is the plain one; the choice takes no longer, and is within the margin of the fastest."""
    chosen = selection.fastest(dict(enumerate(seconds)))
    assert seconds[chosen] <= seconds[0]
    assert seconds[chosen] <= selection.MARGIN * min(seconds)


def test_a_hiccup_of_the_machine_decides_nothing() -> None:
    """The candidates take turns; one whose first rounds were disturbed is still measured right."""
    clock = StandIn()
    seconds = selection.timed(
        {TF: clock.run(TF, 1.5, 0.1), OV: clock.run(OV, 0.12, 3.0, 0.05), BF: clock.run(BF, 0.4)}, clock
    )
    assert selection.fastest(seconds) == TF
    assert clock.calls[:6] == [TF, OV, BF] * 2
    clock = StandIn()
    selection.timed({TF: clock.run(TF, 0.1), OV: clock.run(OV, 0.09), BF: clock.run(BF, 0.4)}, clock)
    assert clock.calls.count(BF) == 2, "far behind after two rounds, so left out"
    assert clock.calls.count(TF) == clock.calls.count(OV) == 5


def test_timings_are_measured_once_for_a_machine(tmp_path: Path) -> None:
    """Kept with processor, cores and versions; another key, or a damaged file, is measured; they need not be there."""
    measured = []

    def measure() -> dict[str, float]:
        measured.append(1)
        return {TF: 1.5, OV: 1.0}

    for key in ({"size": 64}, {"size": 64}, {"size": 96}):
        assert selection.kept(tmp_path / "new", key, measure) == {TF: 1.5, OV: 1.0}
    assert len(measured) == 2
    first, second = sorted((tmp_path / "new").iterdir())
    described = json.loads(first.read_text())
    assert described["machine"] == engine.machine()
    assert described["machine"]["processor"]
    assert described["machine"]["cores"] >= 1
    assert {"tensorflow", "keras"} <= described["versions"].keys()
    for text in (
        "",
        "[]",
        "{}",
        "[" * 50_000,
        '{"seconds": {"a": "b"}}',
        '{"seconds": {"a": NaN}}',
        '{"seconds": {"a": -1.0}}',
    ):
        for path in (first, second):
            path.write_text(text)
        before = len(measured)
        assert selection.kept(tmp_path / "new", {"size": 64}, measure) == {TF: 1.5, OV: 1.0}
        assert len(measured) == before + 1, text


@pytest.mark.slow
def test_a_run_goes_on_as_it_began_and_takes_what_is_kept(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """Measured by the clock given; then kept activations decide, a run's own settings before all, a wish before those."""
    pytest.importorskip("openvino", reason="python -m pip install -r requirements-openvino.txt")
    dataset = datasets.read(image_set(), tmp_path)
    part = backbone.cut(backbone.load_backbone("resnet50v2", "random", (64, 64), seed=0), 5)
    before = [weight.copy() for weight in part.tail.get_weights()]
    ticks: Iterator[float] = iter(
        [0.0, *(float(number) for pair in range(9) for number in (pair * 9, pair * 9 + 3, pair * 9 + 3, pair * 9 + 4))]
    )

    def choose(wanted: str, name: str = "c", began: dict[str, str] | None = None) -> selection.Choice:
        return selection.choose(
            wanted,
            dataset,
            NetworkCache(part, "w", tmp_path / name),
            batch_size=8,
            with_tail=True,
            before=began or {},
            clock=lambda: next(ticks),
        )

    if len(engine.candidates("auto")) == 2:  # TensorFlow takes 3 seconds on that clock, OpenVINO 1
        first = choose("auto")
        assert first.engine == engine.Engine("openvino", "float32")
        assert (
            first.reason
            == "openvino float32, by images/s on this machine: tensorflow float32 10.7, openvino float32 32.0"
        )
        ticks = iter(())
        assert choose("auto") == first, "measured once"
    extract.features(dataset, NetworkCache(part, "w", tmp_path / "d"), engine.PLAIN, lambda *_: None)
    ticks = itertools.count(0.0)  # a processor with bfloat16 times the fine-tuning step
    kept = choose("auto", "d")
    reason = kept.reason.partition("; fine-tuning")[0]
    assert (kept.engine, reason) == (engine.PLAIN, "tensorflow float32, which 16 of 16 images are kept of")
    began = {"engine": "openvino", "precision": "float32", "fine_tune_precision": "float32"}
    assert choose("auto", "d", began).engine == engine.Engine("openvino", "float32")
    assert choose("tensorflow", "d", began).engine == engine.PLAIN
    assert choose("auto", "d", {"engine": "x"}).engine == engine.PLAIN
    assert all((one == other).all() for one, other in zip(part.tail.get_weights(), before, strict=True))


@pytest.mark.slow
def test_timing_the_fine_tuning_step_changes_no_weight() -> None:
    """Both precisions are timed, and the tail is as it was, in float32."""
    part = backbone.cut(backbone.load_backbone("resnet50v2", "random", (64, 64), seed=0), 5)
    before = [weight.copy() for weight in part.tail.get_weights()]
    clock = StandIn()

    def ticking() -> float:
        clock.now += 1
        return clock.now

    seconds = selection._step_seconds(part, engine.PLAIN, 4, ticking)
    assert seconds == {"float32": 1.0, "bfloat16": 1.0}
    assert selection.fastest(seconds) == "float32"
    assert all(np.array_equal(one, other) for one, other in zip(part.tail.get_weights(), before, strict=True))
    assert {layer.dtype_policy.name for layer in part.tail.layers} == {"float32"}
