"""Real plans of TensorRT's real builder: every precision and placement, several profiles, the cache, and what it refuses."""

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit.core.errors import InputError, MachineError
from optkit.engines.tensorrt import builder
from optkit.engines.tensorrt.profiles import Profile, Settings
from optkit.graph.tensorrt.variants import FLOAT, INT8

pytestmark = pytest.mark.slow

ALL = [("int8", name) for name in INT8] + [(name, name) for name in FLOAT]


@pytest.mark.parametrize(("precision", "variant"), ALL)
def test_every_variant_is_built(planned, precision, variant):
    plan = planned(precision, variant)[1]
    assert plan.data.nbytes > 100_000
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in plan.inputs] == [
        (name, "int64", (-1, -1)) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in plan.outputs] == [("logits", "float32", (-1, 3))]
    assert plan.shapes[0]["input_ids"] == [[1, 1], [8, 32], [64, 32]]


def test_int8_weights_are_really_in_the_plan(wide, cache):
    """The encoder's weights are 7.1 MB in float32: a plan with INT8 weights is smaller by about three quarters of them."""
    sizes = {name: builder.build(path, Settings(timing_cache=cache), 32, False).data.nbytes for name, path in wide.items()}
    saved = (sizes["float"] - sizes["int8"]) / (wide_weights_bytes() * 3 / 4)
    assert 0.8 < saved < 1.2, sizes


def wide_weights_bytes():
    return 4 * (4 * 384 * 384 + 2 * 384 * 1536)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Graphs of one layer of MiniLM's width, float and quantised."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from optkit import Quantize
    from optkit.compression import quantizers
    from optkit.graph.export import export
    from optkit.tasks.classification import Classification
    from tests.graph.models import as_tensors, feed

    config = BertConfig(
        vocab_size=120,
        hidden_size=384,
        num_hidden_layers=1,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=32,
    )
    paths = {}
    for name in ("float", "int8"):
        torch.manual_seed(0)
        model = BertForSequenceClassification(config).eval()
        if name == "int8":
            quantizers.insert(model, Quantize(gelu_clip=10.0))
            quantizers.calibrate(model, lambda made: made(**as_tensors(feed(4, 32))))
        paths[name] = export(model, tmp_path_factory.mktemp(name), 32, Classification)
    return paths


def test_several_profiles(written, cache):
    graph = written("int8")
    profiles = (Profile((1, 1, 1), (1, 8, 16)), Profile((1, 8, 64)))
    plan = builder.build(graph.path, Settings(profiles=profiles, timing_cache=cache), graph.longest, False)
    assert [shapes["input_ids"] for shapes in plan.shapes] == [[[1, 1], [1, 8], [1, 16]], [[1, 1], [8, 32], [64, 32]]]
    assert plan.data.nbytes > 1.5 * builder.build(graph.path, Settings(timing_cache=cache), 32, False).data.nbytes


@pytest.mark.parametrize(
    "options",
    [{"tf32": True}, {"optimization_level": 5}, {"workspace_bytes": 1 << 28}],
)
def test_options_that_need_no_gpu(written, cache, options, caplog):
    assert builder.build(written("fp16").path, Settings(timing_cache=cache, **options), 32, True).data.nbytes > 100_000
    assert not caplog.records


def test_what_the_builder_ignores_is_said(written, cache, caplog):
    if not builder.library.is_offline():
        pytest.skip("the tensorrt package is installed and does not ignore it")
    builder.build(written("fp16").path, Settings(timing_cache=cache, hardware="ampere_plus"), 32, False)
    assert "TensorRT: setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX" in caplog.text


@pytest.mark.parametrize("option", ["refit", "version_compatible"])
def test_options_that_need_a_gpu_say_so(written, cache, option):
    if not builder.library.is_offline():
        pytest.skip("the tensorrt package is installed and may build it")
    with pytest.raises(MachineError, match="Refittable and version-compatible plans need a GPU and the tensorrt package"):
        builder.build(written("fp16").path, Settings(timing_cache=cache, **{option: True}), 32, False)


def test_the_timing_cache_is_kept_and_one_that_cannot_be_read_is_made_anew(written, tmp_path):
    settings = Settings(timing_cache=tmp_path / "new" / "kernels.timing")
    builder.build(written("fp16").path, settings, 32, False)
    first = settings.timing_cache.read_bytes()
    assert first and [path.name for path in settings.timing_cache.parent.iterdir()] == ["kernels.timing"]
    settings.timing_cache.write_bytes(b"something else")
    plan = builder.build(written("fp16").path, settings, 32, False)
    assert builder._CACHE_REFUSED in plan.build_log.text()
    assert settings.timing_cache.read_bytes() == first


class Refusing:
    """A configuration of TensorRT that takes no timing cache but an empty one, or none at all."""

    def __init__(self, least=1):
        self.least, self.cache = least, None

    def create_timing_cache(self, content):
        return content if len(content) < self.least else None

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache
        return True


@pytest.mark.parametrize("least", [1, 0])
def test_a_cache_that_tensorrt_refuses_does_not_lose_the_build(tmp_path, trt, caplog, least):
    path = tmp_path / "k.timing"
    path.write_bytes(b"of another card")
    found = builder._attach_cache(Refusing(least), Settings(timing_cache=path), builder.BuildLog(trt))
    assert found == (path, b"" if least else None)
    builder._keep_cache(None, path)
    assert path.read_bytes() == b"of another card"
    assert "TensorRT keeps no timing cache" in caplog.text


def test_a_cache_that_cannot_be_written_stops_nothing(written, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    plan = builder.build(written("fp16").path, Settings(timing_cache=tmp_path / "file" / "k.timing"), 32, False)
    assert plan.data.nbytes > 100_000
    assert "the timing cache cannot be kept" in caplog.text


def test_an_operator_that_tensorrt_does_not_know_is_named_with_its_node_and_reason(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="/first"),
        helper.make_node("NoSuchThing", ["a"], ["b"], name="/layer.0/odd", domain="made.up"),
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "sequence"]) for name in ("x", "b")]
    graph = helper.make_graph(nodes, "odd", tensors[:1], tensors[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("made.up", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "odd.onnx")
    with pytest.raises(InputError, match=r"does not take .*odd\.onnx(.|\n)*node '/layer\.0/odd' \(NoSuchThing\): .+"):
        builder.build(tmp_path / "odd.onnx", Settings(timing_cache=tmp_path / "t"), 32, False)


def test_types_that_do_not_fit_are_refused_by_the_strongly_typed_network(written, cache, tmp_path):
    model = onnx.load(written("fp16").path)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("classifier.weight"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype("float32"), weight.name))
    onnx.save(model, tmp_path / "mixed.onnx")
    with pytest.raises(InputError, match=r"node '/model/classifier/Gemm' \(Gemm\): "):
        builder.build(tmp_path / "mixed.onnx", Settings(timing_cache=cache), 32, False)


def test_a_file_that_is_no_graph(tmp_path, cache):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(InputError, match=r"does not take .*model\.onnx, \d+ errors:"):
        builder.build(tmp_path / "model.onnx", Settings(timing_cache=cache), 32, False)


def test_too_little_workspace_ends_with_tensorrts_own_reason(written, cache):
    with pytest.raises(MachineError, match=r"could not build(.|\n)*workspace"):
        builder.build(written("int8").path, Settings(workspace_bytes=1, timing_cache=cache), 32, False)


def test_a_profile_beyond_the_positions(written, cache):
    settings = Settings(profiles=(Profile(sequence=(1, 8, 64)),), timing_cache=cache)
    with pytest.raises(InputError, match="sequences of up to 64 tokens, but the graph has positions for 32"):
        builder.build(written("fp16").path, settings, 32, False)
