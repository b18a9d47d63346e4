"""The activation pass on a Dask cluster: the same bits in the same place as from this machine, and workers that are killed."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.workers.cluster import Cluster
from tests.clusters import DaskCluster, dask_cluster, expect_namespaces
from train import dataset as datasets
from train.features import backbone, cluster_pass, extract
from train.features.engine import Engine
from train.features.forward import NetworkCache
from train.features.store import stored

pytestmark = pytest.mark.slow  # TensorFlow starts in each worker
pytest.importorskip("distributed", reason="python -m pip install -r requirements-cluster.txt")


@pytest.fixture
def dataset(tmp_path: Path, image_set: Callable[..., Path]) -> datasets.Dataset:
    """A set of six batches, the last of them not full."""
    return datasets.read(image_set(train=80), tmp_path)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[DaskCluster]:
    """Two workers that see all files."""
    with dask_cluster(tmp_path_factory.mktemp("dask"), environment, 2) as cluster:
        yield cluster


def part_of(dataset: datasets.Dataset, layers: int = 5) -> backbone.Cut:
    return backbone.cut(backbone.load_backbone("resnet50v2", "random", dataset.size, 0), layers)


def kept(cache: Path) -> dict[str, dict[str, list[bytes]]]:
    """The rows of each store, by its address and their images' checksums."""
    found = {}
    for store, _ in stored(cache):
        arrays = store.read()
        found[store.folder.name] = {
            checksum: [array[row].tobytes() for array in arrays] for checksum, row in sorted(store.index().items())
        }
    return found


def features(
    dataset: datasets.Dataset, cache: Path, where: str | None, engine: Engine, progress: Any = lambda *_: None
) -> extract.Features:
    with cluster_pass.connect(where, engine) as workers:
        return extract.features(dataset, NetworkCache(part_of(dataset), "w", cache), engine, progress, cluster=workers)


@pytest.mark.parametrize("name", ["tensorflow", "openvino"])
def test_the_same_bits_in_the_same_place_as_from_this_machine(
    tmp_path: Path, dataset: datasets.Dataset, cluster: DaskCluster, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By either engine; the workers' counts are said; and nothing is computed a second time."""
    if name == "openvino":
        pytest.importorskip("openvino", reason="python -m pip install -r requirements-openvino.txt")
    engine = Engine(name, "float32")
    features(dataset, tmp_path / "here", None, engine)
    made = features(dataset, tmp_path / "there", cluster.address, engine)
    assert made.computed == made.different > 0
    assert kept(tmp_path / "there") == kept(tmp_path / "here")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Activations by worker: ")]
    assert sum(int(each.rsplit(" ", 1)[1]) for each in line.split(": ")[1].split(", ")) == made.computed
    assert features(dataset, tmp_path / "there", cluster.address, engine).computed == 0


def test_a_worker_that_is_killed_costs_a_repetition_and_a_scheduler_what_is_not_kept_yet(
    tmp_path: Path, dataset: datasets.Dataset, environment: dict[str, str]
) -> None:
    """The bits are the same, and the same call goes on."""
    engine = Engine("tensorflow", "float32")
    features(dataset, tmp_path / "here", None, engine)
    with dask_cluster(tmp_path / "dask", environment, 2) as cluster:
        left = [lambda: os.kill(cluster.workers()[0], signal.SIGKILL)]

        def progress(*_: int) -> None:
            if left:
                left.pop()()

        features(dataset, tmp_path / "there", cluster.address, engine, progress)
        assert kept(tmp_path / "there") == kept(tmp_path / "here")
        left.append(cluster.scheduler.kill)
        with pytest.raises(UserError, match="run the same command again to go on"):
            features(dataset, tmp_path / "again", cluster.address, engine, progress)
    done = sum(len(rows) for rows in kept(tmp_path / "again").values())
    made = features(dataset, tmp_path / "again", None, engine)
    assert done > 0
    assert made.computed < made.different
    assert kept(tmp_path / "again") == kept(tmp_path / "here")


def test_other_processors_have_a_place_of_their_own_and_a_mixture_is_refused(
    tmp_path: Path, dataset: datasets.Dataset, environment: dict[str, str]
) -> None:
    """Their last bits may differ, so none passes for this machine's."""
    expect_namespaces()
    (tmp_path / "cpuinfo").write_text("model name : Other\nflags : avx2 amx_bf16\n")
    mount = f'mount --bind "{tmp_path / "cpuinfo"}" /proc/cpuinfo'
    with dask_cluster(tmp_path / "dask", environment, 0) as cluster:
        cluster.start_worker(mount=mount)
        cluster.wait(1)
        engine = Engine("tensorflow", "float32")
        with Cluster(cluster.address) as workers:
            arithmetic = cluster_pass.arithmetic(workers)
        assert arithmetic == ["avx2", "amx_bf16"]
        part = part_of(dataset)
        places = [
            extract.addresses(dataset, NetworkCache(part, "w", tmp_path), engine, each) for each in (None, arithmetic)
        ]
        assert not {store.folder for store in places[0]} & {store.folder for store in places[1]}
        cluster.start_worker()
        cluster.wait(2)
        with (
            Cluster(cluster.address) as workers,
            pytest.raises(UserError, match=r"processors differ.*worker-0 (has )?avx2 amx_bf16"),
        ):
            cluster_pass.arithmetic(workers)
