"""Digest the code that each stage runs under the configured mode, so that a change elsewhere runs nothing again.

Reads: src/odn
Writes: work/code/fetch.txt, work/code/prepare.txt, work/code/open.txt, work/code/settings.txt, work/code/train.txt, work/code/check.txt,
  work/code/truncate.txt, work/code/evaluate.txt, work/code/export.txt, work/code/report.txt, work/code/register.txt
Config: search.mode
"""

from pathlib import Path

from odn.config import Config
from odn.errors import MissingInputError
from odn.files import write_text
from odn.source import read_source


def run(config: Config, *, source: Path, out: Path) -> dict[str, int]:
    """Write a file a stage, with a line for each module that it runs; return how many there are.

    Raises:
        MissingInputError: there is no source code at `source`.
    """
    if not (source / "stages").is_dir():
        raise MissingInputError(f"{source} does not hold the source code of odn; name its folder with --source")
    found = read_source(source).digests(mode=config.search.mode)
    for stage, modules in found.items():
        write_text(out / f"{stage}.txt", "".join(f"{digest}  {name}\n" for name, digest in modules.items()))
    return {stage: len(modules) for stage, modules in found.items()}
