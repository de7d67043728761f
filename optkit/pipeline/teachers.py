"""Teachers: the models that recipes learn from, and their logits on the training features, computed once for all."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from optkit.compression import checkpoint
from optkit.core import atomic, step_cache
from optkit.core.code_version import code_version
from optkit.core.errors import InputError
from optkit.models import loading
from optkit.models.loading import LoadedModel
from optkit.pipeline.run_spec import RunSpec
from optkit.recipe.recipe import Recipe
from optkit.recipe.teacher_names import is_folder, recipe_of, seed_of
from optkit.tasks.collate import BATCH_SIZE, run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teachers:
    """Recipes and folders of fine-tuned models as teachers for one spec.

    A teacher in a folder reads the texts by its own tokenizer, up to its own length.
    """

    spec: RunSpec
    trained: Callable[[Recipe, RunSpec], Path]
    """Function that returns the folder of a recipe's checkpoint."""

    def key(self, name: str) -> Any:
        """What a student depends on when this teacher teaches it."""
        if is_folder(name):
            return atomic.hashes(Path(name).expanduser())
        return step_cache.content_at(self._checkpoint(name))

    def load(self, name: str) -> LoadedModel:
        """Load a teacher's model.

        Raises:
            InputError: a folder without such a model, or with one that does not answer the task yet.
        """
        if not is_folder(name):
            return checkpoint.load(self._checkpoint(name), self.spec.task)
        try:
            loaded = loading.load(name, self.spec.task)
        except InputError as error:
            raise InputError(f"teacher {name!r}: {error}") from error
        if not loaded.fine_tuned:
            raise InputError(f"teacher {name!r} has no head for {self.spec.task.name}; give one that was fine-tuned for it")
        return loaded

    def logits(self, name: str) -> list[np.ndarray]:
        """Return a teacher's logits on the training features, then on those without labels, one array each."""
        code = code_version(__name__, type(self.spec.task).__module__)
        folder = self._place(name)
        depends_on = {"teacher": self.key(name), "data": self.spec.task.fingerprint(), "code": code}
        if self.spec.task.unlabelled:
            depends_on["unlabelled"] = self.spec.unlabelled_key
        step_cache.step(folder, depends_on, lambda unfinished: self._answer(name, unfinished))
        with np.load(folder / "logits.npz") as saved:
            return np.split(saved["values"], np.cumsum(saved["lengths"])[:-1])

    def _checkpoint(self, name: str) -> Path:
        return self.trained(self.spec.recipes[recipe_of(name)], self._spec_of(name))

    def _spec_of(self, name: str) -> RunSpec:
        seed = seed_of(name, self.spec.seed)
        return self.spec if seed == self.spec.seed else replace(self.spec, seed=seed)

    def _place(self, name: str) -> Path:
        if not is_folder(name):
            return self._spec_of(name).folder(self.spec.recipes[recipe_of(name)]) / "teacher"
        folder = Path(name).expanduser().resolve()
        key = step_cache.key_of({"folder": str(folder)})
        return self.spec.home.folder / ".teachers" / f"{folder.name}-{key[:8]}"

    def _answer(self, name: str, unfinished: Path) -> None:
        log.info("%s: teacher's logits on the training features", name)
        loaded, task = self.load(name), self.spec.task
        features, more = self.spec.features("train", loaded.tokenizer), self.spec.unlabelled(loaded.tokenizer)
        infer, collator = loading.inference(loaded.model, task), self.spec.collator(loaded.tokenizer)
        logits = run(infer, features, BATCH_SIZE, collator)
        if weakness := task.weakness(features, logits):
            advice = "Its students will learn its mistakes: train it for longer, or take another teacher"
            log.warning("teacher %s %s. %s", name, weakness, advice)
        logits += run(infer, more, BATCH_SIZE, collator) if more is not None else []
        np.savez(unfinished / "logits.npz", values=np.concatenate(logits), lengths=[len(row) for row in logits])
