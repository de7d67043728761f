"""Fetches data sets from the Hugging Face hub, once: afterwards they are in its cache."""

import re
from dataclasses import dataclass
from typing import Self

import datasets

from optkit.core.errors import InputError, MachineError
from optkit.tasks.base import Split
from optkit.tasks.data import splits
from optkit.tasks.data.tables import listed, problem

PREFIX = "hub:"
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
        match = _NAME.fullmatch(text.removeprefix(PREFIX))
        chosen = tuple(tuple(pair.split("=", 1)) for pair in (match["splits"] or "").split(",") if pair) if match else ()
        if match is None or any(len(pair) != 2 or pair[0] not in ("train", "dev") for pair in chosen):
            raise InputError(
                f"--data {text}: expected hub:OWNER/NAME, and after it as needed /CONFIG, @REVISION and "
                "#train=SPLIT,dev=SPLIT, as in hub:nyu-mll/glue/mnli#dev=validation_matched"
            )
        return cls(match["name"], match["config"], match["revision"], chosen)

    def __str__(self) -> str:
        config, revision = (f"{mark}{part}" if part else "" for mark, part in (("/", self.config), ("@", self.revision)))
        return f"{PREFIX}{self.name}{config}{revision}"


def fetch(data: HubData) -> dict[Split, datasets.Dataset]:
    """Return the training and dev splits of a data set on the hub.

    Raises:
        InputError: the data set has no such splits, or no such configuration.
        MachineError: the hub cannot be reached and its cache does not have the data.
    """
    try:
        found = datasets.load_dataset(data.name, data.config, revision=data.revision)
    except (OSError, ValueError) as error:  # ValueError: the hub is switched off and the cache lacks this data set
        raise MachineError(
            f"Hugging Face hub, data set {data.name!r}: cannot be fetched ({error}). "
            "Expected a connection to huggingface.co, or the data in its cache. "
            "Fix: connect once, or give a folder with the data: --data DIR"
        ) from error
    return of_splits(found, str(data), dict(data.chosen))


def of_splits(
    found: datasets.DatasetDict, source: str, chosen: dict[str, str] | None = None
) -> dict[Split, datasets.Dataset]:
    """Return the training and dev splits among a source's splits.

    Raises:
        InputError: one of them is not there.
    """
    result: dict[Split, datasets.Dataset] = {}
    kinds: tuple[Split, ...] = ("train", "dev")
    for split in kinds:
        name = (chosen or {}).get(split) or splits.choose(split, {name: name for name in found}, source)
        if name not in found:
            fix = "split it into two: dataset.train_test_split(0.1), and save both as one DatasetDict"
            raise problem(source, f"no {split} split among {listed(found)}", name or f"a split {split!r}", fix)
        result[split] = found[name]
    return result
