"""Calibrators against values computed by hand or by trying every candidate."""

import numpy as np
import pytest
import torch

from optkit.compression.calibration import BINS, HistogramCalibrator

METHODS = ["percentile", "mse", "entropy"]


def seen(method: str, *batches: torch.Tensor, percentile: float = 99.99) -> HistogramCalibrator:
    calibrator = HistogramCalibrator(method, percentile)
    for batch in batches:
        calibrator.collect(batch)
    return calibrator


def amax(method: str, *batches: torch.Tensor, percentile: float = 99.99) -> float:
    value = seen(method, *batches, percentile=percentile).compute_amax()
    assert value is not None and value.dtype == torch.float32 and value.shape == ()
    return float(value)


def gaussian(count: int = 20_000, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def quantisation_error(values: torch.Tensor, amax: float) -> float:
    """Sum of squares, by the definition of symmetric INT8."""
    scale = amax / 127
    return float(((torch.clamp(torch.round(values / scale), -127, 127) * scale - values) ** 2).double().sum())


def test_the_percentile_of_a_uniform_ramp() -> None:
    ramp = torch.arange(1, 100_001) / 100_000  # the share of values up to x is x
    for percentile in (60.0, 90.0, 99.0, 99.9):
        assert amax("percentile", ramp, percentile=percentile) == pytest.approx(percentile / 100, abs=2 / BINS)


def test_the_hundredth_percentile_is_the_maximum() -> None:
    assert amax("percentile", gaussian(), percentile=100) == pytest.approx(float(gaussian().abs().max()))


def test_the_percentile_is_an_upper_bound_that_is_tight_to_a_bin() -> None:
    values = gaussian().abs()
    chosen, width = amax("percentile", values, percentile=99.0), float(values.max()) / BINS
    assert (values <= chosen).double().mean() >= 0.99
    assert (values <= chosen - 2 * width).double().mean() < 0.99


def test_signs_do_not_matter() -> None:
    for method in METHODS:
        assert amax(method, gaussian()) == amax(method, -gaussian()) == amax(method, gaussian().abs())


def test_mse_is_the_best_of_all_candidates() -> None:
    values = torch.cat([gaussian(), torch.tensor([12.0, -12.0])])
    chosen = amax("mse", values)
    best = min(quantisation_error(values, candidate) for candidate in np.linspace(0.4, 12.0, 2000))
    assert quantisation_error(values, chosen) <= 1.01 * best < 0.97 * quantisation_error(values, 12.0)


def test_mse_of_one_outlier_by_hand() -> None:
    # Clipping the outlier m at a costs (m - a)^2; rounding n other values costs n (a / 127)^2 / 12. The sum is least at
    # a = m / (1 + n / (12 * 127^2)).
    count, outlier = 200_000, 100.0
    expected = outlier / (1 + count / (12 * 127**2))
    assert amax("mse", torch.cat([gaussian(count), torch.tensor([outlier])])) == pytest.approx(expected, rel=0.02)


def test_mse_of_values_that_int8_holds_exactly() -> None:
    levels = torch.arange(-127, 128) / 127
    assert amax("mse", levels.repeat(50)) == pytest.approx(1.0, abs=1e-2)


def divergence(counts: np.ndarray, last: int) -> float:
    """KL of the clipped histogram and its 128 levels, level by level as NVIDIA's slides of 2017 put it."""
    p = counts[:last].astype(float)
    q = np.zeros(last)
    edges = [level * last / 128 for level in range(129)]
    for level in range(128):
        bins = [b for b in range(last) if edges[level] <= b < edges[level + 1] and p[b] > 0]
        for b in bins:
            q[b] = p[bins].sum() / len(bins)
    p[-1] += counts[last:].sum()
    p, q = p / p.sum(), q / q.sum()
    return sum(a * np.log(a / max(b, 1e-12)) for a, b in zip(p, q, strict=True) if a > 0)


def test_entropy_is_the_least_divergence_of_what_it_could_choose() -> None:
    values = torch.cat([gaussian(4000), torch.full((3,), 9.0)])
    calibrator = seen("entropy", values)
    counts, chosen = calibrator.counts.copy(), calibrator.compute_amax()
    assert chosen is not None
    last = round(float(chosen) / calibrator.range * BINS)
    counts[0] = counts[1]
    least = min(divergence(counts, candidate) for candidate in range(256, BINS + 1, 256))
    assert divergence(counts, last) <= least + 1e-9


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_an_outlier_does_not_take_the_range(method: str) -> None:
    values = torch.cat([gaussian(50_000), torch.tensor([100.0])])
    chosen = amax(method, values)
    assert 2 < chosen < 20
    assert quantisation_error(values[:-1], chosen) < 0.2 * quantisation_error(values[:-1], 100.0)


def test_doubling_the_range_keeps_every_count() -> None:
    values = gaussian()
    calibrator = seen("percentile", 0.01 * values, values, 100 * values, torch.zeros(7), torch.tensor([3000.0]))
    assert calibrator.counts.sum() == 3 * 20_000 + 8
    assert calibrator.counts.shape == (BINS,)
    doublings = np.log2(calibrator.range / (0.01 * float(values.abs().max())))
    assert calibrator.range >= 3000 and doublings == pytest.approx(round(doublings), abs=1e-4)


def test_a_doubled_histogram_is_that_of_the_whole() -> None:
    first, second = torch.rand(5000, generator=torch.Generator().manual_seed(0)), gaussian(5000)
    first[0], second[0] = 1.0, 4.0  # the range becomes 4 exactly
    counts = seen("mse", first, second.clamp(-4, 4)).counts
    together = torch.cat([first, second.clamp(-4, 4)]).abs().numpy()
    expected, _ = np.histogram(together, BINS, (0, 4))
    assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() <= 2  # float32 edges


def test_memory_does_not_grow_with_the_batches() -> None:
    calibrator = HistogramCalibrator("percentile")
    for seed in range(50):
        calibrator.collect(gaussian(100, seed) * 2.0**seed)
    held = [value for value in vars(calibrator).values() if isinstance(value, np.ndarray | torch.Tensor)]
    assert sum(value.size for value in held) == BINS
    assert calibrator.counts.sum() == 5000


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_batches_matters_by_a_bin_at_most(method: str) -> None:
    batches = [gaussian(5000, seed) * (1 + seed) for seed in range(4)]
    forwards, backwards = amax(method, *batches), amax(method, *reversed(batches))
    assert forwards == pytest.approx(backwards, rel=0.02)


def test_a_batch_of_many_equal_values_is_counted_whole() -> None:
    zeros = torch.zeros(1).expand(2**24 + 1000)  # float32 stops counting at 2**24
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        calibrator = seen("percentile", torch.tensor([1.0]), zeros)
    finally:
        torch.set_num_threads(threads)
    assert calibrator.counts.sum() == 2**24 + 1001


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_activation_that_is_not_finite(value: float) -> None:
    with pytest.raises(FloatingPointError, match="an activation is not finite while calibrating"):
        seen("mse", gaussian(), torch.tensor([1.0, value]))


@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_zeros_has_no_range(method: str) -> None:
    assert HistogramCalibrator(method).compute_amax() is None
    assert seen(method, torch.zeros(100)).compute_amax() is None


@pytest.mark.parametrize("method", METHODS)
def test_zeros_before_the_first_value_lose_nothing(method: str) -> None:
    assert amax(method, torch.zeros(100), gaussian()) == pytest.approx(amax(method, gaussian(), torch.zeros(100)), rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_one_single_value_is_its_own_range(method: str) -> None:
    assert amax(method, torch.full((1000,), 2.5)) == pytest.approx(2.5, rel=1 / 128)


def test_reset_forgets() -> None:
    calibrator = seen("mse", 1000 * gaussian())
    calibrator.reset()
    calibrator.collect(gaussian())
    assert float(calibrator.compute_amax()) == amax("mse", gaussian())


def test_bfloat16_and_any_shape() -> None:
    values = gaussian(24_000).reshape(2, 30, 400)
    assert amax("percentile", values.bfloat16()) == pytest.approx(amax("percentile", values), rel=0.01)
