"""Configuration: presets, files and overrides in, one clear error for everything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from edge_hal.config import PRESETS, Config, load_config, parse_config
from edge_hal.decoding.decoder_config import THRESHOLDS
from edge_hal.errors import EdgeHalError

SMALL: dict[str, Any] = {"model": {"levels": [{"window": 4, "width": 8}]}}
PRESET_NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))


def refused(source: str | Path, *overrides: str) -> EdgeHalError:
    with pytest.raises(EdgeHalError) as caught:
        load_config(str(source), overrides)
    assert caught.value.exit_code == 2
    return caught.value


def keys_of(model: type[BaseModel] = Config, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every section a configuration may hold."""
    found = [path]
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and name != "levels":
                found += keys_of(kind, (*path, name))
    return found


def test_there_are_presets_and_each_survives_being_written_and_read(tmp_path: Path) -> None:
    assert {"tiny", "kinematics", "jetson"} <= set(PRESET_NAMES)
    for name in PRESET_NAMES:
        config = load_config(name)
        copy = tmp_path / f"{name}-copy.yaml"
        copy.write_text(config.to_yaml())
        assert load_config(str(copy)) == config


def test_an_override_changes_its_key_and_no_other() -> None:
    plain = load_config("tiny").model_dump()
    changed = load_config(
        "tiny",
        ["learning.student.epochs=3", "data.rate_hz=12.5", "learning.teacher.realign_every=2", "data.background=~"],
    ).model_dump()
    plain["learning"]["student"]["epochs"] = 3
    plain["learning"]["teacher"]["realign_every"] = 2
    plain["data"]["rate_hz"] = 12.5
    assert changed == plain
    assert load_config("tiny", ["learning.student.epochs=3", "learning.student.epochs=4"]).learning.student.epochs == 4
    assert load_config("tiny", ["learning.student.lr=1e-4"]).learning.student.lr == 1e-4  # YAML calls it a text
    levels = load_config("tiny", ["model.levels=[{window: 4, width: 8}]"]).model.levels
    assert [(level.window, level.width, level.stride) for level in levels] == [(4, 8, 1)]


@settings(max_examples=50, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "rate_hz": st.none() | st.floats(0.1, 1000),
            "background": st.none() | st.text(),
            "layout": st.sampled_from([None, "DT", "TD"]),
        }
    ),
    st.floats(1e-9, 1.0),
    st.none() | st.integers(1, 9),
    st.fixed_dictionaries({}, optional={name: st.floats(0.01, 0.99) for name in THRESHOLDS}),
    st.none() | st.text("abc/. é", min_size=1),
)
def test_any_configuration_survives_yaml(
    data: dict[str, Any], lr: float, realign: int | None, decoder: dict[str, float], onnx: str | None
) -> None:
    tree = {
        "model": {**SMALL["model"], "encoder": {"onnx": onnx}},
        "data": data,
        "learning": {"student": {"lr": lr}, "teacher": {"realign_every": realign}},
        "decoder": decoder,
    }
    config = parse_config(tree, "here")
    assert config.data.background == data["background"] and config.decoder.given() == decoder
    assert parse_config(yaml.safe_load(config.to_yaml()), "there") == config
    assert parse_config(json.loads(config.model_dump_json()), "there") == config


@pytest.mark.parametrize("path", keys_of(), ids=".".join)
def test_an_unknown_key_is_named_with_the_nearest_at_any_depth(path: tuple[str, ...]) -> None:
    model: Any = Config
    for part in path:
        kinds = [model.model_fields[part].annotation, *getattr(model.model_fields[part].annotation, "__args__", ())]
        model = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    for known in model.model_fields:
        slip = known[:-1] + "x" if len(known) > 2 else known + "x"
        if slip in model.model_fields:
            continue
        error = refused("tiny", ".".join([*path, slip]) + "=1")
        assert f"unknown key '{'.'.join([*path, slip])}'" in error.what
        assert f"'{known}'" in error.todo, (slip, error.todo)


def test_an_unknown_key_inside_a_list_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("model: {levels: [{window: 4, width: 8}, {stride: 2, windw: 4, width: 8}]}")
    error = refused(path)
    assert "model.levels.1.windw" in error.what and "'window'" in error.todo and str(path) in error.what


def test_a_key_like_no_other_gets_the_list_of_those_there_are() -> None:
    error = refused("tiny", "data.zzzzzz=1")
    assert "rate_hz" in error.todo and "background" in error.todo


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "model: {levels: [",
        "model: {levels: []}",
        "model: {levels: 5}",
        "model: &a [*a]",
        "model: {levels: [{window: 4}]}",
        "model: {levels: [{window: 4, width: wide}]}",
        "model: {levels: [{window: 4, width: 8, heads: 3}]}",
        "model: {levels: [{window: 4, width: 8}, {window: 4, width: 8}]}",
        "2020-99-99",
        "1: {}",
        "model:",
    ],
)
def test_a_file_that_is_no_configuration_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert str(path) in refused(path).what


def test_a_file_of_bytes_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00\x9f")
    assert "cannot read" in refused(tmp_path / "c.yaml").what
    for source in (tmp_path, tmp_path / "none.yaml", "tinny"):
        error = refused(source)
        assert str(source) in error.what and all(name in error.todo for name in PRESET_NAMES)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.model_hz=0", "model.model_hz"),
        ("model.model_hz=2000", "model_hz"),
        ("model.lookback_s=.inf", "model.lookback_s"),
        ("model.front_end_window_s=1e6", "front_end.window"),
        ("model.encoder.height=0", "encoder"),
        ("data.rate_hz=-30", "data.rate_hz"),
        ("data.rate_hz=.nan", "data.rate_hz"),
        ("data.layout=TDD", "data.layout"),
        ("learning.restarts=0", "learning.restarts"),
        ("learning.dropout=1", "learning.dropout"),
        ("learning.student.batch=0", "learning.student.batch"),
        ("learning.student.lr=-1", "learning.student.lr"),
        ("learning.student.epochs=2.5", "learning.student.epochs"),
        ("learning.encoder.hz=0", "learning.encoder.hz"),
        ("learning.teacher.realign_every=0", "learning.teacher.realign_every"),
        ("learning.teacher.levels=[{window: 8, width: 10, heads: 4}]", "levels[0].width"),
        ("learning.weights.kl=.nan", "learning.weights.kl"),
        ("decoder.margin=1", "decoder.margin"),
        ("decoder.smooth_s=-1", "decoder.smooth_s"),
        ("model=3", "model"),
        ("model.levels.0.window=3", "levels"),
        ("data.rate_hz", "key.path=value"),
        ("=3", "key.path=value"),
        ("data.rate_hz={", "data.rate_hz"),
    ],
)
def test_an_impossible_value_is_refused_before_anything_is_read(override: str, named: str) -> None:
    """Each of these would otherwise fail, or be ignored, minutes later."""
    assert named in str(refused("tiny", override))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["model", "levels", "data", "learning", "window", "width", "student", "decoder"])
                | st.text(),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).filter(lambda tree: isinstance(tree, dict))
)
def test_whatever_a_file_holds_it_is_a_configuration_or_one_clear_error(tree: Any) -> None:
    for data in (tree, {**SMALL, **tree}):
        try:
            assert isinstance(parse_config(data, "here"), Config)
        except EdgeHalError as error:
            assert error.exit_code == 2 and error.what.startswith("here: ")


@pytest.mark.parametrize("word", ["off", "no", "y", "true", "null", "1e3", "012", "0x1f", "2020-99-99", "1.50", ".nan"])
def test_words_that_yaml_takes_for_something_else_are_text(tmp_path: Path, word: str) -> None:
    config = load_config("kinematics", [f"data.background={word}", f"learning.labelled=[{json.dumps(word)}, no]"])
    assert config.data.background == word and config.learning.labelled == (word, "no")
    path = tmp_path / "c.yaml"
    path.write_text(config.to_yaml())
    assert load_config(str(path)) == config
    if word != "null":
        path.write_text(f"model: {{levels: [{{window: 4, width: 8}}]}}\ndata: {{background: {word}}}\n")
        assert load_config(str(path)).data.background == word
    assert load_config("kinematics", ["data.background=~"]).data.background is None


def test_a_coarse_copy_is_offered_where_the_graph_is_made_here() -> None:
    kinds = {"own": 6, "efficientnet-lite0": 6, "timm:resnet18": 6, "onnx:net.onnx": 0}
    for kind, rows in kinds.items():
        encoder = load_config("tiny", [f"model.encoder.kind={kind}"]).model.encoder
        assert encoder is not None and encoder.spec(10.0).coarse == rows, kind
    assert "coarse" in refused("tiny", "model.encoder.kind=onnx:net.onnx", "model.encoder.coarse=3").why
    assert "coarse" in refused("tiny", "model.encoder.coarse=-1").what


def test_a_baseline_is_asked_for_in_seconds() -> None:
    def ticks(preset: str, *given: str) -> int:
        return load_config(preset, given).model.baseline_ticks

    assert ticks("tiny") == ticks("kinematics") == 0
    assert ticks("tiny", "model.baseline_s=4") == ticks("kinematics", "model.baseline_s=4") == 40
    assert ticks("tiny", "model.baseline_s=4", "model.model_hz=5") == 20
    assert ticks("tiny", "model.baseline_s=0.01") == 2  # one tick alone has no deviation
