"""Settings of a step that are kept in the run folder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from xtalk.errors import XtalkError
from xtalk.files import replacing
from xtalk.runs.folder import RunFolder

Settings = TypeVar("Settings", bound=BaseModel)


def checked(kind: type[Settings], content: Mapping[str, Any], step: str) -> Settings:
    """Settings from plain data. Errors: XtalkError names the step and the first key that is wrong."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise XtalkError(f"{step}: {f'{where}: {message}; choose another' if where else message}") from error


@contextmanager
def kept_unless_done(folder: RunFolder, names: Sequence[str]) -> Iterator[None]:
    """Restore these files of a run if the block fails, since the step may prove impossible as it was set."""
    paths = [folder.file(name) for name in names]
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                with replacing(path) as partial:
                    partial.write_bytes(content)
        raise
