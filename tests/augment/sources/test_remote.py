"""Sources in an object store: a real S3 server, answers that fail, are cut off or slow, and objects that change."""

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from augment.sources.layout import read_layout
from augment.sources.names import ScanError
from augment.sources.objects import layout_of
from augment.sources.scan import digest, scan
from common.remote import Remote, RemoteError, at
from common.workers import Workers
from manifests import contract
from tests.augment.conftest import Call
from tests.clusters import dask_cluster

THREADS = ThreadPoolExecutor(2)

pytest.importorskip("s3fs", reason="python -m pip install -r requirements-remote.txt")
moto = pytest.importorskip("moto.server", reason="python -m pip install -r requirements-dev.txt")

RECIPE = "size: 32\nper_class: 12\ntransforms: [HorizontalFlip]\n"
COUNTS = {"train/NORMAL": 6, "train/PNEUMONIA": 9, "test/NORMAL": 2, "test/PNEUMONIA": 3}
SECRET = "a-secret-that-nobody-may-read"  # noqa: S105  # of a server that lives for a test


class Faults(BaseHTTPRequestHandler):
    """Hands requests on to the S3 server behind it, and spoils every answer that `spoil` says."""

    behind: str
    spoil: dict[str, int]  # kind of fault -> how many answers are still to have it
    asked: int = 0
    largest: int = 0  # bytes of an answer

    def do_GET(self) -> None:
        """Spoil the answer of an image, or hand it on."""
        type(self).asked += 1
        kind = next(
            (kind for kind, left in self.spoil.items() if left and self.path.partition("?")[0].endswith("jpeg")), ""
        )
        if kind:
            self.spoil[kind] -= 1
        if kind == "503":
            self.send_error(503)
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        request = Request(f"{self.behind}{self.path}", headers=headers, method=self.command)  # noqa: S310  # our own server
        try:
            with urlopen(request) as answer:  # noqa: S310  # our own server
                status, headers, data = answer.status, answer.headers, answer.read()
        except OSError as error:  # an HTTPError is its answer
            status, headers, data = getattr(error, "code", 500), getattr(error, "headers", {}), error.read()  # type: ignore[attr-defined]
        type(self).largest = max(self.largest, len(data))
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "date", "server", "content-length"):
                self.send_header(name, value)
        length = headers["Content-Length"] if self.command == "HEAD" and "Content-Length" in headers else len(data)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if kind == "cut" else data)
        if kind == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)

    do_HEAD = do_GET  # noqa: N815  # http.server's name

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def faults() -> type[Faults]:
    """What the store's answers are spoilt with; nothing to begin with."""
    return type("OfTest", (Faults,), {"spoil": {}, "asked": 0, "largest": 0})


@pytest.fixture
def bucket(tmp_path: Path, make_source: Any, monkeypatch: pytest.MonkeyPatch, faults: type[Faults]) -> Iterator[Any]:
    """A bucket with a Kermany source under `xrays`, by its boto3 resource; a copy lies in the folder `source`."""
    import boto3

    make_source(tmp_path / "source", COUNTS)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    faults.behind = f"http://{host}:{port}"
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), faults)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr("common.remote._WAIT", 0.01)
    store = boto3.resource("s3", endpoint_url=faults.behind)
    made = store.create_bucket(Bucket="bucket")
    made.objects.delete()  # an earlier test's, in the same process
    for file in sorted((tmp_path / "source").rglob("*.jpeg")):
        made.put_object(Key=f"xrays/{file.relative_to(tmp_path / 'source').as_posix()}", Body=file.read_bytes())
    yield made
    proxy.shutdown()
    proxy.server_close()
    server.stop()
    import fsspec

    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of a small set."""
    (tmp_path / "set.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path / "set.yaml"


def built(call: Call, recipe: Path, source: str | Path, root: Path, *more: str) -> Any:
    return call("build", "--recipe", recipe, "--source", source, "--root", root, "--workers", "2", *more)


def digests(root: Path) -> dict[str, str]:
    rows = contract.read(root / "manifests" / "set.csv")
    return dict(zip(rows["path"], rows["sha256"], strict=True))


@pytest.mark.usefixtures("bucket")
def test_a_bucket_gives_the_set_that_its_folder_gives(tmp_path: Path, recipe: Path, call: Call) -> None:
    """The same bytes under the same names; up to date the second time; repaired from the store; no credentials anywhere."""
    here, there = tmp_path / "here", tmp_path / "there"
    assert built(call, recipe, tmp_path / "source", here).exit_code == 0
    done = built(call, recipe, "s3://bucket/xrays", there)
    assert done.exit_code == 0, done.output
    assert digests(there) == digests(here)
    assert "Up to date" in built(call, recipe, "s3://bucket/xrays/", there).output
    card = json.loads((there / "manifests" / "set.json").read_text(encoding="utf-8"))
    assert card["source"] == "s3://bucket/xrays"
    image = next((there / "data").rglob("*.jpg"))
    image.unlink()
    repaired = call("verify", there / "manifests" / "set.csv", "--repair")
    assert repaired.exit_code == 0, repaired.output
    assert image.exists()
    audited = call("audit", "s3://bucket/xrays", "--json")
    assert json.loads(audited.stdout)["images"] == sum(COUNTS.values())
    texts = [path.read_bytes() for path in there.rglob("*") if path.suffix in (".csv", ".json")]
    assert not [text for text in texts if SECRET.encode() in text]
    assert SECRET not in done.output + repaired.output + audited.output


@pytest.mark.usefixtures("bucket")
def test_workers_of_a_cluster_read_from_the_store(
    tmp_path: Path, recipe: Path, call: Call, environment: dict[str, str], faults: type[Faults]
) -> None:
    """With credentials of their own, and answers that fail; the bytes of the folder, by workers."""
    pytest.importorskip("distributed", reason="python -m pip install -r requirements-cluster.txt")
    here, there = tmp_path / "here", tmp_path / "there"
    assert built(call, recipe, tmp_path / "source", here).exit_code == 0
    with dask_cluster(tmp_path / "dask", environment | os.environ, 2) as cluster:
        faults.spoil["503"] = faults.spoil["cut"] = 4
        done = built(call, recipe, "s3://bucket/xrays", there, "--cluster", cluster.address)
        assert done.exit_code == 0, done.output
        assert digests(there) == digests(here)
        assert faults.spoil == {"503": 0, "cut": 0}
        log = "".join(path.read_text() for path in (tmp_path / "dask").glob("*.log"))
    assert SECRET not in done.output + log


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("kind", ["503", "cut"])
def test_answers_that_fail_are_asked_for_again(
    tmp_path: Path, recipe: Path, call: Call, faults: type[Faults], kind: str
) -> None:
    """A server that is busy, or whose answers are cut off, costs time and nothing else."""
    faults.spoil[kind] = 4
    found = scan(Remote("s3://bucket/xrays"), "(x)", THREADS)
    assert faults.spoil[kind] == 0
    assert len(found.sources) == sum(COUNTS.values())
    assert [entry for entry in found.rejected if "tries" in entry.reason] == []
    faults.spoil[kind] = 10_000
    done = built(call, recipe, "s3://bucket/xrays", tmp_path / "out")
    assert done.exit_code == 2
    assert "none of the first 10 files can be read; first: test/NORMAL/" in done.output
    assert "in 5 tries" in done.output
    assert done.output.count("\n") == 1


def test_what_changes_or_goes_between_scan_and_rendering(tmp_path: Path, recipe: Path, call: Call, bucket: Any) -> None:
    """It is rejected by name, as a file's change is, and the others are built."""
    from augment import building
    from augment.recipe import load
    from augment.rendering.work import MODULES
    from augment.storage.place import place_of
    from common.workers.process_pool import ProcessPool

    scanned = scan(Remote("s3://bucket/xrays"), load(str(recipe)).group, THREADS)
    first, second = [name for name in scanned.sources["source"] if name.startswith("train/PNEUMONIA")][:2]
    bucket.Object(f"xrays/{first}").delete()
    bucket.put_object(Key=f"xrays/{second}", Body=b"\xff\xd8\xffanother image")
    place = place_of("set", scanned.folder, tmp_path / "out", None, None)
    with ProcessPool(1, MODULES) as executor:
        done = building.build(scanned, load(str(recipe)), place, Workers(executor, executor), lambda *_: None)
    reasons = {entry.source: entry.reason for entry in done.build_plan.rejected}
    assert reasons == {
        first: "can't be read: No such file",
        second: "its bytes are no longer those that were planned with",
    }
    assert call("verify", tmp_path / "out" / "manifests" / "set.csv").exit_code == 0


def test_a_list_in_a_bucket_names_objects_beside_it(tmp_path: Path, call: Call, bucket: Any) -> None:
    """Columns as in any list; what lies there and isn't named is rejected; and `files` names lists in a folder."""
    names = sorted(path.relative_to(tmp_path / "source").as_posix() for path in (tmp_path / "source").rglob("*.jpeg"))
    lines = [f"{Path(name).name},{name.split('/')[1]}" for name in names[:-1]]
    bucket.put_object(Key="xrays/list.csv", Body="\n".join(["Image,Finding", *lines]).encode())
    (tmp_path / "r.yaml").write_text("size: 16\nlist: {path: Image, label: Finding}\n", encoding="utf-8")
    done = call(
        "build",
        "--recipe",
        tmp_path / "r.yaml",
        "--source",
        "s3://bucket/xrays/list.csv",
        "--root",
        tmp_path / "out",
        "--json",
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rejected"] == [{"source": names[-1], "reason": "not in the list"}]
    assert contract.read_card(tmp_path / "out" / "manifests" / "r.csv")["list"] == "s3://bucket/xrays/list.csv"


@pytest.fixture
def web(tmp_path: Path, make_source: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[type["Web"]]:
    """A web server with the folder `web` behind it: images below `pictures`, with the answers that a test wants."""
    make_source(tmp_path / "web" / "pictures", COUNTS)
    monkeypatch.setattr("common.remote._WAIT", 0.01)
    handler = type("OfTest", (Web,), {"answers": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: handler(*given, directory=str(tmp_path / "web")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    handler.address = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()


class Web(SimpleHTTPRequestHandler):
    """Serves a folder; of a path in `answers`, these statuses first, one an answer."""

    address: str
    answers: dict[str, list[int]]
    asked: list[str]

    def send_head(self) -> Any:
        """The answer's beginning, of HEAD and GET."""
        self.asked.append(self.path)
        if self.answers.get(self.path):
            self.send_error(self.answers[self.path].pop(0))
            return None
        return super().send_head()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def listed(folder: Path, *more: str) -> list[str]:
    """Write a list of the images in a folder, with more rows, and give the images' names."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpeg"))
    rows = [f'"{name}",{name.split("/")[2]}' for name in names]
    (folder / "list.csv").write_text("\n".join(["path,label", *rows, *more]), encoding="utf-8")
    return names


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        ([503, 503, 503], ""),
        ([410] * 9, "No such file"),
        ([503] * 99, "HTTP 503, in 5 tries; mend that"),
        ([403] * 99, "Permission denied; mend that"),
    ],
)
def test_a_web_servers_trouble_is_no_missing_file(
    tmp_path: Path, recipe: Path, web: type[Web], statuses: list[int], outcome: str
) -> None:
    """After the scan it is asked again or stops the build, and never makes the set smaller; what is gone is rejected."""
    from augment import building
    from augment.recipe import load
    from augment.rendering.work import MODULES
    from augment.storage.place import BuildError, place_of
    from common.workers.process_pool import ProcessPool

    name = listed(tmp_path / "web")[-1]
    scanned = scan(at(f"{web.address}/list.csv"), "(.+)", THREADS)
    web.answers[f"/{name}"] = statuses
    place = place_of("set", scanned.folder, tmp_path / "out", None, None)
    with ProcessPool(1, MODULES) as executor:

        def build() -> Any:
            return building.build(scanned, load(str(recipe)), place, Workers(executor, executor), lambda *_: None)

        if "mend" in outcome:
            with pytest.raises(BuildError, match=f"{name}: {outcome}"):
                build()
            web.answers.clear()
        done = build()
    rejected = {entry.source: entry.reason for entry in done.build_plan.rejected}
    assert rejected == ({name: f"can't be read: {outcome}"} if "No such" in outcome else {})


def test_names_behind_a_web_server_are_taken_as_they_are(
    tmp_path: Path, recipe: Path, web: type[Web], call: Call
) -> None:
    """No sign in one starts a query, a fragment or an escape; a row with a query is refused, and its words go nowhere."""
    folder = tmp_path / "web" / "pictures" / "train" / "NORMAL"
    signs = ["im#9.jpeg", "im?12.jpeg", "im%2011.jpeg", "im %10.jpeg", "im+é.jpeg"]
    for sign, file in zip(signs, sorted(folder.iterdir()), strict=False):
        file.rename(folder / sign)
    (tmp_path / "web" / "a set").mkdir()
    (tmp_path / "web" / "pictures").rename(tmp_path / "web" / "a set" / "pictures")
    names = listed(tmp_path / "web" / "a set", f"pictures/train/NORMAL/im.jpeg?X-Amz-Signature={SECRET},NORMAL")
    done = built(call, recipe, f"{web.address}/a%20set/list.csv", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rejected"] == [
        {"source": "pictures/train/NORMAL/im.jpeg?...", "reason": "a query after the path; give the path alone"}
    ]
    assert set(contract.read(tmp_path / "out" / "manifests" / "set.csv")["source"]) == set(names)
    assert SECRET not in done.output + "".join(
        path.read_text() for path in (tmp_path / "out" / "manifests").glob("set.*")
    )
    assert not [path for path in web.asked if "?" in path or "#" in path]
    next((tmp_path / "out" / "data").rglob("*.jpg")).unlink()
    assert call("verify", tmp_path / "out" / "manifests" / "set.csv", "--repair").exit_code == 0


@pytest.mark.parametrize("name", ["a//x.png", "a/C:/x.png"])
def test_a_name_that_no_path_has_is_rejected(tmp_path: Path, recipe: Path, call: Call, bucket: Any, name: str) -> None:
    """And the set beside it is built as it was."""
    picture = next((tmp_path / "source").rglob("*.jpeg")).read_bytes()
    bucket.put_object(Key=f"xrays/train/NORMAL/{name}", Body=picture)
    done = built(call, recipe, "s3://bucket/xrays", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    assert [entry["source"] for entry in json.loads(done.stdout)["rejected"]] == [f"train/NORMAL/{name}"]


def test_folders_like_splits_are_refused_in_a_store_too() -> None:
    """As they are in a folder: they would pass for classes, and their classes for patients."""
    names = [f"{split}/{label}/1.png" for split in ("train_set1", "test_set1") for label in "ab"]
    with pytest.raises(ScanError, match="test_set1, train_set1 hold the same folders"):
        layout_of(Remote("s3://b/x"), names)


def test_a_store_is_asked_for_the_beginning_first_and_for_blocks(bucket: Any, faults: type[Faults]) -> None:
    """A film isn't read, and a large image is never held as a whole."""
    bucket.put_object(Key="film.mp4", Body=bytes(40_000_000))
    image = b"\xff\xd8\xff" + os.urandom(40_000_000)
    bucket.put_object(Key="large.jpeg", Body=image)
    assert "not an image" in digest(Remote("s3://bucket/film.mp4")).error
    assert faults.asked == 2
    assert digest(Remote("s3://bucket/large.jpeg")).sha256 == hashlib.sha256(image).hexdigest()
    assert faults.largest < 10_000_000


def test_a_list_behind_a_web_server(tmp_path: Path, web: type[Web], call: Call) -> None:
    """A web server isn't listed: the list says where its images are; a path out of its folder, or to nothing, is rejected."""
    listed(tmp_path / "web", "../secret.jpeg,NORMAL", "gone.jpeg,NORMAL", "http://x/y.jpeg,NORMAL")
    (tmp_path / "set.yaml").write_text("size: 16\n", encoding="utf-8")
    address = web.address
    done = built(call, tmp_path / "set.yaml", f"{address}/list.csv", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    rejected = {entry["source"]: entry["reason"] for entry in json.loads(done.stdout)["rejected"]}
    assert rejected == {
        "../secret.jpeg": "no path below the list's folder",
        "http://x/y.jpeg": "no path below the list's folder",
        "gone.jpeg": "can't be read: No such file",
    }
    assert "a web server can't be listed" in built(call, tmp_path / "set.yaml", address, tmp_path / "out").output


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://bucket/nowhere", "no such folder, or nothing in it"),
        ("s3://nobucket/x", "can't be listed: No such file"),
        ("https://user:word@host/list.csv", "must not hold credentials"),
        ("https://host/list.csv?sig=word", "must not hold credentials or a query"),
        ("wonder://b/x", "needs packages"),
        ("simplecache::s3://key:word@bucket/x", "...://...: an address must not hold"),
        ("s3://key:half/word@bucket/x", "s3://...: an address must not hold"),
        ("https://word@host/list.csv", "https://...: an address must not hold"),
        ("https://host/list.csv#token=word", "a fragment"),
        ("zip://x::https://key:word@host/x.zip", "zip://...: an address must not hold"),
        ("dir://x", "can't be used"),
        ("ftp://127.0.0.1:1/x", "can't be used"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_an_address_that_cannot_be_used_says_why(
    recipe: Path, tmp_path: Path, call: Call, address: str, message: str
) -> None:
    """One line, without the credentials."""
    done = built(call, recipe, address, tmp_path / "out")
    assert done.exit_code == 2
    assert message in done.output
    assert "word" not in done.output
    assert done.output.count("\n") == 1


def test_what_an_address_is() -> None:
    """A scheme makes it one; file:// is a path; a path stays one."""
    assert at("s3://bucket/x/") == Remote("s3://bucket/x")
    assert at("file:///x/y") == at("/x/y") == Path("/x/y")
    assert at(Path("a/b")) == Path("a/b")
    assert (Remote("s3://bucket/x") / "y").parent == Remote("s3://bucket/x")
    with pytest.raises(RemoteError):
        at("s3://key:word@b/x")


def test_any_store_lists_names_below_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """However its paths begin; and one whose addresses name a container before an @ is no secret's."""
    import fsspec

    from common import remote

    fsspec.filesystem("memory").pipe({"/set/a/1.png": b"one", "/set/b/2.png": b"two"})
    folder = at("memory://set")
    assert isinstance(folder, Remote)
    assert folder.files() == ["a/1.png", "b/2.png"]
    assert (folder / "a/1.png").read() == b"one"
    monkeypatch.setattr(remote, "_system", lambda _: None)  # Azure's package isn't installed
    assert str(at("abfs://box@account.dfs.core.windows.net/x")) == "abfs://box@account.dfs.core.windows.net/x"


def test_names_are_laid_out_as_folders_are(tmp_path: Path) -> None:
    """The rules for folders hold for names: the same files, classes, patients and reasons."""
    names = [
        "train/A/1.png", "train/A/p1/2.png", "train/B/images/3.png", "train/B/masks/3.png", "train/B/.hidden", "train/loose.png",
        "valid/A/Thumbs.db", "Test Set/B/deep/er/4.png", "train/A/test/5.png", "beside/6.png", "7.png", "train/A/bad\x07.png",
    ]  # fmt: skip
    for layout in (
        names,
        [name.partition("/")[2] for name in names if name.startswith("train/")],
        ["a/1.png", "train/2.png"],
    ):
        folder = tmp_path / str(len(layout))
        for name in layout:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        here, there = read_layout(folder), layout_of(Remote("s3://bucket/x"), layout)
        assert there.files == here.files
        assert there.rejected == here.rejected
        assert there.labels == here.labels


def test_nothing_is_imported_for_a_folder() -> None:
    """A local build pays nothing for stores that it doesn't use."""
    import subprocess
    import sys

    code = "import sys, augment.sources.scan, augment.rendering.render; assert not {'fsspec', 's3fs', 'boto3'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
