"""A user's file in downloads/ or data/ survives DVC, which would delete it; what an earlier source left there does not."""

from engines.conftest import Clone, files_of, write_digits


def test_dvc_repro_keeps_a_file_of_the_users(clone: Clone) -> None:
    """It stops with the file's name, even when forced; after the file is moved away, nothing is to be done."""
    clone.repro("prepare")
    for place, refuses in (("downloads", "odn: {} did not come by 'odn fetch'"), ("data", "unable to remove '{}'")):
        mine = clone.folder / place / "mine" / "thesis.txt"
        mine.parent.mkdir()
        mine.touch()
        refused = clone.run("dvc", "repro", "prepare", check=False)
        assert refused.returncode != 0
        assert refuses.format(f"{place}/mine/thesis.txt") in refused.stderr.replace(f"{clone.folder}/", "")
        forced = clone.run("dvc", "repro", "--force", "prepare", check=False)
        assert f"odn: {place}/mine/thesis.txt did not come by 'odn fetch'" in forced.stderr
        mine.unlink()
    assert clone.repro("prepare") == []


def test_another_source_and_back(clone: Clone) -> None:
    """Nothing of one source stays in data/ under the other, and the bytes come back."""
    before, params = files_of(clone.folder / "data"), (clone.folder / "params.yaml").read_text()
    write_digits(clone.folder / "images", n=100)
    clone.change("data", source="folder", root="images")
    assert "fetch" in clone.repro("prepare")
    assert files_of(clone.folder / "data") == files_of(clone.folder / "downloads")
    (clone.folder / "params.yaml").write_text(params)
    clone.repro("prepare")
    assert files_of(clone.folder / "data") == files_of(clone.folder / "downloads") == before
    assert "up to date" in clone.run("dvc", "status", "prepare").stdout


def test_damaged_data_is_mended_by_the_command_that_the_message_names(clone: Clone) -> None:
    """DVC does not replace a file that it does not know; `odn fetch` does."""
    before = files_of(clone.folder / "data")
    (clone.folder / "data/digits.csv.gz").write_bytes(b"damaged")
    assert "unable to remove" in clone.run("dvc", "repro", "prepare", check=False).stderr
    clone.run("dvc", "repro", "--force", "fetch")
    clone.repro("prepare")
    assert files_of(clone.folder / "data") == before
