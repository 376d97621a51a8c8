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

COLUMNS = (
    ("transition_f1", "transition F1", 3),
    ("f1_50", "F1@50", 1),
    ("mof_live", "live, %", 1),
    ("delay_s_median", "delay, s", 2),
    ("delay_s_p90", "90 %, s", 2),
    ("false_per_min", "false/min", 2),
)


def read(path: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """set -> `0.2` or `new` -> one dictionary of scores for each seed."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for name, scores in json.loads(path.read_text()).items():
        found[name.split(".seed")[0]]["0.2" if name.endswith(".0.2") else "new"].append(scores)
    return found


def cells(rows: list[dict[str, Any]]) -> str:
    texts = []
    for key, _, digits in COLUMNS:
        values = [row[key] for row in rows if row.get(key) is not None]
        texts.append(f"{median(values):.{digits}f}" if values else "-")
    return " | ".join(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    found = read(parser.parse_args().path)
    print("| set | seeds | decided by | " + " | ".join(name for _, name, _ in COLUMNS) + " |")
    print("| --- | ---: | --- |" + " ---: |" * len(COLUMNS))
    for name, runs in found.items():
        print(f"| {name} | {len(runs['0.2'])} | 0.2 | {cells(runs['0.2'])} |")
        for setting in ("fast", "balanced", "sure"):
            print(f"| | {len(runs['new'])} | {setting} | {cells([run['decide'][setting] for run in runs['new']])} |")
    print()
    print("| set | reports `now`, % | their changes a minute | range over seeds, % |")
    print("| --- | ---: | ---: | --- |")
    for name, runs in found.items():
        right = [run["mof_now"] for run in runs["new"]]
        changes = median(run["now_changes_per_min"] for run in runs["new"])
        print(f"| {name} | {median(right):.1f} | {changes:.1f} | {min(right):.1f} to {max(right):.1f} |")


if __name__ == "__main__":
    main()
