"""Fetches data sets from the Hugging Face hub, once: afterwards they are in its cache."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import datasets
from datasets.exceptions import DatasetsError
from huggingface_hub import constants, get_session

from optkit.core.errors import InputError, MachineError
from optkit.tasks.base import SPLITS, Split
from optkit.tasks.data import splits
from optkit.tasks.data.data_settings import HUB
from optkit.tasks.data.tables import listed, problem

_SECONDS = 5.0
"""How long the hub may take to answer at all."""
_NAME = re.compile(
    r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?(?:#(?P<splits>.+))?"
)


@dataclass(frozen=True)
class HubData:
    """A data set on the hub: `hub:OWNER/NAME[/CONFIG][@REVISION][#train=SPLIT,dev=SPLIT]`."""

    name: str
    config: str | None = None
    revision: str | None = None
    chosen: tuple[tuple[str, str], ...] = ()
    """Names of the splits to read, where the usual ones are not meant."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what stands behind `--data hub:`.

        Raises:
            InputError: it names no data set, or splits that are neither train nor dev.
        """
        match = _NAME.fullmatch(text.removeprefix(HUB))
        chosen = tuple(tuple(pair.split("=", 1)) for pair in (match["splits"] or "").split(",") if pair) if match else ()
        if match is None or any(len(pair) != 2 or pair[0] not in ("train", "dev") for pair in chosen):
            raise InputError(
                f"--data {text}: expected hub:OWNER/NAME, and after it as needed /CONFIG, @REVISION and "
                "#train=SPLIT,dev=SPLIT, as in hub:nyu-mll/glue/mnli#dev=validation_matched"
            )
        return cls(match["name"], match["config"], match["revision"], chosen)

    def __str__(self) -> str:
        config, revision = (f"{mark}{part}" if part else "" for mark, part in (("/", self.config), ("@", self.revision)))
        return f"{HUB}{self.name}{config}{revision}"


def fetch(data: HubData) -> dict[Split, datasets.Dataset]:
    """Return the training and dev splits of a data set on the hub.

    Raises:
        InputError: the hub does not have the data set or its configuration, or that has no such splits.
        MachineError: the hub cannot be reached and its cache does not have the data.
    """
    try:
        with _cache_alone_unless(_reachable()):
            found = datasets.load_dataset(data.name, data.config, revision=data.revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if isinstance(error, DatasetsError | RuntimeError) or "onfig name" in str(error) or "BuilderConfig" in str(error):
            raise InputError(f"--data {data}: the hub does not give it ({error})") from error
        # The hub cannot be reached, or is switched off, and the cache lacks this data set.
        raise MachineError(
            f"Hugging Face hub, data set {data.name!r}: cannot be fetched ({error}). "
            "Expected a connection to huggingface.co, or the data in its cache. "
            "Fix: connect once, or give a folder with the data: --data DIR"
        ) from error
    return of_splits(found, str(data), dict(data.chosen))


def _reachable() -> bool:
    """Return whether the hub answers at all."""
    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
    except Exception:  # of the network, or that of HF_HUB_OFFLINE
        return False
    return True


@contextmanager
def _cache_alone_unless(reachable: bool) -> Iterator[None]:
    """Let `datasets` look into its cache at once where it would try for half a minute to reach the hub."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or not reachable
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def of_splits(
    found: datasets.DatasetDict, source: str, chosen: dict[str, str] | None = None
) -> dict[Split, datasets.Dataset]:
    """Return the training and dev splits among a source's splits.

    Raises:
        InputError: one of them is not there.
    """
    result: dict[Split, datasets.Dataset] = {}
    for split in SPLITS:
        name = (chosen or {}).get(split) or splits.choose(split, {name: name for name in found}, source)
        if name not in found:
            fix = "split it into two: dataset.train_test_split(0.1), and save both as one DatasetDict"
            raise problem(source, f"no {split} split among {listed(found)}", name or f"a split {split!r}", fix)
        result[split] = found[name]
    return result
