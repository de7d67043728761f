"""The base of everything a recipe is made of: frozen settings that keep their mistakes until all are reported together."""

from typing import Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, PrivateAttr, ValidationError

from optkit.core.errors import InputError


class RecipeError(InputError):
    """A recipe has mistakes; the message lists all of them."""


class Settings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Part of a recipe. It keeps its mistakes until the recipe it stands in reports all of them together.

    Whoever uses one without a recipe asks for it `checked()`.
    """

    _mistakes: list[str] = PrivateAttr(default_factory=list)

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            super().__init__()
            self._mistakes = [mistake(type(self), detail) for detail in error.errors()]

    def checked(self) -> Self:
        """Return the settings themselves.

        Raises:
            RecipeError: naming every mistake in them.
        """
        if self._mistakes:
            raise RecipeError(report(f"{type(self).__name__} has", self._mistakes))
        return self


def mistake(owner: type[BaseModel], detail: Any) -> str:
    """One line from one of pydantic's error details."""
    field = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{owner.__name__} has no setting {field!r}; it has {', '.join(_settable(owner))}"
    if detail["type"] == "missing":
        return f"{owner.__name__} needs {field}"
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not field:
        return message
    return f"{owner.__name__}.{field} is {detail['input']!r}: {message[0].lower()}{message[1:]}"


def report(owner: str, mistakes: list[str]) -> str:
    """All mistakes as one message."""
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    return f"{owner} {count}:\n" + "\n".join(f"  - {mistake}" for mistake in mistakes)


def _settable(owner: type[BaseModel]) -> list[str]:
    return [name for name, field in owner.model_fields.items() if not _is_fixed(field.annotation)]


def _is_fixed(annotation: Any) -> bool:
    """Whether there is one value only, as for the name of a technique: nothing to set."""
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1
