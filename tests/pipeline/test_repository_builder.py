"""A model repository from a recipe's engines, and a server that runs already validated against them."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertModel

from optkit import Quantize, Recipe, Training
from optkit.core.errors import InputError, MachineError
from optkit.core.step_cache import content_at, step
from optkit.engines import registry as engines
from optkit.engines.record import read_record
from optkit.pipeline import dockerfile, remote_validation, repository_builder, repository_text
from optkit.pipeline.remote_validation import Target
from optkit.pipeline.run import run
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.build_engines import converted
from optkit.report.explain import judged
from optkit.serving import command, install, repository
from optkit.serving.config import parse
from optkit.serving.ticket import Ticket
from optkit.tasks.registry import load
from tests.conftest import main_ends
from tests.registry import small

pytestmark = pytest.mark.server

TRAINING = Training(epochs=4, learning_rate=3e-3, batch_size=16, precision="fp32")
RECIPES = {
    "baseline_fp32": Recipe(name="baseline_fp32", training=TRAINING, max_drop=20),
    "ptq_int8": Recipe(name="ptq_int8", stages=[Quantize(calibrator="mse")], training=TRAINING, max_drop=20),
}
NATIVE, PYTHON = "native", "python"


@pytest.fixture(scope="module")
def spec(tmp_path_factory, tiny_config, tiny_tokenizer, tiny_data):
    """Both recipes, run and scored, with engines of ONNX Runtime alone."""
    folder = tmp_path_factory.mktemp("workshop")
    torch.manual_seed(0)
    BertModel(tiny_config).save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    task = load("classification", tiny_data)
    made = RunSpec(task, str(folder / "model"), 0, folder / "checkpoints", RECIPES, ("onnxruntime",), seconds=0.05)
    for recipe in RECIPES.values():
        run(recipe, made)
    return made


def built(spec, recipe):
    return spec.folder(RECIPES[recipe]) / "engines"


@pytest.fixture(scope="module")
def repositories(spec, tmp_path_factory):
    """A repository of the flavour python with both recipes' models, and one `other` that takes other tensors."""
    root = tmp_path_factory.mktemp("python") / "repository"
    commands = {name: repository_builder.write(RECIPES[name], spec, built(spec, name), root, PYTHON) for name in RECIPES}
    assert set(commands.values()) == {f"optkit serve --repository {root} --unpublished"}
    repository.place(root, small.engine(tmp_path_factory.mktemp("other") / "engine"), small.config("other"))
    dockerfile.write(root / repository_text.FILE, "image", "base")  # a file that the server does not take for a model
    return root


@pytest.fixture(scope="module")
def url(repositories, tmp_path_factory):
    """A server that takes every folder of the repository for a model, as `tritonserver` does, and ends where one fails."""
    installation, folder = install.find(), tmp_path_factory.mktemp("logs")
    with command.listen(None, grpc=False) as free:
        port = free.http_port
    ticket = Ticket("flavours", "", str(folder), None)
    arguments = command.arguments(ticket, repositories, installation.backends, None, 2, 60, 0)
    plain = {
        "--model-control-mode": "none",
        "--http-address": "127.0.0.1",
        "--allow-grpc": "false",
        "--allow-metrics": "false",
    }
    arguments = [one for one in arguments if one.partition("=")[0] not in plain]
    arguments += [f"--http-port={port}", *(f"{name}={value}" for name, value in plain.items())]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [installation.binary, *arguments, "--exit-on-error=true"], env=installation.environment, stdout=log, stderr=log
        )
    try:
        yield wait_until_ready(server, f"127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(30)


def wait_until_ready(server, url):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended: it cannot load the repository"
        with suppress(OSError):
            if urllib.request.urlopen(f"http://{url}/v2/health/ready", timeout=5).status == 200:
                return url
        time.sleep(0.1)
    raise AssertionError("the server is not ready")


def score(spec, target, recipe="ptq_int8", task=None):
    return remote_validation.validate(recipe, task or spec.task, spec.root, target)


def test_the_right_engine_passes(spec, url):
    row = score(spec, Target(url))
    assert (row.verdict, row.reasons) == ("pass", [])
    assert row.served_by.startswith("tritonserver 2.")
    assert row.served_by.endswith(f"{url}, model classification_ptq_int8, python")
    assert row.ladder["server"]["largest"] == 0 and row.value == row.ladder["engine"]["value"] > 80
    assert {"padding", "position", "neighbours", "together"} == set(row.invariance)
    assert row.delta_ci95[0] <= row.delta <= row.delta_ci95[1]
    assert "ptq_int8 int8 (onnxruntime), classification, seed 0: pass" in judged(row) and url in judged(row)


def test_another_recipes_engine_fails_with_the_reason(spec, url):
    row = score(spec, Target(url, "classification_baseline_fp32"))
    assert row.verdict == "fail"
    assert row.reasons[0].startswith("the rung 'server' moves the logits by ")


def test_the_command_line_ends_in_the_verdict(spec, url, tiny_data, capsys):
    """The README's command, once for each exit status."""
    rest = ["--task", "classification", "--data", str(tiny_data), "--checkpoints", str(spec.root), "--url"]
    main_ends(["validate", "ptq_int8", *rest, url], 0)
    assert "onnxruntime), classification, seed 0: pass\n" in capsys.readouterr().out
    main_ends(["validate", "ptq_int8", *rest, url, "--model-name", "classification_baseline_fp32"], 1)
    assert "seed 0: fail\n" in capsys.readouterr().out
    main_ends(["validate", "ptq_int8", *rest, url, "--model-name", "other"], 2)
    main_ends(["validate", "ptq_int8", *rest, f"127.0.0.1:{free_port()}"], 3)
    assert "Is the server still running?" in capsys.readouterr().err


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_model_of_another_backend_is_held_to_the_graph(spec, url, monkeypatch):
    """No other backend runs here, so the server's word for its backend is replaced; the answers are real."""
    monkeypatch.setattr(remote_validation, "_backend", lambda config: "onnxruntime")
    row = score(spec, Target(url))
    assert (row.verdict, list(row.ladder)) == ("pass", ["float", "pytorch", "graph", "engine"])
    wrong = score(spec, Target(url, "classification_ptq_int8"), recipe="baseline_fp32")
    assert wrong.verdict == "fail" and "the rung 'engine' moves the logits" in wrong.reasons[0]


def test_a_model_that_is_not_there_and_one_of_other_tensors(spec, url):
    with pytest.raises(InputError, match=r"model 'nobody' is not on the Triton server .*, which has: classification_base"):
        score(spec, Target(url, "nobody"))
    with pytest.raises(InputError, match=r"model 'other' on .*: takes .*'attention_mask'.* expected .*'token_type_ids'"):
        score(spec, Target(url, "other"))


def test_a_server_that_is_not_there_or_never_answers(spec):
    with pytest.raises(MachineError, match="the connection failed"):
        score(spec, Target(f"127.0.0.1:{free_port()}"))
    with pytest.raises(InputError, match="expected host:port of a Triton server"):
        score(spec, Target("nowhere"))
    silent = socket.create_server(("127.0.0.1", 0))  # connections wait to be accepted
    with silent, pytest.raises(MachineError, match=r"no answer within 0\.5 s"):
        score(spec, Target(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5))


def test_another_dev_split_is_refused(spec, url, tiny_data, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    head, *rows = (data / "dev.tsv").read_text().splitlines()
    (data / "dev.tsv").write_text("\n".join([head, *rows[::-1]]) + "\n")
    with pytest.raises(InputError, match="scored on another dev split than this"):
        score(spec, Target(url), task=load("classification", data))


def test_a_recipe_without_results_says_what_to_do(spec, url):
    with pytest.raises(InputError, match="recipe 'ptq' has no current result for task 'classification'"):
        score(spec, Target(url), recipe="ptq")


def test_native_names_the_container_before_it_writes(spec, tmp_path, caplog):
    root, version = tmp_path / "repository", read_record(built(spec, "ptq_int8") / "int8")["runtime_version"]
    with pytest.raises(InputError, match=r"--container 25\.01: its version of onnxruntime is not known"):
        repository_builder.write(RECIPES["ptq_int8"], spec, built(spec, "ptq_int8"), root, NATIVE, "25.01")
    assert not root.exists()
    older = repository_builder.write(
        RECIPES["ptq_int8"], spec, built(spec, "ptq_int8"), tmp_path / "older", NATIVE, "26.08=1.24.4"
    )
    assert "tritonserver:26.08-py3" in older
    assert f"container 26.08 has onnxruntime 1.24.4, and the engine was built by {version}" in caplog.text
    assert caplog.text.count("build it again after pip install 'onnxruntime==1.24.4.*'") == 1
    said = repository_builder.write(RECIPES["ptq_int8"], spec, built(spec, "ptq_int8"), root, NATIVE, f"26.08={version}")
    assert said.startswith("docker run --rm -p 127.0.0.1:8000:8000 ") and "tritonserver:26.08-py3" in said
    model = root / "classification_ptq_int8"
    assert parse((model / "config.pbtxt").read_text()).backend == "onnxruntime"
    assert (model / "1" / "model.onnx").is_file()
    with pytest.raises(InputError, match="is already in"):
        repository_builder.write(RECIPES["ptq_int8"], spec, built(spec, "ptq_int8"), root, NATIVE, f"26.08={version}")


def test_a_native_model_is_served_as_it_was_tuned(spec, tmp_path):
    settings = {"instances": 2, "threads": 1, "queue_delay_us": 500, "preferred_batch_sizes": []}
    place = spec.folder(RECIPES["ptq_int8"]) / "tuning" / "int8"

    def make(unfinished):
        (unfinished / "tuning.json").write_text(json.dumps({"choice": {"settings": settings}}))

    step(place, {"engines": content_at(built(spec, "ptq_int8"))}, make)
    try:
        repository_builder.write(RECIPES["ptq_int8"], spec, built(spec, "ptq_int8"), tmp_path, NATIVE)
    finally:
        shutil.rmtree(place.parent)
    config = parse((tmp_path / "classification_ptq_int8" / "config.pbtxt").read_text())
    assert config.instance_group[0].count == 2
    assert config.parameters["intra_op_thread_count"].string_value == "1"
    assert config.dynamic_batching.max_queue_delay_microseconds == 500


def test_native_leaves_out_what_no_backend_computes(spec, tmp_path, caplog):
    both = tmp_path / "engines"
    record = read_record(built(spec, "ptq_int8") / "int8") | {"cpu_features": ["avx512_bf16"]}
    for precision, kind in (("int8", "onnxruntime"), ("fp32", "openvino")):
        shutil.copytree(built(spec, "ptq_int8") / "int8", both / precision)
        (both / precision / "engine.json").write_text(json.dumps(record | {"kind": kind, "precision": precision}))
    repository_builder.write(RECIPES["ptq_int8"], spec, both, tmp_path / "repository", NATIVE)
    assert "fp32 is left out: Triton's OpenVINO backend computes in bf16" in caplog.text
    assert [path.name for path in (tmp_path / "repository").iterdir()] == ["classification_ptq_int8"]
    shutil.rmtree(both / "int8")
    with pytest.raises(InputError, match="OpenVINO backend computes in bf16"):
        repository_builder.write(RECIPES["ptq_int8"], spec, both, tmp_path / "nothing", NATIVE)
    assert not (tmp_path / "nothing").exists()


def test_other_engines_are_built_beside_those_that_were_scored(spec, url):
    recipe, before = RECIPES["ptq_int8"], content_at(built(spec, "ptq_int8"))
    beside = converted(recipe, replace(spec, engines=("onnxruntime", "openvino")), beside_scored=True)
    assert beside == spec.folder(recipe) / "built" and (beside / "int8" / "engine.json").is_file()
    assert converted(recipe, spec, beside_scored=True) == built(spec, "ptq_int8")
    assert content_at(built(spec, "ptq_int8")) == before
    assert score(spec, Target(url)).verdict == "pass"


def test_engines_of_two_kinds_need_one_container(spec, tmp_path):
    both = shutil.copytree(built(spec, "ptq_int8"), tmp_path / "engines")
    record = read_record(both / "int8")
    shutil.copytree(both / "int8", both / "fp32")
    (both / "fp32" / "engine.json").write_text(json.dumps(record | {"kind": "openvino"}))
    with pytest.raises(InputError, match=r"the engines are onnxruntime and openvino, .* Build one: --engine onnxruntime"):
        repository_builder.write(RECIPES["ptq_int8"], spec, both, tmp_path / "repository", NATIVE)
    names = repository_builder.named(RECIPES["ptq_int8"], spec, {"int8": both, "fp32": both})
    assert list(names) == ["classification_ptq_int8_int8", "classification_ptq_int8_fp32"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("docker", Path("out"), ()), InputError, "--flavour docker: expected one of python, native"),
        ((PYTHON, None, ()), InputError, "--flavour python: needs the folder of the model repository: --out DIR"),
        (
            (PYTHON, Path("out"), (), "26.07"),
            InputError,
            "only models of the flavour native run in one; add --flavour native",
        ),
        ((None, Path("out"), (), "26.07"), InputError, "only models of the flavour native run in one; add --flavour native"),
        (
            (NATIVE, Path("out"), ("openvino",), "25.01"),
            InputError,
            r"--container 25\.01: its version of openvino is not known",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_built(arguments, error, message):
    with pytest.raises(error, match=message):
        repository_builder.check(*arguments)


@pytest.mark.skipif(engines.runtime("tensorrt").runs_here(), reason="there is a GPU: plans run here")
@pytest.mark.parametrize("flavour", repository_builder.FLAVOURS)
def test_plans_that_only_show_something_are_not_put_into_a_repository(flavour, tmp_path):
    with pytest.raises(MachineError, match="The tensorrt engine needs an NVIDIA GPU"):
        repository_builder.check(flavour, tmp_path, ("tensorrt",), None)


def test_a_folder_of_something_else_is_not_replaced_by_engines(spec, tmp_path):
    (out := tmp_path / "out").mkdir()
    repository_builder.copy(built(spec, "ptq_int8"), out)
    repository_builder.copy(built(spec, "ptq_int8"), out)
    assert read_record(out / "int8")["precision"] == "int8"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("In the beginning")
    with pytest.raises(InputError, match=r"thesis: exists and holds no engines of optkit build"):
        repository_builder.copy(built(spec, "ptq_int8"), tmp_path / "thesis")
    with pytest.raises(InputError, match=r"thesis: exists and holds no engines of optkit build"):
        repository_builder.check(None, tmp_path / "thesis", ())  # before anything is trained
    with pytest.raises(InputError, match=r"chapter1\.tex: exists and is no folder"):
        repository_builder.check(PYTHON, tmp_path / "thesis" / "chapter1.tex", ())
    repository_builder.check(None, out, ())
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "In the beginning"


def test_serving_what_was_not_published_has_to_be_asked_for(repositories, capsys):
    main_ends(["serve", "--repository", str(repositories)], 2)
    assert "not put there by optkit publish" in capsys.readouterr().err
    serving = [sys.executable, "-m", "optkit", "serve", "--repository", str(repositories), "--unpublished"]
    with subprocess.Popen([*serving, "--port", str(free_port())], stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.readline()
        process.terminate()
    assert said.startswith("serving classification_baseline_fp32, classification_ptq_int8, other on http://127.0.0.1:")
