"""Figures and the HTML report of a run; formats results and computes none."""

from xtalk.reports.cluster_map import write_cluster_map
from xtalk.reports.data import ReportData
from xtalk.reports.figures import write_figures
from xtalk.reports.page import write_report
from xtalk.reports.results import load_report_data

__all__ = ["ReportData", "load_report_data", "write_cluster_map", "write_figures", "write_report"]
