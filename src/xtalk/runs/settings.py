"""Settings of a step that are kept in the run folder."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from xtalk.errors import XtalkError

Settings = TypeVar("Settings", bound=BaseModel)


def checked(kind: type[Settings], content: Mapping[str, Any], step: str) -> Settings:
    """Settings from plain data. Errors: XtalkError names the step and the first key that is wrong."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        told = f"{where}: {said}; choose another" if where else said
        raise XtalkError(f"{step}: {told}") from error
