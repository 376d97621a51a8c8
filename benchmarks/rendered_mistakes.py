"""Adds training videos with mistakes to a data set of the rendered gearbox, with their step lists.

    python benchmarks/rendered_mistakes.py DATA [--count 24] [--seed 8000]

DATA is the folder `data` of `edge-hal demo`. Each video has one mistake: a third of them lack a step, in a third two
steps are in the wrong order, in a third a step is done again. Prints the option of `edge-hal train` that says so. The
sessions are not those of `rendered_deviations.py`, because their seed differs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from edge_hal.workbench.dataset import add_recording
from edge_hal.workbench.mistakes import sample_mistake

ORDER = ("skipped", "out_of_order", "repeated")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--seed", type=int, default=8_000)
    arguments = parser.parse_args()
    names, root = [], arguments.data
    for place, kind in enumerate(ORDER):
        for number in range(arguments.count // len(ORDER)):
            session = sample_mistake(kind, arguments.seed, number).session
            name = f"mistake_{kind}_{number:02d}"
            look = np.random.SeedSequence([arguments.seed, place, number])
            add_recording(root, name, session, look)
            names.append(name)
    with (root / "splits" / "train.split1.bundle").open("a", encoding="utf-8") as file:
        file.writelines(f"{name}.txt\n" for name in names)
    print(f"--set 'data.mistakes={json.dumps(names)}'")


if __name__ == "__main__":
    main()
