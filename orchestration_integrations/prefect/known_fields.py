"""A block that refuses fields it does not have, which Prefect's blocks keep silently, and names a wrong one itself.

Pydantic's own error quotes what was given, which may be a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from pydantic import BaseModel, ModelWrapValidatorHandler, ValidationError, model_validator
from typing_extensions import Self

from ..api.closest import did_you_mean
from ..api.errors import ConfigurationError

_validating: ContextVar[bool] = ContextVar("orchestration_block_validating", default=False)


class KnownFieldsOnly(BaseModel):
    """Stands before Prefect's class among the bases of a block.

    Only code that calls the class is refused: there a wrong name is a typing mistake, which would leave the default in
    force. Data that Prefect loads may come from another version of the block, whose fields differ, and must still load.
    Pydantic calls ``__init__`` then too, but within a validation.
    """

    def __init__(self, **given: Any) -> None:
        if _validating.get():
            return super().__init__(**given)
        refuse_unknown_fields(type(self), given)
        try:
            return super().__init__(**given)
        except ValidationError as error:
            raise _wrong_fields(type(self), error) from None

    @model_validator(mode="wrap")
    @classmethod
    def _within_a_validation(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        before = _validating.set(True)
        try:
            return handler(values)
        finally:
            _validating.reset(before)


def refuse_unknown_fields(block: type[BaseModel], given: Mapping[str, Any], where: str = "") -> None:
    """Refuse names that are no field of a block, also in what is given for a block inside it.

    What Prefect has dumped passes, since another version may have dumped it: it names its ``block_type_slug``. Names
    with an underscore in front are Prefect's own.

    Args:
        block: the class.
        given: its fields.
        where: stands before the name of a field in the message.

    Raises:
        ConfigurationError: a field is unknown; ``field`` names it.
    """
    if "block_type_slug" in given:
        return
    fields = block.model_fields
    known = {*fields, *(field.alias for field in fields.values() if field.alias is not None)}
    for name, value in given.items():
        if name in known:
            inner = fields[name].annotation if name in fields else None
            if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, KnownFieldsOnly):
                refuse_unknown_fields(inner, value, f"{where}{name}.")
        elif not name.startswith("_"):
            meant = did_you_mean(name, known)
            raise ConfigurationError(f"{where}{name}: unknown field{meant}", field=f"{where}{name}")


def _wrong_fields(block: type[BaseModel], error: ValidationError) -> ConfigurationError:
    """What pydantic found wrong in the fields of a block, each with its reasons, and without what was given."""
    reasons: dict[str, list[str]] = {}
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        said = "is missing" if each["type"] == "missing" else each["msg"].replace("Input should be", "should be")
        reasons.setdefault(_field_at(block, each["loc"]), []).append(said)
    text = "; ".join(f"{field}: {' or '.join(said)}" for field, said in reasons.items())
    return ConfigurationError(text, field=next(iter(reasons)))


def _field_at(block: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """The field in which a place of pydantic's lies. What else the place names is a choice or an item of its value."""
    name = str(place[0]) if place else block.__name__
    inner = block.model_fields[name].annotation if name in block.model_fields else None
    if len(place) > 1 and isinstance(inner, type) and issubclass(inner, KnownFieldsOnly):
        return f"{name}.{_field_at(inner, place[1:])}"
    return name
