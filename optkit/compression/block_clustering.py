"""Product quantization of one weight, and of which weights of a model in what order (Fan et al. 2021, arXiv 2004.07320)."""

import logging
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import nn

from optkit.core.errors import InputError
from optkit.models import two_to_four
from optkit.models.shared_blocks import fits, matrices

log = logging.getLogger(__name__)
_SAMPLE, _ITERATIONS = 2**16, 50
"""Blocks that centroids are found on, at most, and rounds of doing so."""
_ATTENTION = "att"
"""What the names of attention's modules have in common in all families: attention, attn, self_attn, SelfAttention."""


def block_sizes(model: nn.Module, block: int, embedding_block: int, centroids: int) -> dict[str, int]:
    """Return the size of the blocks of each Linear and each embedding that product quantization makes smaller, by name."""
    parts = matrices(model)
    sizes = {name: embedding_block if isinstance(part, nn.Embedding) else block for name, part in parts.items()}
    return {name: size for name, size in sizes.items() if fits(parts[name].weight, size, centroids)}


def report_float(name: str, model: nn.Module, chosen: Mapping[str, int]) -> None:
    """Warn of what cannot be quantised and is large enough to matter, a hundredth of all weights together.

    Args:
        name: of the recipe.
        model: its weights may be on the meta device.
        chosen: of `block_sizes`.

    Raises:
        InputError: nothing can be quantised.
    """
    if not chosen:
        raise InputError(
            f"{type(model).__name__} has no weight that product quantization would make smaller: expected Linear modules or "
            "embeddings whose input channels are whole blocks, and which have many more blocks than centroids. Leave "
            "ProductQuantize out, choose blocks of 4, or fewer centroids"
        )
    left = {at: part.weight for at, part in matrices(model).items() if at not in chosen}
    total, rest = sum(each.numel() for each in model.parameters()), sum(weight.numel() for weight in left.values())
    if 100 * rest > total:
        lines = "\n".join(f"  {at}: {' × '.join(map(str, weight.shape))}" for at, weight in left.items())
        log.warning(
            "%s: %d weights stay as they are, %.0f %% of the model: their input channels are no whole blocks, or they have "
            "too few of them:\n%s",
            *(name, len(left), 100 * rest / total, lines),
        )


def in_groups(model: nn.Module, chosen: Mapping[str, int], groups: int) -> list[list[str]]:
    """Part names of weights into groups, in the order in which they are quantised: embeddings, feed-forward, attention.

    Args:
        model: has them.
        chosen: names to part.
        groups: number of groups that the feed-forward's weights, and attention's, are divided into by depth.
    """
    kinds: dict[str, list[str]] = {"embeddings": [], "feed-forward": [], "attention": []}
    for name in chosen:
        embedding = isinstance(model.get_submodule(name), nn.Embedding)
        attention = "attention" if _ATTENTION in name.lower() else "feed-forward"
        kinds["embeddings" if embedding else attention].append(name)
    found = [kinds.pop("embeddings")]
    for names in kinds.values():
        found += [part.tolist() for part in np.array_split(np.array(names, object), groups)]
    return [group for group in found if group]


@torch.no_grad()
def quantise(weight: torch.Tensor, block: int, centroids: int, seed: int) -> None:
    """Replace each block of a weight [out, in] in place by the nearest of its centroids. A weight that is 2:4 stays so: of
    each centroid the two smallest of four become zero first."""
    blocks = weight.detach().reshape(-1, block).numpy()
    generator = np.random.default_rng(seed)
    sample = blocks if len(blocks) <= _SAMPLE else blocks[generator.choice(len(blocks), _SAMPLE, replace=False)]
    clustering = KMeans(centroids, n_init=1, max_iter=_ITERATIONS, random_state=seed)
    # several threads would add up in an order of their own, and an interrupted run would not go on as it was
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer different blocks than centroids
        clustering.fit(sample)
        if two_to_four.is_sparse(weight):
            clustering.cluster_centers_ = _two_of_four(clustering.cluster_centers_)
        codes = clustering.predict(blocks)
    weight.copy_(torch.from_numpy(clustering.cluster_centers_)[codes].view_as(weight))


def _two_of_four(centroids: np.ndarray) -> np.ndarray:
    """Return blocks whose two smallest values of each four are zero."""
    fours = centroids.reshape(-1, 4).copy()
    np.put_along_axis(fours, np.argsort(np.abs(fours), axis=1, kind="stable")[:, :2], 0, axis=1)
    return fours.reshape(centroids.shape)
