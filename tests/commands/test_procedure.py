"""`edge-hal procedure`: the table, faults with their lines, the picture, and what differs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from edge_hal.calib.learn_procedure import learn_procedure
from edge_hal.cli import app
from edge_hal.commands.draw_procedure import draw, layout
from edge_hal.commands.procedure import reduced_requires
from edge_hal.errors import EdgeHalError
from edge_hal.procedure.rules import Procedure
from tests.helpers.bundles import AT_ONCE, LABELS, known_bundle


def learned() -> Procedure:
    return learn_procedure([np.repeat([0, 1, 2], 20)] * 8, LABELS, 10.0)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    decoder = AT_ONCE.from_dict({**AT_ONCE.to_dict(), "procedure": learned().to_dict()})
    return known_bundle(tmp_path / "bundle", decoder=decoder).path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["procedure", *map(str, arguments)])


def test_show_prints_the_rules_and_as_json_every_field(bundle: Path) -> None:
    lines = call("show", bundle).output.splitlines()
    assert [line.split()[0] for line in lines] == ["step", *LABELS]
    assert "begins" in lines[1] and "ends" in lines[3] and "green" in lines[3] and "blue" not in lines[3]
    data = json.loads(call("show", bundle, "--json").output)
    assert data["red"]["requires"].keys() == {"blue", "green"} and data["red"]["not_after"] == {}


def test_check_names_each_line_and_fails(bundle: Path) -> None:
    assert "no fault" in call("check", bundle).output
    path = bundle / "procedure.json"
    path.write_text(path.read_text().replace('"optional": false', '"optional": "no"'))
    result = call("check", bundle)
    lines = [number for number, line in enumerate(path.read_text().splitlines(), 1) if '"optional"' in line]
    assert [line.split(":")[1] for line in result.output.splitlines()] == [str(number) for number in lines]
    assert isinstance(result.exception, EdgeHalError) and result.exception.exit_code == 1
    shown = call("show", bundle).exception
    assert isinstance(shown, EdgeHalError) and f"line {lines[0]}" in shown.what


def test_check_tells_what_the_background_says_in_vain_and_does_not_fail(bundle: Path) -> None:
    path = bundle / "procedure.json"
    data = json.loads(path.read_text())
    for step in data.values():
        for field in ("requires", "not_after", "begins_cycle", "ends_cycle", "optional", "repeatable"):
            step.pop(field, None)
    data["green"] |= {"background": True, "overdue_s": 5}
    path.write_text(json.dumps(data, indent=1))
    [line] = [number for number, text in enumerate(path.read_text().splitlines(), 1) if '"overdue_s": 5' in text]
    result = call("check", bundle)
    told, summary = result.output.splitlines()
    assert result.exit_code == 0 and "no fault" in summary
    assert told == f"{path}:{line}: step 'green': overdue_s has no effect on the background"
    [row] = [row.split() for row in call("show", bundle).output.splitlines() if row.startswith("green")]
    assert row[3] == "-"  # no limit


def test_a_byte_order_mark_is_no_fault_as_for_a_run(bundle: Path) -> None:
    file = bundle / "procedure.json"
    before = call("show", bundle).output
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert call("check", bundle).exit_code == 0
    assert call("show", file).output == before


def test_no_control_character_of_a_name_is_printed(bundle: Path, tmp_path: Path) -> None:
    """A bundle of another program may have a model with such a name."""
    file, manifest = bundle / "procedure.json", bundle / "manifest.json"
    other = tmp_path / "other.json"
    other.write_text(file.read_text())
    for path in (file, manifest):
        path.write_text(path.read_text().replace('"red"', '"\\u001b[31mred\\n"'))
    outputs = [call("show", bundle).output, call("diff", bundle, other).output]
    (tmp_path / "alone.json").write_text(file.read_text())
    outputs.append(call("check", tmp_path / "alone.json").output)
    error = call("show", tmp_path / "alone.json").exception
    assert isinstance(error, EdgeHalError)
    outputs.append(error.why)
    for output in outputs:
        assert "\\x1b[31mred\\n" in output and "\x1b" not in output and "red\n" not in output.replace("red\\n", "")


def test_check_of_a_bundle_knows_the_labels_of_its_model(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "procedure.json"
    path.write_text(path.read_text().replace('"red"', '"pink"'))
    assert "'red'" in call("check", bundle).output
    alone = tmp_path / "alone.json"
    alone.write_text(path.read_text())
    assert "no fault" in call("check", alone).output


@pytest.mark.parametrize(("name", "magic"), [("p.svg", b"<?xml"), ("p.png", b"\x89PNG")])
def test_plot_writes_the_picture(bundle: Path, tmp_path: Path, name: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib")
    assert call("plot", bundle, "--out", tmp_path / name).exit_code == 0
    content = (tmp_path / name).read_bytes()
    assert content.startswith(magic) and len(content) > 2000


def test_a_step_is_drawn_as_it_is_called_and_characters_without_a_shape_are_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    pytest.importorskip("matplotlib")
    names = ["a $\\frac$", "\u65e5\u672c", "\x1b[31m"]
    steps = learn_procedure([np.repeat([0, 1, 2], 20)] * 8, names, 10.0)
    draw(steps, {name: [] for name in names}, tmp_path / "p.svg")
    assert capfd.readouterr().err.count("the font lacks characters") == 1 and not recwarn.list
    assert "$" in (tmp_path / "p.svg").read_text()


def test_plot_refuses_other_kinds_of_files(bundle: Path, tmp_path: Path) -> None:
    error = call("plot", bundle, "--out", tmp_path / "p.gif").exception
    assert isinstance(error, EdgeHalError) and error.exit_code == 2


def test_diff_prints_each_field_that_differs(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    data = learned().to_dict()
    data["red"]["median_s"], data["red"]["optional"] = 9.0, True
    del data["red"]["requires"]["blue"]
    other.write_text(json.dumps(data))
    lines = call("diff", bundle, other).output.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["red:", "median_s"],
        ["red:", "requires.blue"],
        ["red:", "optional"],
    ] or sorted(line.split()[1] for line in lines) == ["median_s", "optional", "requires.blue"]
    assert call("diff", bundle, bundle).output == "no difference\n"
    found = json.loads(call("diff", bundle, other, "--json").output)
    assert {"step": "red", "field": "optional", "before": False, "after": True} in found


def test_a_bundle_without_procedure_is_one_error(tmp_path: Path) -> None:
    path = known_bundle(tmp_path / "bundle").path
    for command in ("show", "check", "plot"):
        error = call(command, path).exception
        assert isinstance(error, EdgeHalError) and "has no procedure" in error.what


def test_a_step_is_drawn_to_the_right_of_all_that_it_requires() -> None:
    rng = np.random.default_rng(0)
    order = [[0, *(1 + rng.permutation(3)).tolist(), 4] for _ in range(30)]
    names = tuple("abcde")
    procedure = learn_procedure([np.repeat(steps, 60) for steps in order], names, 10.0)
    requires = reduced_requires(procedure)
    assert sorted(requires["e"]) == ["b", "c", "d"] and requires["b"] == ["a"]
    at = layout(procedure, requires)
    assert all(at[before][0] < at[name][0] for name, needs in requires.items() for before in needs)
    assert len(set(at.values())) == len(names)
