"""What is wrong on a command line is said in one line, fit to be shown."""

import pytest

from odn.cli import main as odn
from pipelines.__main__ import main as pipelines

FORGED = "--x\nodn: all is well\x1b[2J\udcff"


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (odn, ["fetch", FORGED], "unrecognized arguments: --x\\nodn: all is well\\x1b[2J\\udcff; see 'odn"),
        (odn, [FORGED], "invalid choice"),
        (odn, [], "required: COMMAND"),
        (odn, ["train", "--depth", "two"], "argument --depth: invalid int value: 'two'; see 'odn train --help'"),
        (odn, ["train", "--depth", "9" * 5000], "argument --depth: invalid int value"),
        (odn, ["fetch", "https://mila:topsecret@host/x"], "unrecognized arguments: https://***@host/x"),
        (pipelines, ["compile", "--image", "a:b", FORGED], "unrecognized arguments: --x\\nodn: all is well"),
        (pipelines, ["compile", "--image", "a:b", "--gpus", "all"], "argument --gpus: invalid int value: 'all'"),
        (pipelines, ["compile"], "required: --image; see 'python -m pipelines compile --help'"),
        (pipelines, ["schedule", "--name", "a"], "required: --cron"),
    ],
)
def test_a_wrong_argument_is_one_clean_line(main: object, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and where to read what is right."""
    assert callable(main)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    out = capsys.readouterr()
    assert not out.out
    (line,) = out.err.splitlines()
    assert line.startswith("odn: ")
    assert message in line
    assert "topsecret" not in line
