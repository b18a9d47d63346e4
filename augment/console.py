"""What the commands print for people: counts, faults, an audit's findings."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augment.rendering.notes import warnings
from common.console import say
from common.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from augment.planning.build_plan import BuildPlan
    from augment.rendering.notes import Noted
    from augment.verify import Fault


_MOST = 8  # reasons that are printed


def print_build_plan(build_plan: "BuildPlan") -> None:
    """The closing table of counts, and what was rejected."""
    table = build_plan.counts.rename(columns=str.capitalize)
    share = (table["Augmented"] / table["Images"].clip(lower=1)).map("{:.0%}".format)
    table["Augmented"] = table["Augmented"].map("{:,}".format) + " (" + share + ")"
    say(table.to_string(index=False, formatters=dict.fromkeys(("Sources", "Images"), "{:,}".format)))
    if rejected := build_plan.rejected:
        first = rejected[0]
        others = Counter(entry.reason for entry in rejected)
        alike = others.pop(first.reason)
        of_these = f" ({alike:,} for this reason)" if 1 < alike < len(rejected) else ""
        say(
            f"Rejected {len(rejected):,}, each with its reason in the card; first: {first.source}: {first.reason}{of_these}"
        )
        for reason, count in others.most_common(_MOST):
            example = next(entry.source for entry in rejected if entry.reason == reason)
            say(f"  and {count:,} such as {example}: {reason}")
        if len(others) > _MOST:
            say(f"  and for {len(others) - _MOST:,} other reasons")
    for warning in build_plan.warnings:
        say(f"Warning: {warning}.")


def print_workers(by_worker: dict[str, int]) -> None:
    """How many images each worker of a cluster rendered."""
    if set(by_worker) - {""}:
        say("Images by worker: " + ", ".join(f"{name} {count:,}" for name, count in by_worker.items()))


def print_set_aside(paths: list[str], images: Path) -> None:
    """Which files were moved out of the image folder, and where to."""
    if paths:
        from augment.storage.image_folder import stray

        more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
        say(f"Moved what is not the set's to {stray(images)}: {printable(paths[0])}{more}")


def print_notes(noted: "Sequence[Noted]") -> None:
    """A line for each kind of source that may not look as it was meant to."""
    for line in warnings(noted):
        say(line)


def counted(build_plan: "BuildPlan") -> dict[str, Any]:
    """What the table says, for scripts."""
    rejected = [{"source": each.source, "reason": each.reason} for each in build_plan.rejected]
    return {"counts": build_plan.counts.to_dict("records"), "rejected": rejected, "warnings": build_plan.warnings}


def print_faults(faults: "list[Fault]") -> None:
    """A row a file, by name; a stray may have a name that can't be printed."""
    for fault in faults:
        say(f"{fault.kind:>8}  {printable(fault.path)}  {fault.detail}".rstrip())


def print_audit(report: dict[str, Any]) -> None:
    """The findings, of long lists the first few."""
    say(f"{report['images']:,} images of {report['groups']:,} groups in {report['source']}")
    if report["groups_unknown"]:
        say(f"Groups unknown: {report['groups_unknown']}")
    for warning in report["warnings"]:
        say(f"Warning: {warning}.")
    for split, counts in report["counts"].items():
        say(f"  {split:<6} " + ", ".join(f"{label} {count:,}" for label, count in counts.items()))
    largest = {
        name: " (largest sample {least:,} to {most:,}, median {median:,})".format(**spread)
        for name, spread in report["largest_samples"].items()
    }
    formats = (f"{name}{largest.get(name, '')}: {count:,}" for name, count in report["formats"].items())
    say("  formats: " + ", ".join(formats))
    for side in ("width", "height"):
        if report[side]:
            say("  {}: {least:,} to {most:,}, median {median:,}".format(side, **report[side]))
    _print_first(
        "not taken: unreadable, no image or left out", [f"{e['source']}: {e['reason']}" for e in report["unreadable"]]
    )
    _print_first("notes on images that are used", [f"{e['source']}: {e['note']}" for e in report["notes"]])
    groups = [f"{e['group']}: {', '.join(e['images'])}" for e in report["groups_in_several_splits"]]
    _print_first("groups in several splits", groups)
    for kind in ("byte_identical", "pixel_identical", "near_identical"):
        across_first = sorted(report[kind], key=lambda found: ("splits" not in found["where"], found["where"]))
        lines = [f"{' = '.join(found['files'])} ({found['where']})" for found in across_first]
        _print_first(f"groups of {kind.replace('_', '-')} images", lines)


def _print_first(title: str, lines: list[str], most: int = 8) -> None:
    say(f"{len(lines):,} {title}" + (":" if lines else ""))
    for line in lines[:most]:
        say(f"  {line}")
    if len(lines) > most:
        say(f"  ... and {len(lines) - most:,} more; --json has them all")
