"""The pages of a run: report.html with its figures, and the map of clusters."""

from xtalk.errors import XtalkError
from xtalk.files import sha256_of
from xtalk.progress import Report
from xtalk.reports import Metrics, ReportData, Results
from xtalk.reports.cluster_map import ClusterRecord, EndpointRecord, MapRecord, write_cluster_map
from xtalk.runs import layout
from xtalk.runs.folder import RunFolder
from xtalk.runs.workbench import Workbench


def report_run(workbench: Workbench, progress: Report) -> None:
    """Draw the figures and write the report."""
    from xtalk.reports.page import write_report  # loads matplotlib, which no other step needs

    folder = workbench.folder
    write_report(results_of(folder), folder.file(layout.REPORT), folder.file(layout.FIGURES))


def results_of(folder: RunFolder) -> Results:
    """The results of an evaluated run. Errors: XtalkError if a file is missing or invalid, or they differ."""
    metrics, data = (
        folder.read_record(layout.METRICS, Metrics),
        folder.read_record(layout.REPORT_DATA, ReportData),
    )
    try:
        return Results(metrics, data)
    except XtalkError as error:
        raise XtalkError(f"{folder.path}: {error}") from None


def map_run(workbench: Workbench, progress: Report) -> None:
    """Write the map of clusters, with a language model's judgement if it is of these clusters."""
    folder, endpoint = workbench.folder, None
    if folder.file(layout.ENDPOINT).exists():
        record = folder.read_record(layout.ENDPOINT, EndpointRecord)
        if record.clusters_sha256 == sha256_of(folder.file(layout.CLUSTERS)):
            endpoint = record
    clusters = folder.read_record(layout.CLUSTERS, ClusterRecord)
    shown = folder.read_record(layout.CLUSTER_MAP, MapRecord)
    write_cluster_map(folder.file(layout.CLUSTER_PAGE), clusters, shown, endpoint)
