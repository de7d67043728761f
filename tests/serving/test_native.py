"""Configurations for NVIDIA's container follow the plan, and a container of another TensorRT is refused."""

import json
from pathlib import Path

import pytest

from optkit.errors import InputError, MachineError
from optkit.serving import native
from optkit.serving.config import parse

SHAPES = [[1, 1], [8, 128], [64, 384]]
RECORD = {
    "kind": "tensorrt",
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
  }
}
dynamic_batching {
  preferred_batch_size: 8
  max_queue_delay_microseconds: 100
}
"""


def test_the_text_in_full():
    message = parse(native.config(RECORD))
    assert message == parse(TEXT)
    assert not message.name  # the folder's name counts


def test_several_profiles_and_a_fixed_length():
    small, large = [[1, 128], [1, 128], [1, 128]], [[1, 128], [16, 128], [32, 128]]
    record = {**RECORD, "profiles": [{"input_ids": s, "attention_mask": s} for s in (small, large)]}
    message = parse(native.config(record, instances=2, queue_delay_us=None))
    assert message.max_batch_size == 32
    assert [list(tensor.dims) for tensor in message.input] == [[128], [128]]
    assert (message.instance_group[0].count, list(message.instance_group[0].profile)) == (2, ["0", "1"])
    assert not message.HasField("dynamic_batching")


def test_a_type_that_triton_is_not_told_of():
    tensors = {**RECORD["tensors"], "inputs": [{"name": "input_ids", "dtype": "bool", "shape": [-1, -1]}]}
    with pytest.raises(InputError, match="input_ids is bool"):
        native.config({**RECORD, "tensors": tensors})
    with pytest.raises(InputError, match="found 0 instances"):
        native.config(RECORD, instances=0)


def test_only_plans_get_a_configuration(tmp_path):
    for name, record in {"int8": RECORD, "fp32": {"kind": "openvino"}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "engine.json").write_text(json.dumps(record))
    native.write_configs(tmp_path)
    assert parse((tmp_path / "int8" / "config.pbtxt").read_text()) == parse(TEXT)
    assert not (tmp_path / "fp32" / "config.pbtxt").exists()


@pytest.mark.parametrize(
    ("built", "tag"), [("10.16.1.11", "26.05"), ("11.0.0.114", "26.06"), ("11.1.0.106", "26.07"), ("11.2.1.9", "26.08")]
)
def test_the_container_of_a_plan(built, tag):
    assert native.container({**RECORD, "runtime_version": built}) == tag


def test_containers_that_do_not_fit():
    with pytest.raises(MachineError, match=r"no Triton container with TensorRT 11\.1\.5\.1 is known"):
        native.container({**RECORD, "runtime_version": "11.1.5.1"})
    with pytest.raises(MachineError, match=r"container 26\.05 has TensorRT 10\.16, the plan was built by 11\.1\.0\.106"):
        native.container(RECORD, "26.05")
    with pytest.raises(InputError, match=r"container '25\.01': its TensorRT is not known"):
        native.container(RECORD, "25.01")
    assert native.container({**RECORD, "settings": {"version_compatible": True}}, "26.08") == "26.08"


def test_the_command_binds_to_loopback():
    command = native.docker_command(Path("/models"), RECORD)
    assert command == (
        "docker run --rm --gpus all -p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 -p 127.0.0.1:8002:8002 "
        "-v /models:/models:ro nvcr.io/nvidia/tritonserver:26.07-py3 tritonserver --model-repository=/models"
    )
    compatible = native.docker_command(Path("/models"), {**RECORD, "settings": {"version_compatible": True}})
    assert compatible.endswith("--backend-config=tensorrt,version-compatible=true")
