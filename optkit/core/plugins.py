"""What is found by name: optkit's own kinds of a thing, those of other packages, and those of a script or notebook.

    TASKS = Registry("task", "optkit.tasks", {"squad": "optkit.tasks.question_answering:QuestionAnswering"})
    TASKS.get("squad")

Another package brings its own by an entry point of the group (Python Packaging User Guide, "Entry points"):

    [options.entry_points]
    optkit.tasks =
        mine = my_package.task:Mine

Nothing is imported before it is asked for.
"""

import difflib
import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from optkit.core.errors import InputError, MachineError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one kind by name.

    Args:
        what: the kind, for messages, such as "engine kind".
        group: of the entry points of other packages.
        own: optkit's, `{name: "module:attribute"}`.
        fits: whether something that another package brings is of this kind.
    """

    def __init__(
        self, what: str, group: str, own: Mapping[str, str], fits: Callable[[Any], bool] = lambda thing: True
    ) -> None:
        self.what, self.group, self.own, self._fits = what, group, dict(own), fits
        self._registered: dict[str, T] = {}

    def register(self, name: str, thing: T) -> T:
        """Add one for this process; returns it. Defined again, as by a notebook's cell that runs twice, it is replaced.

        Raises:
            InputError: the name is another's.
        """
        known = self._registered.get(name)
        if name in self.own or not (known is None or known is thing or _definition(known) == _definition(thing)):
            raise InputError(f"{self.what} {name!r} is there already: expected another name than {', '.join(self.names())}")
        self._registered[name] = thing
        return thing

    def forget(self, name: str) -> None:
        """Take back what `register` did."""
        self._registered.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """All names, optkit's own first."""
        return tuple(dict.fromkeys((*self.own, *self._registered, *self._elsewhere())))

    def working(self) -> Iterator[tuple[str, T]]:
        """All of them, optkit's own first; what cannot be imported of another package is said, and left out."""
        for name in self.names():
            try:
                yield name, self.get(name)
            except MachineError as error:
                log.warning("%s; left out", error)

    def only_here(self, name: str) -> bool:
        """Whether no other process knows it, since it was registered and comes by no entry point."""
        return name in self._registered and name not in self._elsewhere()

    def get(self, name: str) -> T:
        """The thing of this name.

        Raises:
            InputError: there is none.
            MachineError: the package that brings it cannot be imported.
        """
        if name in self._registered:
            return self._registered[name]
        if name in self.own:
            module, _, attribute = self.own[name].partition(":")
            return cast(T, getattr(importlib.import_module(module), attribute))
        found = self._elsewhere().get(name)
        if found is None:
            raise InputError(self._unknown(name))
        return cast(T, self._loaded(found))

    def _elsewhere(self) -> dict[str, EntryPoint]:
        """What other packages bring; optkit's own names are not theirs to take."""
        return {point.name: point for point in entry_points(group=self.group) if point.name not in self.own}

    def _loaded(self, point: EntryPoint) -> Any:
        package = point.dist.name if point.dist else point.value
        about = f"{self.what} {point.name!r} of the package {package}: {point.value}"
        try:
            thing = point.load()
        except Exception as error:  # whatever the other package raises
            raise MachineError(
                f"{about} cannot be imported ({type(error).__name__}: {error}). Mend or remove that package"
            ) from error
        if not self._fits(thing):
            raise MachineError(f"{about} is {thing!r}, which is no {self.what}. Mend or remove that package")
        return thing

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.names(), n=1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        return f"{self.what} {name!r}: there is none of that name; expected one of {', '.join(self.names())}{hint}"


def import_folders(groups: Iterable[str]) -> list[str]:
    """Folders that the packages with entry points of these groups are imported from, for a process that is not told."""
    tops = {point.module.partition(".")[0] for group in groups for point in entry_points(group=group)}
    specs = [spec for top in sorted(tops) if (spec := importlib.util.find_spec(top))]
    return [str(Path(spec.origin).parents[bool(spec.submodule_search_locations)]) for spec in specs if spec.origin]


def _definition(thing: Any) -> tuple[str, str]:
    """Where a class, or that of an instance, is defined."""
    kind = thing if isinstance(thing, type) else type(thing)
    return kind.__module__, kind.__qualname__
