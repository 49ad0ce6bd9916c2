"""Tell in short what the search found; the command `odn show`.

Reads: model, metrics/evaluation.json, metrics/latency.json, and where they are there work/registered.json, .odn/registration.json, report
Writes: nothing
Config: all
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from odn.config import Config
from odn.files import sha256_of
from odn.records import read_record
from odn.report.account import Account, account
from odn.report.findings import read_findings
from odn.search.records import Receipt
from odn.tracking.standing import Standing, standing


def run(config: Config, *, model: Path, metrics: Path, receipt: Path, registration: Path, report: Path) -> Account:
    """Return the account of the search that `config` describes.

    Raises:
        MissingInputError: the search has not ended, its model is not evaluated, or the files are of another search.
    """
    findings = read_findings(config, model=model, metrics=metrics)
    registered, standing = _registration(model, receipt=receipt, registration=registration)
    page = report / "report.html"
    return account(findings, registration=registered, standing=standing, model=model, report=page if page.exists() else None)


def _registration(model: Path, *, receipt: Path, registration: Path) -> tuple[dict[str, Any] | None, Standing]:
    """Read which version the model became, and whether it still is; None where these very weights are not registered."""
    if not (receipt.exists() and registration.exists()):
        return None, "unasked"
    weights = sha256_of(model / "weights.safetensors")
    if read_record(Receipt, receipt, made_by="register").weights_sha256 != weights:
        return None, "unasked"
    from odn.tracking.registry import Registration

    return standing(asdict(read_record(Registration, registration, made_by="register")), weights_sha256=weights)
