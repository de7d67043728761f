"""`config.pbtxt`: what is written is Triton's format and reads back as the same configuration."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from optkit.core.errors import InputError
from optkit.serving import config
from optkit.serving.config import ModelConfig

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PLAIN = ModelConfig("plain", INPUTS, (2,))
FULL = ModelConfig(
    "full-1.2_x", INPUTS, (-1, 2), max_batch_size=16, max_sequence=384, pad_id=1, vocab_size=50265, token_types=3, threads=4,
    instances=2, queue_delay_us=500, preferred_batch_sizes=(4, 8), cache=True, warmup=((1, 16), (16, 384)),
)  # fmt: skip


@pytest.mark.parametrize("written", [PLAIN, FULL])
def test_a_configuration_reads_back_as_it_was(written):
    assert config.read(config.write(written)) == written


@pytest.mark.parametrize("kept", [PLAIN, FULL])
def test_a_configuration_survives_json(kept):
    assert ModelConfig(**config.from_json(json.loads(json.dumps(asdict(kept))))) == kept


def test_triton_sees_what_was_meant():
    message = config.parse(config.write(FULL))
    assert (message.name, message.backend, message.max_batch_size) == ("full-1.2_x", "python", 16)
    assert [(tensor.name, list(tensor.dims), tensor.allow_ragged_batch) for tensor in message.input] == [
        (name, [-1], True) for name in INPUTS
    ]
    assert [(tensor.name, list(tensor.dims)) for tensor in message.output] == [("logits", [-1, 2])]
    assert message.dynamic_batching.max_queue_delay_microseconds == 500
    assert list(message.dynamic_batching.preferred_batch_size) == [4, 8]
    assert message.instance_group[0].count == 2
    assert message.response_cache.enable and message.parameters["warmup"].string_value == "1x16,16x384"
    plain = config.parse(config.write(PLAIN))
    assert not plain.HasField("dynamic_batching") and not plain.HasField("response_cache")
    assert "warmup" not in plain.parameters and "token_types" not in plain.parameters
    assert message.parameters["token_types"].string_value == "3"


@pytest.mark.parametrize("name", ["", "a/b", "..", "a..b", ".hidden", "-x", "a b", "ä", "a\n", 'a"', "/etc"])
def test_a_bad_name_is_refused(name):
    with pytest.raises(InputError, match=r"expected letters, digits, '_', '-' and '.'"):
        ModelConfig(name, INPUTS, (2,))


def test_all_mistakes_are_reported_together():
    with pytest.raises(InputError) as caught:
        ModelConfig("m", ("attention_mask",), (2, 3), max_batch_size=0, threads=0, queue_delay_us=-1)
    for mistake in ("'input_ids' and others", "shape (2, 3)", "max_batch_size: found 0", "threads: found 0", "-1"):
        assert mistake in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preferred_batch_sizes": (4,)}, r"found \[4\] without queue_delay_us, expected both or none"),
        ({"preferred_batch_sizes": (0, 65), "queue_delay_us": 0}, r"found \[0, 65\], expected 1 to 64"),
    ],
)
def test_preferred_batches_are_of_a_batching_model_and_no_larger_than_it_takes(settings, message):
    with pytest.raises(InputError, match=message):
        ModelConfig("m", INPUTS, (2,), **settings)


@pytest.mark.parametrize("shape", [(0, 16), (65, 16), (1, 0), (1, 513)])
def test_only_shapes_that_the_model_takes_warm_it_up(shape):
    found = f"{shape[0]}x{shape[1]}"
    with pytest.raises(InputError, match=rf"warmup: found {found}, expected batches of 1 to 64 with 1 to 512 tokens"):
        ModelConfig("m", INPUTS, (2,), warmup=((1, 1), (64, 512), shape))


@pytest.mark.parametrize("text", ["", "1", "1x", "x1", "1x16,", "1x16 8x128", "1x16x2", "-1x16", "1.5x16", "1x16\n", "1X16"])
def test_a_text_without_shapes_is_refused(text):
    with pytest.raises(InputError, match=r"warmup: found .*, expected batch and tokens of each shape, such as 1x16,8x128"):
        config.shapes(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name: "m"\nmax_batch: 3', "here.pbtxt: not a Triton model configuration: 2:"),
        ('name: "m" backend: "onnxruntime"', "found backend 'onnxruntime'.*expected the python backend"),
        (config.write(PLAIN).replace("pad_id", "padding"), r"unknown parameters \['padding'\]"),
    ],
)
def test_a_foreign_text_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        config.read(text, "here.pbtxt")


def test_grpc_is_not_needed():
    code = "import sys; sys.modules['grpc'] = None\nfrom optkit.serving import config\nconfig._schema()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_live_version_is_a_version_policy():
    written = config.write(ModelConfig("m", INPUTS, (2,), live=3), name="elsewhere")
    message = config.parse(written)
    assert (message.name, list(message.version_policy.specific.versions)) == ("elsewhere", [3])
    assert config.read(written).live == 3
    assert not config.parse(config.write(PLAIN)).HasField("version_policy")
    with pytest.raises(InputError, match=r"versions \[3, 4\], expected one specific version"):
        config.read(written.replace("versions: 3", "versions: [3, 4]"))
