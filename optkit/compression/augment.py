"""More training text out of the text that is there: words replaced by their neighbours in the model's own embedding.

What Jiao et al. 2020 (arXiv 1909.10351, section 3.4) do with GloVe, without a download. The labels of such sentences are
doubtful, so they are for a teacher that looks at each of them.
"""

import numpy as np
import torch

from optkit.models.families import word_embeddings
from optkit.models.loading import LoadedModel
from optkit.tasks.base import Feed

_NEIGHBOURS = 8


class Neighbours:
    """Replaces a share of the words of every batch; which ones, and by which neighbour, follows torch's seed."""

    def __init__(self, loaded: LoadedModel, share: float) -> None:
        """Look at a model's word embeddings.

        Args:
            loaded: whose words and whose embedding.
            share: of the words to replace, 0 to 1.
        """
        table = word_embeddings(loaded.model).detach().cpu().float()
        self.directions = torch.nn.functional.normalize(table, dim=1)  # [words, hidden]
        self.fixed = np.zeros(len(table), dtype=bool)
        self.fixed[loaded.tokenizer.all_special_ids] = True
        self.fixed[len(loaded.tokenizer) :] = True  # rows that only round up the table's size
        self.share = share
        self.known: dict[int, np.ndarray] = {}

    def __call__(self, feed: Feed) -> Feed:
        """The feed with other words; special tokens and padding stay."""
        random = np.random.default_rng(int(torch.randint(2**63 - 1, ())))
        ids = feed["input_ids"].copy()
        drawn = (random.random(ids.shape) < self.share) & ~self.fixed[ids]
        words = ids[drawn]
        self._look_up(np.unique(words))
        ids[drawn] = [random.choice(self.known[word]) for word in words.tolist()]
        return {**feed, "input_ids": ids}

    def _look_up(self, words: np.ndarray) -> None:
        """Find the nearest neighbours by cosine of words not met before."""
        new = [word for word in words.tolist() if word not in self.known]
        likeness = self.directions[new] @ self.directions.T  # [new, words]
        likeness[:, torch.from_numpy(self.fixed)] = -1
        likeness[torch.arange(len(new)), torch.tensor(new, dtype=torch.long)] = -1
        nearest = likeness.topk(min(_NEIGHBOURS, int((~self.fixed).sum()) - 1), dim=1).indices.numpy()
        self.known |= dict(zip(new, nearest, strict=True))
