"""Whatever is in a record that a stage reads: it is taken, or refused in one clean line with exit code 2 and nothing written."""

from collections.abc import Iterator

import pytest

from stages.damaged_search import Searched, joint, plain

SEED = 13  # thousands of others were run by hand


@pytest.fixture(scope="module", autouse=True)
def _quick(quick_exports: None) -> Iterator[None]:
    """Measure with a glance, on one thread."""
    import torch

    from odn.models import timing
    from odn.routing import clock

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as glance:
        for module, name, value in (
            (clock, "BATCHES", (1,)),
            (timing, "SECONDS", 0.01),
        ):
            glance.setattr(module, name, value)
        yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Give a search that grew depth by depth."""
    return plain(tmp_path_factory.mktemp("grown"))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Give a search whose depths were trained at once."""
    return joint(tmp_path_factory.mktemp("together"))


@pytest.mark.parametrize(("name", "n"), [("grown", 60), ("together", 24)])
def test_a_damaged_record_is_refused_or_taken_and_never_half_believed(
    name: str, n: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback, no second line, no file changed, whatever the damage."""
    searched: Searched = request.getfixturevalue(name)
    monkeypatch.chdir(searched.folder)
    found = list(searched.damage(n, seed=SEED))
    assert [one.fault for one in found if one.fault] == []
    assert sum(one.code == 2 for one in found) > n / 3
