"""Figures and the HTML report of a run; formats results and computes none."""

from xtalk.reports.data import ReportData
from xtalk.reports.metrics import Metrics
from xtalk.reports.results import Results, read_record

__all__ = ["Metrics", "ReportData", "Results", "read_record"]
