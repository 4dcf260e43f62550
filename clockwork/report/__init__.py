"""Tables and figures from stored results of any task; a task brings its own words and figures."""

from clockwork.report.description import Column, Description, Line, Measure, describe
from clockwork.report.drawing import FORMATS
from clockwork.report.figures import draw_curves, draw_errors, draw_search
from clockwork.report.page import write_report
from clockwork.report.table import table

__all__ = [
    "FORMATS",
    "Column",
    "Description",
    "Line",
    "Measure",
    "describe",
    "draw_curves",
    "draw_errors",
    "draw_search",
    "table",
    "write_report",
]
