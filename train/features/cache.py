"""The kept activations: what there is, which sets need it, and what may go."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from common.errors import UserError
from manifests import contract
from train.features.store import Store, StoreError, is_stale, locked, stored

STALE = "nothing: stale, of other versions"
COLUMNS = ("size", "store", "layers", "engine", "precision", "images", "GB", "needed by")


class CacheError(UserError):
    """Nothing may be dropped here; the message says why."""


class Pruned(NamedTuple):
    """How many images' activations went, and how many bytes."""

    images: int
    bytes: int


Needed = dict[str, set[str]]  # manifest's name -> checksums of its images


def needed(manifests: Path) -> Needed:
    """The images of each manifest in a folder.

    Raises:
        ContractError: one can't be read. What it needs isn't known, so nothing may be dropped.
    """
    return {path.stem: set(contract.read(path)["sha256"]) for path in sorted(manifests.glob("*.csv"))}


def listed(cache: Path, sets: Needed) -> pd.DataFrame:
    """The stores in a folder, a row each, by image size and by what needs them: COLUMNS."""
    rows = []
    for store, about in stored(cache):
        index = store.index().keys()
        wanted = {name: len(checksums & index) for name, checksums in sets.items()}
        users = ", ".join(f"{name} {count:,}" for name, count in wanted.items() if count)
        stale = is_stale(about)
        described = (_joined(about.get("size"), " x "), store.folder.name, _joined(about.get("layers"), ", "))
        made_by = (_text(about.get("name")), _text(about.get("precision")))  # the engine, as engine.Engine has it
        images = store.rows if stale else len(index)
        amount = (f"{images:,}", f"{_bytes(store) / 1e9:.2f}")
        rows.append((*described, *made_by, *amount, STALE if stale else users or "nothing"))
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(["size", "needed by", "store"], ignore_index=True)


def prune(cache: Path, manifests: Path) -> Pruned:
    """Drop stale activations, those of all images that no manifest in a folder has, and what killed writers left.

    Raises:
        ContractError: as `needed` has it.
        CacheError: there is no manifest at all: more likely the wrong folder than an order to drop everything.
        StoreError: a run is at work on the activations, or the disk is full.
    """
    sets = needed(manifests)
    if not cache.is_dir():
        return Pruned(0, 0)
    if not sets:
        raise CacheError(
            f"{manifests}: no manifest is there, so nothing is known to be needed; give --root, or delete {cache}"
        )
    every = set().union(*sets.values())
    with locked(cache):
        before = _total(cache)
        gone = 0
        for left in cache.glob(".*.partial"):
            shutil.rmtree(left)
        # Those that go whole come first: what is left of the others is copied, and needs room.
        needs = [(store, set() if is_stale(about) else every) for store, about in stored(cache)]
        for store, needed_of_it in sorted(needs, key=lambda found: bool(found[1] & found[0].index().keys())):
            rows = store.rows  # an index of an older format can't be counted
            try:
                gone += store.keep(needed_of_it) if needed_of_it else (store.keep(set()) or rows)
            except OSError as error:
                raise StoreError(
                    f"{store.folder}: {error.strerror}; nothing of it went. Make room, or delete it"
                ) from None
        return Pruned(gone, before - _total(cache))


def _total(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())


def _bytes(store: Store) -> int:
    return sum(path.stat().st_size for path in store.folder.iterdir() if path.is_file())


def _joined(values: object, by: str) -> str:
    return by.join(_text(value) for value in values) if isinstance(values, list) else ""


def _text(value: object) -> str:
    """A value of an about.json, which anybody may have written, as text that a terminal shows as it is."""
    text = str(value)[:100]
    return text if text.isprintable() else ascii(text)
