"""Write the page that tells what the search found, and its pictures.

Reads: work/prepared/dataset.json, work/prepared/test, model, metrics/evaluation.json, metrics/latency.json, export,
  metrics/export_latency.json, plots/history.csv, work/evaluation
Writes: report
Config: all
"""

from pathlib import Path

from odn.config import Config
from odn.data.dataset import read_manifest, verified_split
from odn.files import new_folder, require_own_folder, sha256_of, write_bytes, write_text
from odn.records import read_table
from odn.report.export_figure import draw_exports
from odn.report.exports import in_words, read_exports
from odn.report.figures import DARK, LIGHT, Epoch, draw_cost, draw_curves, draw_depths, draw_ledger, draw_mistakes, drawing
from odn.report.findings import Findings, read_findings
from odn.report.mistakes import read_mistakes
from odn.report.page import Picture, alternatives, write_page
from odn.searching.results import HistoryRow
from odn.storage import Objects


def run(
    config: Config, *, prepared: Path, model: Path, metrics: Path, plots: Path, evaluation: Path, exported: Path, out: Path
) -> Findings:
    """Write `report.html`, which needs nothing beside it, and the figures as PNG files; the same inputs give the same bytes.

    Raises:
        MissingInputError: a record is missing, or the files are of another search.
        OutputError: the output's place holds what odn did not write.
        DataError: the test split is damaged.
    """
    require_own_folder(out)
    findings = read_findings(config, model=model, metrics=metrics)
    manifest, history = read_manifest(prepared / "dataset.json"), _read_history(plots / "history.csv")
    test = verified_split(prepared / "test", manifest=manifest, objects=Objects)
    mistakes = read_mistakes(evaluation / "predictions.csv", test=test, classes=manifest.classes)
    digest = sha256_of(model / "weights.safetensors")
    exports = read_exports(exported, latency=metrics / "export_latency.json", weights_sha256=digest)
    words = alternatives(findings)
    with drawing(), new_folder(out) as folder:
        pictures = {
            "depths": Picture(draw_depths(findings, LIGHT), draw_depths(findings, DARK), words["depths"]),
            "cost": Picture(draw_cost(findings, LIGHT), draw_cost(findings, DARK), words["cost"]),
            "ledger": Picture(draw_ledger(findings, LIGHT), draw_ledger(findings, DARK), words["ledger"]),
            "curves": Picture(draw_curves(findings, history, LIGHT), draw_curves(findings, history, DARK), words["curves"]),
        }
        if exports is not None:
            pictures["exports"] = Picture(draw_exports(exports, LIGHT), draw_exports(exports, DARK), in_words(exports))
        for name, picture in pictures.items():
            write_bytes(folder / f"{name}.png", picture.light)
        if mistakes.shown:
            write_bytes(folder / "mistakes.png", draw_mistakes(mistakes.shown, LIGHT))
        page = write_page(findings, manifest=manifest, mistakes=mistakes, pictures=pictures, weights_sha256=digest, exports=exports)
        write_text(folder / "report.html", page)
    return findings


def _read_history(path: Path) -> list[Epoch]:
    return [
        Epoch(depth=row.depth, phase=row.phase, epoch=row.epoch, val_accuracy=row.val_accuracy, train_accuracy=row.train_accuracy)
        for row in read_table(HistoryRow, path, made_by="truncate")
    ]
