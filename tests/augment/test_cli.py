"""The command line: help with examples, one line for each error, nothing left behind, and what it prints."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from augment.cli import main
from manifests import contract

RECIPE = "per_class: 20\naugment: [train, val]\nsize: 32\ntransforms: [{KerasAffine: {rotation_range: 9}}]\n"


def commands(command: click.Command, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and all below it, each with the words that call it."""
    yield names, command
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            yield from commands(child, *names, name)


ALL = list(commands(main))


def call(*words: str | Path) -> Result:
    """Call the command line in this process."""
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="python -m augment")


@pytest.fixture
def run(folder, environment):
    """A function that calls the command line as a user does, in `folder`."""

    def call_process(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "augment", *words]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return call_process


@pytest.fixture
def folder(tmp_path, make_source, monkeypatch):
    """A working directory with a source folder and a recipe."""
    counts = {"train/NORMAL": 5, "train/PNEUMONIA": 12, "test/NORMAL": 2, "test/PNEUMONIA": 3}
    make_source(tmp_path / "source", counts)
    (tmp_path / "set.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def below(folder: Path) -> list[tuple[str, int]]:
    """Everything below a folder with its time of change."""
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("names", "command"), ALL, ids=lambda value: " ".join(value) or "augment" if isinstance(value, tuple) else ""
)
def test_every_command_has_help_with_an_example(names: tuple[str, ...], command: click.Command) -> None:
    """--help and -h say what the command does, explain every option, and give an example."""
    result = call(*names, "--help")
    assert result.exit_code == 0
    assert result.output == call(*names, "-h").output
    assert "Example:\n  python -m augment " in result.output.replace("\n    ", "\n  ")
    assert command.help
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or (isinstance(parameter, click.Option) and parameter.help)


@pytest.mark.parametrize(
    ("names", "command"), ALL, ids=lambda value: " ".join(value) or "augment" if isinstance(value, tuple) else ""
)
def test_every_example_is_a_command_that_exists(names: tuple[str, ...], command: click.Command) -> None:
    """The examples in the help parse: their commands and options are there."""
    del names
    examples = [
        line.strip() for line in (command.help or "").splitlines() if line.strip().startswith("python -m augment")
    ]
    assert examples
    for example in examples:
        words = shlex.split(example, comments=True)[3:]
        below: click.Command = main
        while isinstance(below, click.Group):
            below = below.commands[words.pop(0)]
        below.make_context(below.name, words)  # raises UsageError for what it doesn't know


def test_help_loads_nothing_heavy(environment) -> None:
    """Importing the command line loads neither TensorFlow nor albumentations, OpenCV, pandas, NumPy or SciPy."""
    heavy = [
        "tensorflow",
        "keras",
        "albumentations",
        "cv2",
        "pandas",
        "numpy",
        "scipy",
        "PIL",
        "yaml",
        "jinja2",
        "skimage",
    ]
    code = f"import sys, augment.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_build_loads_no_more_than_it_needs(folder: Path, environment) -> None:
    """Neither a build nor what its workers import brings in TensorFlow, nor albumentations for KerasAffine alone."""
    code = (
        "import sys; from augment.cli import main\n"
        "main(['build', '--recipe', 'set.yaml', '--source', 'source', '--workers', '1'], standalone_mode=False)\n"
        "import augment.rendering.render, augment.rendering.affine\n"
        "assert 'cv2' in sys.modules and not {'tensorflow', 'keras', 'albumentations'} & sys.modules.keys()"
    )
    script = folder / "script.py"
    script.write_text(f"if __name__ == '__main__':\n    {code.replace(chr(10), chr(10) + '    ')}\n")
    done = subprocess.run(
        [sys.executable, script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_build_ends_with_a_table_and_where_things_are(folder: Path, run) -> None:
    """As a user calls it: counts by split and class, the number rendered, the places; nothing on standard error."""
    first = run("build", "--recipe", "set.yaml", "--source", "source")
    assert (first.returncode, first.stderr) == (0, "")
    lines = [line.split() for line in first.stdout.splitlines()]
    assert lines[0] == ["Split", "Label", "Sources", "Images", "Augmented"]
    assert ["train", "NORMAL", "4", "16", "12", "(75%)"] in lines
    assert ["test", "PNEUMONIA", "3", "3", "0", "(0%)"] in lines
    assert "Rendered 45 images, reused 0: data/augmented/set" in first.stdout
    assert first.stdout.endswith("Manifest: manifests/set.csv\n")
    rows = contract.read(folder / "manifests" / "set.csv")
    assert rows["path"].map(lambda path: (folder / path).is_file()).all()
    again = run("build", "--recipe", "set.yaml", "--source", "source")
    assert (again.returncode, again.stderr) == (0, "")
    assert "Up to date, nothing to render: data/augmented/set" in again.stdout
    assert [line.split() for line in again.stdout.splitlines()][:5] == lines[:5]


def test_options_say_where_things_go(folder: Path) -> None:
    """--images, --manifest, --root, --seed and --workers do what they say."""
    words = ["build", "--recipe", "set.yaml", "--source", "source", "--root", "root", "--seed", "5", "--workers", "1"]
    assert call(*words, "--images", "root/here", "--manifest", "root/there.csv").exit_code == 0
    rows = contract.read(folder / "root" / "there.csv")
    assert rows["path"].str.startswith("here/").all()
    card = contract.read_card(folder / "root" / "there.csv")
    assert (card["recipe"]["seed"], card["images"]) == (5, "here")
    assert not (folder / "data").exists()
    assert not (folder / "manifests").exists()


def test_rejected_files_are_printed(folder: Path) -> None:
    """The closing lines say how many files were rejected, where the reasons are, and the first of them."""
    (folder / "source" / "train" / "NORMAL" / "broken.jpeg").write_bytes(b"no image")
    (folder / "source" / "train" / "NORMAL" / "line\nbreak.jpeg").write_bytes(b"no image either")
    done = call("build", "--recipe", "set.yaml", "--source", "source", "--workers", "1")
    assert done.exit_code == 0
    expected = (
        "Rejected 2, each with its reason in the card; first: train/NORMAL/broken.jpeg: not an image of a known format"
    )
    assert expected in done.output


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    """--dry-run prints the same table as the build, and writes nothing at all."""
    before = below(folder)
    dry = call("build", "--recipe", "set.yaml", "--source", "source", "--dry-run")
    assert dry.exit_code == 0
    assert below(folder) == before
    assert dry.output.endswith("Dry run: nothing was written.\n")
    built = call("build", "--recipe", "set.yaml", "--source", "source", "--workers", "1")
    assert dry.output.splitlines()[:-1] == built.output.splitlines()[: len(dry.output.splitlines()) - 1]


def wrong_recipe(folder: Path) -> list[str]:
    (folder / "set.yaml").write_text("per_class: many")
    return ["set.yaml: per_class is 'many', expected largest, smallest or a whole number from 1 to"]


def unknown_recipe(folder: Path) -> list[str]:
    (folder / "set.yaml").unlink()
    return ["recipe set.yaml: No such file or directory; give a YAML file or one of augment1, augment2, even, original"]


def unsafe_recipe(folder: Path) -> list[str]:
    (folder / "set.yaml").write_text(f"seed: !!python/object/apply:os.mkdir [{folder / 'made'}]")
    return ["set.yaml: not YAML: could not determine a constructor"]


def unknown_transform(folder: Path) -> list[str]:
    (folder / "set.yaml").write_text("per_class: 20\naugment: [train, val]\ntransforms: [RotateBy]")
    return ["transform 'RotateBy' is not known; expected KerasAffine or a name from albumentations"]


def no_transforms(folder: Path) -> list[str]:
    (folder / "set.yaml").write_text("per_class: 20")
    return ["NORMAL in train: the recipe wants 16 images, but there are 4 sources", "add transforms or lower per_class"]


def missing_source(folder: Path) -> list[str]:
    (folder / "source").rename(folder / "elsewhere")
    return ["source: no such folder; --source takes a folder with one sub-folder a class"]


def empty_source(folder: Path) -> list[str]:
    (folder / "source").rename(folder / "elsewhere")
    (folder / "source").mkdir()
    return ["source: found 0 files in 0 classes, but at least 2 are needed", "expected SOURCE/CLASS/*"]


def one_class(folder: Path) -> list[str]:
    for split in ("train", "test"):
        (folder / "source" / split / "NORMAL").rename(folder / split)
    return ["source: found 15 files in 1 classes, but at least 2 are needed"]


def class_without_images(folder: Path) -> list[str]:
    (folder / "source" / "train" / "OTHER").mkdir()
    return ["source: class OTHER: no readable image; add images or move the folder away"]


def class_of_notes(folder: Path) -> list[str]:
    (folder / "source" / "train" / "OTHER").mkdir()
    for number in range(2):
        (folder / "source" / "train" / "OTHER" / f"{number}.txt").write_text(f"note {number}")
    return ["class OTHER: no readable image (train/OTHER/", "not an image of a known format", "move the folder away"]


def patient_in_two_splits(folder: Path) -> list[str]:
    image = (folder / "source" / "train" / "NORMAL" / "IM-0001-0001.jpeg").read_bytes()
    (folder / "source" / "test" / "NORMAL" / "IM-0001-0002.jpeg").write_bytes(image + b"another file")
    return [
        "one group in two splits: test/NORMAL/IM-0001-0002.jpeg is in test, train/NORMAL/IM-0001-0001.jpeg in train"
    ]


def source_around_the_set(folder: Path) -> list[str]:
    (folder / "source" / "train").rename(folder / "train")
    (folder / "source" / "test").rename(folder / "test")
    (folder / "source").rmdir()
    (folder / "source").symlink_to(folder)
    return ["and the source", "overlap; the source is never written to: give"]


@pytest.mark.parametrize(
    "spoil",
    [
        *(wrong_recipe, unknown_recipe, unsafe_recipe, unknown_transform, no_transforms, missing_source, empty_source),
        *(one_class, class_without_images, class_of_notes, patient_in_two_splits, source_around_the_set),
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_what_the_user_can_mend_is_one_line(folder: Path, spoil) -> None:
    """Exit code 2, one line on standard error that names value and fix, no traceback, nothing under a final name."""
    named = spoil(folder)
    result = call("build", "--recipe", "set.yaml", "--source", "source", "--workers", "1")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    for part in named:
        assert part in result.stderr
    assert not (folder / "data" / "augmented" / "set").exists()
    assert not list(folder.glob("manifests/set.*"))
    assert not (folder / "made").exists()


def test_an_error_of_a_real_process_is_one_line_too(run) -> None:
    """As a user sees it: no traceback, no warnings, no usage, from a dry run as from a build."""
    for extra in ([], ["--dry-run"]):
        result = run("build", "--recipe", "nonsense", "--source", "source", *extra)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == (
            "Error: recipe nonsense: No such file or directory; give a YAML file or one of augment1, augment2, even, original, sample, sample-plain\n"
        )


@pytest.mark.parametrize(
    "words", [["build"], ["build", "--recipe", "x"], ["build", "--workers", "0"], ["nonsense"], ["build", "--nonsense"]]
)
def test_a_wrong_call_says_how_it_should_be(words: list[str]) -> None:
    """Missing, unknown and impossible options: exit code 2, what is wrong, and where the help is."""
    result = call(*words)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert "--help" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_build_goes_on_when_nobody_reads_what_it_prints(folder: Path, environment) -> None:
    """As before `| head`, which ends after some lines: the set is built all the same."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "augment", "build", "--recipe", "set.yaml", "--source", "source"]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(contract.read(folder / "manifests" / "set.csv")) == 45


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_says_how_to_go_on(folder: Path, make_source, environment, run, how) -> None:
    """Ctrl-C or SIGTERM in the middle: one line, a code that is not 0, nothing under a final name, and it goes on later."""
    shutil.rmtree(folder / "source")
    make_source(folder / "source", {"train/NORMAL": 60, "train/b": 60, "test/NORMAL": 2, "test/b": 3})
    (folder / "set.yaml").write_text(RECIPE.replace("20", "6000"))
    command = [sys.executable, "-m", "augment", "build", "--recipe", "set.yaml", "--source", "source", "--workers", "2"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)
    partial = folder / "data" / "augmented" / ".set.partial"
    deadline = time.monotonic() + 60
    while not next(partial.rglob("*.jpg"), None):
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(how)
    done, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (done, complaint) == ("", "Interrupted. Run the same command again to go on from here.\n")
    assert not (folder / "data" / "augmented" / "set").exists()
    (folder / "set.yaml").write_text(RECIPE)
    assert run("build", "--recipe", "set.yaml", "--source", "source").returncode == 0
    assert len(contract.read(folder / "manifests" / "set.csv")) == 45


def test_scripts_get_json_or_silence(tmp_path: Path, make_source, call) -> None:
    """--json prints one JSON value and nothing else, --quiet nothing at all; errors are printed in any case."""
    make_source(tmp_path / "source", {"NORMAL": 6, "b": 9})
    (tmp_path / "set.yaml").write_text("per_class: 10\naugment: [train, val]\ntransforms: [HorizontalFlip]\n")
    words = ("build", "--recipe", tmp_path / "set.yaml", "--source", tmp_path / "source", "--root", tmp_path)
    dry = call(*words, "--dry-run", "--json")
    assert dry.exit_code == 0, dry.stderr
    planned = json.loads(dry.stdout)
    built = json.loads(call(*words, "--json").stdout)
    assert built["counts"] == planned["counts"]
    assert built["rendered"] == sum(count["images"] for count in built["counts"])
    assert built["rejected"] == planned["rejected"]
    assert Path(built["manifest"]).is_file()
    assert call(*words, "--quiet").stdout == ""

    verify = ("verify", built["manifest"], "--root", tmp_path)
    assert json.loads(call(*verify, "--json").stdout) == []
    image = contract.read(Path(built["manifest"]))["path"].iloc[0]
    (tmp_path / image).unlink()
    broken = call(*verify, "--json")
    assert json.loads(broken.stdout) == [{"kind": "missing", "path": image, "detail": ""}]
    assert broken.exit_code == 1
    silent = call(*verify, "--quiet")
    assert (silent.exit_code, silent.stdout) == (1, "")
    refused = call("verify", tmp_path / "nowhere.csv", "--quiet")
    assert refused.exit_code == 2
    assert "nowhere" in refused.stderr
