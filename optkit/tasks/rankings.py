"""Metrics of rankings, query by query, as trec_eval has them (through `pytrec_eval`): nDCG, MRR, MAP and recall.

They are outcomes of queries, an array [queries] with a field for each metric, so that intervals are a paired bootstrap over
queries. As in trec_eval, scores are float32, documents of equal scores stand by their names, the largest first, documents
without a judgement are not relevant, and relevant ones that were not found count as missed.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Grades = Mapping[str, int]
"""Judged documents of a query by name: 0 for one that is not relevant, more for one that is, the more the better."""
Scores = Mapping[str, float]
"""Scored documents of a query by name."""

_NAME = re.compile(r"(ndcg|mrr|map|recall)@([1-9]\d*)|(ndcg|mrr|map)")
_WHOLE = {"ndcg": "ndcg", "mrr": "recip_rank", "map": "map"}
"""What trec_eval calls metrics of whole rankings."""
_CUT = {"ndcg": "ndcg_cut.{}", "mrr": "recip_rank", "map": "map_cut.{}", "recall": "recall.{}"}
"""What it calls those of the first documents; of reciprocal ranks it has none."""
_SHUFFLES = 10
"""Random orders whose mean stands for chance: its error is a third of that of a model's score."""


def per_query(relevance: Sequence[Grades], found: Sequence[Scores], metrics: Sequence[str]) -> NDArray[np.void]:
    """Return metrics of each query in points, [queries] with a float64 field for each metric.

    Args:
        relevance: judged documents of each query, one or more of them relevant.
        found: scored documents of each query, in the same order; all scores finite.
        metrics: names: `ndcg@10`, `mrr@10`, `map@10`, `recall@10` with any number; `ndcg`, `mrr`, `map` of whole rankings.

    Raises:
        ValueError: another name, or a query without a relevant document, of which metrics are not defined.
    """
    from pytrec_eval import RelevanceEvaluator

    if lacking := [place for place, grades in enumerate(relevance) if max(grades.values(), default=0) < 1]:
        raise ValueError(f"query {lacking[0]} of {len(relevance)} has no relevant document, expected one or more")
    measures = {name: _measure(name) for name in metrics}
    queries = [str(place) for place in range(len(relevance))]
    judged = dict(zip(queries, map(dict, relevance), strict=True))
    scored = dict(zip(queries, map(dict, found), strict=True))
    values = RelevanceEvaluator(judged, set(measures.values())).evaluate(scored)
    outcomes = np.empty(len(queries), [(name, np.float64) for name in measures])
    for name, measure in measures.items():
        shares = np.array([values[query][measure.replace(".", "_")] for query in queries])
        if name.startswith("mrr@"):
            shares[shares < 1 / int(name.removeprefix("mrr@"))] = 0.0
        outcomes[name] = 100.0 * shares
    return outcomes


def ranked(scores: Scores) -> list[str]:
    """Return documents by their scores, the best first, equal ones in the order that the metrics take."""
    return sorted(scores, key=lambda name: (np.float32(scores[name]), name), reverse=True)


def by_chance(relevance: Sequence[Grades], found: Sequence[Scores], metric: str) -> float:
    """Return the mean of a metric over queries, in points, if the documents found stood in random order.

    Args:
        relevance, found: as for `per_query`.
        metric: one name.
    """
    random = np.random.default_rng(0)
    orders = [
        [dict(zip(scores, random.permutation(len(scores)).tolist(), strict=True)) for scores in found]
        for _ in range(_SHUFFLES)
    ]
    return float(np.mean([per_query(relevance, order, [metric])[metric].mean() for order in orders]))


def _measure(name: str) -> str:
    """Return what trec_eval calls a metric.

    Raises:
        ValueError: it is none of rankings.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise ValueError(f"metric {name!r}: expected ndcg@K, mrr@K, map@K or recall@K, or ndcg, mrr or map")
    return _WHOLE[name] if parts[2] is None else _CUT[parts[1]].format(parts[2])
