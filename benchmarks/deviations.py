"""Mistakes in real assemblies, found by the order of the steps alone, each step judged as it comes.

    python benchmarks/deviations.py CSV [--train CSV2] > deviations.json

The CSV (UTF-8, commas) has one row a step: sequence, toy, start_s, end_s, verb, this, that, label (correct, mistake,
correction) and remark. The verb `detach` takes a part off, any other joins two parts. It learns from CSV2 if it is
given, otherwise from CSV itself. Two protocols:

- `one_class`, as in PREGO (arXiv 2404.01933): it learns from sequences without a mistake. The others are cut after
  their first mistake. Precision is balanced: recall / (recall + false alarm rate), as if half of the steps were wrong.
- `leave_one_out`: it learns from the correct steps of all other sequences, and judges every step. `wrong_order`: the
  mistakes with that remark. `all`: all mistakes.

Beside ours: `never`, `always`, `bigram` (a mistake is a step that was never seen after the step before it), and
`procedure` (the product's own rules alone: learned from the toys of the same family, or the closest ones if there is
none, and judged by its tracker).

No threshold is chosen on tested sequences. In `one_class` it is the one with the best balanced F1 on the sequences it
learns from: their own steps, each judged by the others, against steps that are certainly or probably wrong (a part
taken off, a step from later in the sequence, a step of any sequence). In `leave_one_out` mistakes are rare, so the
threshold is that of `FALSE_ALARMS` on the correct steps.

A protocol that the files cannot give is `{"not_measured": why}`. A figure that is not defined, such as the precision
among no correct step, is null. The exit code is 1 if neither protocol can be measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from step_graph import Assembly, AssemblyState, Candidates, Step, StepCounts, likeness
from step_model import StepModel, correct_and_wrong, fit, judge

from edge_hal.calib.learn_rules import SURE, learn_rules
from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.procedure.conformance import Conformance, Deviation
from edge_hal.procedure.rules import Procedure
from edge_hal.procedure.rules import Step as ProcedureStep

FALSE_ALARMS = 0.05
"""Share of correct steps that may be called wrong, in `leave_one_out`."""
FOLDS = 5
EVEN = 0.5
"""In `one_class` half of the steps count as wrong, so the product's rules apply there if they are strict with at least
this probability."""
FAMILY = 1
"""Products of this `likeness` or closer are variants. The product's rules are learned from all of them. This and `EVEN`
are the best choices in `made_mistakes.py`, which reads no real mistake."""
COLUMNS = ("sequence", "toy", "verb", "this", "that", "label", "remark")
LABELS = ("correct", "mistake", "correction")


@dataclass(frozen=True)
class Row:
    """One step as it was annotated."""

    step: Step
    label: str
    remark: str

    @property
    def wrong_order(self) -> bool:
        return self.label == "mistake" and self.remark == "wrong order"


@dataclass(frozen=True)
class Sequence_:
    """One recording."""

    name: str
    toy: str
    rows: Sequence[Row]

    def correct(self) -> Assembly:
        return Assembly(self.toy, [row.step for row in self.rows if row.label == "correct" and not row.step.apart])


Judge = Callable[[Sequence_], tuple[list[bool], list[bool]]]
"""For each step of a sequence: whether it is called a mistake, and whether it is called out of order."""


def read(path: Path) -> list[Sequence_]:
    """The sequences of a file, in its order. Raises EdgeHalError for another file, with the line of a bad row."""
    rows: OrderedDict[tuple[str, str], list[Row]] = OrderedDict()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            found = list(reader.fieldnames or ())
            wrong = next((name for name in COLUMNS if found.count(name) != 1), None)
            if wrong is not None:
                number = "no column" if wrong not in found else "more than one column"
                why = f"it has {number} '{wrong}', but {', '.join(found) or 'none'}"
                raise EdgeHalError(f"cannot read {path}", why, "separate columns by commas", exit_code=2)
            for row in reader:
                _add(rows, row, f"{path}, line {reader.line_num}")
    except (OSError, ValueError, csv.Error) as error:
        raise file_error(f"cannot read {path}", error, path=path, exit_code=2) from error
    if not rows:
        raise EdgeHalError(f"cannot read {path}", "it has no steps", exit_code=2)
    return [Sequence_(name, toy, found) for (name, toy), found in rows.items()]


def _add(rows: OrderedDict[tuple[str, str], list[Row]], row: dict[str, Any], place: str) -> None:
    if any(row.get(None, ())):  # type: ignore[call-overload]  # where the reader puts them
        why = "it has more cells than there are columns"
        raise EdgeHalError(f"{place}: {why}", "", "quote a cell that has a comma", exit_code=2)
    cells = {name: (row[name] or "").strip() for name in COLUMNS}
    label = cells["label"].lower()
    empty = next((name for name in ("sequence", "toy", "this") if not cells[name]), None)
    if empty is not None or label not in LABELS:
        why = f"the label is '{cells['label']}'" if empty is None else f"'{empty}' is empty"
        raise EdgeHalError(f"{place}: {why}", "", f"labels are {', '.join(LABELS)}", exit_code=2)
    step = Step(cells["this"], cells["that"], cells["verb"].lower() == "detach")
    rows.setdefault((cells["sequence"], cells["toy"]), []).append(Row(step, label, cells["remark"].lower()))


# --- protocol (a) -------------------------------------------------------------------------------------


def one_class(tests: Sequence[Sequence_], training: Sequence[Sequence_]) -> dict[str, Any]:
    """Recall, balanced precision and their F1 of each method. Raises EdgeHalError if that is impossible."""
    clean = [s.correct() for s in training if _clean(s)]
    if (usable := sum(bool(one.steps) for one in clean)) < 2:
        raise EdgeHalError("it learns from sequences without a mistake", f"there are {usable}, two are needed")
    cut = []
    for sequence in tests:
        first = next((n for n, row in enumerate(sequence.rows) if row.label != "correct"), None)
        if first is not None:
            cut.append(Sequence_(sequence.name, sequence.toy, sequence.rows[: first + 1]))
    if not cut:
        raise EdgeHalError("it tests sequences with a mistake", "there are none")
    counts = StepCounts(clean)
    model = fit(counts, clean)
    limit = _balanced_limit(*correct_and_wrong(model, counts, clean))
    judges: dict[str, Judge] = {
        "never": lambda s: _same(s, False),
        "always": lambda s: _same(s, True),
        "bigram": _bigram([[row.step for row in s.rows] for s in training if _clean(s)]),
        "procedure": _procedure(clean, EVEN),
        "ours": lambda s: _judge(s, model, counts, Candidates(counts, s.toy), limit, limit, undoing=False),
    }
    truth = np.array([row.label != "correct" for s in cut for row in s.rows])
    found = {name: np.array([called for s in cut for called in judge_(s)[0]]) for name, judge_ in judges.items()}
    scores = {name: _balanced(called, truth) for name, called in found.items()}
    return {
        "learned_from": {"sequences": len(clean), "steps": sum(len(one.steps) for one in clean)},
        "tested": {"sequences": len(cut), "steps": len(truth), "mistakes": int(truth.sum())},
        "limit": round(limit, 3),
        "scores": scores,
        "spread": {
            name: _spread(found[name], truth, [len(s.rows) for s in cut], _balanced) for name in ("procedure", "ours")
        },
    }


def _balanced_limit(correct: Sequence[Any], wrong: Sequence[float]) -> float:
    """The limit of surprise with the best balanced F1. A third of the wrong steps are parts taken off, which are found
    in any case."""
    own, false = np.array([one.surprise for one in correct]), np.array(wrong)

    def score(limit: float) -> float:
        recall, alarms = (1 + 2 * (_share(false >= limit) or 0.0)) / 3, _share(own >= limit) or 0.0
        precision = recall / (recall + alarms)
        return 2 * precision * recall / (precision + recall)

    return float(max(np.arange(0.2, 8.0, 0.1), key=score))


Scores = dict[str, float | None]
"""In percent; None where it is not defined."""


def _balanced(called: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> Scores:
    recall, alarms = _share(called[truth]), _share(called[~truth])
    if recall is None or alarms is None:
        return {"precision": None, "recall": None if recall is None else round(100 * recall, 1), "f1": None}
    precision = recall / (recall + alarms) if recall + alarms else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {name: round(100 * value, 1) for name, value in (("precision", precision), ("recall", recall), ("f1", f1))}


def _share(called: np.ndarray[Any, Any]) -> float | None:
    """The share of steps that are called wrong; None of no step."""
    return float(called.mean()) if len(called) else None


def _spread(
    called: np.ndarray[Any, Any],
    truth: np.ndarray[Any, Any],
    lengths: Sequence[int],
    score: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], Scores],
) -> Scores:
    """90 % interval of F1 over 1,000 bootstrap samples of the sequences."""
    rng, ends = np.random.default_rng(0), np.cumsum(lengths)
    parts = [np.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    values = []
    for _ in range(1000):
        chosen = np.concatenate([parts[n] for n in rng.integers(len(parts), size=len(parts))])
        values.append(score(called[chosen], truth[chosen])["f1"])
    known = [value for value in values if value is not None]
    return {
        f"f1_p{percent}": round(float(np.quantile(known, percent / 100)), 1) if known else None for percent in (5, 95)
    }


# --- protocol (b) -------------------------------------------------------------------------------------


def leave_one_out(tests: Sequence[Sequence_], training: Sequence[Sequence_]) -> dict[str, Any]:
    """Precision, recall and F1 for wrong order, and for all mistakes. The weights of the model are fitted without the
    fold of the tested sequence, the counts without the sequence itself. Raises EdgeHalError if nothing can be
    learned."""
    lists = [s.correct() for s in training]
    if (usable := sum(bool(one.steps) for one in lists)) < 2:
        why = f"there are {usable} sequences with correct steps, two are needed"
        raise EdgeHalError("it learns from the correct steps of other sequences", why)
    same = {(s.name, s.toy): n for n, s in enumerate(training)}
    counts = StepCounts(lists)
    calls: dict[str, list[tuple[list[bool], list[bool]]]] = {}
    truth: list[Row] = []
    for fold in range(FOLDS):
        kept = [one for n, one in enumerate(lists) if n % FOLDS != fold and one.steps]
        fold_counts = StepCounts(kept)
        model = fit(fold_counts, kept)
        correct, _ = correct_and_wrong(model, fold_counts, kept)
        limit, order_limit = (
            float(np.quantile([getattr(one, name) for one in correct], 1 - FALSE_ALARMS)) if correct else np.inf
            for name in ("surprise", "order")
        )
        for number, sequence in enumerate(tests):
            own = same.get((sequence.name, sequence.toy))
            if (number if own is None else own) % FOLDS != fold:
                continue
            others = [one for n, one in enumerate(lists) if n != own]
            judges: dict[str, Judge] = {
                "never": lambda s: _same(s, False),
                "always": lambda s: _same(s, True),
                "bigram": _bigram([one.steps for one in others]),
                "procedure": _procedure(others, SURE),
                "ours": lambda s, m=model, o=own, a=limit, b=order_limit: _judge(  # type: ignore[misc]
                    s, m, counts, Candidates(counts, s.toy, o), a, b
                ),
            }
            for name, judge_ in judges.items():
                calls.setdefault(name, []).append(judge_(sequence))
            truth += sequence.rows
    wrong_order = np.array([row.wrong_order for row in truth])
    mistakes = np.array([row.label == "mistake" for row in truth])
    scores = {}
    for name, called in calls.items():
        anything, order = (np.array([c for one in called for c in one[which]]) for which in (0, 1))
        scores[name] = {"wrong_order": _plain(order, wrong_order), "all": _plain(anything, mistakes)}
    tested = {"sequences": len(tests), "steps": len(truth), "wrong_order": int(wrong_order.sum())}
    tested["mistakes"] = int(mistakes.sum())
    orders = np.array([called for one in calls["ours"] for called in one[1]])
    spread = _spread(orders, wrong_order, [len(one[1]) for one in calls["ours"]], _plain)
    return {"tested": tested, "scores": scores, "spread_of_wrong_order": spread}


def _plain(called: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> Scores:
    hits = int((called & truth).sum())
    precision, recall = hits / max(int(called.sum()), 1), hits / max(int(truth.sum()), 1)
    f1 = 2 * hits / max(int(called.sum() + truth.sum()), 1)
    return {name: round(100 * value, 1) for name, value in (("precision", precision), ("recall", recall), ("f1", f1))}


# --- who judges -----------------------------------------------------------------------------------------


def _same(sequence: Sequence_, called: bool) -> tuple[list[bool], list[bool]]:
    return [called] * len(sequence.rows), [called] * len(sequence.rows)


def _clean(sequence: Sequence_) -> bool:
    return all(row.label == "correct" for row in sequence.rows)


def _bigram(lists: Sequence[Sequence[Step]]) -> Judge:
    seen = {pair for steps in lists for pair in zip([None, *steps], steps, strict=False)}

    def judge_(sequence: Sequence_) -> tuple[list[bool], list[bool]]:
        steps = [row.step for row in sequence.rows]
        called = [pair not in seen for pair in zip([None, *steps], steps, strict=False)]
        return called, called

    return judge_


def _judge(
    sequence: Sequence_,
    model: StepModel,
    counts: StepCounts,
    candidates: Candidates,
    limit: float,
    order_limit: float,
    *,
    undoing: bool = True,
) -> tuple[list[bool], list[bool]]:
    """A surprising step is a mistake. Taking a part off is one too. With `undoing` it is none if it undoes a step that
    was called one; sequences without a mistake hold no such step."""
    state = AssemblyState()
    wrong: set[tuple[str, str]] = set()
    mistakes, orders = [], []
    for row in sequence.rows:
        step = row.step
        if step.apart:
            mistakes.append(not undoing or step.pair not in wrong)
            orders.append(False)
            wrong.discard(step.pair)
        else:
            found = judge(model, counts, candidates, state, step)
            mistakes.append(found.surprise >= limit)
            orders.append(found.order >= order_limit)
            if mistakes[-1] or orders[-1]:
                wrong.add(step.pair)
        state.add(step)
    return mistakes, orders


def _procedure(lists: Sequence[Assembly], sure: float, alike: int = FAMILY) -> Judge:
    """The rules that the product learns from the lists of variants, or of what is closest if there is none, and its
    tracker. A step that these lists do not have is a mistake."""
    rules_of: dict[str, tuple[list[Step], Procedure]] = {}

    def judge_(sequence: Sequence_) -> tuple[list[bool], list[bool]]:
        toy = sequence.toy
        if toy not in rules_of:
            near = [(likeness(toy, one.product), one.steps) for one in lists if one.steps]
            if not near:
                return _same(sequence, False)
            limit = max(alike, min(likely for likely, _ in near))
            own = [steps for likely, steps in near if likely <= limit]
            steps = sorted({step for one in own for step in one}, key=lambda step: (step.this, step.that))
            numbers = [[steps.index(step) for step in one] for one in own]
            rules_of[toy] = (steps, _learned(numbers, len(steps), sure))
        steps, procedure = rules_of[toy]
        tracker = Conformance(procedure, 1.0)
        mistakes, orders = [], []
        for tick, row in enumerate(sequence.rows):
            known = row.step in steps
            told = tracker.decided(steps.index(row.step), tick, tick, 1.0) if known else []
            kinds = {one.kind for one in told if isinstance(one, Deviation)}
            mistakes.append(not known or bool(kinds))
            orders.append(bool(kinds & {"skipped", "out_of_order"}))
        return mistakes, orders

    return judge_


def _learned(lists: Sequence[Sequence[int]], size: int, sure: float) -> Procedure:
    rules = learn_rules(lists, size, sure=sure)
    steps = {
        str(n): ProcedureStep(
            first=0.0,
            share=1 / size,
            median_s=1.0,
            spread=2.0,
            then={},
            requires={str(a): chance for a, chance in rules.requires[n].items()},
            not_after={str(a): chance for a, chance in rules.not_after[n].items()},
            optional=rules.optional[n],
            repeatable=rules.repeatable[n],
        )
        for n in range(size)
    }
    return Procedure(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="the sequences that are tested")
    parser.add_argument("--train", type=Path, help="the sequences that it learns from (default: CSV)")
    options = parser.parse_args()
    try:
        tests = read(options.csv)
        training = tests if options.train is None else read(options.train)
    except EdgeHalError as error:
        sys.exit(f"error: {error}")
    found = {protocol.__name__: _measured(protocol, tests, training) for protocol in (one_class, leave_one_out)}
    print(json.dumps({"csv": options.csv.name, "train": (options.train or options.csv).name, **found}, indent=1))
    sys.exit(all("not_measured" in scores for scores in found.values()))


def _measured(
    protocol: Callable[..., dict[str, Any]], tests: Sequence[Sequence_], training: Sequence[Sequence_]
) -> dict[str, Any]:
    try:
        return protocol(tests, training)
    except EdgeHalError as error:
        print(f"warning: {protocol.__name__} is not measured: {error}", file=sys.stderr)
        return {"not_measured": str(error)}


if __name__ == "__main__":
    main()
