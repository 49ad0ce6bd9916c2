"""What a search concludes from its judged depths."""

from odn.searching.convergence import Trial, judge
from odn.searching.outcome import Judged, choose, finish_wins, full_network_epochs, ledger, summary
from unit.search_examples import search, step

TRIAL = Trial(n_correct=975, n=1000, epochs=4, cost=0.5)
SHALLOW = Judged(step(900, depth=1), judge(step(900, depth=1), search(), trial=None))
ACCEPTED = Judged(step(970, depth=2), judge(step(970, depth=2), search(), trial=TRIAL))
MISSED = Judged(step(950, depth=3), judge(step(950, depth=3), search(), trial=None))


def finish(n_correct: int) -> Trial:
    """Return what a finish of 8 epochs gets right."""
    return Trial(n_correct=n_correct, n=1000, epochs=8, cost=1.0)


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


def test_a_finish_is_kept_unless_it_misses_what_the_trial_anneal_reached() -> None:
    """It was annealed for longer; which of the two gets an image more right is chance. A depth without a trial has only its finish."""
    choice, exhausted = choose([SHALLOW, ACCEPTED]), choose([SHALLOW, MISSED])
    assert choice is not None
    assert exhausted is not None
    assert not finish_wins(choice, None, search=search())
    assert [finish_wins(choice, finish(n), search=search()) for n in (969, 970, 974)] == [False, True, True]
    assert finish_wins(exhausted, finish(1), search=search())


def test_a_finish_after_a_missed_trial_anneal_is_kept_only_if_better() -> None:
    """Of two that miss the target the better on val is kept."""
    missed = Judged(step(940, depth=3), judge(step(940, depth=3), search(), trial=Trial(n_correct=960, n=1000, epochs=4, cost=0.5)))
    choice = choose([SHALLOW, missed])
    assert choice is not None
    assert choice.judged is missed
    assert [finish_wins(choice, finish(n), search=search()) for n in (960, 961)] == [False, True]


def test_the_summary_is_of_the_network_that_is_kept() -> None:
    """Val accuracy follows the weights: the trial anneal's, or the finish's where that won."""
    choice = choose([SHALLOW, ACCEPTED])
    assert choice is not None
    assert summary(choice, None, search=search())["val_accuracy"] == 0.975
    assert summary(choice, finish(980), search=search())["val_accuracy"] == 0.98


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
