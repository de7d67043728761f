"""The whole way on a tiny task: trained, exported, converted, served by Triton, judged and published; and interrupted."""

import csv
import os
import re
import shutil
import subprocess
import threading
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from torch.distributed.launcher import LaunchConfig, elastic_launch
from transformers import BertModel

from optkit import Distill, Recipe, Sparsify
from optkit.benchmark import colocation, online, scratch_server, search
from optkit.benchmark import scenarios as load_generator
from optkit.benchmark.choice import Goal
from optkit.benchmark.serving_settings import Settings
from optkit.cli.app import main
from optkit.compression.checkpoint import stages_of
from optkit.core.atomic import file_hash
from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import read_json
from optkit.core.step_cache import content_at, read_record
from optkit.evaluation.artifacts import STAGE_SCORES, read_scores
from optkit.pipeline import load_test, projects, refusals, rows, tune
from optkit.pipeline.projects import Source
from optkit.pipeline.publish import Options, publish
from optkit.pipeline.run import run, run_all
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.train import trained
from optkit.recipe import finder
from optkit.registry import layout
from optkit.report.explain import explain
from optkit.report.table import render
from optkit.serving import repository
from optkit.tasks import registry as tasks
from optkit.training import loop
from optkit.training.resume import Snapshots
from tests.conftest import main_ends
from tests.forked import LAUNCHER

pytestmark = pytest.mark.server

TRAINING = "Training(epochs=6, learning_rate=3e-3, batch_size=16, precision='fp32')"
RECIPES = {
    "baseline_fp32": "",
    "ptq_int8": "Quantize(calibrator='mse')",
    "qat_gelu10": "Quantize(gelu_clip=10.0, calibrator='percentile', epochs=1, learning_rate=1e-4)",
    "distill_1l": "Distill(layers=1, representation_epochs=1, epochs=2)",
    "distill_1l_sparse_qat": (
        "Distill(layers=1, representation_epochs=1, epochs=2), Sparsify(), "
        "Quantize(calibrator='percentile', epochs=1, learning_rate=1e-4)"
    ),
}
ANYWAY = Options(force=True, why="whether so small a model is faster in INT8 than in 16 bits is up to the machine")
SERVED = ("baseline_fp32", "ptq_int8", "qat_gelu10", "distill_1l_sparse_qat")
CONTRACT = (
    "recipe task seed metric value baseline delta delta_ci95 layers sparsity precision engine size_bytes rungs latency_ms "
    "throughput speedup speedup_vs_16bit evidence served_by verdict reasons"
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, tiny_config, tiny_tokenizer):
    """A folder with recipes and a pretrained model without a head."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "recipes").mkdir()
    for name, stages in RECIPES.items():
        words = "from optkit import Distill, Quantize, Recipe, Sparsify, Training"
        text = f"{words}\n\nrecipe = Recipe(name={name!r}, stages=[{stages}], "
        (folder / "recipes" / f"{name}.py").write_text(text + f"max_drop=20, training={TRAINING})\n")
    torch.manual_seed(0)
    BertModel(tiny_config).save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def spec(workshop, tiny_data):
    """The recipes' spec, in this process."""
    _, known = finder.find([str(workshop / "recipes" / f"{name}.py") for name in RECIPES])
    task = tasks.load("classification", tiny_data)
    return RunSpec(task, str(workshop / "model"), 0, workshop / "checkpoints", known, seconds=0.05)


@pytest.fixture(scope="module")
def results(spec):
    """Rows of what is served, by name and precision."""
    return {(row.recipe, row.precision): row for name in SERVED for row in run(spec.recipes[name], spec)}


@pytest.fixture(scope="module")
def start():
    """Starts the command line in a process of its own; the processes share the time that imports take."""

    def start_process(arguments, output, command=main):
        process = LAUNCHER.Process(target=into_file, args=(output, command, arguments))
        process.start()
        return process

    return start_process


def into_file(output, command, arguments):
    """Run by a process of its own: what `optkit` does, with all that it prints in a file."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    command(arguments)


def launched(arguments):
    """What `torchrun --nproc-per-node 2 -m optkit` does, with processes that share what this one has imported."""
    own = LaunchConfig(
        1, 1, 2, run_id="two", rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", max_restarts=0, start_method="fork"
    )
    elastic_launch(own, main_ends)(arguments, 0)


def run_arguments(workshop, data, checkpoints, recipes):
    """`optkit run` on the workshop, with the engine that is built fastest."""
    given = ["run", *(str(workshop / "recipes" / f"{name}.py") for name in recipes), "--task", "classification"]
    options = ["--data", str(data), "--model", str(workshop / "model"), "--seconds", "0.05"]
    return [*given, *options, "--engine", "onnxruntime", "--checkpoints", str(checkpoints)]


def test_every_recipe_is_scored_at_every_rung(results):
    row = results["qat_gelu10", "int8"]
    assert set(row.rungs) == {"pytorch", "graph", "engine", "server"}
    assert row.value == row.rungs["server"] > 80
    assert row.delta == pytest.approx(row.value - results["baseline_fp32", "fp32"].value)
    assert row.delta_ci95[0] <= row.delta <= row.delta_ci95[1]
    assert row.served_by.startswith("tritonserver 2.")
    assert {"1", "8", "32"} == set(row.latency_ms) == set(row.throughput) == set(row.speedup)


def test_int8_is_covered_and_smaller(results):
    row, baseline = results["ptq_int8", "int8"], results["baseline_fp32", "fp32"]
    assert row.evidence["covered_gemms"] == row.evidence["encoder_gemms"] == 12
    assert baseline.evidence["covered_gemms"] == 0
    assert row.size_bytes < baseline.size_bytes


def test_rows_have_the_contracts_fields(results, spec):
    for row in rows.read(spec.root, "classification"):
        assert not set(CONTRACT.split()) - set(row.as_dict())


def test_a_recipe_starts_from_the_one_whose_stages_it_shares(results, spec):
    """Distilled once: the recipe of that name, then a step between that no recipe names, then the one asked for."""
    student, all_three = (spec.folder(spec.recipes[name]) for name in ("distill_1l", "distill_1l_sparse_qat"))
    (sparse,) = spec.root.glob("classification/distill_sparsify_*/seed-0")
    assert origin(student) == {"baseline_fp32": content_at(spec.folder(spec.baseline))}
    assert origin(sparse)["distill_1l"] == content_at(student)
    assert origin(all_three)[sparse.parent.name] == content_at(sparse)
    steps = [[entry["step"] for entry in read_json(folder / "history.json")] for folder in (student, sparse, all_three)]
    assert steps == [[9, 15, 9, 19, 29, 31], [9, 19, 29, 31], [9, 15]], "each trains its own last stage alone"
    scores = [read_scores(folder / STAGE_SCORES) for folder in (student, sparse, all_three)]
    assert list(scores[2]) == ["baseline_fp32", "distill", "sparsify", "quantize"]
    assert all(np.array_equal(scores[2][name], earlier[name]) for earlier in scores for name in earlier)
    assert not (student / "graph").exists() and not (sparse / "graph").exists(), "nobody asked for their engines"


def origin(folder):
    """The keys of what a checkpoint was made from."""
    return read_record(folder)["depends_on"]["from"]


def test_a_student_sparse_and_in_int8_through_the_server(results, spec):
    row, baseline = results["distill_1l_sparse_qat", "int8"], results["baseline_fp32", "fp32"]
    assert (row.layers, row.sparsity, baseline.layers, baseline.sparsity) == (1, "2:4", 2, None)
    assert row.value > 80 and row.size_bytes < results["ptq_int8", "int8"].size_bytes
    assert row.evidence["covered_gemms"] == row.evidence["encoder_gemms"] == row.evidence["sparse_weights"] == 6
    assert baseline.evidence["sparse_weights"] == 0
    audit = read_json(spec.folder(spec.recipes["distill_1l_sparse_qat"]) / "graph" / "audit.json")
    encoder = {name: kept for name, kept in audit["sparse_groups_kept"].items() if ".layer." in name}
    assert len(encoder) == 6 and set(encoder.values()) == {1.0}


def test_the_loss_by_stage_adds_up_to_the_whole(results):
    row, baseline = results["distill_1l_sparse_qat", "int8"], results["baseline_fp32", "fp32"]
    assert [step["stage"] for step in row.stages] == ["distill", "sparsify", "quantize", "engine"]
    assert sum(step["delta"] for step in row.stages) == pytest.approx(row.value - baseline.rungs["pytorch"], abs=1e-3)
    assert row.rungs["pytorch"] - baseline.rungs["pytorch"] == pytest.approx(
        sum(step["delta"] for step in row.stages[:3]), abs=1e-3
    )


def test_what_cannot_work_is_said_before_anything_is_trained(spec, tmp_path):
    fresh = replace(spec, root=tmp_path / "checkpoints")
    with pytest.raises(InputError, match=r"^recipe 'deep': a student of 9 layers is deeper than its teacher of 2; give at"):
        run_all([Recipe(name="deep", stages=[Distill(layers=9)])], [fresh])
    assert not list(fresh.root.rglob("*.safetensors"))


def test_a_recipe_that_does_not_apply_is_reported_and_the_others_run(results, spec, workshop, tiny_data, tmp_path, capsys):
    """Exit status 1, the reason in the table and for whoever compares later; nothing is trained for it."""
    spec = replace(spec, root=shutil.copytree(spec.root, tmp_path / "checkpoints"))  # it builds other engines
    deep = workshop / "recipes" / "deep.py"
    deep.write_text("from optkit import Distill, Recipe\n\nrecipe = Recipe(name='deep', stages=[Distill(layers=9)])\n")
    try:
        told, err = ends(["baseline_fp32", "deep"], workshop, tiny_data, spec.root, 1, capsys)
        reason = "a student of 9 layers is deeper than its teacher of 2; give at most 2"
        assert f"deep: refused: {reason}" in told and " baseline_fp32 " in told
        assert "qat_gelu10" not in told, "it was not asked for"
        assert f"recipe 'deep' is left out, it does not apply to this model: {reason}" in err
        assert not spec.folder(Recipe(name="deep")).exists()
        assert [refusal.recipe for refusal in refusals.read(spec.home.folder)] == ["deep"]
        assert "deep" not in {row.recipe for row in rows.read(spec.root, "classification")}
        deep.write_text(deep.read_text().replace("layers=9", "layers=1, representation_epochs=0, epochs=0.1"))
        told, _ = ends(["deep"], workshop, tiny_data, spec.root, None, capsys)
        assert "refused" not in told and " deep " in told
        assert refusals.read(spec.home.folder) == []
    finally:
        deep.unlink()


def ends(recipes, workshop, data, checkpoints, status, capsys):
    """What the command line prints to both outputs, after its exit status has been seen; None for any but a mistake."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(run_arguments(workshop, data, checkpoints, recipes))
    out, err = capsys.readouterr()
    assert (end.value.code or 0) in ((0, 1) if status is None else (status,)), err
    return out, err


def test_a_second_run_does_nothing_again(results, spec, caplog):
    before = {path: path.stat().st_mtime_ns for path in spec.root.rglob("record.json")}
    for name in SERVED:
        run(spec.recipes[name], spec)
    assert before == {path: path.stat().st_mtime_ns for path in spec.root.rglob("record.json")}


def test_a_flipped_byte_is_found_and_named(results, spec):
    path = spec.folder(spec.recipes["ptq_int8"]) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"ptq_int8/seed-0/model\.safetensors: SHA-256 is .* Delete .* made again"):
        run(spec.recipes["ptq_int8"], spec)
    content[-1] ^= 1
    path.write_bytes(content)


def test_the_server_is_told_how_much_the_model_can_take(results, spec):
    folder = spec.folder(spec.recipes["ptq_int8"]) / "served"
    configs = read_json(folder / "validation.json")["configs"]
    assert spec.task.max_length > 16 and {config["max_sequence"] for config in configs.values()} == {16}


def test_explain_shows_the_rungs_and_the_examples_with_their_text(results, spec):
    text = explain("qat_gelu10", "classification", spec.root, most=3)
    row = results["qat_gelu10", "int8"]
    lines = [line.split() for line in text.splitlines()]
    for rung in ("float", "pytorch", "graph", "engine", "server"):
        assert any(words[:2] == [rung, f"{row.ladder[rung]['value']:.2f}"] for words in lines), text
    for way in ("padding", "position", "neighbours", "together"):
        assert any(words[:1] == [way] for words in lines)
    shown = [line.partition("sentence: ")[2] for line in text.splitlines() if "sentence: " in line]
    assert len(shown) == 3 and set(shown) <= set(spec.task.examples("dev")["sentence"])
    with pytest.raises(InputError, match="has no engine in fp16; it has engines in int8"):
        explain("qat_gelu10", "classification", spec.root, precision="fp16")
    kept = spec.folder(spec.recipes["qat_gelu10"]) / "served" / "examples.json"
    kept.rename(kept.with_suffix(".aside"))
    with pytest.raises(InputError, match=r"examples\.json: missing, as an older optkit scored the recipe; run it again"):
        explain("qat_gelu10", "classification", spec.root)
    kept.with_suffix(".aside").rename(kept)


@pytest.fixture(scope="module")
def short():
    """Load and searches with few clients, rounds and queries, and hardly warmed up."""
    few = {online: {"CLIENTS": (1, 16), "ROUNDS": 2}, load_generator: {"LEAST_QUERIES": 20, "RATES": (0.25, 0.5)}}
    few |= {colocation: {"ROUNDS": 2}, search: {"LEAST_S": 0.1, "MOST_ROUNDS": 2}, scratch_server: {"WARM_S": 0.05}}
    with pytest.MonkeyPatch.context() as patch:
        for module, values in few.items():
            for name, value in values.items():
                patch.setattr(module, name, value)
        yield


@pytest.fixture(scope="module")
def load(results, spec, short, tmp_path_factory):
    """The lines of CSV of a recipe under load, and what they say."""
    out = tmp_path_factory.mktemp("load") / "load.csv"
    said = load_test.run(spec.recipes["ptq_int8"], spec, 0.1, 1e5, out)
    return out.read_text(), said


def test_load_is_a_line_for_every_measurement(load):
    written, said = load
    lines = list(csv.DictReader(written.splitlines()))
    for batching in ("off", "on"):
        scenarios = [line["scenario"] for line in lines if line["batching"] == batching]
        assert scenarios[:4] == ["SingleStream", "MultiStream", "Offline", "Server"]
        assert scenarios[-3:] == ["closed loop"] * 3 and set(scenarios[4:-3]) <= {"Server"}
    assert all(float(line["rate"]) > 0 and int(line["requests"]) > 0 for line in lines)
    assert all(float(line["memory_mb"]) > 10 and line["recipe"] == "ptq_int8" for line in lines)
    assert len(said) == 2 and "16 clients (95 % interval" in said[1]


def test_load_is_kept_and_shown_and_measured_anew_when_asked(load, spec, tmp_path):
    recipe, (written, said) = spec.recipes["ptq_int8"], load
    second, third = (tmp_path / f"{number}.csv" for number in range(2))
    folder = spec.folder(recipe) / "load"
    key = content_at(folder)
    assert load_test.run(recipe, spec, 0.1, 1e5, second) == said
    assert second.read_text() == written and content_at(folder) == key
    (row,) = (row for row in rows.read(spec.root, "classification") if row.recipe == "ptq_int8")
    assert [point["clients"] for point in row.load["curves"]["on"]] == [1, 16]
    assert row.load["batching_gain"]["rounds"] == 2 and row.load["p99_ms"] == 1e5
    assert all(sentence in render([row], "table") for sentence in said)
    assert "Under load" in render([row], "html")
    load_test.run(recipe, spec, 0.1, 1e5, third, again=True)
    assert content_at(folder) != key and third.read_text() != written


def test_models_beside_each_other_are_measured_alone_idle_and_busy(load, spec, tmp_path):
    recipe, out = spec.recipes["ptq_int8"], tmp_path / "load.csv"
    said = load_test.run(recipe, spec, 0.1, 1e5, out, others=[spec.baseline])
    with out.open() as file:
        lines = [line for line in csv.DictReader(file) if line["clients"] == str(colocation.CLIENTS)]
    engines = {(line["recipe"], line["precision"]) for line in lines}
    assert ("ptq_int8", "int8") in engines and ("baseline_fp32", "fp32") in engines
    for engine in engines:
        own = [line for line in lines if (line["recipe"], line["precision"]) == engine]
        assert [line["others"] for line in own] == ["", "idle", "busy"] * 2
        memory = [float(line["memory_mb"]) for line in own]
        assert memory[1] > memory[0], "the others are really loaded"
    assert len(said) == 2 + len(engines) and "ptq_int8 int8: beside baseline_fp32" in said[2]
    with pytest.raises(InputError, match=r"--beside: found ptq_int8, ptq_int8, expected every recipe once"):
        load_test.run(recipe, spec, 0.1, 1e5, out, others=[recipe])


def test_a_server_that_dies_under_load_leaves_what_was_measured(results, spec, tmp_path, short):
    """The lines so far are in the file beside, the error says how the server ended, and no result is kept as finished."""
    recipe, out = spec.recipes["distill_1l_sparse_qat"], tmp_path / "load.csv"
    partial = tmp_path / "load.csv.partial"
    killer = threading.Thread(target=kill_server_after, args=(partial, 3), daemon=True)
    killer.start()
    with pytest.raises(MachineError, match=r"ended while it was asked \(killed by SIGKILL\)|did not (un)?load it"):
        load_test.run(recipe, spec, 1.0, 1e5, out)
    assert len(partial.read_text().splitlines()) >= 1 + 3 and not out.exists()
    assert not (spec.folder(recipe) / "load").exists()
    assert not [path for pattern in (".load*", ".scratch*") for path in spec.folder(recipe).glob(pattern)]
    assert not servers()


def kill_server_after(path, lines):
    """Kill this process's server as soon as a file of CSV has so many lines below its heading."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.is_file() and len(path.read_text().splitlines()) > lines:
            for process in servers():
                process.kill()
            return
        time.sleep(0.02)


def test_what_tuning_finds_is_published(results, spec, tmp_path, short):
    recipe, target = spec.recipes["ptq_int8"], tmp_path / "model_repository"
    found = tune.run(recipe, spec, Goal("throughput", 4), 0.03)
    kept = spec.folder(recipe) / "tuning" / "int8"
    assert found["goal"] == {"kind": "throughput", "clients": 4, "p99_ms": None} and found["choice"]["held"]
    assert sum(trial["phase"] == "final" for trial in found["trials"]) >= 2
    text = tune.render(found)
    assert "1 x all threads, no batching" in text and text.count(" yes\n") == 1
    written = (kept / "record.json").stat().st_mtime_ns
    assert tune.run(recipe, spec, Goal("throughput", 4), 0.03) == found
    assert (kept / "record.json").stat().st_mtime_ns == written, "the second run searches nothing"
    publish("ptq_int8", "classification", spec.root, target, options=ANYWAY)
    config = layout.read_config(target / "classification_ptq_int8")
    assert {name: getattr(config, name) for name in found["choice"]["settings"]} == vars(
        Settings.of(found["choice"]["settings"])
    )
    assert layout.provenance(target / "classification_ptq_int8" / "1")["tuning"] == found


def test_a_bound_that_nothing_holds_ends_in_status_1(results, spec, workshop, tiny_data, short, monkeypatch, capsys):
    monkeypatch.chdir(workshop)
    given = ["tune", "qat_gelu10", "--task", "classification", "--data", str(tiny_data), "--model", spec.model]
    options = ["--goal", "latency", "--p99-ms", "0.1", "--minutes", "0.1", "--checkpoints", str(spec.root)]
    with pytest.raises(SystemExit) as end:
        main([*given, *options])
    out, err = capsys.readouterr()
    assert end.value.code == 1, err
    assert "holds a p99 of 0.1 ms with 1 clients; the best was " in err and "The default stays." in err
    assert "1 x all threads, no batching" in out
    for name, value in {"goal": "speed", "precision": "int7"}.items():
        with pytest.raises(SystemExit) as end:
            main([*given, f"--{name}", value, "--checkpoints", str(spec.root)])
        assert end.value.code == 2 and f"--{name} {value}: expected one of " in capsys.readouterr().err


def test_a_command_that_looks_at_results_trains_no_other_baseline(results, spec, workshop, tiny_data, monkeypatch, capsys):
    monkeypatch.chdir(workshop)
    given = ["--task", "classification", "--data", str(tiny_data), "--model", spec.model, "--checkpoints", str(spec.root)]
    before = content_at(spec.folder(spec.baseline))
    for command in ("tune", "load", "build", "sensitivity"):
        main_ends([command, "qat_gelu10", *given, "--epochs", "1"], 2)
        said = capsys.readouterr().err
        assert "its baseline of seed 0 was trained with epochs 6, and would be trained anew with epochs 1" in said
        assert "Give the settings of its run: --epochs 6; or choose another --name" in said
    main_ends(["build", "qat_gelu10", *given, "--limit-train", "32"], 2)
    assert "was trained on other data, and would be trained anew" in capsys.readouterr().err
    assert content_at(spec.folder(spec.baseline)) == before


def test_what_is_live_is_not_published_again(results, spec, tmp_path):
    target = tmp_path / "model_repository"
    for _ in range(2):
        assert publish("qat_gelu10", "classification", spec.root, target, options=ANYWAY).name == "1"
    assert layout.models(target) == {"classification_qat_gelu10": (1,)}
    precisions = [precision for recipe, precision in results if recipe == "baseline_fp32"]
    if len(precisions) > 1:
        with pytest.raises(InputError, match=r"has engines in .*fp32.*; name one with --precision"):
            publish("baseline_fp32", "classification", spec.root, target)
    publish("baseline_fp32", "classification", spec.root, target, precision="fp32")
    assert repository.models(target)["classification_baseline_fp32"] == (1,)


def test_a_server_that_dies_in_validation_ends_the_run(results, spec, workshop):
    dying = RunSpec(spec.task, spec.model, 0, spec.root, spec.recipes, seconds=30.0)
    models = 1 + sum(recipe == "baseline_fp32" for recipe, _ in results)
    killer = threading.Thread(target=kill_server_when_ready, args=(models,), daemon=True)
    killer.start()
    with pytest.raises(MachineError, match=r"ended while it was asked \(killed by SIGKILL\)") as error:
        run(dying.recipes["qat_gelu10"], dying)
    assert re.search(r"model '(int8|baseline\.\w+)', request \d+", str(error.value.__cause__))
    folder = spec.folder(spec.recipes["qat_gelu10"])
    assert not list(folder.glob(".served.unfinished*")) and not list(folder.glob(".scratch*"))
    assert not servers()
    assert run(spec.recipes["qat_gelu10"], spec), "the run goes on from the finished steps"


def kill_server_when_ready(models):
    """Wait for a server of this process that answers requests of so many models, and kill it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in servers():
            if len(process.children()) >= models:  # one backend process per model or more: all are loaded
                time.sleep(3.0)  # the last one of them may still load
                process.kill()
                return
        time.sleep(0.05)


def servers():
    """The tritonserver processes below this one."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if "tritonserver" in process.name()]


def test_kill_at_any_moment_and_the_same_command(workshop, tiny_data, tmp_path, start):
    """Killed when the baseline is trained and again while the first candidate is made: what was finished stays."""
    checkpoints, output = tmp_path / "checkpoints", tmp_path / "output"
    recipes = ("baseline_fp32", "ptq_int8")
    arguments = run_arguments(workshop, tiny_data, checkpoints, recipes)
    for moment in ("baseline_fp32: ONNX graph", "ptq_int8: engines"):
        kill_when(start(arguments, output), output, moment)
    (record,) = checkpoints.glob("classification/*-model/baseline_fp32/seed-0/record.json")
    written = record.stat().st_mtime_ns
    process = start(arguments, output)
    process.join(300)
    said = output.read_text()
    assert process.exitcode == 0, said
    assert "baseline_fp32: training" not in said
    assert record.stat().st_mtime_ns == written
    assert "ptq_int8" in said and "served by tritonserver" in said
    assert not list(checkpoints.rglob(".*unfinished*"))
    assert {row.recipe for row in rows.read(checkpoints, "classification")} == set(recipes)


def kill_when(process, output, message):
    """Kill a process with SIGKILL as soon as it says `message`."""
    while not output.is_file() or message not in output.read_text():
        assert process.is_alive(), f"it ended without saying {message!r}: {output.read_text()}"
        time.sleep(0.02)
    process.kill()
    process.join()
    output.unlink()


def test_a_training_that_was_killed_goes_on_where_it_was(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(Snapshots, "every_s", 0.0)
    recipe, done, real = spec.baseline, [], loop._optimise

    def optimise(*arguments):
        done.append(None)
        if len(done) == 36:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(loop, "_optimise", optimise)
    elsewhere = replace(spec, root=tmp_path, given=Source("/reviews"))
    with pytest.raises(KeyboardInterrupt):
        trained(recipe, elsewhere)
    assert elsewhere.home.sources == [elsewhere.given], "a run on another folder of that name does not take this place"
    assert list(tmp_path.rglob("*.pt")) and not list(tmp_path.rglob("*.safetensors"))
    again = trained(recipe, elsewhere)
    assert len(done) == 36 + (96 - 30), "a snapshot is taken every ten steps here"
    assert not list(tmp_path.rglob("*.pt"))
    weights = [file_hash(folder / "model.safetensors") for folder in (again, trained(recipe, spec))]
    assert weights[0] == weights[1]


def test_a_student_that_is_made_first_and_trained_later(spec, tmp_path):
    made = Distill(layers=1, epochs=0, representation_epochs=0)
    recipe = Recipe(
        name="later", stages=[made, Sparsify(representation_epochs=1, epochs=2)], training=spec.baseline.training
    )
    folder = trained(recipe, replace(spec, root=tmp_path))
    names, scores = ["baseline_fp32", "distill", "sparsify"], read_scores(folder / STAGE_SCORES)
    assert list(scores) == names and stages_of(folder) == list(recipe.stages)


def test_a_full_disk_leaves_nothing_half_written(workshop, tiny_data, tmp_path, start):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.strip()}")
    try:
        arguments = run_arguments(workshop, tiny_data, disk / "checkpoints", ["baseline_fp32"])
        process = start(arguments, tmp_path / "output")
        process.join(300)
        # a lock file is empty, TensorBoard's curves are no result, a model's trial is a finished step without files, and the
        # file of what a project was begun on is whole
        found = [path for path in disk.rglob("*") if path.is_file() and path.stat().st_size]
        left = [path for path in found if not {".tensorboard", ".trials", projects.FILE}.intersection(path.parts)]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    said = (tmp_path / "output").read_text()
    assert process.exitcode == 3, said
    assert "No space left on device" in said and "Traceback" not in said
    assert not left


def test_two_processes_train_together(workshop, tiny_data, tmp_path, start):
    """Two processes as of `accelerate launch` on two GPUs: each takes half of every batch, the main one does the rest."""
    options = run_arguments(workshop, tiny_data, tmp_path / "checkpoints", ("baseline_fp32", "qat_gelu10"))
    process = start(options, tmp_path / "output", launched)
    process.join(300)
    said = (tmp_path / "output").read_text()
    assert process.exitcode == 0, said
    assert said.count("served by tritonserver") == 1 and " qat_gelu10 " in said  # by one of the two
    (path,) = (tmp_path / "checkpoints").glob("classification/*-model/baseline_fp32/seed-0/history.json")
    history = read_json(path)
    assert history[-1]["step"] == 6 * 256 / 16 - 1
    assert not list((tmp_path / "checkpoints").rglob(".*unfinished*"))
