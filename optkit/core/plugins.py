"""Registries of plugins by name: optkit's own, those of other packages, and those of a script or notebook.

    TASKS = Registry("task", "optkit.tasks", {"squad": "optkit.tasks.question_answering:QuestionAnswering"})
    TASKS.get("squad")

Another package adds its own by an entry point of the group (Python Packaging User Guide, "Entry points"):

    [options.entry_points]
    optkit.tasks =
        mine = my_package.task:Mine

A plugin is imported when it is looked up.
"""

import difflib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from optkit.core.errors import InputError, MachineError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Registry(Generic[T]):
    """Registry of the plugins of one kind by name.

    Args:
        what: name of the kind in messages, such as "engine kind".
        group: entry-point group of other packages' plugins.
        own: optkit's own plugins, `{name: "module:attribute"}`.
        fits: predicate that a plugin of another package has to satisfy.
    """

    def __init__(
        self, what: str, group: str, own: Mapping[str, str], fits: Callable[[Any], bool] = lambda thing: True
    ) -> None:
        self.what, self.group, self.own, self._fits = what, group, dict(own), fits
        self._registered: dict[str, T] = {}

    def register(self, name: str, thing: T) -> T:
        """Register a plugin in this process. A redefinition, as by a notebook's cell that runs twice, replaces the first.

            FAMILIES.register("my-encoder", Family(depth=("blocks",)))

        Args:
            name: name to look it up by.
            thing: the plugin.

        Returns:
            The plugin.

        Raises:
            InputError: the name is taken.
        """
        known = self._registered.get(name)
        if name in self.own or not (known is None or known is thing or _definition(known) == _definition(thing)):
            raise InputError(f"{self.what} {name!r} is there already: expected another name than {', '.join(self.names())}")
        self._registered[name] = thing
        return thing

    def forget(self, name: str) -> None:
        """Remove a plugin that `register` added; an unknown name is ignored.

        Args:
            name: name it was registered by.
        """
        self._registered.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """Return all names, optkit's own first."""
        return tuple(dict.fromkeys((*self.own, *self._registered, *self._elsewhere())))

    def working(self) -> Iterator[tuple[str, T]]:
        """Yield all plugins with their names, optkit's own first; those that fail to import are skipped with a warning."""
        for name in self.names():
            try:
                yield name, self.get(name)
            except MachineError as error:
                log.warning("%s; left out", error)

    def only_here(self, name: str) -> bool:
        """Return whether other processes cannot find a plugin, because it was registered and has no entry point."""
        return name in self._registered and name not in self._elsewhere()

    def get(self, name: str) -> T:
        """Return the plugin of a name, importing it if needed.

        Args:
            name: one of `names`.

        Raises:
            InputError: there is no plugin of that name; the message lists the known ones.
            MachineError: its package cannot be imported, or the entry point names something of another kind.
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
        """Entry points of other packages by name; those with one of optkit's own names are ignored."""
        return {point.name: point for point in _points(self.group, tuple(sys.path)) if point.name not in self.own}

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
        close = difflib.get_close_matches(str(name), self.names(), n=1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        return f"{self.what} {name!r}: there is none of that name; expected one of {', '.join(self.names())}{hint}"


def import_folders(groups: Iterable[str]) -> list[str]:
    """Return the folders that packages with entry points in some groups are imported from, for the search path of a process.

    Args:
        groups: entry-point groups.
    """
    tops = {point.module.partition(".")[0] for group in groups for point in entry_points(group=group)}
    specs = [spec for top in sorted(tops) if (spec := importlib.util.find_spec(top))]
    return [str(Path(spec.origin).parents[bool(spec.submodule_search_locations)]) for spec in specs if spec.origin]


@cache
def _points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group on a search path, read once: reading those of all packages takes 20 ms."""
    return tuple(entry_points(group=group))


def _definition(thing: Any) -> tuple[str, str]:
    """Return module and qualified name of a class, or of an instance's class."""
    kind = thing if isinstance(thing, type) else type(thing)
    return kind.__module__, kind.__qualname__
