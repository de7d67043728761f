"""A search from a space to served rows that `optkit run` repeats, on a tiny task; and what modules cost."""

import csv
import io
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from transformers import BertModel

from optkit.benchmark import search as tuning
from optkit.core.json_door import read_json
from optkit.engines import conversion_file
from optkit.pipeline import module_costs, run_spec, search_trials
from tests.conftest import main_ends

pytestmark = pytest.mark.server

SPACE = {
    "techniques": [["quantize"], ["distill"]],
    "settings": {
        "distill.layers": [0.5],
        "distill.representation_epochs": [0],
        "quantize.epochs": [0],
        "quantize.calibrator": ["max", "mse"],
        "quantize.keep_float": [[], "auto"],
        "quantize.calibration_examples": [32],
    },
    "start": [{"techniques": ["quantize"], "quantize.calibrator": "mse", "quantize.keep_float": "auto"}],
}
TRAINING = ["--epochs", "3", "--learning-rate", "3e-3", "--batch-size", "16", "--engine", "onnxruntime", "--name", "found"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_config, tiny_tokenizer, tiny_data):
    """A folder with a pretrained model, a space, and the options of all commands."""
    place = tmp_path_factory.mktemp("search")
    torch.manual_seed(0)
    BertModel(tiny_config).save_pretrained(place / "model")
    tiny_tokenizer.save_pretrained(place / "model")
    (place / "space.json").write_text(json.dumps(SPACE))
    return place


@pytest.fixture
def options(folder: Path, tiny_data: Path, monkeypatch) -> list[str]:
    """The options of all commands, which measure for a short time."""
    monkeypatch.setattr(run_spec, "SECONDS", 0.05)
    for module in (module_costs, search_trials):
        monkeypatch.setattr(module, "SECONDS", 0.1)
    monkeypatch.setattr(tuning, "LEAST_S", 0.1)
    monkeypatch.setattr(tuning, "MOST_ROUNDS", 2)
    monkeypatch.chdir(folder)
    return ["--task", "classification", "--data", str(tiny_data), "--model", str(folder / "model"), *TRAINING]


def test_a_search_goes_on_and_is_repeated(folder: Path, options: list[str], capsys) -> None:
    search = ["search", *options, "--goal", "size", "--max-drop", "100", "--space", "space.json"]
    search += ["--finalists", "1", "--seed", "0", "--trial-share", "0.5", "--out", "out"]
    main_ends([*search, "--trials", "1"], 0)
    first = read_json(folder / "out" / "report.json")
    assert [len(one["stages"]) for one in first["trials"]] == [0, 1], "the baseline, and what the space starts with"
    assert first["trials"][1]["stages"][0]["keep_float"] == "auto"
    main_ends([*search, "--trials", "3"], 0)
    shown = capsys.readouterr()
    report = read_json(folder / "out" / "report.json")
    assert report["trials"][1] == first["trials"][1], "it goes on: the first trial is not run again"
    assert report["dev"]["chosen_on"] + report["dev"]["reported_on"] + report["dev"]["left_out"] == 64
    best, baseline = report["finals"][0], next(one for one in report["finals"] if one["file"] is None)
    assert best["size_bytes"] < baseline["size_bytes"] and baseline["reported_on"] == [0, 0, 0]
    assert best["verdict_chosen_on"] == "pass" and "the best within the budget" in report["said"][0]
    assert (
        "never saw" in report["said"][1]
        and best["recipe"] in shown.out
        and (folder / "out" / "front.png").stat().st_size > 9000
    )
    served = next(folder.glob(f"checkpoints/classification/found/{best['recipe']}/seed-0/served/record.json"))
    before = served.stat().st_mtime_ns
    said = shown.out + shown.err
    for command, more in (("tune", ["--minutes", "0.1"]), ("publish", ["--repository", str(folder / "repository")])):
        main_ends([*shlex.split(re.findall(rf"optkit ({command} .*)", said)[-1]), *more], 0)
    assert (folder / "repository" / f"found_{best['recipe']}" / "1").is_dir()
    main_ends(["run", best["file"], *options, "--seed", "0", "--seconds", "0.05"], 0)
    assert served.stat().st_mtime_ns == before, "optkit run finds it finished: it is the same"
    kept = {path.parents[2].name for path in folder.glob("checkpoints/.search/**/engines/record.json")}
    assert kept == {"baseline_fp32"}, "trials leave no engines behind"


def test_on_a_cluster_trials_run_side_by_side_and_come_out_the_same(
    folder: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="a cluster is needed: pip install -e '.[test]'")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # whatever token this user has
    monkeypatch.setattr("optkit.pipeline.cluster.trainings", lambda nodes, share: 3)
    search = ["search", *options, "--goal", "size", "--max-drop", "100", "--space", "space.json", "--sampler", "random"]
    search += ["--finalists", "1", "--seed", "0", "--trial-share", "0.5", "--trials", "3"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a training has there
    main_ends([*search, "--checkpoints", "alone", "--out", "of-one"], 0)
    torch.set_num_threads(threads)
    main_ends([*search, "--checkpoints", "together", "--out", "of-all", "--cluster", "local", "--train-cores", "1"], 0)
    alone, together = (read_json(folder / place / "report.json") for place in ("of-one", "of-all"))
    assert together["trials"] == alone["trials"] and len(alone["trials"]) > 2
    known = ("recipe", "precision", "value", "size_bytes", "chosen_on", "reported_on")
    told = [{tuple(map(str, map(one.get, known))) for one in report["finals"]} for report in (alone, together)]
    assert told[0] == told[1]
    said = re.findall(r"trial \d of 3: (\w+)\(| (trial) \d of 3: [+-]", capsys.readouterr().err)
    assert [bool(drawn) for drawn, _ in said[-6:]] == [True] * 3 + [False] * 3, "all three are drawn before one is measured"
    kept = {path.parents[2].name for path in folder.glob("together/.search/**/engines/record.json")}
    assert kept == {"baseline_fp32"}, "trials leave no engines behind"


def test_a_budget_that_nothing_meets(folder: Path, options: list[str]) -> None:
    search = ["search", *options, "--goal", "latency@1", "--p99-ms", "0.1", "--space", "space.json", "--trials", "1"]
    main_ends([*search, "--finalists", "1", "--seed", "0", "--trial-share", "0.5", "--out", "none"], 1)
    report = read_json(folder / "none" / "report.json")
    assert report["said"][0].startswith("nothing is within the budget; the nearest is")
    assert "ms, as the 99th percentile at batch 1 may reach" in report["said"][0]
    assert {one["verdict"] for one in report["finals"]} == {"fail"}
    (found,) = (one for one in report["finals"] if one["file"])
    assert "workload=((1, 32), (1, 128))," in (folder / found["file"]).read_text()
    engines = folder / "checkpoints" / "classification" / "found" / found["recipe"] / "seed-0" / "engines"
    assert {shape[:2] for shape in conversion_file.kept(engines, "int8")["ms"]} == {"1x"}, "engines are chosen by the goal"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--goal", "speed"], "--goal speed: expected one of latency@1"),
        (["--time", "soon"], "--time soon: expected a time above 0"),
        (["--sampler", "best", "--cluster", "local"], "--sampler best: expected one of tpe, nsga2, random"),
        (["--space", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--model", "no/such/folder", "--model", "other/folder/too"], "no/such/folder"),
    ],
)
def test_bad_input(more: list[str], message: str, options: list[str], capsys) -> None:
    main_ends(["search", *options, *more], 2)
    assert message in capsys.readouterr().err


def test_what_modules_cost(folder: Path, options: list[str], capsys) -> None:
    command = ["sensitivity", "ptq_int8", *options, "--examples", "32", "--no-speed"]
    main_ends([*command, "--format", "json", "--plot", "costs.svg"], 0)
    costs = json.loads(capsys.readouterr().out)
    assert {cost["technique"] for cost in costs} == {"quantize", "sparsify"} and len(costs) == 2 * (12 + 2 + 1)
    assert all(cost["lost_ms"] is None and cost["model"] == "baseline_fp32" for cost in costs)
    assert (folder / "costs.svg").read_text().count("each module alone in") == 2, "a title for each technique"
    main_ends([*command, "--format", "csv"], 0)
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(line["divergence"]) for line in lines] == [cost["divergence"] for cost in costs], "measured once"
    main_ends([*command, "--format", "table"], 0)
    assert "each part alone in INT8" in capsys.readouterr().out
    main_ends([*command, "--plot", "costs.gif"], 2)


def test_what_modules_cost_where_the_recipe_trains(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main_ends(["sensitivity", "qat_gelu10", *options, "--examples", "16", "--format", "json"], 0)
    costs = [cost for cost in json.loads(capsys.readouterr().out) if cost["technique"] == "quantize"]
    assert costs and all(set(cost["lost_ms"]) for cost in costs)
