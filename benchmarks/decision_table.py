"""The tables of `docs/decisions.md`: this version beside 0.2, medians over seeds.

    python benchmarks/decision_table.py benchmarks/results/decisions.json

The entry SET.seedN of the file is the `ours` of `edge-hal eval DATA --ckpt RUN --json`; SET.seedN.0.2 that of a run
that version 0.2 trained and scored, with the same seed.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from edge_hal.decoding import decision_scores

COLUMNS = tuple(column for column in decision_scores.COLUMNS if column.key != "changes_per_min")
"""The scores of version 0.2 have no changes."""


def read(path: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """set -> `0.2` or `new` -> one dictionary of scores for each seed."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for name, scores in json.loads(path.read_text()).items():
        found[name.split(".seed")[0]]["0.2" if name.endswith(".0.2") else "new"].append(scores)
    return found


def cells(rows: list[dict[str, Any]]) -> str:
    texts = []
    for column in COLUMNS:
        values = [row[column.key] for row in rows if row.get(column.key) is not None]
        texts.append(decision_scores.shown(median(values) if values else None, column.digits))
    return " | ".join(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    found = read(parser.parse_args().path)
    print("| set | seeds | decided by | " + " | ".join(column.heading for column in COLUMNS) + " |")
    print("| --- | ---: | --- |" + " ---: |" * len(COLUMNS))
    for name, runs in found.items():
        print(f"| {name} | {len(runs['0.2'])} | 0.2 | {cells(runs['0.2'])} |")
        for setting in ("fast", "balanced", "sure"):
            print(f"| | {len(runs['new'])} | {setting} | {cells([run['decide'][setting] for run in runs['new']])} |")
    print()
    print("| set | reports `now`, % | their changes a minute | range over seeds, % | calibration error, % |")
    print("| --- | ---: | ---: | --- | ---: |")
    for name, runs in found.items():
        right = [run["mof_now"] for run in runs["new"]]
        changes = median(run["now_changes_per_min"] for run in runs["new"])
        error = median(run["now_ece"] for run in runs["new"])
        print(f"| {name} | {median(right):.1f} | {changes:.1f} | {min(right):.1f} to {max(right):.1f} | {error:.1f} |")


if __name__ == "__main__":
    main()
