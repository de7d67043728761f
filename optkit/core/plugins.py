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
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from optkit.core.errors import InputError, MachineError

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one kind by name.

    Args:
        what: the kind, for messages, such as "engine kind".
        group: of the entry points of other packages.
        own: optkit's, `{name: "module:attribute"}`.
    """

    def __init__(self, what: str, group: str, own: Mapping[str, str]) -> None:
        self.what, self.group, self.own = what, group, dict(own)
        self._registered: dict[str, T] = {}

    def register(self, name: str, thing: T) -> T:
        """Add one for this process; returns it.

        Raises:
            InputError: the name is another's.
        """
        known = self._registered.get(name)
        if name in self.own or known not in (None, thing):
            raise InputError(f"{self.what} {name!r} is there already: expected another name than {', '.join(self.names())}")
        self._registered[name] = thing
        return thing

    def forget(self, name: str) -> None:
        """Take back what `register` did."""
        self._registered.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """All names, optkit's own first."""
        return tuple(dict.fromkeys((*self.own, *self._registered, *self._elsewhere())))

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
        try:
            return point.load()
        except Exception as error:  # whatever the other package raises
            package = point.dist.name if point.dist else point.value
            raise MachineError(
                f"{self.what} {point.name!r} of the package {package}: {point.value} cannot be imported "
                f"({type(error).__name__}: {error}). Mend or remove that package"
            ) from error

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.names(), n=1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        return f"{self.what} {name!r}: there is none of that name; expected one of {', '.join(self.names())}{hint}"
