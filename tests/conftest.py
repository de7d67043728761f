"""A task, a tokenizer and a model small enough to train in a second, for the tests that need the real thing."""

import copy
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch comes: the workers share the cores

import pytest
from hypothesis import HealthCheck, settings

from optkit.cli.app import main
from optkit.compression.registry import TECHNIQUES
from optkit.engines.registry import RUNTIMES
from optkit.models.families import FAMILIES
from optkit.recipe.training import Training
from optkit.tasks import registry
from optkit.tasks.base import Task
from optkit.tasks.collate import Collator

if TYPE_CHECKING:  # torch and transformers take seconds: fixtures import them, and not each process of pytest
    from transformers import BertConfig, BertTokenizerFast

    from optkit.compression.context import Context
    from optkit.models.loading import LoadedModel

# What a shell starts in the background ignores Ctrl-C, and under nohup the end of its terminal, and so would all that tests
# start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No hang of over ten seconds; nothing is left on disk. `make test-nightly` draws new cases each time, and more of them.
_LIMITS = {"deadline": 10_000, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("usual", max_examples=100, derandomize=True, **_LIMITS)
settings.register_profile("nightly", max_examples=3000, **_LIMITS)
settings.load_profile("usual")

OPINIONS = {"bad": ("awful", "dull", "poor"), "good": ("bright", "lovely", "sharp")}
OTHERS = ("a", "cast", "film", "plot", "story", "the", "this", "with")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

LONGEST = {
    "test_aot_engine.py",
    "test_cluster.py",
    "test_cluster_command.py",
    "test_cluster_store.py",
    "test_embedding.py",
    "test_going_back.py",
    "test_kernels.py",
    "test_live_server.py",
    "test_models_table.py",
    "test_onnx_module.py",
    "test_quiet.py",
    "test_remote.py",
    "test_sample_reranking.py",
    "test_sample_tasks.py",
    "test_search.py",
    "test_search_run.py",
    "test_selection.py",
    "test_sparse_products.py",
    "test_steps.py",
    "test_style.py",
    "test_text_pipeline.py",
    "test_two_nodes.py",
}
"""Files that take half a minute or more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest files come first: begun as the last, one would keep all other workers waiting."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="module", autouse=True)
def nothing_stays() -> Iterator[None]:
    """Fail a file that leaves something in a registry or changes PyTorch's threads, and undo what commands and benchmarks do
    to the log: which tests come after it in its process is chance."""
    known = {kind: kind.names() for kind in (registry.TASKS, TECHNIQUES, RUNTIMES, FAMILIES)}
    logger = logging.getLogger("optkit")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = before
    logging.disable(logging.NOTSET)
    if torch := sys.modules.get("torch"):
        threads = int(os.environ["OMP_NUM_THREADS"])
        assert torch.get_num_threads() == threads, "a test has changed the number of PyTorch's threads"
    for kind, names in known.items():
        assert kind.names() == names, f"{kind.what}: a test has registered one and has not had it forgotten"


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train.tsv` (256 rows) and `dev.tsv` (64): two classes, told apart by one word of each text."""
    folder, random = tmp_path_factory.mktemp("tiny"), Random(0)
    for split, size in {"train": 256, "dev": 64}.items():
        rows = ["sentence\tlabel"]
        for number in range(size):
            label = sorted(OPINIONS)[number % 2]
            words = [*random.choices(OTHERS, k=random.randint(2, 12)), random.choice(OPINIONS[label])]
            random.shuffle(words)
            rows.append(f"{' '.join(words)}\t{label}")
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    return folder


S3_KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secretsecret", "AWS_REGION": "us-east-1"}
S3_KEYS |= {"AWS_ALLOW_HTTP": "true"}


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[str, Any]]:
    """Address of an S3 server with conditional writes, and a client of it; it has the bucket `bucket`."""
    boto3 = pytest.importorskip("boto3", reason="an S3 server is needed: pip install -e '.[test]'")
    from moto import backends
    from moto.server import ThreadedMotoServer

    modules = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: modules  # which it reads from the disk for each request, a sixth of its time
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secretsecret", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=address, **keys)
    client.create_bucket(Bucket="bucket")
    yield address, client
    server.stop()


@pytest.fixture(scope="session")
def tiny_task(tiny_data: Path) -> Task:
    """Classification of `tiny_data` into `bad` and `good`."""
    return registry.load("classification", tiny_data)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> "BertTokenizerFast":
    """One token per word of `tiny_data`; reads 16 tokens."""
    from transformers import BertTokenizerFast

    words = [*SPECIAL, *OTHERS, *OPINIONS["bad"], *OPINIONS["good"]]
    return BertTokenizerFast(vocab={word: index for index, word in enumerate(words)}, model_max_length=16)


@pytest.fixture(scope="session")
def tiny_config(tiny_tokenizer: "BertTokenizerFast", tiny_task: Task) -> "BertConfig":
    """Configuration of a BERT of two layers of width 32, without dropout. Whoever changes it, as a model does when it is
    called with labels, copies it first."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
        id2label=dict(enumerate(tiny_task.labels)),
        label2id={label: index for index, label in enumerate(tiny_task.labels)},
    )


@pytest.fixture
def tiny_model(tiny_config: "BertConfig", tiny_tokenizer: "BertTokenizerFast", tiny_task: Task) -> "LoadedModel":
    """A model of `tiny_config` whose random weights are the same in every test."""
    import torch

    from optkit.models import loading

    torch.manual_seed(0)
    return loading.new(copy.deepcopy(tiny_config), tiny_tokenizer, tiny_task)


def saved(loaded: "LoadedModel", place: Path) -> Path:
    """Leave a model in a folder as `save_pretrained` does, its tokenizer beside it; return the folder."""
    loaded.model.save_pretrained(place)
    loaded.tokenizer.save_pretrained(place)
    return place


def nobody(name: str) -> Any:
    """A teacher that must not be needed."""
    raise AssertionError(f"the teacher {name} was asked for")


@pytest.fixture
def tiny_context(tiny_task: Task, tiny_tokenizer: "BertTokenizerFast", tmp_path: Path) -> "Context":
    """The surroundings of a stage on the tiny task; whoever asks for a teacher fails."""
    from optkit.compression.context import Context

    return Context(
        task=tiny_task,
        features=tiny_task.encode("train", tiny_tokenizer),
        collator=Collator(tiny_tokenizer, tiny_task.max_length),
        training=Training(precision="fp32").for_task({"learning_rate": 3e-3, "batch_size": 16}),
        seed=0,
        logs=tmp_path / "logs",
        teacher_logits=nobody,
        teacher_model=nobody,
    )


def main_ends(arguments: list[str], status: int) -> None:
    """Run a command line and see that it ends with this status."""
    try:
        main(arguments)
    except SystemExit as end:
        assert (end.code or 0) == status
    else:
        assert status == 0
