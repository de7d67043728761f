"""Load on a real server by the real load generator: what is counted, what breaks, and what is said."""

import os
import signal
import subprocess
import sys
import time
from copy import copy
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from optkit.benchmark import scenarios
from optkit.benchmark.client_pool import ClientPool, _steady
from optkit.benchmark.measurement import Reading
from optkit.benchmark.scenarios import Samples
from optkit.benchmark.scratch_server import counted
from optkit.core.errors import MachineError
from optkit.serving.client import Client
from optkit.tasks.collate import Collator
from tests.serving import toy
from tests.serving.conftest import server, toy_repository  # noqa: F401

from .test_measurement import line

pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is missing: pip install -e '.[cpu]'")
pytestmark = pytest.mark.server

SUMMARY = """
Scenario : Server
Completed samples per second    : 176.64
Result is : INVALID
Mean latency (ns)               : 10083979
50.00 percentile latency (ns)   : 9635049
90.00 percentile latency (ns)   : 15686897
99.00 percentile latency (ns)   : 19975536
"""


@pytest.fixture(scope="module")
def samples(tiny_tokenizer):
    """Sixteen examples of 2 to 17 tokens."""
    rows = [np.arange(100, 102 + length).tolist() for length in range(16)]
    columns = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
    features = Dataset.from_dict({**columns, "length": [len(row) for row in rows]})
    tokenizer = SimpleNamespace(pad_token_id=0, pad_token_type_id=0, model_input_names=list(columns), model_max_length=64)
    return Samples(features, Collator(tokenizer, 64), count=16)


@pytest.fixture
def pool(server):  # noqa: F811
    """`(model, clients) -> ` a pool of clients, closed at the end of the test."""
    opened = []

    def open_pool(model, clients):
        client = Client(server.url, model)
        opened.append(ClientPool(client, clients).__enter__())
        opened[-1].warm([toy.feed(1, 8)], 0.1)
        return opened[-1]

    yield open_pool
    for one in opened:
        one.__exit__(None, None, None)
        one.client.close()


RUNS = {
    "SingleStream": (1, lambda pool, samples: scenarios.single_stream(pool, samples, 0.3)),
    "MultiStream": (1, lambda pool, samples: scenarios.multi_stream(pool, samples, 0.3)),
    "Offline": (2, lambda pool, samples: scenarios.offline(pool, samples, 0.3, 300.0)),
    "Server": (8, lambda pool, samples: scenarios.server(pool, samples, 0.3, 400.0, 1e5)),
    "closed loop": (4, lambda pool, samples: scenarios.closed_loop(pool, samples, 0.5)),
}


@pytest.mark.parametrize("scenario", RUNS)
def test_every_scenario_asks_the_server(scenario, pool, samples):
    clients, run = RUNS[scenario]
    ready = pool("single", clients)
    before = ready.client.statistics()
    reading = run(ready, samples)
    found = counted(before, ready.client.statistics())
    assert reading.scenario == scenario
    assert reading.rate > 0 and 0 < reading.p50_ms <= reading.p90_ms <= reading.p99_ms
    assert found["requests"] >= (scenarios.LEAST_QUERIES if scenario == "Server" else 1)
    assert 0 < found["compute_ms"] < reading.p99_ms
    assert found["mean_batch"] == {"MultiStream": scenarios.STREAMS, "Offline": found["mean_batch"]}.get(scenario, 1)
    assert scenario != "Offline" or found["mean_batch"] > 8
    assert scenario != "Server" or (reading.valid and reading.target_rate == 400.0)


def test_a_bound_that_nothing_holds_is_not_held(pool, samples):
    reading = scenarios.server(pool("single", 4), samples, 0.1, 500.0, 0.01)
    assert not reading.valid and reading.p99_ms > 0.01


def test_batching_by_the_server_shows_in_its_own_figures(pool, samples):
    ready = pool("classify", 8)
    before = ready.client.statistics()
    scenarios.closed_loop(ready, samples, 0.5)
    assert counted(before, ready.client.statistics())["mean_batch"] > 2


@pytest.mark.parametrize("scenario", ["Offline", "closed loop"])
def test_an_engine_that_fails_ends_the_run_with_its_error(scenario, pool, samples):
    failing = copy(samples)
    failing.alone = [*samples.alone[:5], FAILING, *samples.alone[6:]]
    first, *others = samples.columns["input_ids"]
    failing.columns = samples.columns | {"input_ids": [[toy.FAILING] * len(first), *others]}
    clients, run = RUNS[scenario]
    with pytest.raises(MachineError, match=r"model 'single', request \d+: refused .*the engine failed on token 88"):
        run(pool("single", clients), failing)


FAILING = {"input_ids": np.full((1, 2), toy.FAILING), "attention_mask": np.ones((1, 2), np.int64)}


def test_a_server_that_is_not_there_is_said_at_the_first_request(samples):
    said = r"127.0.0.1:1, model 'm', request [01]: the connection failed"
    with pytest.raises(MachineError, match=said), Client("127.0.0.1:1", "m") as client, ClientPool(client, 2) as gone:
        scenarios.closed_loop(gone, samples, 0.5)


def test_the_load_generators_summary_is_read():
    expected = Reading("Server", 176.64, 9.635049, 15.686897, 19.975536, False, 200.0)
    assert scenarios.read(SUMMARY, "Server", 200.0) == expected
    with pytest.raises(MachineError, match=r"no summary of Server; it says: 'nothing'\. Run it longer"):
        scenarios.read("nothing", "Server")


@pytest.mark.parametrize(
    ("limit", "tried"),
    [
        (65, [25, 40, 55, 70]),  # rises until the bound breaks
        (1000, [25, 40, 55, 70, 80, 90, 100, 110]),
        (10, [25, 12.5, 6.25]),  # falls until it holds
        (0, [25, 12.5, 6.25, 3.125]),
    ],
)
def test_the_rate_rises_until_the_bound_breaks(limit, tried):
    lines = list(scenarios.rising(lambda rate: line(rate, valid=rate <= limit), 100.0))
    assert [one.reading.rate for one in lines] == pytest.approx(tried)


def test_only_stable_windows_count():
    steady = [(number / 100, 1.0 if number > 100 else 50.0) for number in range(401)]  # 100/s, slow at first
    found = _steady(steady, 0, clients=1)
    assert found.stable and found.rate == pytest.approx(100, rel=0.02) and found.latencies_ms.max() == 1.0
    stalling = [(number / 100 + (number > 250), 1.0) for number in range(401)]
    assert not _steady(stalling, 0, clients=1).stable
    few = _steady([(1.0, 500.0), (2.0, 500.0)], 0, clients=2)
    assert (few.rate, few.stable, len(few.latencies_ms)) == (4.0, False, 2)


ASKING = """
import sys
from types import SimpleNamespace
from datasets import Dataset
from optkit.benchmark import scenarios
from optkit.benchmark.client_pool import ClientPool
from optkit.benchmark.scenarios import Samples
from optkit.cli.app import app, main
from optkit.serving.client import Client
from optkit.tasks.collate import Collator

@app.command()
def asking() -> None:
    rows = [[101] * 8] * 16
    columns = {"input_ids": rows, "attention_mask": [[1] * 8] * 16}
    tokenizer = SimpleNamespace(pad_token_id=0, pad_token_type_id=0, model_input_names=list(columns), model_max_length=64)
    samples = Samples(Dataset.from_dict({**columns, "length": [8] * 16}), Collator(tokenizer, 64), count=16)
    with Client(sys.argv[1], "single") as client, ClientPool(client, 8) as pool:
        pool.warm(samples.alone, 0.3)
        print("asks", flush=True)
        scenarios.SCENARIO

main(["asking"])
"""
INTERRUPTED = {
    "SingleStream": "single_stream(pool, samples, 60)",
    "MultiStream": "multi_stream(pool, samples, 60)",
    "Offline": "offline(pool, samples, 60, 3000)",
    "Server": "server(pool, samples, 60, 50, 1e5)",
}


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("scenario", INTERRUPTED)
def test_ctrl_c_ends_a_run_at_once_and_leaves_nothing(scenario, times, server, tmp_path):  # noqa: F811
    code = ASKING.replace("SCENARIO", INTERRUPTED[scenario])
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code, server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "asks\n", process.stderr.read()
        time.sleep(0.5)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said.splitlines()[-1][:27]) == (130, "optkit: interrupted (SIGINT"), said
    assert "Traceback" not in said and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scenario", ["Offline", "closed loop", "Server"])
def test_a_server_that_stalls_ends_the_run_at_the_deadline(scenario, server, samples):  # noqa: F811
    """Last in this file: the engine sleeps on."""
    stalling = copy(samples)
    asleep = {"input_ids": np.full((1, 2), toy.SLEEPING), "attention_mask": np.ones((1, 2), np.int64)}
    stalling.alone = [*samples.alone[:5], asleep, *samples.alone[6:]]
    first, *others = samples.columns["input_ids"]
    stalling.columns = samples.columns | {"input_ids": [[toy.SLEEPING] * len(first), *others]}
    clients, run = RUNS[scenario]
    with (
        pytest.raises(MachineError, match=r"model 'single', request \d+: no answer within 1 s"),
        Client(server.url, "single", timeout_s=1.0) as client,
        ClientPool(client, clients) as pool,
    ):
        run(pool, stalling)
