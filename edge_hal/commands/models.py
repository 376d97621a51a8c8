"""`edge-hal models`: the bundles of a folder, which one is in use, and which events of another one differ."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_hal.commands.options.parsing import parse_duration
from edge_hal.commands.streams import require_written
from edge_hal.errors import EdgeHalError
from edge_hal.model_folder import CURRENT, KeptModel, current_model, is_model_folder, models_in, use_model
from edge_hal.task_folder import newest_bundle

if TYPE_CHECKING:
    from edge_hal.evaluation.bundle_difference import Difference, Told

models = typer.Typer(
    no_args_is_help=True,
    help="List the bundles of a folder, compare two of them, and choose the one that runs take (the link `current`).",
)
Folder = Annotated[
    Path, typer.Argument(readable=False, help="Folder with a bundle in each subfolder, or a task folder.")
]


@models.command("list")
def list_models(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON array.")] = False,
) -> None:
    """Print the bundles, the oldest first: scores on held-out videos, encoder, steps, and what they come from.

    `*` marks the one in use. The date is that of the manifest: copy bundles with `cp -a`.
    """
    found = _models(folder)
    try:
        used = current_model(folder)
    except EdgeHalError as error:  # it leads nowhere; the bundles to choose from are printed all the same
        used = None
        print(f"note: {error.what}: {error.why}", file=sys.stderr)
    rows = [_described(model, used) for model in found]
    if as_json:
        print(json.dumps(rows))
        require_written()
        return
    from edge_hal.decoding.decision_scores import shown

    table = [("", "name", "date", "F1", "F1@50", "delay, s", "encoder", "steps", "videos", "from")]
    for row in rows:
        if row["broken"]:
            table.append((_mark(row), row["name"], row["date"], *("-" * 3), row["broken"], "", "", ""))
            continue
        scores = row["scores"]
        table.append(
            (
                _mark(row),
                row["name"],
                row["date"],
                *(shown(scores.get(key), n) for key, n in (("transition_f1", 3), ("f1_50", 1), ("delay_s_median", 2))),
                row["encoder"],
                str(len(row["labels"])),
                str(row["videos"] or "-"),
                row["parent"] or "-",
            )
        )
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if used is None:
        print(f"none is in use: edge-hal models use {shlex.quote(str(folder))} NAME")
    require_written()


@models.command()
def diff(
    folder: Folder,
    sources: Annotated[
        list[str], typer.Argument(help="Video files, feature vectors (features:FILE.npy@HZ), or recordings of runs.")
    ],
    before: Annotated[
        str | None, typer.Option(help="Name of one bundle (default: the one in use, else the one before --after).")
    ] = None,
    after: Annotated[str | None, typer.Option(help="Name of the other one (default: the newest).")] = None,
    within: Annotated[
        str, typer.Option(help="Events of the same kind this close to each other are the same event.")
    ] = "1s",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Stream the same sources through two bundles, and print which events differ."""
    from edge_hal.evaluation.bundle_difference import difference

    within_s = parse_duration(within)
    found = _models(folder)
    other = found[-1] if after is None else _named(folder, after)
    one = _earlier(folder, found, other) if before is None else _named(folder, before)
    if one.path == other.path:
        why = "it is in use, and the newest" if before is None and after is None else ""
        todo = "give --before or --after" if len(found) > 1 else "export another bundle first"
        raise EdgeHalError(f"{one.name} would be compared with itself", why, todo, exit_code=2)
    differences = []
    for source in sources:
        each = difference(source, one.path, other.path, within_s)
        differences.append(each)
        if not as_json:
            _print_difference(each)
    if as_json:
        print(json.dumps({"before": one.name, "after": other.name, "sources": [asdict(each) for each in differences]}))
    else:
        _print_sum(differences, one, other)
    require_written()


@models.command()
def use(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="Name of the bundle that runs shall take.")],
) -> None:
    """Let the link `current` point to a bundle. Runs on the folder reload it within seconds."""
    _use(folder, _named(folder, name))


@models.command()
def rollback(folder: Folder) -> None:
    """Let the link `current` point to the bundle before the one in use, by date."""
    found, used = _models(folder), _in_use(folder)
    at = [model.path for model in found].index(used.path)
    if at == 0:
        raise EdgeHalError(f"{used.name} is the oldest bundle of {folder}", "there is none before it")
    _use(folder, found[at - 1])


def _use(folder: Path, model: KeptModel) -> None:
    from edge_hal.bundle import load_bundle

    load_bundle(model.path)  # raises for a bundle that no run would take
    before = None if not is_model_folder(folder) else (folder / CURRENT).readlink()
    use_model(folder, model)
    print(f"{folder / CURRENT} -> {model.name}" + ("" if before is None else f" (before: {before})"))


def _models(folder: Path) -> list[KeptModel]:
    notes: list[str] = []
    found = models_in(folder, notes)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if not found:
        newest_bundle(folder)  # raises for a task folder, with what to do there
        todo = f"edge-hal export --ckpt RUN --out {shlex.quote(str(folder / 'NAME'))}"
        raise EdgeHalError(f"{folder} has no bundle", "no subfolder has a manifest.json", todo, exit_code=2)
    return found


def _in_use(folder: Path) -> KeptModel:
    found = current_model(folder)
    if found is None:
        todo = f"edge-hal models use {shlex.quote(str(folder))} NAME"
        raise EdgeHalError(f"{folder} has no bundle in use", f"there is no link {CURRENT}", todo, exit_code=2)
    return found


def _earlier(folder: Path, found: Sequence[KeptModel], other: KeptModel) -> KeptModel:
    """The bundle in use; if none is, the one before `other`."""
    used = current_model(folder)
    at = [model.path for model in found].index(other.path)
    if used is None and at == 0:
        why = "none is in use, and none is older"
        raise EdgeHalError(f"{folder} has no bundle to compare {other.name} with", why, "give --before", exit_code=2)
    return found[at - 1] if used is None else used


def _named(folder: Path, name: str) -> KeptModel:
    found = _models(folder)
    name = name.rstrip("/")
    for written in (name, f"{name}/bundle", f"runs/{name}/bundle"):  # of a task folder the run will do
        for model in found:
            if model.name == written:
                return model
    names = ", ".join(model.name for model in found)
    raise EdgeHalError(f"{folder} has no bundle {name}", f"it has {names}", exit_code=2)


def _described(model: KeptModel, used: KeptModel | None) -> dict[str, Any]:
    from edge_hal.bundle import load_bundle

    row: dict[str, Any] = {
        "name": model.name,
        "date": time.strftime("%Y-%m-%d %H:%M", time.localtime(model.made_s)),
        "current": used is not None and used.path == model.path,
        "broken": None,
    }
    try:
        bundle = load_bundle(model.path, allow_uncertified=True)
    except EdgeHalError as error:
        return {**row, "broken": error.what}
    provenance, decoder = bundle.provenance, bundle.decoder
    at = decoder.patience.get("balanced", decoder.decide_at)
    scores: dict[str, Any] = {}
    if decoder.curve:
        rows = [dict(each) for each in decoder.curve]
        scores = min(rows, key=lambda each: abs((each.get("decide_at") or 0.0) - at))
    encoder = provenance.get("encoder")
    kind = encoder.get("kind") if isinstance(encoder, dict) else None
    return {
        **row,
        "fingerprint": bundle.fingerprint,
        "precision": bundle.precision,
        "scores": scores,
        "encoder": str(kind or ("vectors" if bundle.spec.encoder is None else "own")),
        "labels": list(bundle.spec.labels),
        "videos": provenance.get("videos"),
        "parent": None if provenance.get("init") is None else str(provenance["init"]),
    }


def _mark(row: dict[str, Any]) -> str:
    return "*" if row["current"] else ""


def _print_difference(found: Difference) -> None:
    shift = "" if found.shift_s is None else f" (median shift {found.shift_s:.2f} s)"
    print(
        f"{found.source}: {len(found.pairs)} events in both{shift}, {len(found.only_before)} only before, "
        f"{len(found.only_after)} only after; another action for {found.differing_s:.1f} of {found.length_s:.1f} s"
    )
    sides = [("-", each) for each in found.only_before] + [("+", each) for each in found.only_after]
    for sign, each in sorted(sides, key=lambda side: side[1].time_s):
        print(f"  {sign} {_line(each)}")


def _line(told: Told) -> str:
    minutes, seconds = divmod(told.time_s, 60)
    return f"{int(minutes):02d}:{seconds:05.2f}  {told.what}  (confidence {told.confidence:.2f})"


def _print_sum(differences: list[Difference], one: KeptModel, other: KeptModel) -> None:
    pairs, only_before, only_after = (
        sum(len(getattr(each, name)) for each in differences) for name in ("pairs", "only_before", "only_after")
    )
    seconds, length = (sum(getattr(each, name) for each in differences) for name in ("differing_s", "length_s"))
    share = seconds / length if length else 0.0
    print(
        f"{one.name} (-) and {other.name} (+): {pairs} events in both, {only_before} only before, {only_after} only "
        f"after; another action for {share:.1%} of the time"
    )
