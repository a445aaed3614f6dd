"""The checker itself: it has to notice what is wrong, in all three formats."""

import json
from pathlib import Path
from typing import Any

import check
import pytest
import torch
from adapters import ADAPTERS
from check import main
from loading import Case, Skip, find, load
from safetensors.torch import save_file
from torch import Tensor

X = torch.tensor([1.0, 2.0, 4.0])


def write(folder: Path, meta: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{meta['name']}.json"
    path.write_text(json.dumps({"variant": "test", **meta}))
    save_file({key: value.clone() for key, value in tensors.items()}, path.with_suffix(".safetensors"))
    return path


def contrastive(folder: Path, tensors: dict[str, Tensor], **sub: Any) -> Case:
    meta = {"name": "double", "tolerance_hint": "float32: rtol 1e-5, atol 1e-6; float64 keys: rtol 1e-9"}
    meta["subcases"] = [{"id": "s", "hyper": {"factor": 2}, "nonfinite": [], **sub}]
    path = write(folder / "contrastive", meta, {f"s/{key}": value for key, value in tensors.items()})
    return load(path, json.loads(path.read_text()))[0]


def double(case: Case) -> dict[str, Any]:
    return {"out.y": case.hyper["factor"] * case.inputs["x"]}


def problems(case: Case, adapter: Any = double) -> str:
    verdict = check.check(case, adapter)
    return "\n".join(verdict.messages) if verdict.outcome == "failed" else ""


def test_equal_numbers_pass(tmp_path: Path) -> None:
    assert problems(contrastive(tmp_path, {"in.x": X, "out.y": 2 * X})) == ""


@pytest.mark.parametrize("wrong", [2 * X + 1e-4, 2.001 * X, -2 * X, 2 * X[:2], torch.tensor([2.0, 4.0, torch.nan])])
def test_other_numbers_fail(tmp_path: Path, wrong: Tensor) -> None:
    case = contrastive(tmp_path, {"in.x": X, "out.y": 2 * X})
    assert "out.y" in problems(case, lambda case: {"out.y": wrong})


def test_the_largest_error_is_named(tmp_path: Path) -> None:
    case = contrastive(tmp_path, {"in.x": X, "out.y": 2 * X + torch.tensor([0.0, 0.5, 0.0])})
    assert "largest error 0.5" in problems(case)


def test_a_result_that_is_left_out_fails(tmp_path: Path) -> None:
    case = contrastive(tmp_path, {"in.x": X, "out.y": 2 * X, "out.z": X})
    assert problems(case) == "out.z: not returned"


def test_an_exception_fails_and_a_skip_skips(tmp_path: Path) -> None:
    case = contrastive(tmp_path, {"in.x": X, "out.y": 2 * X})

    def broken(case: Case) -> dict[str, Any]:
        raise KeyError("nothing")

    def skipping(case: Case) -> dict[str, Any]:
        raise Skip("no tokenizer here")

    assert "KeyError at test_check.py" in problems(case, broken)
    assert check.check(case, skipping).outcome == "skipped"


def test_float64_is_held_to_more_digits(tmp_path: Path) -> None:
    case = contrastive(tmp_path, {"in.x": X, "out64.y": 2 * X.double()})
    assert problems(case, lambda case: {"out64.y": 2 * X.double() + 1e-12}) == ""
    assert "out64.y" in problems(case, lambda case: {"out64.y": 2 * X.double() + 1e-7})


def test_gradients_are_relative_to_their_largest_entry(tmp_path: Path) -> None:
    case = contrastive(tmp_path, {"in.x": X, "grad.x": 1000 * X})
    assert problems(case, lambda case: {"grad.x": 1000 * X + 2}) == ""
    assert "grad.x" in problems(case, lambda case: {"grad.x": 1000 * X + 6})


def test_where_the_official_result_is_not_finite_ours_is_finite_and_equals_float64(tmp_path: Path) -> None:
    nan = torch.full_like(X, torch.nan)
    case = contrastive(tmp_path, {"in.x": X, "out.y": nan, "out64.y": 2 * X.double()}, nonfinite=["s/out.y"])
    right = {"out.y": 2 * X, "out64.y": 2 * X.double()}
    assert problems(case, lambda case: right) == ""
    assert "not finite" in problems(case, lambda case: {**right, "out.y": nan})
    assert "out.y" in problems(case, lambda case: {**right, "out.y": X})


def test_integers_are_exact(tmp_path: Path) -> None:
    case = contrastive(tmp_path, {"in.x": X, "out.y": torch.tensor([1, 2, 3])})
    assert problems(case, lambda case: {"out.y": torch.tensor([1, 2, 3])}) == ""
    assert "1 of 3" in problems(case, lambda case: {"out.y": torch.tensor([1, 2, 4])})


def test_a_judge_may_stand_in_for_numbers(tmp_path: Path) -> None:
    case = contrastive(tmp_path, {"in.x": X, "out.y": torch.tensor([0, 1, 1])})

    def same_count(official: Tensor) -> None:
        assert official.sum() == 3, "another number of masked patches"

    assert problems(case, lambda case: {"out.y": same_count}).startswith("out.y: another number of masked patches")


def test_state_dicts_before_are_inputs_and_after_are_results(tmp_path: Path) -> None:
    case = contrastive(tmp_path, {"state/a.weight": X, "state_after/a.weight": 2 * X})
    assert case.state["a.weight"].equal(X)
    assert problems(case, lambda case: {"state_after/a.weight": 2 * case.state["a.weight"]}) == ""


def test_masked_format(tmp_path: Path) -> None:
    roles = {"x": "input", "y": "output", "grad/w": "gradient", "state/w": "state"}
    meta = {
        "name": "m",
        "hyperparameters": {"factor": 2},
        "tensors": {key: {"role": role} for key, role in roles.items()},
        "tolerance": {"rtol": 1e-4, "atol": 1e-5},
        "extra": {"groups": [{"name": "a", "lr": 0.1}]},
    }
    path = write(tmp_path, meta, {"x": X, "y": 2 * X, "grad/w": X, "state/w": 3 * X})
    (case,) = load(path, json.loads(path.read_text()))
    right = {"y": 2 * case.inputs["x"], "grad/w": X}
    assert case.state["w"].equal(3 * X)
    assert problems(case, lambda case: right) == ""
    assert problems(case, lambda case: {"y": 2 * X}) == "grad/w: not returned"
    assert problems(case, lambda case: right | {"extra.groups": [{"name": "a", "lr": 0.1 + 1e-9}]}) == ""
    assert "extra.groups.0.lr" in problems(case, lambda case: right | {"extra.groups": [{"name": "a", "lr": 0.2}]})


def test_clip_sam_format_asks_for_whatever_was_not_read(tmp_path: Path) -> None:
    meta = {"name": "c", "kind": "function", "hyperparameters": {}, "tensors": {}}
    path = write(tmp_path, meta, {"x": X, "y": 2 * X, "z": 3 * X})
    (case,) = load(path, json.loads(path.read_text()))
    assert problems(case, lambda case: {"y": 2 * case.inputs["x"], "z": 3 * X}) == ""
    (case,) = load(path, json.loads(path.read_text()))
    assert problems(case, lambda case: {"y": 2 * case.inputs["x"]}) == "z: not returned"


def test_the_command_counts_subcases_and_fails_without_an_adapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    contrastive(tmp_path, {"in.x": X, "out.y": 2 * X})
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"
    monkeypatch.setitem(ADAPTERS["contrastive"], "double", double)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"
    assert main([str(tmp_path), "--only", "triple"]) == 1
    assert main([str(tmp_path / "nowhere")]) == 2


def test_layouts_and_other_json_files_are_not_cases(tmp_path: Path) -> None:
    (tmp_path / "layout.json").write_text('{"cls_token": [[1, 1, 768], "float32"]}')
    (tmp_path / "list.json").write_text("[1, 2]")
    assert list(find(tmp_path)) == []
