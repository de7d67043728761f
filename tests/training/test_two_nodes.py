"""One training over two nodes ends with the weights that it has in one process: each takes its share of every batch."""

import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from optkit.models.loading import LoadedModel
from optkit.tasks.collate import micro_batches
from tests.conftest import saved

SIZES = (16, 15)
"""Features in a batch: shares of one size; and of two, with a last batch that has one feature for two processes."""
CODE = """
import sys
from pathlib import Path
from accelerate import PartialState
from safetensors.torch import save_file
from optkit.models import loading
from optkit.recipe.training import Training
from optkit.tasks.collate import Collator
from optkit.tasks.registry import load
from optkit.training.loop import Batches, train
from optkit.training.losses import task_loss

place, data, name, pieces = Path(sys.argv[1]), *sys.argv[2:]
task = load("classification", data)
for size in {sizes}:
    loaded = loading.load(str(place / "model"), task)
    features = task.encode("train", loaded.tokenizer)
    batches = Batches(features, Collator.of(task, loaded.tokenizer), size, 0, task.targets)
    told = {{"learning_rate": 3e-3, "epochs": 2, "gradient_accumulation": int(pieces)}}
    history = train(loaded.model, batches, task_loss(task), Training(precision="fp32").for_task(told), 0, place / "logs")
    if PartialState().is_main_process:
        save_file(loaded.model.state_dict(), place / f"{{name}}-{{size}}.safetensors")
        (place / f"{{name}}-{{size}}.txt").write_text(repr(history[-1]))
"""


def launch(script: Path, *arguments: str) -> None:
    """Two nodes of one process each, as `accelerate launch` starts them on each of two machines."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    asked = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "2"]
    place = ["--main_process_ip", "127.0.0.1", "--main_process_port", str(port), "--mixed_precision", "no"]
    place += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    both = [
        subprocess.Popen(
            [*asked, "--machine_rank", str(rank), *place, str(script), *arguments], stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    for node in both:
        said = node.communicate(timeout=600)[1]
        assert node.returncode == 0, said


@pytest.mark.slow
def test_two_nodes_end_with_the_weights_of_one_process(
    tiny_model: LoadedModel, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tiny_model, tmp_path / "model")
    script = tmp_path / "train.py"
    script.write_text(CODE.format(sizes=SIZES))
    launch(script, str(tmp_path), str(tiny_data), "two", "1")
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), str(tiny_data), "one", "2"])
    runpy.run_path(str(script))  # in this process, which has imported all
    for size, tolerance in zip(SIZES, (0.0, 1e-5), strict=True):
        one, two = (load_file(tmp_path / f"{name}-{size}.safetensors") for name in ("one", "two"))
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=tolerance, atol=tolerance)
    assert (tmp_path / "one-16.txt").read_text() == (tmp_path / "two-16.txt").read_text()


def test_a_batch_is_split_so_that_all_processes_wait_for_each_other() -> None:
    assert micro_batches([1, 2, 3, 4, 5], 2) == [[[1, 2, 3], [4, 5]]]
    assert micro_batches([1, 2, 3, 4, 5], 1, 2) == [[[1, 2, 3]], [[4, 5]]]
    assert micro_batches([1, 2, 3], 4, 2) == [[[1, 2]], [[3]]]
    assert micro_batches([1, 2, 3, 4], 3, 2) == [[[1], [2]], [[3], [4]]]
    assert micro_batches([1], 1, 2) == [[[1]], [[]]]
    assert micro_batches([1], 9) == [[[1]]]
