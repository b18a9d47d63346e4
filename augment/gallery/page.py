"""A set as one HTML page: every source beside its variants, and the figures that show whether a recipe is sane.

The page refers to the images by relative URLs, or holds a sample of them itself. It works from the file system,
asks for nothing but those images, and its content security policy holds it to that.
"""

import base64
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from augment.building import one_line_faults
from augment.gallery import summary
from augment.gallery.drawn import histograms
from augment.gallery.ssim import Extremes, Likeness, compare, extremes, pairs, share
from augment.recipe import Recipe
from augment.rendering.tasks import Style
from common import html
from common.errors import UserError
from common.files import write_atomically
from common.images.pixels import UnreadableImage, header
from manifests import contract
from manifests.balance import unevenness
from manifests.contract import SPLITS

TEMPLATES = Path(__file__).parent / "templates"
_STRIP = 6  # variants at either end of a class's strip


class GalleryError(UserError):
    """The page can't be made; the message names what stands in the way and the fix."""


Compared = dict[str, Likeness | None]


class Shown(NamedTuple):
    """What is on a page: how many images, of how many in the set, and how many of them are not on disk."""

    images: int
    of: int
    missing: int


def gallery(
    manifest: Path, root: Path, out: Path, embed: int | None, executor: Executor, progress: Callable[[int, int], None]
) -> Shown:
    """Write the page of the set behind a manifest.

    Args:
        manifest: the set's manifest; its card lies beside it.
        root: what its paths are relative to.
        out: where the page goes, .html.
        embed: put a sample of about this many images into the page, and no path of this machine; None refers to all.
        executor: compares the images; its workers see the same files.
        progress: called with (variants compared, variants to compare).

    Raises:
        ContractError: the manifest or its card breaks the contract.
        GalleryError: a place that the page can't go to.
        BuildError: the page can't be written, or a worker died.
    """
    rows, card = contract.read(manifest), contract.read_card(manifest)
    if rows.empty:
        raise GalleryError(f"{manifest} lists no images; build the set again")
    _check(out, root, card)
    contract.expect_inside(root, rows["path"], manifest)
    chosen = sample(rows, embed) if embed else rows
    with one_line_faults(out):
        urls = _embedded(chosen["path"], root) if embed else _referenced(chosen["path"], root, out)
        recipe = summary.recipe_of(card)
        likeness = compare(pairs(chosen, root), Style.of(recipe) if recipe else None, executor, progress)
        page = _page(
            rows, chosen, card, recipe, urls, likeness, _named(manifest, root, private=bool(embed)), bool(embed)
        )
        write_atomically(out, page)
    return Shown(len(chosen), len(rows), sum(not url for url in urls.values()))


def sample(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Rows of about `most` images: whole sources with their variants, shared out over the sides, picked by checksum."""
    side = rows["split"] + "/" + rows["label"]
    picked = rows.sort_values(["source_sha256", "source", "variant"], kind="stable")
    rank = picked.groupby(side.loc[picked.index]).cumcount().sort_index()
    return rows[rank < share(side.value_counts(), most)]


def _check(out: Path, root: Path, card: dict[str, Any]) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise GalleryError(f"--out {out} should end in .html")
    source = (root / str(card.get("source", ""))).resolve()
    if card.get("source") and out.resolve().is_relative_to(source):
        raise GalleryError(f"--out {out} is in the source folder, which is never written to; give another place")


def _named(manifest: Path, root: Path, *, private: bool) -> str:
    """The manifest as a command run in the root names it."""
    inside = manifest.resolve().is_relative_to(root.resolve())
    if inside:
        return manifest.resolve().relative_to(root.resolve()).as_posix()
    return manifest.name if private else manifest.resolve().as_posix()


def _referenced(paths: "pd.Series[str]", root: Path, out: Path) -> dict[str, str]:
    """The URL of each image relative to the page; empty where there is no such file."""
    try:
        start = Path(os.path.relpath(root, out.parent)).as_posix()
    except ValueError:  # another drive
        raise GalleryError(f"--out {out} is on another drive than {root}, and no relative URL leads there") from None
    return {path: quote(f"{start}/{path}") if os.path.isfile(f"{root}/{path}") else "" for path in paths}  # noqa: PTH113  # 10 times as fast


def _embedded(paths: "pd.Series[str]", root: Path) -> dict[str, str]:
    """Each image as a data URL; empty where there is none. A manifest may come from anyone: nothing else goes in."""
    urls = {}
    for path in paths:
        if not (root / path).is_file():  # a pipe would be waited for
            urls[path] = ""
            continue
        try:
            data = (root / path).read_bytes()
            kind = header(data).format.lower()
            urls[path] = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        except (OSError, UnreadableImage):
            urls[path] = ""
        except MemoryError:
            raise GalleryError(f"{path}: not enough memory to put it into the page; give a smaller --embed") from None
    return urls


def _page(
    rows: pd.DataFrame,
    chosen: pd.DataFrame,
    card: dict[str, Any],
    recipe: Recipe | None,
    urls: dict[str, str],
    likeness: Compared,
    manifest: str,
    private: bool,
) -> str:
    style, script = ((TEMPLATES / f"gallery.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    environment = html.environment(TEMPLATES)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    environment.filters["thousands"] = "{:,}".format
    sides = summary.balance(rows, card)
    ssim = {path: each.ssim if each else None for path, each in likeness.items()}
    return environment.get_template("gallery.html").render(
        style=Markup(style),  # noqa: S704  # our own files; all that comes from a set is escaped
        script=Markup(script),  # noqa: S704
        style_hash=html.policy_hash(style),
        script_hash=html.policy_hash(script),
        data=_data(chosen, urls, likeness, extremes(chosen, ssim, _STRIP), contract.group_name(card.get("recipe"))),
        card=card,
        manifest=manifest,
        private=private,
        source=summary.source_folder(card, private=private),
        images=len(rows),
        shown=len(chosen),
        missing=sum(not url for url in urls.values()),
        sources=len(rows[["split", "source"]].drop_duplicates()),
        labels=sorted(rows["label"].unique()),
        splits=[split for split in SPLITS if (rows["split"] == split).any()],
        sides=sides,
        balance=summary.describe_balance(sides),
        uneven=unevenness(rows),
        widest=max(max(side.before, side.after) for side in sides),
        rejected=summary.rejected(card),
        making=summary.making(card, manifest, private=private),
        likeness=_likeness(chosen, ssim),
        measures=_measures(likeness),
        histograms=histograms(rows.loc[rows["variant"] > 0, "transform"], recipe),
        groups=summary.groups(card),
        group_name=contract.group_name(card.get("recipe")),
        form=summary.image_form(card),
        has_affine="KerasAffine" in str(card.get("recipe")),
    )


def _measures(likeness: Compared) -> dict[str, str]:
    """What isn't geometry, over the compared variants: `0.97 to 1.00, median 0.99`, or shares in percent, by measure."""
    table = pd.DataFrame([each for each in likeness.values() if each], columns=list(Likeness._fields), dtype=float)
    if table["aligned"].isna().all():
        return {}
    least, median, most = (table.agg(name) for name in ("min", "median", "max"))
    shares = {
        name: f"{100 * least[name]:.1f} to {100 * most[name]:.1f} %, median {100 * median[name]:.1f} %,"
        for name in ("invented", "clipped")
    }
    return {"aligned": f"{least['aligned']:.2f} to {most['aligned']:.2f}, median {median['aligned']:.2f}"} | shares


def _likeness(rows: pd.DataFrame, ssim: dict[str, float | None]) -> dict[str, Any]:
    """How many variants were compared, with their spread, and how many have no original in the set to compare with."""
    values = pd.Series([value for value in ssim.values() if value is not None], dtype=float)
    spread = {"least": values.min(), "median": values.median(), "most": values.max()} if len(values) else {}
    beside = rows.groupby(["split", "source"])["variant"].transform("min") == 0
    alone = int(((rows["variant"] > 0) & ~beside).sum())
    return {
        "variants": int((rows["variant"] > 0).sum()) - alone,
        "alone": alone,
        "compared": len(values),
        "failed": len(ssim) - len(values),
    } | spread


def _data(
    rows: pd.DataFrame, urls: dict[str, str], likeness: Compared, strips: list[Extremes], group_name: str
) -> dict[str, Any]:
    """What the script draws: sources with their images in the manifest's order, short, since there may be many."""
    there = [url for url in urls.values() if url]
    base = os.path.commonprefix(there)  # noqa: RUF071  # of data URLs as well: JPEGs begin alike
    labels = sorted(rows["label"].unique())
    sources: dict[tuple[str, str], dict[str, Any]] = {}
    numbers: dict[tuple[str, str], int] = {}
    places = {}
    columns = ("path", "label", "split", "source", "group", "variant", "transform")
    for path, label, split, source, group, variant, transform in zip(*(rows[name] for name in columns), strict=True):
        entry = sources.setdefault(
            (split, source),
            {"split": split, "label": labels.index(label), "name": source, "group": group, "images": []},
        )
        places[path] = (numbers.setdefault((split, source), len(numbers)), len(entry["images"]))
        measured = likeness.get(path) or (None,)
        entry["images"].append(
            [
                variant,
                urls[path].removeprefix(base) if urls[path] else None,
                summary.parameters(transform),
                *(None if value is None else round(value, 3) for value in measured),
            ]
        )
    return {
        "base": base,
        "groupName": group_name,
        "labels": labels,
        "aspect": float(rows["height"].median() / rows["width"].median()),
        "sources": list(sources.values()),
        "strips": [
            {
                "label": strip.label,
                "least": [places[path] for path in strip.least],
                "most": [places[path] for path in strip.most],
            }
            for strip in strips
        ],
    }
