"""`benchmarks/deviations.py` on made assemblies whose mistakes are known, and on the real ones where they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deviations import _measured, leave_one_out, one_class, read
from step_graph import likeness

from edge_hal.errors import EdgeHalError
from tests.helpers.processes import REPOSITORY

ORDER = ("frame", "axle", "wheel", "roof", "lamp", "door")
REAL = REPOSITORY.parent / "shared/data/assembly101_mistakes/sequences.csv"


def rows(name: str, toy: str, steps: list[tuple[str, str, str, str]]) -> list[str]:
    """(verb, part, label, remark) a step; every part goes on the body."""
    return [f"{name},{toy},0,1,{verb},{part},body,{label},{remark}" for verb, part, label, remark in steps]


def made(path: Path, seed: int, count: int = 30) -> Path:
    """Half of the sequences have a mistake: a part too early, or one taken off. Lamp and door may change places."""
    rng, lines = np.random.default_rng(seed), ["sequence,toy,start_s,end_s,verb,this,that,label,remark"]
    for number in range(count):
        order = list(ORDER)
        if rng.random() < 0.5:
            order[4:] = reversed(order[4:])
        steps = [("attach", part, "correct", "") for part in order]
        if number % 4 == 1:
            at = int(rng.integers(0, 2))
            steps[at:at] = [("attach", "roof", "mistake", "wrong order"), ("detach", "roof", "correction", "")]
        elif number % 4 == 3:
            at = int(rng.integers(1, 5))
            steps.insert(at + 1, ("detach", order[at], "mistake", "shouldn't have happened"))
        lines += rows(f"s{number}", f"a0{number % 3}a", steps)
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*arguments: object) -> Any:
    command = [sys.executable, REPOSITORY / "benchmarks/deviations.py", *arguments]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_mistakes_of_order_are_found_and_baselines_are_what_they_say(tmp_path: Path) -> None:
    found = run(made(tmp_path / "a.csv", 0))
    one = found["one_class"]
    assert one["tested"]["mistakes"] == one["tested"]["sequences"] == 15
    scores = one["scores"]
    assert scores["never"]["f1"] == 0 and scores["always"] == {"precision": 50.0, "recall": 100.0, "f1": 66.7}
    assert scores["ours"]["f1"] > 90 and scores["ours"]["f1"] >= scores["bigram"]["f1"] - 5
    every = found["leave_one_out"]
    assert every["tested"]["wrong_order"] == 8 and every["scores"]["never"]["all"]["f1"] == 0
    ours, always = (every["scores"][name]["wrong_order"] for name in ("ours", "always"))
    assert ours["recall"] == 100 and ours["f1"] > 3 * always["f1"]
    for spread, f1 in ((one["spread"]["ours"], scores["ours"]["f1"]), (every["spread_of_wrong_order"], ours["f1"])):
        assert spread["f1_p5"] <= f1 <= spread["f1_p95"]


def test_other_toys_are_judged_by_what_was_learned_elsewhere(tmp_path: Path) -> None:
    made(tmp_path / "a.csv", 0)
    other = made(tmp_path / "b.csv", 1, count=12)
    other.write_text(other.read_text().replace(",a0", ",z9"))
    found = run(other, "--train", tmp_path / "a.csv")
    assert found["one_class"]["learned_from"]["sequences"] == 15 and found["train"] == "a.csv"
    assert found["one_class"]["scores"]["ours"]["f1"] > 85
    # Rules of other toys are better than none.
    assert found["one_class"]["scores"]["procedure"]["f1"] > 85


HEADER = "sequence,toy,verb,this,that,label,remark"
JOINED = [("attach", part, "correct", "") for part in ORDER]
FALSE = ("attach", "roof", "mistake", "wrong order")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a,b\n1,2\n", "no column 'sequence', but a, b"),
        ("", "no column"),
        (HEADER + "\n", "no steps"),
        (HEADER + "\ns0,t\n", "line 2: 'this' is empty"),
        (HEADER + "\ns0,t,attach,a,b,fine,\n", "line 2: the label is 'fine'"),
        (HEADER + '\ns0,t,attach,"a,b,correct,', "cannot read"),
        (HEADER + "\ns0,t,attach,a,b,mistake,early, and wrong\n", "line 2: it has more cells"),
        (HEADER + ",label\ns0,t,attach,a,b,mistake,,correct\n", "more than one column 'label'"),
    ],
)
def test_another_file_is_one_error(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(EdgeHalError, match=what):
        read(tmp_path / "x.csv")


def test_a_byte_order_mark_capitals_and_blanks_change_nothing(tmp_path: Path) -> None:
    plain = read(made(tmp_path / "a.csv", 0))
    text = (tmp_path / "a.csv").read_text().replace(",correct,", ", Correct ,").replace("attach", "Attach")
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read(tmp_path / "b.csv") == plain


@pytest.mark.parametrize(
    ("sequences", "measured"),
    [
        ([JOINED], []),  # one sequence
        ([JOINED, JOINED], ["leave_one_out"]),  # no mistake
        ([[*JOINED, FALSE]] * 3, ["leave_one_out"]),  # none without a mistake
        ([JOINED, JOINED, [FALSE]], ["one_class", "leave_one_out"]),  # no correct step is tested
        ([[("detach", "roof", "correct", "")]] * 4, []),
    ],
)
def test_what_cannot_be_measured_is_said_and_json_has_no_nan(
    tmp_path: Path, sequences: list[list[tuple[str, str, str, str]]], measured: list[str]
) -> None:
    lines = ["sequence,toy,start_s,end_s,verb,this,that,label,remark"]
    for number, steps in enumerate(sequences):
        lines += rows(f"s{number}", f"toy{number}", steps)
    (tmp_path / "x.csv").write_text("\n".join(lines))
    given = read(tmp_path / "x.csv")
    found = {protocol.__name__: _measured(protocol, given, given) for protocol in (one_class, leave_one_out)}
    json.dumps(found, allow_nan=False)
    assert [name for name, scores in found.items() if "not_measured" not in scores] == measured


def test_the_baseline_gives_the_numbers_that_are_counted_by_hand(tmp_path: Path) -> None:
    """Columns in another order, a quoted comma, other letters. a, b and c are parts that go on the body."""
    given = {
        "s0": ["a correct", "b correct", "c correct"],
        "s1": ["a correct", "b correct", "c correct"],
        "s2": ["a correct", "c mistake wrong order", "b correction"],
        "s3": ["a correct", "b correct", "d mistake"],
        "s4": ["b correct", "a correct", "c mistake"],
    }
    names = {"a": '"wheel, left"', "b": "Räder", "c": "車", "d": '"the ""d"""'}
    lines = ["remark,label,that,this,verb,toy,sequence"]
    for name, steps in given.items():
        for part, label, remark in (f"{step} ".split(" ", 2) for step in steps):
            lines.append(f"{remark.strip()},{label},body,{names[part]},attach,t1,{name}")
    (tmp_path / "x.csv").write_text("\n".join(lines))
    sequences = read(tmp_path / "x.csv")
    assert [row.step.this for row in sequences[3].rows] == ["wheel, left", "Räder", 'the "d"']
    # Learned from s0 and s1. Of s2, s3 and s4 up to the mistake it calls all 3 mistakes, and of 5 correct steps the
    # first two of s4: precision 1 / (1 + 2/5).
    one = one_class(sequences, sequences)["scores"]
    assert one["bigram"] == {"precision": 71.4, "recall": 100.0, "f1": 83.3}
    # 6 of 15 steps are called: (a, c), (c, b) in s2, (b, d) in s3, all of s4. All 3 mistakes are among them.
    every = leave_one_out(sequences, sequences)["scores"]
    assert every["bigram"]["all"] == {"precision": 50.0, "recall": 100.0, "f1": 66.7}
    assert every["bigram"]["wrong_order"] == {"precision": 16.7, "recall": 100.0, "f1": 28.6}
    assert every["always"]["all"] == {"precision": 20.0, "recall": 100.0, "f1": 33.3}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("c09b", "c09b", 0),
        ("c09b", "c09c", 1),
        ("c09", "c09c", 1),
        ("c09b", "c10b", 2),
        ("c09b", "b09b", 3),
        ("excavator", "crane", 3),  # no number: nothing says that they are variants
        ("excavator", "excavators", 3),
        ("crane 1", "crane 2", 2),
        ("車1a", "車1b", 1),
    ],
)
def test_products_are_alike_by_the_number_in_their_names(a: str, b: str, expected: int) -> None:
    assert likeness(a, b) == likeness(b, a) == expected


@pytest.mark.filterwarnings("error")
def test_a_fold_without_a_correct_step_is_judged(tmp_path: Path) -> None:
    lines = ["sequence,toy,start_s,end_s,verb,this,that,label,remark"]
    for number in range(6):  # without the fold of the first and the last, no list has a step
        label = "correct" if number in (0, 5) else "mistake"
        lines += rows(f"s{number}", "a1", [("attach", "roof", label, "")])
    (tmp_path / "x.csv").write_text("\n".join(lines))
    given = read(tmp_path / "x.csv")
    json.dumps(leave_one_out(given, given), allow_nan=False)


def test_lists_without_a_common_step_are_judged(tmp_path: Path) -> None:
    lines = ["sequence,toy,start_s,end_s,verb,this,that,label,remark"]
    for number in range(4):
        steps = [("attach", f"{part}{number}", "mistake" if number == 3 else "correct", "") for part in ORDER]
        lines += rows(f"s{number}", f"toy{number}", steps)
    (tmp_path / "x.csv").write_text("\n".join(lines))
    given = read(tmp_path / "x.csv")
    json.dumps([one_class(given, given), leave_one_out(given, given)], allow_nan=False)


@pytest.mark.slow
def test_the_baseline_on_the_real_sequences_is_the_one_that_was_measured() -> None:
    if not REAL.is_file():
        pytest.skip("the recordings are not here")
    found = run(REAL)
    assert found["one_class"]["scores"]["bigram"] == {"precision": 67.3, "recall": 72.9, "f1": 70.0}
    assert found["one_class"]["scores"]["ours"]["f1"] > 75
    assert found["one_class"]["scores"]["procedure"]["f1"] > 70
    orders = {name: each["wrong_order"]["f1"] for name, each in found["leave_one_out"]["scores"].items()}
    assert orders["ours"] == max(orders.values())
