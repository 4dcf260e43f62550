"""Tables and figures from stored results of any task; a task brings its own words and figures."""

from clockwork.report.description import Column, Description, Line, Listing, Measure, Sound, describe
from clockwork.report.drawing import FORMATS
from clockwork.report.figures import draw_curves, draw_errors, draw_search
from clockwork.report.html import write_html
from clockwork.report.page import write_report
from clockwork.report.table import table

__all__ = [
    "FORMATS",
    "Column",
    "Description",
    "Line",
    "Listing",
    "Measure",
    "Sound",
    "describe",
    "draw_curves",
    "draw_errors",
    "draw_search",
    "table",
    "write_html",
    "write_report",
]
