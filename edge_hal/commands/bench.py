"""`edge-hal bench`: latency and memory of a bundle on this device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_hal.commands.streams import require_written
from edge_hal.errors import EdgeHalError
from edge_hal.files.untrusted import read_json

LONGEST_S = 86400.0
"""The longest time of `--paced`: its durations are kept in memory."""


def bench(
    bundle: Annotated[
        Path, typer.Argument(readable=False, help="Bundle that `edge-hal export` wrote, or a task folder.")
    ] = Path("bundle"),
    compare: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Measure this bundle too and print both; or a file with the output of `edge-hal bench --json`.",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(help="Engine to measure: onnxruntime, tensorrt, or auto (TensorRT if this machine can run it)."),
    ] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Stop with an error if the bundle is not of this precision: fp32, fp16 or int8 (default: any)."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Number of threads that ONNX Runtime computes with.")] = 1,
    ticks: Annotated[int, typer.Option(min=1, help="Number of ticks to measure back to back.")] = 3000,
    paced_s: Annotated[
        float,
        typer.Option(
            "--paced", min=0, help="Seconds to measure at the model's own rate, as in a live run; 0 skips this."
        ),
    ] = 5.0,
    allow_uncertified: Annotated[
        bool, typer.Option("--allow-uncertified", help="Measure a bundle whose certificate is missing or failed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Measure the latency of each level, back to back and at the model's rate, the memory, and the streams per core."""
    from edge_hal.runtime.options import MOST_THREADS

    for option, number, most in (("--threads", threads, MOST_THREADS), ("--paced", paced_s, LONGEST_S)):
        if number > most:
            raise EdgeHalError(f"{option} {number:g}", f"it can be at most {most:g}", exit_code=2)
    other = None if compare is None or compare.is_dir() else read_figures(compare)

    def figures(path: Path) -> dict[str, Any]:
        from edge_hal.bundle import load_bundle, require_precision
        from edge_hal.commands.progress import Stages
        from edge_hal.runtime.checks.bench import measure
        from edge_hal.runtime.engines.choose import choose_engines
        from edge_hal.task_folder import newest_bundle

        opened = load_bundle(newest_bundle(path), allow_uncertified=allow_uncertified)
        if path == bundle:
            require_precision(opened, precision)
        with Stages() as report:
            return measure(opened, choose_engines(opened, engine, threads, report=report), ticks, paced_s)

    mine = figures(bundle)
    if compare is not None and other is None:
        other = figures(compare)
    if as_json:
        print(json.dumps(mine if other is None else {"this": mine, "other": other}))
    else:
        print_figures(mine, other)
    require_written()


def read_figures(path: Path) -> dict[str, Any]:
    """The figures that `edge-hal bench --json` printed into a file. Raises EdgeHalError for any other file."""
    try:
        data: dict[str, Any] = read_json(path)
        data = data.get("this", data)
        _ = data["back_to_back_us"]["tick"]["mean"], 1 / data["weight_bytes"], data["bundle"], data["precision"]
        for part in (*data["back_to_back_us"].values(), *data["paced_us"].values()):
            _ = part.get("p50", 0) / 1
    except (OSError, ValueError, ArithmeticError, KeyError, TypeError, AttributeError) as error:
        todo = "give a bundle, or a file that edge-hal bench --json printed"
        raise EdgeHalError(
            f"{path} holds no output of edge-hal bench", f"{type(error).__name__}: {error}", todo
        ) from error
    return data


def print_figures(mine: dict[str, Any], other: dict[str, Any] | None) -> None:
    print(f"{mine['bundle']}: {mine['precision']} on {mine['engine']} ({mine['why']})")
    columns = ("mean", "p50", "p90", "p99", "p99.9")
    more = "" if other is None else f"{'p50 of other':>14s}{'ratio':>7s}"
    print(f"{'microseconds a step':20s}{'count':>6s}" + "".join(f"{column:>8s}" for column in columns) + more)
    for kind, text in (("back_to_back_us", "unpaced"), ("paced_us", "paced")):
        for part, values in mine[kind].items():
            row = "".join(f"{values[c]:8.0f}" if c in values else f"{'-':>8s}" for c in columns)
            if other is not None:
                p50 = other[kind].get(part, {}).get("p50")
                row += f"{'-':>14s}{'-':>7s}" if not p50 else f"{p50:14.0f}{values.get('p50', 0) / p50:7.2f}"
            print(f"{part + ', ' + text:20s}{values['count']:6d}{row}")
    lines = [
        f"weights {mine['weight_bytes'] / 1024:.0f} KiB, state {mine['state_bytes'] / 1024:.1f} KiB",
        f"{mine['streams_per_core']:g} streams at {mine['model_hz']:g} Hz on one core, by the mean tick",
    ]
    if mine["multiply_adds"]:
        counts = [f"{part} {count / 1e6:.3g} M" for part, count in mine["multiply_adds"].items()]
        lines.append(f"multiply-adds a tick: {', '.join(counts)}")
    if other is not None:
        ratio = mine["weight_bytes"] / other["weight_bytes"]
        lines.append(f"weights: {ratio:.2f} times those of {other['bundle']} ({other['precision']})")
    if mine["resident_bytes"]:
        lines.append(f"process {mine['resident_bytes'] / 2**20:.0f} MiB")
    for name, value in mine["readings"]["after_paced"].items():
        lines.append(f"{name}: {value:g}")
    print("\n".join(lines))
