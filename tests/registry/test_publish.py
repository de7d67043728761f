"""What passes its gate is published with all that is known of it; what does not is refused with all reasons."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from optkit.cli.app import main
from optkit.core import atomic, step_cache
from optkit.core.atomic import file_hash
from optkit.core.errors import GateError, InputError, MachineError
from optkit.pipeline.publish import Options, publish
from optkit.registry import layout, provenance, verify
from optkit.serving import repository as repositories
from optkit.serving.client import Client
from optkit.serving.server import Server

from . import small

EXAMPLE = Path(__file__).parents[2] / "examples" / "client.py"
pytestmark = pytest.mark.server


@pytest.fixture
def target(tmp_path):
    return tmp_path / "repository"


@pytest.fixture
def results(checkpoints, tmp_path):
    """A copy of the results, to be changed."""
    return shutil.copytree(checkpoints, tmp_path / "checkpoints")


def test_a_recipe_that_passes_is_published_with_its_provenance(checkpoints, target):
    version = publish("tiny", "classification", checkpoints, target)
    origin = layout.provenance(version)
    folder = checkpoints / "classification" / "tiny" / "seed-0"
    assert (origin["model"], origin["version"], origin["verdict"], origin["forced"]) == (small.MODEL, 1, "pass", None)
    assert origin["recipe"]["name"] == "tiny" and origin["data"] == "d" * 64
    assert (origin["seed"], origin["seeds"]) == (0, [0])
    assert origin["checkpoint"]["files"]["model.safetensors"] == file_hash(folder / "model.safetensors")
    assert origin["engine"]["files"]["model.onnx"] == file_hash(version / "engine" / "model.onnx")
    assert {row["recipe"] for row in origin["rows"]} == {small.BASELINE, "tiny", "bad", "unsure"}
    assert origin["row"]["delta_ci95"] == [-0.8, -0.2]
    assert origin["versions"]["publishing"]["onnxruntime"] and origin["machine"]["processor"]
    assert origin["checks"]["served_by"].startswith("tritonserver 2.")
    assert set(origin["checks"]["relative_difference"]) == {"min", "opt", "max", "sample"}
    assert verify.verify(target) == []


@pytest.mark.parametrize(
    ("recipe", "said"), [("bad", ["fail", "is below -1 points", "at batch 1 is below 2"]), ("unsure", ["undecided"])]
)
def test_a_gate_that_says_no_refuses_with_all_reasons(recipe, said, checkpoints, target, capsys):
    arguments = [
        "publish",
        recipe,
        "--task",
        "classification",
        "--checkpoints",
        str(checkpoints),
        "--repository",
        str(target),
    ]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    error = capsys.readouterr().err
    assert end.value.code == 1 and all(word in error for word in said)
    assert not target.exists()


def test_who_forced_what_is_kept(checkpoints, target):
    version = publish("bad", "classification", checkpoints, target, options=Options(force=True, why="a demonstration"))
    forced = layout.provenance(version)["forced"]
    assert forced["why"] == "a demonstration" and "@" in forced["by"]
    card = (version / "README.md").read_text()
    reasons = "delta -3.00 [-4.00, -2.00] is below -1 points; speed-up 1.50 [1.40, 1.60] at batch 1 is below 2"
    assert f"**It did not pass its gate** (fail: {reasons})" in card
    event = json.loads((version.parent / "history.jsonl").read_text())
    assert (event["forced"], event["why"]) == (True, "a demonstration")


def test_a_recipe_that_passes_is_not_marked_as_forced(checkpoints, target):
    version = publish("tiny", "classification", checkpoints, target, options=Options(force=True, why="to be sure"))
    assert layout.provenance(version)["forced"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"force": True}, "--force and --why go together"),
        ({"force": True, "why": "  "}, "--force and --why go together"),
        ({"why": "because"}, "--force and --why go together"),
        ({"replace": True}, "so do --replace and --why"),
        ({"requests": "file"}, "without a server to compare with"),
        ({"max_disagreement": 5}, "--max-disagreement 5: expected a share from 0 to 1"),
    ],
)
def test_options_that_do_not_go_together(given, message):
    with pytest.raises(InputError, match=message):
        Options(**given)


def test_what_was_not_run_is_not_published(checkpoints, target):
    with pytest.raises(InputError, match=r"recipe 'tiny' has no current result for task 'classification' and seed 5"):
        publish("tiny", "classification", checkpoints, target, seed=5)
    with pytest.raises(InputError, match=r"has no engine in int8; it has engines in fp32"):
        publish("tiny", "classification", checkpoints, target, precision="int8")
    with pytest.raises(InputError, match=r"recipe '../tiny' has no current result"):
        publish("../tiny", "classification", checkpoints, target)


@pytest.mark.parametrize("name", ["engines/fp32/model.onnx", "model.safetensors", "served/scores.npz"])
def test_a_result_whose_files_changed_is_refused(name, results, target):
    path = results / "classification" / "tiny" / "seed-0" / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=f"{name}: "):
        publish("tiny", "classification", results, target)
    assert not target.exists()


def tuned(folder, engines):
    """A finished search of the tiny recipe's FP32 engine."""
    settings = {"instances": 2, "threads": 1, "queue_delay_us": 500, "preferred_batch_sizes": [4]}
    choice = {"settings": settings, "held": True, "reason": "by hand", "gain": None}
    step_cache.step(
        folder / "tuning" / "fp32",
        {"engines": engines},
        lambda unfinished: atomic.write_json(unfinished / "tuning.json", {"choice": choice}),
    )


def test_a_tuned_configuration_is_published_and_one_of_other_engines_is_not(results, target, caplog):
    folder = results / "classification" / "tiny" / "seed-0"
    tuned(folder, "another engine's key")
    version = publish("tiny", "classification", results, target)
    assert layout.read_config(version.parent).instances == 1 and layout.provenance(version)["tuning"] is None
    assert "tuning/fp32: left out, the engine has changed since; tune it again: optkit tune" in caplog.text
    tuned(folder, step_cache.content_at(folder / "engines"))
    version = publish("tiny", "classification", results, target)
    config = layout.read_config(version.parent)
    assert (config.instances, config.threads, config.queue_delay_us, config.preferred_batch_sizes) == (2, 1, 500, (4,))
    assert layout.provenance(version)["tuning"]["choice"]["reason"] == "by hand"
    assert verify.verify(target) == []
    path = folder / "tuning" / "fp32" / "tuning.json"
    path.write_text(path.read_text().replace("by hand", "by foot"))
    with pytest.raises(InputError, match=r"tuning\.json: SHA-256 is .* the file changed after it was written"):
        publish("tiny", "classification", results, target)


def test_cache_and_warm_up_are_published_and_other_ones_are_another_version(checkpoints, target, capsys):
    """The server's cache answers the tensor step of a text that comes again."""
    command = ["publish", "tiny", "--task", "classification", "--checkpoints", str(checkpoints), "--repository", str(target)]
    model = target / small.MODEL
    settings = ["--cache", "--warmup", "1x16,8x4"]
    for given, said in (
        ([], ""),
        (settings, "a response cache also keeps errors"),
        (settings, "is this engine, and live already"),
        (settings[:1], ""),
        (settings, ""),
    ):
        run([*command, *given])
        assert said in capsys.readouterr().err
    assert repositories.versions(model) == (1, 2, 3, 4)
    config = layout.read_config(model)
    assert (config.cache, config.warmup) == (True, ((1, 16), (8, 4)))
    assert layout.provenance(model / "4")["config"]["warmup"] == [[1, 16], [8, 4]]
    assert [layout.config_of(model / str(number), 1).cache for number in (1, 2, 3)] == [False, True, True]
    assert verify.verify(target) == []
    with Server(target, target.parent / "logs", [small.MODEL, f"{small.MODEL}_text"], cache_mb=1) as server:
        answers = []
        for _ in range(2):
            run(["ask", small.MODEL, "w5 w6 w7", "--url", server.url])
            answers.append(capsys.readouterr().out)
        assert answers[0] == answers[1]
        with Client(server.url, small.MODEL) as client:
            statistics = client.statistics()["inference_stats"]
        assert (statistics["cache_miss"]["count"], statistics["cache_hit"]["count"]) == (1, 1)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ("9x16", "warmup: found 9x16, expected batches of 1 to 8 with 1 to 16 tokens"),
        ("8", "warmup: found '8', expected batch and tokens of each shape, such as 1x16,8x128"),
    ],
)
def test_a_warm_up_that_cannot_be_is_refused(shapes, message, checkpoints, target, capsys):
    command = ["publish", "tiny", "--task", "classification", "--checkpoints", str(checkpoints), "--repository", str(target)]
    with pytest.raises(SystemExit) as end:
        main([*command, "--warmup", shapes])
    assert end.value.code == 2 and message in capsys.readouterr().err
    assert repositories.models(target) == {}


def test_an_engine_that_answers_another_sample_is_refused(results, target):
    """The engine is whole and loads; what it answers is not what was scored."""
    folder = results / "classification" / "tiny" / "seed-0" / "served"
    with np.load(folder / "sample.npz") as stored:
        arrays = dict(stored)
    np.savez(folder / "sample.npz", **{**arrays, "logits/fp32": -arrays["logits/fp32"]})
    record = json.loads((folder / "record.json").read_text())
    record["files"]["sample.npz"] = file_hash(folder / "sample.npz")
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(
        GateError, match=r"scratch server: probe 'sample' \[4, 12\]: logits differ .* 4 of 4 predictions flip"
    ):
        publish("tiny", "classification", results, target)
    assert repositories.models(target) == {}


def test_a_result_without_a_sample_says_what_to_do(results, target):
    folder = results / "classification" / "tiny" / "seed-0" / "served"
    (folder / "sample.npz").unlink()
    record = json.loads((folder / "record.json").read_text())
    del record["files"]["sample.npz"]
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(
        InputError, match=r"sample.npz: missing, the result is an older optkit's. Score .* again: optkit run"
    ):
        publish("tiny", "classification", results, target)


def test_a_repository_that_cannot_be_written_is_named(checkpoints, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"file/repository: cannot lock it: Not a directory"):
        publish("tiny", "classification", checkpoints, tmp_path / "file/repository")


def test_the_commit_is_that_of_the_folder(tmp_path):
    assert provenance.commit(tmp_path) is None
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(tmp_path)]
    (tmp_path / "file").write_text("one")
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert provenance.commit(tmp_path) == {"commit": head, "changed": False}
    (tmp_path / "file").write_text("two")
    assert provenance.commit(tmp_path) == {"commit": head, "changed": True}


def test_the_commands_one_after_the_other(results, target, capsys):
    at = ["--repository", str(target)]
    for weights in (1, 4):
        small.result(results, "tiny", weights=weights)
        run(["publish", "tiny", "--task", "classification", "--checkpoints", str(results), *at])
    assert capsys.readouterr().out == f"{target / small.MODEL / '1'}\n{target / small.MODEL / '2'}\n"
    run(["verify", *at])
    assert capsys.readouterr().out == f"{target}: every file is as it was published\n"
    run(["rollback", small.MODEL, *at])
    assert capsys.readouterr().out == "1\n"
    run(["list", *at, "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert [(each["version"], each["live"], each["recipe"]) for each in found] == [(2, False, "tiny"), (1, True, "tiny")]


def test_the_best_is_the_fastest_that_passed_and_is_published_once(results, target, capsys):
    small.result(results, "fastest", weights=5, delta=-3.0, delta_ci95=[-4.0, -2.0], speedup={"1": 9.0})
    small.result(results, "faster", weights=6, speedup={"1": 2.0})
    command = ["publish", "best", "--task", "classification", "--checkpoints", str(results), "--repository", str(target)]
    for said in (
        "the best that passed its gate: faster (fp32)",
        "version 1 of classification_faster is this engine, and live",
    ):
        run(command)
        captured = capsys.readouterr()
        assert captured.out == f"{target / 'classification_faster' / '1'}\n" and said in captured.err
    assert repositories.versions(target / "classification_faster") == (1,)
    small.result(results, "faster", weights=7, speedup={"1": 2.0})
    run(command)
    assert repositories.versions(target / "classification_faster") == (1, 2)


def test_there_may_be_no_best(checkpoints, target):
    with pytest.raises(InputError, match="no current results of seed 7"):
        publish("best", "classification", checkpoints, target, seed=7)
    with pytest.raises(InputError, match="no engine in fp16; seed 0 has engines in fp32"):
        publish("best", "classification", checkpoints, target, precision="fp16")


def test_no_recipe_passed(tmp_path, target):
    fails = {"delta": -3.0, "delta_ci95": [-4.0, -2.0]}
    small.result(tmp_path / "checkpoints", small.BASELINE, **fails)
    with pytest.raises(GateError, match=r"no recipe passed its gate:\n  - baseline_fp32 \(fp32\): fail: delta -3.00"):
        publish("best", "classification", tmp_path / "checkpoints", target)


def test_where_nothing_but_the_start_has_passed_it_is_said(tmp_path, target, caplog):
    small.result(tmp_path / "checkpoints", small.BASELINE)
    small.result(tmp_path / "checkpoints", "worse", weights=5, delta=-3.0, delta_ci95=[-4.0, -2.0], speedup={"1": 9.0})
    publish("best", "classification", tmp_path / "checkpoints", target)
    assert "baseline_fp32 is the model that recipes start from: what they made is slower, or has not passed" in caplog.text


def test_what_is_published_is_asked_in_words(checkpoints, target, capsys):
    """A server for one question, a server that runs, and both protocols of the example."""
    publish("tiny", "classification", checkpoints, target)
    capsys.readouterr()
    text = "w5 w6 w7"
    run(["ask", small.MODEL, text, "--serve", "--repository", str(target)])
    answer = capsys.readouterr().out
    assert {line.split()[0] for line in answer.splitlines()} == set(small.LABELS)
    shares = [float(line.split()[1]) for line in answer.splitlines()]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=0.002)
    names = [small.MODEL, f"{small.MODEL}_text"]
    with Server(target, target.parent / "logs", names, grpc=True) as server:
        run(["ask", small.MODEL, text, "--url", server.url])
        assert capsys.readouterr().out == answer
        example = [sys.executable, str(EXAMPLE), small.MODEL, text, "--http", server.url, "--grpc", server.grpc_url]
        done = subprocess.run(example, capture_output=True, text=True, check=True)
    best = answer.split()[0]
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[f"tritonclient.{name}", f"label={best}"] for name in ("http", "grpc")]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["m", "a", "--url", "127.0.0.1:1"], 3, "127.0.0.1:1, model 'm_text', readiness: the connection failed"),
        (["m", "a", "--url", "nowhere"], 2, "expected host:port"),
        (["m", "a", "--serve", "--repository", "nowhere"], 2, "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_asked(arguments, status, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(["ask", *arguments])
    assert end.value.code == status and message in capsys.readouterr().err


def run(arguments):
    """A command that is to end well."""
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code
