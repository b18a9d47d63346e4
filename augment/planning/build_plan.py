"""A set on paper: the plan of what was found, less what turned out unreadable, and what its card will say."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import pandas as pd

from augment.planning import PlanError
from augment.planning.plan import Plan, plan
from augment.recipe import Recipe
from augment.rendering.tasks import Style
from augment.rendering.work import DICOM_PACKAGES, PACKAGES, TRANSFORM_PACKAGES
from augment.sources.groups import Groups, describe_groups
from augment.sources.layout import Rejected
from augment.sources.scan import Scan
from common import __version__
from manifests.balance import unevenness
from manifests.contract import SPLITS, csv_parts


def versions(recipe: Recipe, *, has_dicom: bool = False) -> dict[str, str]:
    """Evenset's version and those of the packages that the bytes of a recipe's images depend on."""
    found = {"evenset": __version__}
    more = (*(TRANSFORM_PACKAGES if recipe.uses_albumentations else ()), *(DICOM_PACKAGES if has_dicom else ()))
    for package in (*PACKAGES, *more):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


class BuildPlan(NamedTuple):
    """What a set is to be, as far as is known. Made by `make_build_plan`."""

    scanned: Scan
    recipe: Recipe
    drop_leaks: bool
    drop_conflicts: bool
    unreadable: tuple[Rejected, ...]  # sources that could not be decoded
    planned: Plan

    def without(self, unreadable: Sequence[Rejected]) -> "BuildPlan":
        """The build plan once these, too, have turned out unreadable."""
        return make_build_plan(
            self.scanned,
            self.recipe,
            (*self.unreadable, *unreadable),
            drop_leaks=self.drop_leaks,
            drop_conflicts=self.drop_conflicts,
        )

    @property
    def rejected(self) -> list[Rejected]:
        """All that was found and is not in the set, sorted."""
        return sorted({*self.scanned.rejected, *self.planned.left_out, *self.unreadable})

    @property
    def groups(self) -> Groups:
        """How the groups of its sources were found, as far as they are readable."""
        sources = self.scanned.sources
        unreadable = sources["source"].isin([entry.source for entry in self.unreadable])
        recipe, scanned = self.recipe, self.scanned
        return describe_groups(sources[~unreadable], recipe.group, scanned.list_format, scanned.tag, recipe.group_name)

    @property
    def versions(self) -> dict[str, str]:
        """Evenset's version and those of the packages that its images' bytes depend on."""
        return versions(self.recipe, has_dicom=self.scanned.has_dicom)

    @property
    def making(self) -> dict[str, Any]:
        """What decides an image's bytes beside its source, its number and its seed, as JSON values."""
        return {"style": Style.of(self.recipe).settings, "versions": self.versions}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides the set's bytes: equal fingerprints, equal sets."""
        digest = hashlib.sha256(json.dumps(self.making, sort_keys=True).encode())
        for part in csv_parts(self.planned.rows):
            digest.update(part)
        return digest.hexdigest()

    @property
    def counts(self) -> pd.DataFrame:
        """The columns split, label, sources, images and augmented, in the order of the plan.

        `augmented` are those of the images that are not their source as it is. A class absent from a split has 0.
        """
        rows = self.planned.rows.assign(augmented=self.planned.rows["variant"] > 0)
        by_side = rows.groupby(["split", "label"], sort=False)
        columns = {"sources": ("source", "nunique"), "images": ("path", "size"), "augmented": ("augmented", "sum")}
        counts = by_side.agg(**columns).reset_index()
        absent = pd.DataFrame([(*side, 0, 0, 0) for side in self.planned.absent], columns=["split", "label", *columns])
        both = pd.concat([counts, absent], ignore_index=True) if len(absent) else counts
        rank = both["split"].map(SPLITS.index)
        return both.assign(rank=rank).sort_values(["rank", "label"], ignore_index=True).drop(columns="rank")

    @property
    def warnings(self) -> list[str]:
        """What a user should know of this set before trusting a number that is measured on it."""
        found = list(filter(None, [self.groups.warning, *self.scanned.warnings]))
        for split, label in self.planned.absent:
            found.append(
                f"class {label} has no image in {split}: what is measured there says nothing of {label}, and figures that "
                "need every class are undefined"
            )
        return found + unevenness(self.planned.rows)

    def card(self, places: dict[str, str | None]) -> dict[str, Any]:
        """The card, as manifests/README.md has it, with where its parts are."""
        counts: dict[str, dict[str, dict[str, int]]] = {}
        for row in self.counts.itertuples():
            counts.setdefault(row.split, {})[row.label] = {
                name: getattr(row, name) for name in ("sources", "images", "augmented")
            }
        groups = self.groups
        key = {"key_check": self.scanned.key_check} if self.scanned.key_check else {}
        return {
            "name": self.recipe.name,
            "notice": self.scanned.notice,
            **places,
            "recipe": self.recipe.as_dict(),
            "on_leak": "drop" if self.drop_leaks else "error",
            "on_conflict": "drop" if self.drop_conflicts else "error",
            "groups": {"known": groups.are_known, "matched": groups.matched, "of": groups.of} | key,
            "warnings": self.warnings,
            "counts": counts,
            "versions": self.versions,
            "fingerprint": self.fingerprint,
            "rejected": [entry._asdict() for entry in self.rejected],
        }


def make_build_plan(
    scanned: Scan,
    recipe: Recipe,
    unreadable: Sequence[Rejected] = (),
    *,
    drop_leaks: bool = False,
    drop_conflicts: bool = False,
) -> BuildPlan:
    """Plan a set without the sources that are known to be unreadable.

    Raises:
        PlanError: as `plan` has it, or a class none of whose files is readable.
    """
    sources = scanned.sources[~scanned.sources["source"].isin([entry.source for entry in unreadable])]
    for label in sorted(set(scanned.sources["label"]) - set(sources["label"])):
        of_label = set(scanned.sources.loc[scanned.sources["label"] == label, "source"])
        first = next(entry for entry in unreadable if entry.source in of_label)
        raise PlanError(
            f"class {label}: no readable image ({first.source}: {first.reason}); mend them or move the folder away"
        )
    planned = plan(sources, recipe, drop_leaks=drop_leaks, drop_conflicts=drop_conflicts)
    return BuildPlan(scanned, recipe, drop_leaks, drop_conflicts, tuple(unreadable), planned)


def suspects(sources: pd.DataFrame) -> list[str]:
    """The sources that would join patients, leak or contradict a label, if only they are images.

    They are decoded before anything is planned with them: a broken file that lies in several folders is no leak.
    """
    copies = sources.groupby("source_sha256")
    several = copies["group"].transform("nunique") > 1
    several |= copies["split"].transform("nunique") > 1
    several |= copies["label"].transform("nunique") > 1
    several |= sources.groupby("group")["split"].transform("nunique") > 1
    return sources.loc[several, "source"].tolist()


def known_unreadable(scanned: Scan, recipe: Recipe, card: dict[str, Any]) -> list[Rejected]:
    """The sources that the build behind `card` could not decode, that are still the same and would be decoded alike."""
    then, wanted = card.get("recipe"), recipe.as_dict()
    if card.get("versions") != versions(recipe, has_dicom=scanned.has_dicom) or not isinstance(then, dict):
        return []
    if any(then.get(setting) != wanted.get(setting) for setting in ("size", "max_pixels", "value_range")):
        return []
    now = dict(zip(scanned.sources["source"], scanned.sources["source_sha256"], strict=True))
    recorded = [Rejected(**entry) for entry in card.get("rejected", [])]
    return [entry for entry in recorded if entry.source_sha256 and now.get(entry.source) == entry.source_sha256]
