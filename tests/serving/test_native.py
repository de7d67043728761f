"""Models for NVIDIA's containers: configurations follow the engine's file, and a container of another version is refused."""

import json
import shutil
from pathlib import Path

import pytest

from optkit.core.errors import InputError, MachineError
from optkit.engines import registry as engines
from optkit.engines.tensorrt import deployment, library
from optkit.serving import containers, native
from optkit.serving.config import parse
from optkit.serving.server import Server
from tests.graph.conftest import exported  # noqa: F401

pytestmark = pytest.mark.slow

SHAPES = [[1, 1], [8, 128], [64, 384]]
RECORD = {
    "kind": "tensorrt",
    "precision": "int8",
    "variant": "fp16",
    "inputs": ["input_ids", "attention_mask"],
    "cpu_features": [],
    "runtime_version": "11.1.0.106",
    "settings": {"version_compatible": False},
    "profiles": [{"input_ids": SHAPES, "attention_mask": SHAPES}],
    "tensors": {
        "inputs": [{"name": name, "dtype": "int64", "shape": [-1, -1]} for name in ("input_ids", "attention_mask")],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": [-1, -1, 2]}],
    },
}
TEXT = """\
platform: "tensorrt_plan"
max_batch_size: 64
input {
  name: "input_ids"
  data_type: TYPE_INT64
  dims: -1
}
input {
  name: "attention_mask"
  data_type: TYPE_INT64
  dims: -1
}
output {
  name: "logits"
  data_type: TYPE_FP32
  dims: -1
  dims: 2
}
instance_group {
  count: 1
  kind: KIND_GPU
  profile: "0"
}
optimization {
  cuda {
    graphs: true
GRAPHS  }
}
dynamic_batching {
  preferred_batch_size: 8
  preferred_batch_size: 64
  max_queue_delay_microseconds: 100
}
"""
GRAPH = """\
    graph_spec {
      batch_size: BATCH
      input { key: "input_ids" value { dim: LENGTH } }
      input { key: "attention_mask" value { dim: LENGTH } }
    }
"""
RECORDED = [(batch, length) for batch in (1, 8, 64) for length in (128, 384)]
GRAPHS = "".join(GRAPH.replace("BATCH", str(batch)).replace("LENGTH", str(length)) for batch, length in RECORDED)
TEXT = TEXT.replace("GRAPHS", GRAPHS)


def plan_config(record, **settings):
    """The text for a plan of which only the record is there."""
    tensors, largest = deployment.tensors(record), deployment.largest(record["profiles"])[0]
    return native.text(tensors, largest, deployment.native_config(record, **settings))


def test_the_text_in_full():
    message = parse(plan_config(RECORD))
    assert message == parse(TEXT)
    assert not message.name  # the folder's name counts


def test_several_profiles_and_a_fixed_length():
    small, large = [[1, 128], [1, 128], [1, 128]], [[1, 128], [16, 128], [32, 128]]
    record = {**RECORD, "profiles": [{"input_ids": s, "attention_mask": s} for s in (small, large)]}
    message = parse(plan_config(record, instances=2, queue_delay_us=None))
    assert message.max_batch_size == 32
    assert [list(tensor.dims) for tensor in message.input] == [[128], [128]]
    assert (message.instance_group[0].count, list(message.instance_group[0].profile)) == (2, ["0", "1"])
    assert not message.HasField("dynamic_batching")
    assert [spec.batch_size for spec in message.optimization.cuda.graph_spec] == [1, 16, 32]


def test_a_type_that_triton_is_not_told_of():
    tensors = {**RECORD["tensors"], "inputs": [{"name": "input_ids", "dtype": "bool", "shape": [-1, -1]}]}
    with pytest.raises(InputError, match="input_ids is bool"):
        plan_config({**RECORD, "tensors": tensors})
    with pytest.raises(InputError, match="found 0 instances"):
        plan_config(RECORD, instances=0)


def test_only_plans_get_a_configuration(tmp_path):
    for name, record in {"int8": RECORD, "fp32": {**RECORD, "kind": "openvino"}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "engine.json").write_text(json.dumps(record))
    native.write_configs(tmp_path)
    assert parse((tmp_path / "int8" / "config.pbtxt").read_text()) == parse(TEXT)
    assert not (tmp_path / "fp32" / "config.pbtxt").exists()


@pytest.mark.parametrize(
    ("built", "tag"), [("10.16.1.11", "26.05"), ("11.0.0.114", "26.06"), ("11.1.0.106", "26.07"), ("11.2.1.9", "26.08")]
)
def test_the_container_of_a_plan(built, tag):
    assert containers.container({**RECORD, "runtime_version": built}) == tag


def test_containers_that_do_not_fit():
    with pytest.raises(
        MachineError,
        match=r"no Triton container with tensorrt 11\.1\.5\.1 is known.*for 26\.08: .*tensorrt-cu13==11\.2\.1\.\*",
    ):
        containers.container({**RECORD, "runtime_version": "11.1.5.1"})
    with pytest.raises(MachineError, match=r"container 26\.05 has tensorrt 10\.16, the engine was built by 11\.1\.0\.106"):
        containers.container(RECORD, "26.05")
    with pytest.raises(InputError, match=r"--container 25\.01: its version of tensorrt is not known.* 25\.01=VERSION"):
        containers.container(RECORD, "25.01")
    compatible = {**RECORD, "settings": {"version_compatible": True}}
    assert containers.container(compatible, "26.08") == "26.08"
    with pytest.raises(MachineError, match=r"container 26\.05 has tensorrt 10\.16"):  # older than the plan
        containers.container(compatible, "26.05")


def test_a_container_that_the_table_does_not_have_is_named_with_its_version():
    assert containers.container(RECORD, "26.09=11.1.0") == "26.09"
    with pytest.raises(MachineError, match=r"container 26\.07 has tensorrt 11\.3, the engine was built by 11\.1\.0\.106"):
        containers.container(RECORD, "26.07=11.3")  # what the user says goes before the table
    for tag in ("26.09=new", "26.09="):
        with pytest.raises(InputError, match="its version of tensorrt is not known"):
            containers.container(RECORD, tag)
    for tag in ("=11.1", "", "26.09-py3=11.1", "x y=11.1", "26.9=11.1"):
        with pytest.raises(InputError, match=r"expected the year and month of one of NVIDIA's containers, as 26\.08"):
            containers.container(RECORD, tag)


def test_a_version_that_is_not_that_of_a_known_container_is_said_once(caplog):
    record = {"kind": "onnxruntime", "runtime_version": "1.27.0"}
    for given in ("26.07=1.27", "26.07=1.27.0", "26.07=1.27.0.3", "26.09=1.29.5"):
        containers.container(record, given)
    assert not caplog.records
    for _ in range(2):
        assert containers.container(record, "26.07=1.29.5") == "26.07"
    (said,) = caplog.records
    assert "--container 26.07=1.29.5: this container is known, and has onnxruntime 1.27.0" in said.getMessage()


def test_a_plan_of_cuda_12_is_told_what_to_build_it_with():
    with pytest.raises(
        MachineError, match=r"for CUDA 12, and the containers are for CUDA 13.*'tensorrt-cu13==11\.2\.1\.\*'"
    ):
        containers.container({**RECORD, "cuda": 12}, "26.07")
    assert containers.container({**RECORD, "cuda": 13}) == "26.07"


def test_a_plan_that_was_built_without_a_gpu_runs_in_no_container():
    with pytest.raises(MachineError, match="built without a GPU, by TensorRT for RTX, and no container runs it"):
        containers.container({**RECORD, "offline": True}, "26.07")


@pytest.mark.parametrize(("version", "warned"), [("1.31.1", False), ("1.31", False), ("1.40", False), ("1.30.9", True)])
def test_an_onnx_graph_runs_on_newer_versions_and_with_a_warning_on_older_ones(version, warned, caplog):
    record = {"kind": "onnxruntime", "runtime_version": "1.31.1"}
    assert containers.container(record, f"26.09={version}") == "26.09"
    found = "container 26.09 has onnxruntime 1.30.9, and the engine was built by 1.31.1"
    assert (found in caplog.text) == warned == ("pip install 'onnxruntime==1.30.9.*'" in caplog.text)


@pytest.mark.parametrize(
    ("kind", "built", "tag", "version"),
    [
        ("onnxruntime", "1.24.4", "26.08", None),
        ("onnxruntime", "1.27.0", "26.08", None),
        ("onnxruntime", "1.31.1", "26.08", "1.28.0"),
        ("openvino", "2026.2.0-21903-abc", "26.08", None),
        ("openvino", "2026.4.1-22982-abc", "26.08", "2026.3.0"),
    ],
)
def test_the_container_of_an_engine_for_a_cpu_is_the_newest(kind, built, tag, version, caplog):
    containers._say_older.cache_clear()  # other tests may have heard it
    assert containers.container({"kind": kind, "runtime_version": built}) == tag
    assert (f"build it again after pip install '{kind}=={version}.*'" in caplog.text) == bool(caplog.text) == bool(version)


def test_the_command_binds_to_loopback():
    command = containers.docker_command(Path("/models"), RECORD)
    assert command == (
        "docker run --rm --gpus all -p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 -p 127.0.0.1:8002:8002 "
        "-v /models:/models:ro nvcr.io/nvidia/tritonserver:26.07-py3 tritonserver --model-repository=/models "
        "--disable-auto-complete-config"
    )
    compatible = containers.docker_command(Path("/models"), {**RECORD, "settings": {"version_compatible": True}})
    assert compatible.endswith("--backend-config=tensorrt,version-compatible=true")
    record = {"kind": "openvino", "runtime_version": "2026.4.1-22982-abc"}
    on_cpu = containers.docker_command(Path("/my models"), record, "26.08=2026.4")
    assert "--gpus" not in on_cpu and "-v '/my models:/models:ro' " in on_cpu


@pytest.fixture(scope="module")
def built(exported, tmp_path_factory):  # noqa: F811
    """`(kind, precision) -> folder` of a real engine of the tiny classifier."""
    made = {}

    def get(kind, precision):
        if (kind, precision) not in made:
            folder = made[kind, precision] = tmp_path_factory.mktemp("engine")
            engines.runtime(kind).build(exported(is_quantised=precision == "int8")[1], precision, folder)
        return made[kind, precision]

    return get


NAMES = ("input_ids", "attention_mask", "token_type_ids")
HAS_BUILDER = library.installed_version() is not None
FLOAT = engines.runtime("openvino").precisions(False)[-1]
"""What OpenVINO's backend computes in on this CPU."""
OPENVINO = [("openvino", precision) for precision in (*engines.runtime("openvino").precisions(True), FLOAT)]
KINDS = [("onnxruntime", "int8"), *OPENVINO, ("tensorrt", "fp16")]


@pytest.fixture
def place(built, tmp_path):
    """Places a real engine as a native model `model`, and gives the model's folder and its configuration."""

    def place_engine(kind, precision):
        if kind == "tensorrt" and not HAS_BUILDER:
            pytest.skip(f"no TensorRT builder: {library.INSTALL_BUILDER}")
        model = native.place(tmp_path / "repository", "model", built(kind, precision))
        return model, parse((model / "config.pbtxt").read_text())

    return place_engine


@pytest.mark.parametrize(("kind", "precision"), KINDS)
def test_the_file_lies_where_its_backend_looks(kind, precision, place):
    model, message = place(kind, precision)
    names = {"onnxruntime": {"model.onnx"}, "openvino": {"model.xml", "model.bin"}, "tensorrt": {"model.plan"}}
    assert {path.name for path in (model / "1").iterdir()} == names[kind]
    assert {path.name for path in model.iterdir()} == {"1", "config.pbtxt", "engine.json"}
    assert [path.name for path in model.parent.iterdir()] == ["model"], "the server takes every folder for a model"
    assert (message.backend or message.platform) == {"tensorrt": "tensorrt_plan"}.get(kind, kind)


def tensor(name, kind, dims):
    return f'{{ name: "{name}" data_type: {kind} {" ".join(f"dims: {size}" for size in dims)} }}'


def test_onnx_runtime_runs_the_stored_graph_as_it_is(place):
    inputs = "".join(f"input {tensor(name, 'TYPE_INT64', [-1])}" for name in NAMES)
    assert place("onnxruntime", "int8")[1] == parse(
        f"""backend: "onnxruntime" max_batch_size: 64 {inputs} output {tensor("logits", "TYPE_FP32", [3])}
        instance_group {{ count: 1 kind: KIND_CPU }} optimization {{ graph {{ level: 2 }} }} dynamic_batching {{ }}"""
    )


def test_onnx_runtime_has_threads_for_each_instance(built):
    settings = {"instances": 2, "threads": 3, "queue_delay_us": 500, "preferred_batch_sizes": (2, 8)}
    message = parse(native.config(built("onnxruntime", "int8"), **settings))
    assert list(message.dynamic_batching.preferred_batch_size) == [2, 8]
    assert message.instance_group[0].count == 2
    assert message.parameters["intra_op_thread_count"].string_value == "3"
    assert message.dynamic_batching.max_queue_delay_microseconds == 500


def test_openvino_has_a_stream_for_each_instance_and_the_threads_of_all(built_float32):
    message = parse(native.config(built_float32, instances=2, threads=3, queue_delay_us=500))
    assert message.instance_group[0].count == 2
    assert {name: one.string_value for name, one in message.parameters.items()} == {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "2",
        "INFERENCE_NUM_THREADS": "6",
    }
    assert not message.HasField("dynamic_batching")


def test_openvino_keeps_no_float32_where_the_cpu_has_bf16(built, tmp_path, caplog):
    for name, precision in (("fp32", "fp32"), ("int8", "int8")):
        shutil.copytree(built("openvino", "fp32"), tmp_path / name)
        record = json.loads((tmp_path / name / "engine.json").read_text())
        changed = {**record, "precision": precision, "variant": "f32", "cpu_features": ["avx2", "avx512_bf16"]}
        (tmp_path / name / "engine.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match=r"computes in bf16 on a CPU that has it.*--flavour python"):
        native.place(tmp_path / "repository", "fp32", tmp_path / "fp32")
    placed = native.place(tmp_path / "repository", "int8", tmp_path / "int8")
    assert parse((placed / "config.pbtxt").read_text()).parameters["HINT_BF16"].string_value == "YES"
    assert json.loads((placed / "engine.json").read_text())["variant"] == "bf16"
    assert "computes in bf16 what this engine keeps in f32; check it there with optkit validate --url" in caplog.text


@pytest.fixture
def built_float32(built, tmp_path):
    """An engine of OpenVINO as a CPU without bf16 builds it."""
    shutil.copytree(built("openvino", "fp32"), tmp_path / "float32")
    path = tmp_path / "float32" / "engine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cpu_features": ["avx2"]}))
    return tmp_path / "float32"


def test_openvino_takes_batches_of_any_size_by_itself(built_float32, tmp_path):
    inputs = "".join(f"input {tensor(name, 'TYPE_INT64', [-1, -1])}" for name in NAMES)
    found = parse((native.place(tmp_path / "repository", "model", built_float32) / "config.pbtxt").read_text())
    assert found == parse(
        f"""backend: "openvino" max_batch_size: 0 {inputs} output {tensor("logits", "TYPE_FP32", [-1, 3])}
        instance_group {{ count: 1 kind: KIND_CPU }}
        parameters {{ key: "PERFORMANCE_HINT" value {{ string_value: "LATENCY" }} }}"""
    )


def test_the_length_and_batches_of_a_plan_are_its_profiles(place, built):
    message = place("tensorrt", "fp16")[1]
    (profile,) = json.loads((built("tensorrt", "fp16") / "engine.json").read_text())["profiles"]
    assert message.max_batch_size == profile["input_ids"][2][0]
    smallest, best, largest = (shape[0] for shape in profile["input_ids"])
    assert list(message.dynamic_batching.preferred_batch_size) == [best, largest]
    assert {spec.batch_size for spec in message.optimization.cuda.graph_spec} == {smallest, best, largest}


@pytest.mark.parametrize(("told", "delay"), [({}, 100), ({"queue_delay_us": 0}, 0), ({"queue_delay_us": 700}, 700)])
def test_a_delay_that_is_told_goes_before_a_plans_own(built, told, delay):
    message = parse(native.config(built("tensorrt", "fp16"), **told))
    assert message.dynamic_batching.max_queue_delay_microseconds == delay


def test_two_heads_of_question_answering(exported, tmp_path):  # noqa: F811
    (folder := tmp_path / "engine").mkdir()
    engines.runtime("onnxruntime").build(exported("question_answering")[1], "fp32", folder)
    (output,) = parse(native.config(folder)).output
    assert (output.name, list(output.dims)) == ("logits", [-1, 2])


def test_a_model_that_is_there_is_not_replaced(place, tmp_path):
    model, _ = place("onnxruntime", "int8")
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"model 'model' is already in .*repository. Remove .*, or choose another folder"):
        place("openvino", "fp32")
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match=r"model name '\.\./model'"):
        native.place(tmp_path / "repository", "../model", tmp_path)


@pytest.mark.server
def test_the_server_accepts_the_configurations_and_lacks_the_backends_alone(built, tmp_path):
    """The wheel's server checks a configuration with Triton's own rules before it looks for the backend."""
    root = tmp_path / "repository"
    kinds = {kind: precision for kind, precision in KINDS if kind != "tensorrt" or HAS_BUILDER}
    for kind, precision in kinds.items():
        native.place(root, kind, built(kind, precision))
    shutil.copytree(root / "onnxruntime", root / "broken")
    broken = root / "broken" / "config.pbtxt"
    broken.write_text(broken.read_text().replace("dims: -1", "dims: 0"))
    with Server(root, tmp_path / "logs") as server:
        for kind in kinds:
            with pytest.raises(MachineError, match=f"unable to find backend library for backend '{kind}'"):
                server.load(kind)
        with pytest.raises(MachineError, match=r"cannot load it: (?!.*unable to find backend)"):
            server.load("broken")
