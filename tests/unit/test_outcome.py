"""What a search concludes from its judged depths."""

from odn.searching.convergence import Trial, judge
from odn.searching.outcome import Judged, choose, finish_wins, full_network_epochs, ledger, summary
from unit.search_examples import search, step

TRIAL = Trial(n_correct=975, n=1000, epochs=4, cost=0.5)
SHALLOW = Judged(step(900, depth=1), judge(step(900, depth=1), search(), trial=None))
ACCEPTED = Judged(step(970, depth=2), judge(step(970, depth=2), search(), trial=TRIAL))
MISSED = Judged(step(950, depth=3), judge(step(950, depth=3), search(), trial=None))


def test_an_unfinished_search_has_no_choice() -> None:
    """While the last verdict is to expand, nothing is concluded."""
    assert choose([]) is None
    assert choose([SHALLOW]) is None


def test_the_accepted_depth_is_chosen() -> None:
    """The depth that reached the target, with its own reason."""
    choice = choose([SHALLOW, ACCEPTED])
    assert choice is not None
    assert (choice.judged.step.depth, choice.verdict) == (2, "target_reached")


def test_an_exhausted_search_says_which_rule_chose() -> None:
    """The best depth by the one-standard-error rule, never called a success."""
    choice = choose([SHALLOW, MISSED])
    assert choice is not None
    assert (choice.judged.step.depth, choice.verdict) == (3, "exhausted")
    assert "one standard error" in choice.reason


def test_a_finish_is_kept_only_if_better() -> None:
    """Equal on val keeps the trial anneal, whose number the verdict names; a depth without a trial anneal has only its finish."""
    choice, exhausted = choose([SHALLOW, ACCEPTED]), choose([SHALLOW, MISSED])
    assert choice is not None
    assert exhausted is not None
    assert not finish_wins(choice, None)
    assert not finish_wins(choice, Trial(n_correct=975, n=1000, epochs=8, cost=1.0))
    assert finish_wins(choice, Trial(n_correct=976, n=1000, epochs=8, cost=1.0))
    assert finish_wins(exhausted, Trial(n_correct=1, n=1000, epochs=8, cost=1.0))


def test_the_summary_is_of_the_network_that_is_kept() -> None:
    """Val accuracy follows the weights: the trial anneal's, or the finish's where that won."""
    choice = choose([SHALLOW, ACCEPTED])
    assert choice is not None
    assert summary(choice, None, confidence=0.95)["val_accuracy"] == 0.975
    assert summary(choice, Trial(n_correct=980, n=1000, epochs=8, cost=1.0), confidence=0.95)["val_accuracy"] == 0.98


def test_the_ledger_holds_every_phase() -> None:
    """What was trained is paid for, kept or not."""
    choice = choose([SHALLOW, ACCEPTED])
    assert choice is not None
    entries = ledger([SHALLOW, ACCEPTED], choice, Trial(n_correct=1, n=1000, epochs=8, cost=1.0))
    assert [(entry.depth, entry.phase, entry.epochs) for entry in entries] == [
        (1, "stable", 3),
        (2, "stable", 3),
        (2, "trial", 4),
        (2, "finish", 8),
    ]
    assert full_network_epochs(entries) == 0.375 + 0.75 + 0.5 + 1.0
