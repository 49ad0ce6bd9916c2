"""A long wait shows that it goes on, and when it is given up."""

import time

import pytest

from odn.waiting import waiting


def test_a_quick_block_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """What takes less than a few seconds needs no word."""
    with waiting("a server", limit="at most 60 s"):
        pass
    assert capsys.readouterr().err == ""


def test_a_long_wait_says_what_how_long_and_until_when(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One plain line, in which no secret and no control character is; the next one comes after as long a time again."""
    monkeypatch.setattr("odn.waiting.FIRST", 0.1)
    with waiting("http://u:hunter22@host\x1b[2J", limit="at most 60 s", so_far=lambda: "3 of 5"):
        time.sleep(0.3)
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "odn: waiting for http://***@host\\x1b[2J (0 s, 3 of 5; at most 60 s)"
    assert len(others) <= 1


def test_what_goes_wrong_meanwhile_is_raised() -> None:
    """The block's own error comes out as it is."""
    with pytest.raises(ValueError, match="broken"), waiting("a server", limit="at most 60 s"):
        raise ValueError("broken")
