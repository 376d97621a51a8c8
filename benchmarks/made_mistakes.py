"""How well mistakes that are put into correct assemblies are found: to choose a method without a look at real mistakes.

    python benchmarks/made_mistakes.py CSV

CSV is that of `deviations.py`. Only its sequences without a mistake count. Each is cut at each step in turn, with one
mistake at the end, and is judged by what the others say. There are four kinds:

- `order`: a step from later in the sequence;
- `place`: two parts of the sequence are joined that it never joins;
- `foreign`: a step of any sequence;
- `apart`: two joined parts are separated.

It prints JSON: recall of each kind, the share of correct steps called wrong, and balanced F1 as in `one_class`, with
recall the mean over the kinds. `procedure`: the product's rules, by the lists that they are learned from and by how
sure a rule must be. `ours`: with the limit of surprise that the other folds of the products give.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from deviations import EVEN, FOLDS, Judge, Row, Sequence_, _balanced_limit, _judge, _procedure, read
from step_graph import Assembly, Candidates, Step, StepCounts
from step_model import correct_and_wrong, fit

from edge_hal.calib.learn_rules import SURE
from edge_hal.errors import EdgeHalError

KINDS = ("order", "place", "foreign", "apart")
LISTS = {"same toy": 0, "family": 1, "series": 2, "all": 3}
"""The `likeness` of the lists that the product's rules are learned from; where there is none, the closest lists."""


def mistake(kind: str, steps: Sequence[Step], at: int, others: Sequence[Step], rng: np.random.Generator) -> Step | None:
    """A wrong step at position `at` of correct steps; None if there is none of this kind."""
    if kind == "apart":
        possible = [Step(one.this, one.that, apart=True) for one in steps[:at]]
    elif kind == "order":
        possible = [one for one in steps[at + 1 :] if one.pair != steps[at].pair]
    elif kind == "foreign":
        possible = [one for one in others if one.pair != steps[at].pair]
    else:
        parts, joined = sorted({part for one in steps for part in one.pair}), {one.pair for one in steps}
        possible = [Step(a, b) for a in parts for b in parts if a < b and (a, b) not in joined]
    return possible[int(rng.integers(len(possible)))] if possible else None


def score(lists: Sequence[Assembly], judges: Sequence[Judge]) -> dict[str, float]:
    """Each list judged by its own judge, in percent."""
    rng, found = np.random.default_rng(0), {kind: list[bool]() for kind in KINDS}
    alarms = correct = 0
    for number, (one, judge) in enumerate(zip(lists, judges, strict=True)):
        others = [step for n, other in enumerate(lists) if n != number for step in other.steps]
        for at in range(len(one.steps)):
            for kind in KINDS:
                wrong = mistake(kind, one.steps, at, others, rng)
                if wrong is not None:
                    steps = [*one.steps[:at], wrong]
                    called, _ = judge(Sequence_("", one.product, [Row(step, "", "") for step in steps]))
                    found[kind].append(called[-1])
            alarms, correct = alarms + sum(called[:at]), correct + at  # the last kind is always possible after a step
    recalls = {kind: float(np.mean(calls)) for kind, calls in found.items() if calls}
    recall, rate = float(np.mean(list(recalls.values()))), alarms / max(correct, 1)
    values = {**recalls, "false_alarms": rate, "f1": 2 * recall / (1 + recall + rate)}
    return {name: round(100 * value, 1) for name, value in values.items()}


def _ours(lists: Sequence[Assembly]) -> list[Judge]:
    """The model of `step_model.py`, fitted on the other folds; all steps of a product are in one fold."""
    products = sorted({one.product for one in lists})
    fold_of = {product: number % FOLDS for number, product in enumerate(np.random.default_rng(0).permutation(products))}
    counts, judges = StepCounts(lists), dict[int, Judge]()
    for fold in range(FOLDS):
        kept = [one for one in lists if fold_of[one.product] != fold]
        fold_counts = StepCounts(kept)
        model = fit(fold_counts, kept)
        limit = _balanced_limit(*correct_and_wrong(model, fold_counts, kept))
        for number, one in enumerate(lists):
            if fold_of[one.product] == fold:
                candidates = Candidates(counts, one.product, number)
                judges[number] = partial(
                    _judge,
                    model=model,
                    counts=counts,
                    candidates=candidates,
                    limit=limit,
                    order_limit=limit,
                    undoing=False,
                )
    return [judges[number] for number in range(len(lists))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    try:
        sequences = read(parser.parse_args().csv)
    except EdgeHalError as error:
        sys.exit(str(error))
    lists = [s.correct() for s in sequences if all(row.label == "correct" for row in s.rows)]
    others = [[*lists[:number], *lists[number + 1 :]] for number in range(len(lists))]
    found = {
        f"procedure, {name}, {sure:g}": score(lists, [_procedure(kept, sure, alike) for kept in others])
        for name, alike in LISTS.items()
        for sure in (EVEN, SURE)
    }
    print(json.dumps({**found, "ours": score(lists, _ours(lists))}, indent=1))


if __name__ == "__main__":
    main()
