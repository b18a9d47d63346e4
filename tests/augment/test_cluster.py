"""The builder on a Dask cluster: a real scheduler and real workers, which see the files or don't, differ, and are killed."""

import json
import os
import random
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from augment import building
from augment.recipe import load
from augment.rendering.work import ALL_PACKAGES
from augment.sources.scan import scan
from augment.storage.place import Place
from common.errors import UserError
from common.workers import connect
from manifests import contract
from tests.augment.conftest import Call, Everything
from tests.clusters import DaskCluster, Network, dask_cluster, expect_namespaces

pytest.importorskip("distributed", reason="python -m pip install -r requirements-cluster.txt")

RECIPE = (
    "per_class: 40\naugment: [train, val]\nsize: 48\nval: 0.2\ntest: 0.2\n"
    "transforms: [{KerasAffine: {rotation_range: 9}}, {GaussNoise: {p: 0.5}}]\n"
)
COUNTS = {"NORMAL": 21, "01": 24, "TRUE": 18}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[DaskCluster]:
    """Three workers that see all files, for tests that leave them as they are."""
    with dask_cluster(tmp_path_factory.mktemp("dask"), environment, 3) as cluster:
        yield cluster


@pytest.fixture
def home(tmp_path: Path, make_source: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a source and a recipe."""
    make_source(tmp_path / "source", COUNTS)
    (tmp_path / "set.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(call: Call, root: str, *more: str, code: int = 0) -> str:
    """What the command prints."""
    done = call("build", "--recipe", "set.yaml", "--source", "source", "--root", root, *more)
    assert done.exit_code == code, done.output
    return done.output


def test_the_same_bytes_as_on_this_machine(
    home: Path, call: Call, everything: Everything, cluster: DaskCluster
) -> None:
    """Images, manifest and card, by three workers; the closing table has them; a second build finds nothing to do."""
    build(call, "here")
    said = build(call, "there", "--cluster", cluster.address)
    assert everything(home / "there") == everything(home / "here")
    by_worker = re.search(r"Images by worker: (.+)", said)
    assert by_worker
    counts = dict(each.rsplit(" ", 1) for each in by_worker[1].split(", "))
    assert set(counts) <= {"worker-0", "worker-1", "worker-2"}
    assert sum(map(int, counts.values())) == len(contract.read(home / "here" / "manifests" / "set.csv"))
    assert f"Cluster: 3 workers at {cluster.address}" in said
    half, text = home / "half.json", cluster.file.read_text()
    half.write_text(text[:30])  # as a scheduler leaves it for a moment
    threading.Timer(0.5, half.write_text, [text]).start()
    assert "Up to date" in build(call, "there", "--cluster", str(half))
    planned = build(call, "there", "--cluster", cluster.address, "--dry-run")
    assert "nothing was written" in planned


@pytest.mark.usefixtures("home")
def test_verify_and_audit_find_what_they_find_here(call: Call, cluster: DaskCluster) -> None:
    """Missing, altered and stray; repaired by the workers; and an audit, unreadable file included, to the last word."""
    build(call, "root")
    images = sorted(Path("root/data/augmented/set").rglob("*.jpg"))
    images[0].unlink()
    images[1].write_bytes(b"no image")
    shutil.copy(images[2], images[2].with_name("stray.jpg"))
    words = ("verify", "root/manifests/set.csv", "--json")
    here, there = call(*words), call(*words, "--cluster", cluster.address)
    assert here.exit_code == there.exit_code == 1
    assert json.loads(there.stdout) == json.loads(here.stdout)
    assert len(json.loads(there.stdout)) == 3
    assert call("verify", "root/manifests/set.csv", "--repair", "--cluster", cluster.address).exit_code == 0
    assert call("verify", "root/manifests/set.csv").exit_code == 0
    first = min(Path("source/01").iterdir())
    first.write_bytes(first.read_bytes()[:500])
    audits = [call("audit", "source", "--json", *more) for more in ((), ("--cluster", cluster.address))]
    assert [done.exit_code for done in audits] == [0, 0], audits[1].output
    reports = [json.loads(done.stdout) for done in audits]
    assert reports[1].pop("source") == str(Path("source").absolute())
    assert reports[0].pop("source") == "source"
    assert reports[0] == reports[1]
    assert len(reports[0]["unreadable"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "variables", "fault"),
    [
        (("--nthreads", "2"), {}, "2 threads; start it with --nthreads 1"),
        (("--memory-limit", "150MB"), {}, "0.1 GB of memory; start it with --memory-limit"),
        ((), {"PYTHONPATH": ""}, "install Evenset there"),
        ((), {"PYTHONPATH": "{other}"}, "opencv-python-headless 0.0.1 instead of "),
    ],
)
def test_a_worker_that_can_not_take_part_is_named_before_anything_is_written(
    home: Path,
    call: Call,
    cluster: DaskCluster,
    options: tuple[str, ...],
    variables: dict[str, str],
    fault: str,
) -> None:
    """In one line, with the fix."""
    other = home / "other"
    (other / "opencv_python_headless-0.0.1.dist-info").mkdir(parents=True)
    (other / "opencv_python_headless-0.0.1.dist-info" / "METADATA").write_text("Version: 0.0.1\n")
    paths = {
        name: value.format(other=f"{other}:{cluster.environment['PYTHONPATH']}") for name, value in variables.items()
    }
    with dask_cluster(home / "dask", cluster.environment, 1) as differing:
        differing.start_worker(*options, **paths)
        differing.wait(2)
        said = build(call, "there", "--cluster", differing.address, code=2)
    assert said.count("\n") == 1
    assert said.startswith("Error: 1 of 2 workers can't take part: worker worker-1: ")
    assert fault in said
    assert not (home / "there").exists()


def test_no_cluster_is_one_line(home: Path, call: Call, environment: dict[str, str]) -> None:
    """No scheduler at an address, no such file, no file of a scheduler, and a scheduler without workers."""
    (home / "text.json").write_text("[]")
    (home / "half.json").write_text('{"address": "tcp')
    others = [(name, "not a file of `dask scheduler") for name in ("text.json", "half.json")]
    for where, why in (("gone.json", "neither an address"), *others):
        said = build(call, "there", "--cluster", where, code=2)
        assert why in said
        assert said.count("\n") == 1
    with pytest.MonkeyPatch.context() as patch, dask_cluster(home / "dask", environment, 0) as empty:
        patch.setattr("common.workers.cluster._CONNECT", 3)
        said = build(call, "there", "--cluster", empty.address, code=2)
        assert "the scheduler has no workers; start some with `dask worker" in said
        assert said.count("\n") == 1
        empty.close()
        said = build(call, "there", "--cluster", empty.address, code=2)
        assert "no scheduler answers" in said
        assert said.count("\n") == 1


def test_workers_that_do_not_see_the_set_hand_the_images_back(
    home: Path, call: Call, everything: Everything, environment: dict[str, str]
) -> None:
    """They are written here, and it is said why; a source that a worker doesn't see is an error that names it."""
    expect_namespaces()
    build(call, "here")
    (home / "there").mkdir()
    with dask_cluster(home / "dask", environment, 1) as cluster:
        cluster.start_worker(mount=f'mount -t tmpfs tmpfs "{home / "there"}"')
        cluster.wait(2)
        said = build(call, "there", "--cluster", cluster.address)
        assert "Images come back to this process to be written, since worker worker-1 can't write to" in said
        assert everything(home / "there") == everything(home / "here")
        assert "Up to date" in build(call, "there", "--cluster", cluster.address)
        cluster.start_worker(mount=f'mount -t tmpfs tmpfs "{home / "source"}"')
        cluster.wait(3)
        said = build(call, "elsewhere", "--cluster", cluster.address, code=2)
        assert "worker worker-2: " in said
        assert "put it on a file system that all workers see" in said.splitlines()[-1]


@pytest.mark.slow
def test_processes_that_dask_starts_by_itself_give_the_same_bytes(
    home: Path, call: Call, everything: Everything, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of them, of its LocalCluster."""
    from distributed import LocalCluster

    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    build(call, "here")
    options = {"n_workers": 3, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**options, local_directory=str(home / "dask")) as local:
        assert "Cluster: 3 workers" in build(call, "there", "--cluster", local.scheduler_address)
    assert everything(home / "there") == everything(home / "here")


def run(home: Path, root: str, cluster: DaskCluster | Network, progress: Callable[[int, int], None]) -> building.Built:
    """Build by the stages themselves, to do something in the midst of it."""
    recipe, source = load(str(home / "set.yaml")), home / "source"
    place = Place(
        home / root, source, home / root / "data" / "augmented" / "set", home / root / "manifests" / "set.csv"
    )
    with connect(1, (), cluster.address, ALL_PACKAGES) as workers:
        return building.build(scan(source, recipe.group, workers.read), recipe, place, workers, progress)


def once(share: float, do: Callable[[], object]) -> Callable[[int, int], None]:
    """Progress that does something as soon as this share is done."""
    left = [do]

    def progress(done: int, total: int) -> None:
        if done >= share * total and left:
            left.pop()()

    return progress


@pytest.mark.slow
@pytest.mark.parametrize("what", ["scheduler", "workers"])
def test_when_the_cluster_is_gone_what_is_finished_is_kept(
    home: Path,
    call: Call,
    everything: Everything,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """One line, soon; and the same command, on another cluster, goes on from there."""
    monkeypatch.setattr("common.workers.cluster._PATIENCE", 8)
    (home / "set.yaml").write_text(RECIPE.replace("40", "400"))
    build(call, "here")
    with dask_cluster(home / "dask", environment, 2) as cluster:
        fault = "the scheduler|the connection" if what == "scheduler" else "no worker is left"
        gone = cluster.scheduler.kill if what == "scheduler" else cluster.kill_workers
        with pytest.raises(UserError, match=rf"the cluster: ({fault}).*run the same command again to go on"):
            run(home, "there", cluster, once(0.2, gone))
    with dask_cluster(home / "again", environment, 1) as cluster:
        built = run(home, "there", cluster, lambda *_: None)
    assert built.reused > 50
    assert everything(home / "there") == everything(home / "here")


@pytest.mark.slow
def test_a_network_that_is_gone_costs_waiting_or_one_line(
    home: Path, call: Call, everything: Everything, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment, nothing else happens; for longer, the build stops, and the same command goes on."""
    monkeypatch.setattr("common.workers.cluster._PATIENCE", 10)
    (home / "set.yaml").write_text(RECIPE.replace("40", "400"))
    build(call, "here")
    with dask_cluster(home / "dask", environment, 2) as cluster:
        network = Network(cluster.address)

        def go_for_a_moment() -> None:
            network.up.clear()
            threading.Timer(3, network.up.set).start()

        built = run(home, "there", network, once(0.2, go_for_a_moment))
        assert everything(home / "there") == everything(home / "here")
        assert built.reused == 0
        with pytest.raises(UserError, match=r"the cluster: .*run the same command again to go on"):
            run(home, "again", network, once(0.2, network.up.clear))
        network.close()
        built = run(home, "again", cluster, lambda *_: None)
    assert built.reused > 50
    assert everything(home / "again") == everything(home / "here")


@pytest.mark.slow
def test_a_worker_that_joins_and_differs_is_named_before_it_works(home: Path, environment: dict[str, str]) -> None:
    """The build stops with one line, and keeps what is finished."""
    (home / "set.yaml").write_text(RECIPE.replace("40", "2000"))
    other = home / "other" / "opencv_python_headless-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Version: 0.0.1\n")
    with dask_cluster(home / "dask", environment, 1) as cluster:

        def join() -> None:
            cluster.start_worker(PYTHONPATH=f"{other.parent}:{environment['PYTHONPATH']}")
            cluster.wait(2)

        with pytest.raises(UserError, match=r"worker worker-1 joined and can't take part: opencv.* 0\.0\.1 instead of"):
            run(home, "there", cluster, once(0.02, join))


POISON = """
import os, signal
from PIL import Image
opened = Image.open
def crash(file, *args, **kwargs):
    if hasattr(file, "getvalue") and b"a poison" in file.getvalue():
        os.kill(os.getpid(), signal.SIGKILL)
    return opened(file, *args, **kwargs)
Image.open = crash
"""


@pytest.mark.slow
def test_a_source_that_kills_each_worker_is_rejected_and_no_other_is(
    home: Path, call: Call, environment: dict[str, str]
) -> None:
    """By name; the set is the one that a folder without it gives."""
    victim = min((home / "source" / "01").iterdir())
    victim.write_bytes(victim.read_bytes() + b"a poison")
    (home / "poison").mkdir()
    (home / "poison" / "sitecustomize.py").write_text(POISON)
    path = f"{home / 'poison'}:{environment['PYTHONPATH']}"
    with dask_cluster(home / "dask", environment | {"PYTHONPATH": path}, 3) as cluster:
        said = build(call, "there", "--cluster", cluster.address)
    (rejected,) = contract.read_card(home / "there" / "manifests" / "set.csv")["rejected"]
    assert rejected["source"] == f"01/{victim.name}"
    assert rejected["reason"].startswith("each worker that reads it is killed")
    assert "Rejected 1" in said
    victim.unlink()
    build(call, "here")
    rows = [contract.read(home / root / "manifests" / "set.csv") for root in ("here", "there")]
    assert rows[0].drop(columns="path").equals(rows[1].drop(columns="path"))


@pytest.mark.slow
def test_kills_at_random_moments_cost_repetitions_and_nothing_else(
    home: Path, call: Call, everything: Everything, environment: dict[str, str]
) -> None:
    """Of workers, and of the scheduler, after which the same command goes on with a new one: the same bytes."""
    dice = random.Random(random.randrange(2**32) if "EVENSET_KILLS" in os.environ else 18)
    kills = {"worker": int(os.environ.get("EVENSET_KILLS", "20")), "scheduler": 3}
    (home / "set.yaml").write_text(RECIPE.replace("40", "1200"))
    build(call, "here")
    expected = everything(home / "here")
    number = 0
    while any(kills.values()):
        number += 1
        root = f"there-{number}"
        while True:  # until a build finishes
            with dask_cluster(home / f"dask-{number}", environment, 3) as cluster:
                try:
                    run(home, root, cluster, _killing(cluster, kills, dice))
                    break
                except UserError as error:
                    assert "run the same command again to go on" in str(error)  # noqa: PT017
            shutil.rmtree(home / f"dask-{number}")
        assert everything(home / root) == expected
        assert call("verify", f"{root}/manifests/set.csv").exit_code == 0
        shutil.rmtree(home / root)


def _killing(cluster: DaskCluster, kills: dict[str, int], dice: random.Random) -> Callable[[int, int], None]:
    """Progress that now and then kills a worker, or the scheduler."""

    def progress(done: int, total: int) -> None:
        if dice.random() < 0.15:
            what = dice.choice([name for name, left in kills.items() if left] or [""])
            victims = cluster.workers() if what == "worker" else [cluster.scheduler.pid] if what else []
            if victims and done < total:
                kills[what] -= 1
                os.kill(dice.choice(victims), signal.SIGKILL)

    return progress
