"""What the site needs beyond pages: docstrings' examples as code, and the example report, drawn anew."""

import re
import tempfile
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from xtalk.reports import Metrics, ReportData, Results, read_record
from xtalk.reports.page import write_report

_EXAMPLE = re.compile(r"(?:^>>> .*(?:\n(?!\s*$).*)*)", re.MULTILINE)


class FencedExamples(Extension):
    """Put each example, `>>>` and what follows it up to an empty line, into a fence."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Change an object's docstring in place."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the report of the records in docs/example, as today's code draws it."""
    records = Path(config["docs_dir"]) / "example"
    metrics = read_record(records / "metrics.json", Metrics)
    results = Results(metrics, read_record(records / "report_data.json", ReportData))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write_report(results, page, Path(folder) / "figures")
        files.append(File.generated(config, "example/report.html", content=page.read_text(encoding="utf-8")))
    return files
