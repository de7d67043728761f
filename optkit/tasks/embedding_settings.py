"""What a user says of embeddings: the kind of vectors that is served, their dimensions, pooling and prompts."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optkit.core.errors import InputError
from optkit.tasks import sentence_folder
from optkit.tasks.sentence_folder import FIELD, POOLINGS, SETTINGS, WHOLE, SentenceModel
from optkit.tasks.vectors import KINDS

_STATED = "stated"
"""Pooling that the model states; the mean where it states none."""
_PROMPTS = {"query": "query", "document": "document", "prompt": ""}
"""Names of prompts by option."""
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "vectors": KINDS,
    "pooling": (_STATED, *POOLINGS),
    "dimensions": (),
    **dict.fromkeys(_PROMPTS, ()),
}
"""Options of the task; see `Task.options`."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddingSettings:
    """Settings of vectors."""

    vectors: str = KINDS[0]
    """Kind of the served vectors; scores are those of this kind."""
    dimensions: int | None = None
    """Number of leading dimensions that are kept (Matryoshka, Kusupati et al. 2022, arXiv 2205.13147); None keeps all."""
    pooling: str | None = None
    """Pooling of a model that states none; the mean by default."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Prompts by name, in place of the model's of the same name: "query", "document", or "" for texts that are neither."""

    @classmethod
    def of(cls, chosen: Mapping[str, str]) -> "EmbeddingSettings":
        """Read what `--task-option` says.

        Raises:
            InputError: dimensions that are no number from 1 on.
        """
        size = chosen.get("dimensions")
        if size is not None and not (size.isascii() and size.isdigit() and int(size) >= 1):
            raise InputError(f"--task-option dimensions={size}: expected a whole number from 1 on")
        prompts = {role: chosen[name] for name, role in _PROMPTS.items() if name in chosen}
        pooling = None if chosen["pooling"] == _STATED else chosen["pooling"]
        return cls(chosen["vectors"], None if size is None else int(size), pooling, prompts)

    def as_list(self) -> list[Any]:
        """Return the settings in JSON types."""
        return [self.vectors, self.dimensions, self.pooling, dict(self.prompts)]

    def adopt(self, folder: Path, config: Any, tokenizer: Any) -> None:
        """Write the head of a model into its configuration, and its prompts and length into its tokenizer.

        Args:
            folder: the model's, written by sentence-transformers, by optkit, or with an encoder alone.
            config: its configuration.
            tokenizer: its tokenizer.

        Raises:
            InputError: the folder says something else than the user, or something that graphs do not compute.
        """
        stated, own = sentence_folder.read(folder), getattr(config, FIELD, None)
        if stated is None and isinstance(own, dict):
            size = self._checked(own["pooling"], own["dimensions"], own["dimensions"], folder)
            setattr(config, FIELD, {**own, "dimensions": size, "trained": True})
            return
        found = stated or SentenceModel(pooling=self.pooling or POOLINGS[0])
        most = config.hidden_size
        size = self._checked(found.pooling, min(found.dimensions or most, most), most, folder)
        if stated is None:
            log.info("%s: no modules.json; vectors are the tokens' %s, normalised", folder, found.pooling)
        # cosines are the same of vectors of length 1, dot products are not
        cut_after = found.normalize and found.similarity == "dot" and size < most
        normalize = WHOLE if cut_after else found.normalize
        head = {"pooling": found.pooling, "normalize": normalize, "dimensions": size, "trained": stated is not None}
        setattr(config, FIELD, head)
        self._read_by(tokenizer, found, folder, by_dot=found.similarity == "dot" and normalize is not True)

    def _checked(self, pooling: str, stated: int, most: int, folder: Path) -> int:
        """Return the number of dimensions: what was said, or else what is stated, of the most that there are."""
        if self.pooling not in (None, pooling):
            raise InputError(f"--task-option pooling={self.pooling}: {folder} says {pooling}; leave it out")
        size = self.dimensions or stated
        if size > most:
            raise InputError(f"--task-option dimensions={size}: vectors of {folder} have {most}; give fewer")
        if self.vectors == "binary" and size % 8:
            raise InputError(f"--task-option vectors=binary: {size} dimensions are no multiple of 8")
        return size

    def _read_by(self, tokenizer: Any, found: SentenceModel, folder: Path, by_dot: bool) -> None:
        """Have a tokenizer read texts as the folder says."""
        if found.lower_case and tokenizer.tokenize("A B") != tokenizer.tokenize("a b"):
            raise InputError(f"{folder}: do_lower_case is true, and its tokenizer tells capitals apart; set Lowercase in it")
        if found.max_length is not None:
            tokenizer.model_max_length = min(found.max_length, tokenizer.model_max_length)
        prompts = {**found.prompts, **self.prompts}
        if any(prompts.values()) and not found.pools_prompts:
            raise InputError(f"{folder}: include_prompt is false: prompts are not pooled, which graphs cannot leave out")
        said: dict[str, Any] = {"prompts": {"": "", **prompts}} if any(prompts.values()) else {}
        if by_dot:
            said["similarity"] = found.similarity
        if said:
            tokenizer.init_kwargs[SETTINGS] = said
