"""A whole kind of engine in one file, as another package would bring it: no other file knows of it."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from transformers import BertConfig, BertModel

from optkit.core.code_version import closure
from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import read_json
from optkit.engines import registry as engines
from optkit.engines.base import Measured, Runtime, Tensors
from optkit.engines.build_options import BuildOptions
from optkit.engines.record import empty_folder, read_record, write_record
from optkit.engines.select import convert
from optkit.evaluation.gate import judge
from optkit.graph import onnx_file
from optkit.report import doctor
from optkit.serving import native
from optkit.serving.config import parse
from optkit.tasks.classification import Classification
from tests.conftest import main_ends
from tests.evaluation.test_gate_gpu import ROW
from tests.graph.models import feed

pytestmark = pytest.mark.slow

FEEDS = [feed(4, 16, 0)]
QUICK = {"task": Classification, "shapes": ((1, 8),), "max_length": 16, "rounds": 2, "threads": 1}


@dataclasses.dataclass(frozen=True)
class ToyOptions(BuildOptions):
    """What a toy's build can be told."""

    colour: str = "red"
    wheels: int = 4


class Toy(Runtime):
    """The graph as it is written, run by a session of ONNX Runtime that optimises nothing."""

    kind = "toy"
    package = "onnxruntime"
    options = ToyOptions
    artefacts = ("toy.onnx",)

    def precisions(self, graph_is_quantised: bool) -> tuple[str, ...]:
        return ("int8",) if graph_is_quantised else ("fp32",)

    def build(
        self, graph: Path, precision: str, folder: Path, variant: str | None = None, options: ToyOptions | None = None
    ) -> None:
        onnx_file.copy(graph, empty_folder(folder) / "toy.onnx")
        inputs = [tensor.name for tensor in onnx_file.structure(graph).graph.input]
        details = {"version": onnxruntime.__version__, "settings": (options or ToyOptions()).as_dict()}
        write_record(folder, kind=self.kind, precision=precision, variant="f32", inputs=inputs, **details)

    def load(self, folder: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads or 0
        return onnxruntime.InferenceSession(folder / "toy.onnx", options, providers=["CPUExecutionProvider"])

    def infer(self, handle: onnxruntime.InferenceSession, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        return handle.run(["logits"], {tensor.name: feed[tensor.name] for tensor in handle.get_inputs()})[0]

    def evidence(self, handle: onnxruntime.InferenceSession) -> dict[str, Any]:
        return {"toys": 1}

    def tensors(self, folder: Path) -> Tensors:
        inputs = [{"name": name, "dtype": "int64", "shape": [-1, -1]} for name in read_record(folder)["inputs"]]
        return {"inputs": inputs, "outputs": [{"name": "logits", "dtype": "float32", "shape": [-1, 3]}]}

    def promises(self, row: Measured) -> Iterator[tuple[str, str]]:
        if row.evidence.get("toys") == 0:
            yield "fail", "a toy engine without a toy"


RUNTIME = Toy()


@pytest.fixture(params=["registered", "entry point"])
def toy(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kind is known, as a notebook or another package makes it known."""
    if request.param == "registered":
        engines.RUNTIMES.register("toy", RUNTIME)
    else:
        install(tmp_path / "site", "toy = tests.engines.test_toy_engine:RUNTIME", monkeypatch)
    yield
    engines.RUNTIMES.forget("toy")


def install(site: Path, points: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package with entry points into a folder of the import path."""
    (info := site / "toys-1.0.dist-info").mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[optkit.engines]\n{points}\n")
    monkeypatch.syspath_prepend(site)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("quantised", [False, True])
def test_it_is_compared_and_chosen_where_it_is_alone(quantised, exported, tmp_path):
    (folder := tmp_path / "engines").mkdir()
    options = {"toy": {"colour": "blue"}}
    made = convert(
        exported(is_quantised=quantised)[1], folder, ["toy"], quantised=quantised, feeds=FEEDS, options=options, **QUICK
    )
    (candidate,) = made.candidates
    precision = "int8" if quantised else "fp32"
    assert candidate.name == f"{precision}-toy-f32" and candidate.agreed and candidate.chosen
    assert candidate.largest_difference == 0 and candidate.evidence == {"toys": 1}
    assert read_record(folder / precision)["settings"] == {"colour": "blue", "wheels": 4}
    assert engines.load(folder / precision).infer(FEEDS[0]).shape == (4, 3)


@pytest.mark.usefixtures("toy")
def test_it_is_one_of_the_kinds_of_this_machine(exported, tmp_path):
    assert engines.kinds() == ("openvino", "onnxruntime", "tensorrt", "torch", "toy")
    assert engines.machine()["runtimes"]["toy"] == onnxruntime.__version__
    (folder := tmp_path / "engines").mkdir()
    made = convert(exported()[1], folder, quantised=False, feeds=FEEDS, **QUICK)
    assert {"openvino", "onnxruntime", "toy"} <= {candidate.kind for candidate in made.candidates}
    assert "tests.engines.test_toy_engine" in closure(*engines.modules(["toy"]))


@pytest.mark.usefixtures("toy")
def test_the_command_builds_it_with_its_options_as_a_native_model(workshop, tiny_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(workshop)
    data = ["--task", "classification", "--data", str(tiny_data), "--model", str(workshop / "model")]
    asked = ["build", "baseline_fp32", *data, "--engine", "toy", "--checkpoints", str(tmp_path / "checkpoints")]
    main_ends([*asked, "--option", "wheels=many", "--option", "colour=green"], 2)
    assert "build options of the toy engine:\n  wheels: found 'many': input should be a valid int" in capsys.readouterr().err
    main_ends([*asked, "--option", "wheel=3", "--option", "sparse=true"], 2)
    said = "--option wheel, sparse: no engine that is built knows it; there are toy: colour, wheels\n"
    assert capsys.readouterr().err == f"optkit: error: {said}"
    assert not (tmp_path / "checkpoints").exists()

    native_model = [
        "--flavour",
        "native",
        "--container",
        f"26.08={onnxruntime.__version__}",
        "--out",
        str(tmp_path / "models"),
    ]
    main_ends([*asked, "--option", "wheels=3", *native_model], 0)
    (model,) = (tmp_path / "models").glob("*_baseline_fp32")
    assert read_json(model / "engine.json")["settings"] == {"colour": "red", "wheels": 3}
    config = parse((model / "config.pbtxt").read_text())
    assert (config.backend, config.max_batch_size) == ("toy", 64)
    assert (model / "1" / "toy.onnx").is_file()
    assert "docker run --rm -p " in capsys.readouterr().err
    (record,) = (tmp_path / "checkpoints").glob("classification/*/baseline_fp32/seed-0/engines/record.json")
    assert read_json(record)["depends_on"]["options"] == {"toy": {"colour": "red", "wheels": 3}}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, tiny_tokenizer):
    """A folder with the baseline's recipe and a pretrained model without a head."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "recipes").mkdir()
    words = "from optkit import Recipe, Training\n\ntraining = Training(epochs=1, learning_rate=3e-3, precision='fp32')\n"
    (folder / "recipes" / "baseline_fp32.py").write_text(
        f"{words}recipe = Recipe(name='baseline_fp32', training=training)\n"
    )
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=len(tiny_tokenizer), max_position_embeddings=16, **sizes))
    model.save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    return folder


@pytest.mark.usefixtures("toy")
def test_a_kind_without_a_native_backend_says_what_serves_it(exported, tmp_path, monkeypatch):
    (folder := tmp_path / "engine").mkdir()
    RUNTIME.build(exported()[1], "fp32", folder)
    monkeypatch.setattr(RUNTIME, "tensors", lambda folder: Runtime.tensors(RUNTIME, folder))
    with pytest.raises(InputError, match=r"no native backend for toy engines\. Serve it with optkit's: --flavour python"):
        native.config(folder)


@pytest.mark.usefixtures("toy")
def test_the_gate_hears_what_it_promises():
    row = dataclasses.replace(ROW, engine="toy", evidence={"toys": 0})
    assert judge(row) == ("fail", ["a toy engine without a toy"])
    assert judge(dataclasses.replace(row, evidence={"toys": 1})) == ("pass", [])


def test_the_gate_is_undecided_where_nothing_knows_the_kind():
    verdict, (reason,) = judge(dataclasses.replace(ROW, engine="toy"))
    assert verdict == "undecided"
    assert reason.startswith(
        "what engines of the kind 'toy' promise is not known without their package: Engine kind 'toy' is"
    )


def test_an_engine_of_a_kind_that_nothing_brings_is_named(tmp_path):
    record = {"kind": "toy", "precision": "fp32", "variant": "f32", "inputs": [], "cpu_features": []}
    (tmp_path / "engine.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="Engine kind 'toy' is unknown; expected one of openvino, onnxruntime, tensorrt"):
        engines.load(tmp_path)


@pytest.mark.parametrize(
    ("points", "told", "fix"),
    [
        (
            "toy = tests.engines.test_toy_engine:Toy",
            "package toys: .* which is no engine kind",
            "Mend or remove that package",
        ),
        (
            "lorry = tests.engines.test_toy_engine:RUNTIME",
            "engine kind 'lorry': found .*, expected an instance of .*Runtime whose `kind` is",
            "Mend the package that brings it",
        ),
    ],
)
def test_an_entry_point_that_names_no_runtime_of_its_kind(points, told, fix, tmp_path, monkeypatch):
    install(tmp_path / "site", points, monkeypatch)
    kind = points.split()[0]
    with pytest.raises(MachineError, match=told):
        engines.runtime(kind)
    finding = next(finding for finding in doctor.examine()["engines"] if finding.name == kind)
    assert finding.found == "cannot be used" and fix in finding.fix
