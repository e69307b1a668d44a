"""A griffe extension: the examples of docstrings become code blocks on the site."""

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"(?:^>>> .*(?:\n(?!\s*$).*)*)", re.MULTILINE)


class FencedExamples(Extension):
    """Put each example, `>>>` and what follows it up to an empty line, into a fence."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Change an object's docstring in place."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
