"""Probes hold the engine's own answers at three shapes, and notice another engine."""

import numpy as np
import pytest

from optkit.core.errors import GateError, InputError
from optkit.engines import registry as engines
from optkit.registry import smoke_test

from . import small


class Direct:
    """A client's `infer` on an engine in this process."""

    per_token = False

    def __init__(self, folder):
        self.engine = engines.load(folder, 1)

    def infer(self, feed):
        return self.engine.infer(feed)


def test_shapes_are_the_smallest_a_usual_and_the_largest():
    assert smoke_test.shapes(small.config(max_batch_size=64, max_sequence=384)) == {
        "min": (1, 1),
        "opt": (8, 128),
        "max": (64, 384),
    }
    assert smoke_test.shapes(small.config(max_batch_size=1, max_sequence=4))["opt"] == (1, 4)


def test_an_engine_answers_its_own_probes_and_no_other_does(releases):
    found = smoke_test.check(Direct(releases[0].engine), releases[0].probes, "it")
    assert found == {"min": 0.0, "opt": 0.0, "max": 0.0, "sample": 0.0}
    with pytest.raises(GateError, match=r"it: probe '\w+' \[\d+, \d+\]: logits differ from the reference by"):
        smoke_test.check(Direct(releases[1].engine), releases[0].probes, "it")


@pytest.mark.parametrize("wrong", [np.nan, 1e9])
def test_a_single_wrong_row_is_noticed(wrong, releases):
    class Wrong(Direct):
        def infer(self, feed):
            logits = super().infer(feed)
            logits[-1] = wrong
            return logits

    with pytest.raises(GateError, match=r"logits differ"):
        smoke_test.check(Wrong(releases[0].engine), releases[0].probes, "it")


def test_a_refused_probe_is_named(releases):
    class Refusing(Direct):
        def infer(self, feed):
            raise InputError("status 400: too long")

    with pytest.raises(GateError, match=r"it: refused the probe 'min' \[1, 1\]: status 400: too long"):
        smoke_test.check(Refusing(releases[0].engine), releases[0].probes, "it")


def test_probes_are_read_as_they_were_written(releases, tmp_path):
    smoke_test.write(tmp_path / "probe.npz", releases[0].probes)
    found = smoke_test.read(tmp_path / "probe.npz")
    assert list(found) == list(releases[0].probes)
    for name, (feed, logits) in releases[0].probes.items():
        assert all(np.array_equal(found[name].feed[key], array) for key, array in feed.items())
        assert np.array_equal(found[name].logits, logits)


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_something_else_is_named(content, tmp_path):
    (tmp_path / "probe.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"probe.npz: not probes written by optkit"):
        smoke_test.read(tmp_path / "probe.npz")


def test_an_engine_that_cannot_run_what_its_configuration_promises(releases):
    promised = small.config(vocab_size=2 * small.VOCABULARY)
    with pytest.raises(GateError, match=r"cannot answer the probe '\w+' \[\d+, \d+\]: .*indices element out of data bounds"):
        smoke_test.make(releases[0].engine, promised, None)
