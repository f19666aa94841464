"""A run's report: one page and one picture, made of nothing but the files in the run's folder."""

from surefoot.report.page import write_report
from surefoot.report.picture import write_picture

__all__ = ["write_picture", "write_report"]
