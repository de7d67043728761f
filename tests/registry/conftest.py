"""Repositories with published versions, made once: what most tests need lies there already."""

import logging
import shutil
import tempfile
from pathlib import Path

import pytest

from optkit.registry.disk import locked
from optkit.registry.release import place

from . import small

MEMORY = Path("/dev/shm")


def trusting(staged):
    """A check that has seen nothing: for tests of what comes before and after it."""
    return {"served_by": "nobody", "staged": staged.name[:12]}


@pytest.fixture
def tmp_path(tmp_path):
    """A folder in memory where there is room: publishing flushes fifty files, and a disk takes milliseconds for each."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < 2**30:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="optkit-test-", dir=MEMORY, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def quiet():
    """The command line's log handler writes to the standard error of the test it was made in."""
    logger = logging.getLogger("optkit")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = before


@pytest.fixture(scope="session")
def releases(tmp_path_factory):
    """Releases of one model with different weights."""
    folder = tmp_path_factory.mktemp("engines")
    return [small.release(folder / str(seed), seed) for seed in range(4)]


@pytest.fixture(scope="session")
def published(tmp_path_factory, releases):
    """A repository with three versions of one model, placed without a server."""
    root = tmp_path_factory.mktemp("published") / "repository"
    for release in releases[:3]:
        with locked(root, "test"):
            place(root, release, trusting)
    return root


@pytest.fixture
def repository(published, tmp_path):
    """A copy of that repository, to be changed."""
    return shutil.copytree(published, tmp_path / "repository")


@pytest.fixture
def model(repository):
    return repository / small.MODEL


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Results of a baseline and of the recipes `tiny` (passes), `bad` (fails) and `unsure`."""
    root = tmp_path_factory.mktemp("results") / "checkpoints"
    small.result(root, small.BASELINE)
    small.result(root, "tiny", weights=1)
    slow = {"speedup": {"1": 1.5}, "speedup_ci95": {"1": [1.4, 1.6]}, "min_speedup": 2.0}
    small.result(root, "bad", weights=2, delta=-3.0, delta_ci95=[-4.0, -2.0], **slow)
    small.result(root, "unsure", weights=3, delta=-0.9, delta_ci95=[-1.5, -0.2])
    return root
