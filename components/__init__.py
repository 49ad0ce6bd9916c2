"""Kubeflow components: typed wrappers to the steps of `odn.steps`, one a file, all in one image."""

from components.check import check
from components.configure import configure
from components.evaluate import evaluate
from components.export import export
from components.prepare import prepare
from components.register import register
from components.report import report
from components.train import train
from components.truncate import truncate

__all__ = ["check", "configure", "evaluate", "export", "prepare", "register", "report", "train", "truncate"]
