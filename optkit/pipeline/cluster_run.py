"""Steps side by side on the nodes of a cluster: each as soon as those that it needs are finished, and again where a node
died."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optkit.core import step_cache
from optkit.core.errors import MachineError, OptkitError
from optkit.pipeline import cluster_worker
from optkit.pipeline.cluster_nodes import Share
from optkit.pipeline.cluster_view import View
from optkit.pipeline.cluster_worker import Order, Outcome
from optkit.pipeline.step_graph import Graph, Kind, Step

_LOOK_S = 1.0
_END_S = 30.0  # the end of a server takes the longest
_TRIES = 4
_UNHEARD = ". This process shows a token; to a cluster that was started without one: export RAY_AUTH_MODE=disabled"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterRun:
    """Takes the steps of a graph on a cluster that was looked at."""

    ray: Any
    order: Order
    shares: Mapping[Kind, Share]
    versions: dict[str, str]
    fresh: bool
    """Whether each step has a process of its own: one that has seen no GPU, or another one, sees no other."""
    trainings: int
    """How many run side by side."""

    def __call__(self, graph: Graph) -> dict[str, Any]:
        """Take all steps; what does not need one that failed is done all the same.

        Returns:
            What the steps gave that judge, by title.

        Raises:
            OptkitError: the first that a step raised, or the cluster is gone.
        """
        results, errors = self.attempt(graph)
        if errors:
            raise next(iter(errors.values()))
        return results

    def attempt(self, graph: Graph) -> tuple[dict[str, Any], dict[str, Exception]]:
        """Take all steps that need none that fails.

        Returns:
            What the steps gave that judge or measure, and what steps raised, by title.

        Raises:
            MachineError: the cluster is gone.
        """
        _ship_rows_in_files(self.ray)
        with View(list(graph), self.order.board) as view:
            work = _Work(self, graph, view)
            try:
                work.do()
            except (self.ray.exceptions.RayError, ConnectionError) as error:
                raise MachineError(
                    f"cluster: it is gone ({_first(error)}). The same command goes on from what is finished"
                ) from error
            except BaseException:
                work.cancel()
                raise
        return work.results, work.errors


class _Work:
    """What is waiting, running and done."""

    def __init__(self, run: ClusterRun, graph: Graph, view: View) -> None:
        self.run, self.graph, self.view = run, graph, view
        self.take = run.ray.remote(max_calls=int(run.fresh))(cluster_worker.take)
        self.held = [run.ray.put(graph)]
        self.waiting = dict(graph)
        self.running: dict[Any, str] = {}
        self.finished: set[str] = set()
        self.dropped: set[str] = set()
        self.made: list[tuple[Path, str]] = []
        self.lost = Counter[str]()
        self.errors: dict[str, Exception] = {}
        self.results: dict[str, Any] = {}

    def do(self) -> None:
        """Take steps until none is left."""
        while self.waiting or self.running:
            self._start_ready()
            if self.running:
                done, _ = self.run.ray.wait(list(self.running), timeout=_LOOK_S)
                self.view.look()
                for reference in done:
                    self._end(self.running.pop(reference), reference)
        self._fetch()

    def cancel(self) -> None:
        """End what runs: first so that it puts away what it has begun, as Ctrl-C does, then by force."""
        ray, left = self.run.ray, list(self.running)
        log.info("cancelling %d steps", len(left))
        for reference in left:
            ray.cancel(reference)
        if left:
            _, left = ray.wait(left, num_returns=len(left), timeout=_END_S)
        for reference in left:
            ray.cancel(reference, force=True)

    def _start_ready(self) -> None:
        for name, step in list(self.waiting.items()):
            if not self.dropped.isdisjoint(step.needs):
                log.warning("%s: left out, as a step before it failed", name)
                self._drop(name)
            elif self.finished.issuperset(step.needs):
                self._start(name, step)

    def _start(self, name: str, step: Step) -> None:
        del self.waiting[name]
        if step.kind == "judge":
            self._judge(name, step)
            return
        share, run = self.run.shares[step.kind], self.run
        self.view.sent(name)
        task = self.take.options(**share.options(), name=name)
        self.running[task.remote(run.order, self.held, name, share.cores, run.versions)] = name

    def _judge(self, name: str, step: Step) -> None:
        """Judge in this process: it reads what others wrote, and takes a second."""
        try:
            self._fetch()
            self.results[name] = step.run()
        except OptkitError as error:
            self._fail(name, error)
            return
        self.finished.add(name)
        self.view.done(name)

    def _fetch(self) -> None:
        """Have here what steps have made elsewhere."""
        while self.made:  # in the order of their needs: a checkpoint's folder takes with it what was made of another
            step_cache.fetch(*self.made[0])
            del self.made[0]

    def _end(self, name: str, reference: Any) -> None:
        """Take note of how a step ended."""
        errors = self.run.ray.exceptions
        lost = (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError, errors.LocalRayletDiedError)
        try:
            outcome: Outcome = self.run.ray.get(reference)
        except (*lost, errors.OutOfMemoryError) as error:
            self._again(name, error)
        except errors.RayTaskError as error:  # nothing that optkit raises on purpose
            self._fail(name, error)
        else:
            self.view.done(name, None if outcome.error else outcome)
            if outcome.error:
                self._fail(name, outcome.error)
            else:
                self.finished.add(name)
                self.made += [outcome.made] if outcome.made else []
                self.results |= {} if outcome.found is None else {name: outcome.found}

    def _again(self, name: str, error: Exception) -> None:
        """Take a step again whose process was lost: it goes on from the last snapshot."""
        self.view.lost(name)
        self.lost[name] += 1
        if self.lost[name] == _TRIES:
            lost = isinstance(error, self.run.ray.exceptions.OwnerDiedError)
            unheard = lost and os.environ.get("RAY_AUTH_MODE") == "token"
            why = f"{name}: its process was lost {_TRIES} times, the last time so: {_last(error)}{_UNHEARD * unheard}"
            self._fail(name, MachineError(why))
            return
        log.warning("%s: its node or process died (%s); it goes on elsewhere", name, type(error).__name__)
        self.waiting[name] = self.graph[name]

    def _fail(self, name: str, error: Exception) -> None:
        log.warning("%s failed: %s", name, error)
        self.errors[name] = error
        self._drop(name)

    def _drop(self, name: str) -> None:
        self.waiting.pop(name, None)
        self.dropped.add(name)


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _last(error: Exception) -> str:
    """What was raised, which a trace of Ray's ends with."""
    return str(error).strip().rpartition("\n")[2]


def _ship_rows_in_files(ray: Any) -> None:
    """Have rows that lie in files of this machine's cache sent with a task, and not the names of the files."""
    from datasets.table import InMemoryTable, MemoryMappedTable

    ray.util.register_serializer(MemoryMappedTable, serializer=lambda table: table.table, deserializer=InMemoryTable)
