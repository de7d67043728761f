"""The search for a configuration: what is tried, what noise may not decide, and a real search on a real server."""

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from optkit.benchmark import search as searching
from optkit.benchmark.choice import Goal, Trial, choose, rank
from optkit.benchmark.measurement import Measurement, Reading
from optkit.benchmark.scenarios import Samples
from optkit.benchmark.scratch_server import Bench, Model, scratch_server
from optkit.benchmark.serving_settings import Settings, batchings, splits
from optkit.core.errors import MachineError
from optkit.serving import repository
from optkit.serving.config import ModelConfig
from optkit.tasks.collate import Collator
from tests.serving import toy

pytestmark = pytest.mark.server

DEFAULT, OTHER = Settings(), Settings(2, 1)
THROUGHPUT = Goal("throughput", 16)


def measured(rate, p99_ms=20.0):
    """One line of a closed loop whose median latency is half of the 99th percentile."""
    reading = Reading("closed loop", rate, p99_ms / 2, p99_ms, p99_ms, True)
    return Measurement("r", "int8", False, 16, reading, 100, 1.0, 0.0, 1.0, 100.0)


def rounds(settings, rates, p99_ms=20.0):
    return [Trial("final", settings, measured(rate, p99_ms)) for rate in rates]


def test_the_cores_are_divided_and_never_more_instances_tried_than_clients_ask():
    assert splits(DEFAULT, 2, 16) == [DEFAULT, Settings(1, 1), Settings(2, 1), Settings(2)]
    assert splits(DEFAULT, 8, 1) == [DEFAULT, Settings(1, 1), Settings(1, 2), Settings(1, 4)]
    assert splits(DEFAULT, 1, 16) == [DEFAULT]
    assert all(one.instances * (one.threads or 0) <= 64 for one in splits(DEFAULT, 64, 16))
    assert len(splits(DEFAULT, 64, 64)) < 16


def test_batching_is_tried_where_there_is_company_to_wait_for():
    assert batchings(DEFAULT, 1, 64) == [] == batchings(DEFAULT, 16, 1)
    found = batchings(Settings(2, 1), 16, 64)
    assert [one.queue_delay_us for one in found] == [0, 500, 2000, 2000, 2000]
    assert [one.preferred_batch_sizes for one in found] == [(), (), (), (4,), (8,)]
    assert all(max(one.preferred_batch_sizes, default=1) <= 4 for one in batchings(DEFAULT, 64, 4))
    for one in found:
        one.apply(ModelConfig("m", ("input_ids",), (2,)), "n")  # every one is a valid configuration


def test_a_candidate_that_is_better_by_more_than_noise_is_taken():
    final = [*rounds(DEFAULT, [100, 102, 98, 101]), *rounds(OTHER, [120, 118, 121, 119])]
    choice = choose(THROUGHPUT, DEFAULT, final, 5)
    assert (choice.settings, choice.held) == (OTHER, True)
    assert choice.gain[0] == pytest.approx(1.2, abs=0.05) and choice.gain[1] > 1
    assert "2 x 1 threads, no batching: 1." in choice.reason and "over 4 rounds in turn" in choice.reason


def test_a_candidate_within_the_noise_is_not():
    final = [*rounds(DEFAULT, [100, 140, 80, 120]), *rounds(OTHER, [130, 100, 110, 125])]
    choice = choose(THROUGHPUT, DEFAULT, final, 5)
    assert (choice.settings, choice.held, choice.gain) == (DEFAULT, True, None)
    assert choice.reason.startswith("the default stays: the best other, 2 x 1 threads, no batching, is ")


def test_a_latency_goal_looks_at_the_median_and_not_at_the_rate():
    final = [*rounds(DEFAULT, [100] * 3, 20.0), *rounds(OTHER, [90] * 3, 10.0)]
    assert choose(Goal("latency", 1), DEFAULT, final, 2).settings == OTHER
    assert choose(THROUGHPUT, DEFAULT, final, 2).settings == DEFAULT


def test_the_bound_goes_before_the_throughput():
    bound = Goal("throughput", 16, p99_ms=15.0)
    fast_and_late = [*rounds(DEFAULT, [100] * 3, 10.0), *rounds(OTHER, [200] * 3, 20.0)]
    assert choose(bound, DEFAULT, fast_and_late, 2).settings == DEFAULT
    slow_and_in_time = [*rounds(DEFAULT, [100] * 3, 20.0), *rounds(OTHER, [80] * 3, 10.0)]
    choice = choose(bound, DEFAULT, slow_and_in_time, 2)
    assert choice.settings == OTHER and "2.00 [2.00, 2.00] times as good as the default in the 99th" in choice.reason
    assert rank(bound, [measured(50, 14.0)]) < rank(bound, [measured(500, 16.0)]) < rank(bound, [measured(900, 17.0)])


def test_a_bound_that_no_configuration_holds_is_said_with_the_best():
    final = [*rounds(DEFAULT, [100] * 3, 20.0), *rounds(OTHER, [200] * 3, 18.5)]
    choice = choose(Goal("throughput", 16, p99_ms=5.0), DEFAULT, final, 7)
    assert (choice.settings, choice.held) == (DEFAULT, False)
    assert choice.reason == (
        "none of 7 configurations holds a p99 of 5 ms with 16 clients; the best was 18.5 ms, with 2 x 1 threads, no "
        "batching. The default stays. Raise --p99-ms, or expect fewer --clients"
    )


@pytest.fixture
def toy_search(tmp_path, monkeypatch):
    """`(seconds, clients) -> ` a search over an engine that sleeps 20 ms for a batch, however large it is."""
    code = toy.model_py()
    monkeypatch.setattr(repository, "model_py", lambda: code)
    monkeypatch.setattr(searching, "LEAST_S", 0.4)
    monkeypatch.setattr(searching, "LEAST_ROUNDS", 3)
    inputs = ("input_ids", "attention_mask")
    engine = toy.folder(tmp_path / "engine", sleep_s=0.02)
    model = Model("toy", "fp32", engine, ModelConfig("toy.fp32", inputs, (toy.CLASSES,), max_sequence=64, max_batch_size=32))
    rows = [np.arange(100, 104 + length).tolist() for length in range(8)]
    columns = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
    features = Dataset.from_dict({**columns, "length": [len(row) for row in rows]})
    tokenizer = SimpleNamespace(pad_token_id=0, pad_token_type_id=0, model_input_names=list(inputs), model_max_length=64)
    samples = Samples(features, Collator(tokenizer, 64), count=8)

    def search(seconds, clients):
        with scratch_server([], tmp_path / "logs") as server:
            found = searching.Search(Bench(server, samples), model, Goal("throughput", clients), 2, seconds)
            yield found
            yield found.run()

    return search


def test_a_real_search_finds_batching_for_an_engine_whose_time_does_not_grow_with_the_batch(toy_search):
    search, choice = toy_search(36.0, 8)
    assert choice.settings.queue_delay_us is not None and choice.gain[1] > 1.5
    assert {trial.phase for trial in search.trials} == {"splits", "batching", "final"}
    final = [trial.settings for trial in search.trials if trial.phase == "final"]
    assert final[:3] == final[3:6] and len(set(final)) == 3 and final[0] == DEFAULT, "in turn, the default among them"
    assert all(trial.line.memory_mb > 10 and trial.line.requests > 0 for trial in search.trials)


def test_without_time_the_default_is_measured_and_the_rest_is_named(toy_search):
    search, choice = toy_search(0.0, 8)
    assert choice.settings == DEFAULT and "there was nothing else to try" in choice.reason
    assert Settings(2, 1) in search.not_tried and Settings(queue_delay_us=500) in search.not_tried
    assert {trial.settings for trial in search.trials} == {DEFAULT}


def test_a_server_that_dies_ends_the_search(toy_search):
    steps = toy_search(60.0, 8)
    search = next(steps)
    search.bench.server.close()
    with pytest.raises(MachineError, match=r"model 'toy\.fp32\.0': Triton server on .* did not load it"):
        next(steps)
