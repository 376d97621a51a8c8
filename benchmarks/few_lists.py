"""How often rules that were learned from few step lists call right work wrong, and how many mistakes they name.

    python benchmarks/few_lists.py [--draws 10] [--procedure gearbox] [--most-false 0.5] [--mistakes 0]

Simulated sessions of the workbench, with the true steps as decisions, half a second late: no error of recognition. For
each number of lists, rules are learned from that many sessions, in several draws. False deviations are those in 240
sessions without a mistake, without `overdue`. Mistakes (of the gearbox only) are 120 sessions with one each: a step
left out, two in the wrong order, one done again. `--most-false inf` stores every rule that is sure. `--mistakes N` adds
N lists of sessions with one mistake each to the lists that rules are learned from. Prints a table.
"""

from __future__ import annotations

import argparse

import numpy as np

from edge_hal.calib.followed import EVERY_TICKS, Followed, deviations, follow_labels
from edge_hal.calib.learn_procedure import RULES_FALSE, learn_procedure
from edge_hal.metrics import IntArray
from edge_hal.procedure.rules import Procedure
from edge_hal.workbench.dataset import PROCEDURES, check_procedure
from edge_hal.workbench.gearbox import GEARBOX
from edge_hal.workbench.mistakes import sample_mistake
from edge_hal.workbench.schedule import Session, sample_session

LISTS = (4, 8, 12, 20, 32, 64)
NORMAL, EACH = 240, 40
KINDS = ("skipped", "out_of_order", "repeated")
HZ, DELAY_S = 10.0, 0.5


def labels_of(session: Session, names: list[str]) -> IntArray:
    return np.array([names.index(step) for step in session.labels(HZ)], np.int64)


def found(procedure: Procedure, video: Followed) -> list[tuple[str, set[int | None]]]:
    """The kind of each deviation, and the steps that it names."""
    return [
        (each.kind, {each.expected} if each.kind == "skipped" else {each.expected, each.seen})
        for each in deviations(procedure, video, HZ)
        if each.kind != "overdue"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--procedure", default=GEARBOX.name)
    parser.add_argument("--most-false", type=float, default=RULES_FALSE)
    parser.add_argument("--mistakes", type=int, default=0)
    arguments = parser.parse_args()
    check_procedure(arguments.procedure)
    if arguments.mistakes and arguments.procedure != GEARBOX.name:
        parser.error(f"--mistakes knows those of {GEARBOX.name} only")
    workbench = PROCEDURES[arguments.procedure]
    names = list(workbench.steps)

    def follow(session: Session) -> Followed:
        return follow_labels(labels_of(session, names), len(names), round(DELAY_S * HZ))

    normal = [follow(sample_session(np.random.default_rng([5, n]), procedure=workbench)) for n in range(NORMAL)]
    minutes = sum(len(video.probability) for video in normal) * EVERY_TICKS / HZ / 60
    mistakes = []
    if workbench is GEARBOX:
        made = [sample_mistake(kind, 77, n) for kind in KINDS for n in range(EACH)]
        mistakes = [(each.kind, {names.index(step) for step in each.steps}, follow(each.session)) for each in made]
    print("| lists | false deviations in ten minutes: mean, most of a draw | " + " | ".join(KINDS) + " |")
    print("|---:|---:|" + "---:|" * len(KINDS))
    for lists in LISTS:
        false, named = [], {kind: 0 for kind in KINDS}
        for draw in range(arguments.draws):
            rng = np.random.default_rng([3, lists, draw])
            shown = [labels_of(sample_session(rng, procedure=workbench), names) for _ in range(lists)]
            seed = 1000 + 100 * lists + draw
            drawn = [sample_mistake(KINDS[n % len(KINDS)], seed, n).session for n in range(arguments.mistakes)]
            wrong = [labels_of(session, names) for session in drawn]
            procedure = learn_procedure(shown, names, HZ, rules_false=arguments.most_false, mistakes=wrong)
            false.append(10 * sum(len(found(procedure, video)) for video in normal) / minutes)
            for kind, steps, video in mistakes:
                named[kind] += any(kind == k and steps & told for k, told in found(procedure, video))
        shares = [f"{100 * count / EACH / arguments.draws:.0f} %" if mistakes else "-" for count in named.values()]
        print(f"| {lists} | {np.mean(false):.1f}, {max(false):.1f} | " + " | ".join(shares) + " |", flush=True)


if __name__ == "__main__":
    main()
