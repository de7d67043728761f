"""What recipes are run on: a task, a model and a seed; with the features that several steps share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import set_seed
from transformers import PreTrainedTokenizerBase

from optkit.core import mirror, step_cache
from optkit.models import families, loading, model_source, tokenizers
from optkit.models.loading import LoadedModel
from optkit.pipeline.projects import Project, Source
from optkit.recipe.recipe import Recipe
from optkit.recipe.stage import BASELINE
from optkit.recipe.training import Training
from optkit.tasks import unlabelled
from optkit.tasks.base import OwnModel, Split, Task
from optkit.tasks.collate import Collator

if TYPE_CHECKING:
    from datasets import Dataset

SECONDS = 4.0


@dataclass(frozen=True)
class RunSpec:
    """A task, a model and a seed, and where the results go."""

    task: Task
    model: str | None
    """Hub name or folder of the model to start from; None takes the task's own, or BERT-base."""
    seed: int
    root: Path
    """The folder `checkpoints/`."""
    recipes: Mapping[str, Recipe]
    """Every recipe known by name: teachers and shared prefixes."""
    engines: tuple[str, ...] = ()
    """Kinds of engine to build; empty for all that this machine has."""
    seconds: float = SECONDS
    """How long each served model is measured at each batch size."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What builds are told, by kind of engine and key, in JSON's types; see each runtime's `options`."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    labels: tuple[str, ...] | None = None
    """The data's classes in the order of the rows of the model's head; None to match them by their names."""
    project: str | None = None
    """Name of the project that the results belong to; None for the one called like the task."""
    given: Source | None = None
    """Data and model as the user named them, which the project remembers."""

    def __getstate__(self) -> dict[str, Any]:
        """What another process is given: the fields, as all else is found anew there, and so checked."""
        given, far = {one.name: getattr(self, one.name) for one in fields(self)}, mirror.of(self.root)
        return {**given, "root": (far.store.url, far.name(self.root)) if far else (self.root, "")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what another process gave; of a store, this machine's mirror."""
        whole, below = state["root"]
        vars(self).update(state, root=mirror.place(whole) / below)

    @property
    def baseline(self) -> Recipe:
        return self.recipes[BASELINE]

    @property
    def home(self) -> Project:
        return Project(self.root, self.task.name, self.project or self.task.name)

    def of_seed(self, seed: int) -> RunSpec:
        """Return the spec with another seed: the same one each time, which has looked at data and model before."""
        if seed == self.seed:
            return self
        if seed not in self._others:
            self._others[seed] = replace(self, seed=seed)
            vars(self._others[seed])["_encoded"] = self._encoded  # no seed has a say in it
        return self._others[seed]

    def folder(self, recipe: Recipe) -> Path:
        """Return the folder of a recipe's results: `checkpoints/<task>/[<project>/]<recipe>/seed-<n>`."""
        return self.home.recipe(recipe.name, self.seed)

    @cached_property
    def source(self) -> dict[str, Any]:
        """What every result depends on: the model to start from, what is said of its family, the data and the seed."""
        model = None if self._own_model() else model_source.find(self._model, self.revision).key()
        found = {"model": model, "data": self.task.fingerprint(), "max_length": self.task.max_length, "seed": self.seed}
        if self.labels is not None:
            found["labels"] = list(self.labels)
        return {**found, "families": records} if (records := families.records()) else found

    def start(self) -> LoadedModel:
        """The model to start from, as it comes."""
        set_seed(self.seed)  # of a head's, or a whole model's, random weights
        if (own := self._own_model()) is None:
            return loading.load(self._model, self.task, labels=self.labels, revision=self.revision)
        loaded = loading.new(own.config, own.tokenizer, self.task)
        own.initialise(loaded.model)
        return loaded

    def architecture(self) -> LoadedModel:
        """The model to start from without its weights: on the meta device, in no time and no memory."""
        if (own := self._own_model()) is None:
            return loading.architecture(self._model, self.task, revision=self.revision)
        with torch.device("meta"):
            return loading.new(own.config, own.tokenizer, self.task)

    def training(self, recipe: Recipe) -> Training:
        """The recipe's training settings with the task's defaults filled in."""
        own = self._own_model()
        return recipe.training.for_task(dict(own.training if own else self.task.training))

    def features(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """A split's features; encoded once per spec and tokenizer: every recipe of a spec has the same, teachers in folders
        may have their own."""
        key = (split, tokenizers.fingerprint(tokenizer))
        if key not in self._encoded:
            self._encoded[key] = self.task.encode(split, tokenizer)
        return self._encoded[key]

    def unlabelled(self, tokenizer: PreTrainedTokenizerBase) -> Dataset | None:
        """Return the features of the task's texts without labels, None without such texts."""
        key = ("unlabelled", tokenizers.fingerprint(tokenizer))
        if key not in self._encoded:
            self._encoded[key] = unlabelled.encode(self.task, tokenizer)
        return self._encoded[key]

    @cached_property
    def unlabelled_key(self) -> str:
        """SHA-256 of the task's texts without labels."""
        return step_cache.key_of({"texts": self.task.unlabelled})

    def is_first(self, what: str) -> bool:
        """Return whether this is the first time that something is asked for."""
        first = what not in self._asked
        self._asked.add(what)
        return first

    def modules(self, recipe: Recipe) -> tuple[str, ...]:
        """Return the modules of the task and of a recipe's techniques, which are looked up by name and not imported."""
        return (type(self.task).__module__, *recipe.modules)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collator:
        return Collator.of(self.task, tokenizer)

    @cached_property
    def _encoded(self) -> dict[tuple[str, str], Any]:
        return {}

    @cached_property
    def _others(self) -> dict[int, RunSpec]:
        return {}

    @cached_property
    def _asked(self) -> set[str]:
        return set()

    @property
    def _model(self) -> str:
        """Name or folder of the model to start from, where the task brings none."""
        return self.model or loading.DEFAULT_MODEL

    def _own_model(self) -> OwnModel | None:
        """The model that the task brings along, unless another one is asked for."""
        return self.task.own_model() if self.model is None else None
