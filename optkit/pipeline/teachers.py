"""Teachers: the models that recipes learn from, and their logits on the training features, computed once for all."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optkit.compression import checkpoint
from optkit.core import atomic, step_cache
from optkit.core.code_version import code_version
from optkit.core.errors import InputError
from optkit.models import loading, model_source
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
            return model_source.find(name).key()
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
            raise InputError(f"teacher {name!r}: {str(error).removeprefix(f'--model {name}: ')}") from error
        if not loaded.fine_tuned:
            raise InputError(f"teacher {name!r} has no head for {self.spec.task.name}; give one that was fine-tuned for it")
        return loaded

    def copies(self, names: Sequence[str]) -> list[str]:
        """Return a remark for each model that several names stand for, as its answers have as many shares in the average:
        seeds are one model where the model came fine-tuned, and nothing was trained."""
        alike: dict[tuple[str, ...], list[str]] = {}
        for name in names if len(names) > 1 else ():
            folder = model_source.find(name).folder if is_folder(name) else self._checkpoint(name)
            weights = tuple(atomic.file_hash(path) for path in sorted(folder.glob("*.safetensors")))
            alike.setdefault(weights, []).append(repr(name))
        several = [same for same in alike.values() if len(same) > 1]
        return [f"teachers {', '.join(same)} are one model, which counts {len(same)} times" for same in several]

    def logits(self, name: str) -> list[np.ndarray]:
        """Return a teacher's logits on the training features, then on those without labels, one array each."""
        code = code_version(__name__, type(self.spec.task).__module__)
        folder = self._place(name)
        task = self.spec.task
        depends_on = {"teacher": self.key(name), "data": task.fingerprint(), "max_length": task.max_length, "code": code}
        if task.unlabelled:
            depends_on["unlabelled"] = self.spec.unlabelled_key
        step_cache.step(folder, depends_on, lambda unfinished: self._answer(name, unfinished))
        with np.load(folder / "logits.npz") as saved:
            return np.split(saved["values"], np.cumsum(saved["lengths"])[:-1])

    def _checkpoint(self, name: str) -> Path:
        return self.trained(*self.recipe_and_spec(name))

    def recipe_and_spec(self, name: str) -> tuple[Recipe, RunSpec]:
        """A teacher's recipe and what it is trained on, which may be of another seed."""
        return self.spec.recipes[recipe_of(name)], self.spec.of_seed(seed_of(name, self.spec.seed))

    def _place(self, name: str) -> Path:
        if not is_folder(name):
            recipe, spec = self.recipe_and_spec(name)
            return spec.folder(recipe) / "teacher"
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
