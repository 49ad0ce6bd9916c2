"""Tell in short what the search found; the command `odn show`.

Reads: model, metrics/evaluation.json, metrics/latency.json, and where they are there .odn/registration.json, report
Writes: nothing
Config: all
"""

from pathlib import Path

from odn.config import Config
from odn.files import read_json
from odn.report.account import Account, account
from odn.report.findings import read_findings


def run(config: Config, *, model: Path, metrics: Path, registration: Path, report: Path) -> Account:
    """Return the account of the search that `config` describes.

    Raises:
        MissingInputError: the search has not ended, its model is not evaluated, or the files are of another search.
    """
    findings = read_findings(config, model=model, metrics=metrics)
    registered = read_json(registration, made_by="register") if registration.exists() else None
    page = report / "report.html"
    return account(findings, registration=registered, model=model, report=page if page.exists() else None)
