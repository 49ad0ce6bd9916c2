"""Tell in short what the search found; the command `odn show`.

Reads: model, metrics/evaluation.json, metrics/latency.json, and where they are there export,
  metrics/export_latency.json, work/registered.json, .odn/registration.json, report
Writes: nothing
Config: all
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from odn.config import Config
from odn.files import sha256_of
from odn.records import read_record
from odn.report.exports import read_exports
from odn.report.findings import read_findings
from odn.report.summary import Summary, summarize
from odn.searching.records import RegisteredWeights
from odn.tracking.standing import Standing, standing


def run(
    config: Config, *, model: Path, metrics: Path, registered_weights: Path, registration: Path, report: Path, exported: Path
) -> Summary:
    """Return the summary of the search that `config` describes.

    Raises:
        MissingInputError: the search has not ended, its model is not evaluated, or the files are of another search.
    """
    findings = read_findings(config, model=model, metrics=metrics)
    registered, standing = _registration(model, registered_weights=registered_weights, registration=registration)
    page = report / "report.html"
    digest = sha256_of(model / "weights.safetensors")
    return summarize(
        findings,
        registration=registered,
        standing=standing,
        model=model,
        report=page if page.exists() else None,
        exports=read_exports(exported, latency=metrics / "export_latency.json", weights_sha256=digest),
        exported=exported,
    )


def _registration(model: Path, *, registered_weights: Path, registration: Path) -> tuple[dict[str, Any] | None, Standing]:
    """Read which version the model became, and whether it still is; None where these very weights are not registered."""
    if not (registered_weights.exists() and registration.exists()):
        return None, "unasked"
    weights = sha256_of(model / "weights.safetensors")
    if read_record(RegisteredWeights, registered_weights, made_by="register").weights_sha256 != weights:
        return None, "unasked"
    from odn.tracking.registry import Registration

    return standing(asdict(read_record(Registration, registration, made_by="register")), weights_sha256=weights)
