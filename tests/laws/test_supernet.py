"""Laws of `search.mode: supernet`: one training serves every depth, exits are cut out bit for bit, and stages and generator agree."""

from pathlib import Path
from typing import Any

import pytest
import torch

from laws.search_data import open_data, small_config
from laws.stage_runs import Stages, read, require_agreement
from laws.supernets import SUPERNET, WIDTHS, searched
from odn.models.network import build
from odn.models.stored_networks import load_network, save_network
from odn.supernet.cutting import narrowed, narrowed_architecture
from odn.supernet.elastic import forward_narrowed, sort_channels
from odn.supernet.fitting import Supernet, plan_of, train_supernet
from odn.supernet.sandwich import rate_at
from odn.supernet.task import joint_loss, share_gradient
from odn.training import fit as fitting
from odn.training.checkpoint import load_checkpoint
from odn.training.fit import EpochRow, Progress, Tick


def trained(stages: Stages, checkpoint: Path | None = None) -> Supernet:
    """Train the supernet of a configuration, without the stages."""
    *_, last = train_supernet(data=open_data(stages.config, stages.prepared), config=stages.config, checkpoint=checkpoint)
    assert isinstance(last, Supernet)
    return last


@pytest.fixture(scope="module")
def exhausted(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Search, once, for a target that no exit reaches."""
    changes = SUPERNET | {"search": {"mode": "supernet", "target": 0.999}}
    return searched(tmp_path_factory.mktemp("exhausted"), **changes)


def test_stages_and_generator_agree(reached: Stages, tmp_path: Path) -> None:
    """The search stops at the shallowest exit that reaches the target, also where widths were trained too."""
    found = read(reached.folder / "metrics/search.json")
    assert found["verdict"] == "target_reached"
    assert read(reached.depths / str(found["depth"]) / "metrics.json")["val_accuracy"] == found["val_accuracy"] >= 0.27
    require_agreement(reached, tmp_path)


def test_an_exhausted_supernet_keeps_its_best_exit(exhausted: Stages) -> None:
    """Every exit is judged, and the model says that the target is missed."""
    record = read(exhausted.folder / "model/search.json")
    assert (record["verdict"], len(record["steps"])) == ("exhausted", 3)
    require_agreement(exhausted, exhausted.folder / "again")


def test_the_first_depth_bears_the_whole_cost(exhausted: Stages) -> None:
    """Later exits trained nothing: they have no epochs, no line in the ledger and no history; the heads of all exits are counted."""
    record = read(exhausted.folder / "model/search.json")
    (only,) = record["ledger"]
    assert (only["depth"], only["epochs"]) == (1, 4)
    deepest = record["steps"][2]
    by_hand = 4 * 208 / 210 * (deepest["macs"] + 2 * 8 * 10) / deepest["macs_full"]
    assert only["full_network_epochs"] == record["full_network_epochs"] == pytest.approx(by_hand)
    assert [(step["epochs"], step["curve"]) for step in record["steps"][1:]] == [(0, []), (0, [])]
    assert (exhausted.depths / "2/history.csv").read_text().count("\n") == 1


def test_the_model_is_its_exit_bit_for_bit(exhausted: Stages) -> None:
    """Truncation copies the exit of the supernet, BatchNorm's statistics included; each depth hands the supernet on as it is."""
    model, deepest = load_network(exhausted.folder / "model"), exhausted.depths / "3/supernet"
    supernet, images = load_network(deepest), torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(images), supernet(images, model.depth))
    assert (deepest / "weights.safetensors").read_bytes() == (exhausted.depths / "1/supernet/weights.safetensors").read_bytes()


def test_an_interrupted_supernet_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken off within the epoch in which widths open: what was kept is taken up, and nothing differs."""
    changes = WIDTHS | {"supernet": WIDTHS["supernet"] | {"epochs": 3}}
    stages, kept = Stages(small_config(**changes), tmp_path), tmp_path / "kept.safetensors"
    assert plan_of(stages.config, n_groups=4).opens_widths(2)
    quiet = trained(stages)
    rows = 0
    with monkeypatch.context() as often:
        often.setattr(fitting, "TICK_SECONDS", 0.0)
        often.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
        for event in train_supernet(data=open_data(stages.config, stages.prepared), config=stages.config, checkpoint=kept):
            rows += isinstance(event, EpochRow)
            if rows == 1 and isinstance(event, Tick) and event.step == 4:
                break
    assert load_checkpoint(kept, Progress).record.step == 4
    again = trained(stages, kept)
    save_network(quiet.network, tmp_path / "quiet")
    save_network(again.network, tmp_path / "again")
    assert (tmp_path / "quiet/weights.safetensors").read_bytes() == (tmp_path / "again/weights.safetensors").read_bytes()
    assert (quiet.rows, quiet.curves) == (again.rows, again.curves)


def test_depths_open_from_deep_to_shallow_and_widths_behind_them() -> None:
    """At first the deepest learns alone; each step has the deepest and the shallowest that is open, and at the end narrow passes."""
    config = small_config(**(WIDTHS | {"supernet": {"epochs": 10, "exits": 0, "shrink": 0.6, "widths": [0.5, 1.0]}}))
    plan = plan_of(config, n_groups=4)
    assert [plan.open_depths(progress=progress) for progress in (0.0, 0.2, 0.4, 0.6)] == [(3,), (2, 3), (1, 2, 3), (1, 2, 3)]
    assert [epoch for epoch in range(1, 11) if plan.opens_widths(epoch)] == [7]
    (early,), late = next(iter(plan.passes(1, steps=1))), next(iter(plan.passes(10, steps=1)))
    assert (early.depths, early.widths) == ((3,), (1.0,) * 4)
    assert [one.depths for one in late] == [(1, 3)] * 3
    assert (late[0].widths, late[1].widths) == ((1.0,) * 4, (0.5,) * 4)


def test_draws_repeat_and_differ_from_step_to_step() -> None:
    """The same seed and epoch give the same sub-networks."""
    config = small_config(search={"mode": "supernet", "schedule": [1, 2, 3, 4, 5, 6, 7, 8]}, supernet={"exits": 2, "shrink": 0.0})
    first, again = (list(plan_of(config, n_groups=4).passes(3, steps=20)) for _ in range(2))
    assert first == again
    assert all(len(one.depths) == 4 and {1, 8} < set(one.depths) for (one,) in first)
    assert len({one.depths for (one,) in first}) > 5


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    """Of 10 epochs of 10 steps, 1 warms up and 3 cool down."""
    settings = small_config(supernet={"epochs": 10, "cooldown": 0.3}).supernet
    rates = [rate_at(step, settings=settings, steps_per_epoch=10, warmup_epochs=1.0) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10:70] == [1.0] * 60
    assert [rates[85], rates[99]] == pytest.approx([0.5, 1 / 30])


def test_no_gradient_reaches_the_teacher() -> None:
    """What a student says pulls only the student; without distillation the loss is that of the labels."""
    config = small_config(**SUPERNET)
    (one,) = next(iter(plan_of(config, n_groups=4).passes(4, steps=1)))
    logits = {depth: torch.randn(4, 10, requires_grad=True) for depth in (1, 2, 3)}
    labels = torch.zeros(4, dtype=torch.int64)
    joint_loss([logits], labels, (one,), settings=config.supernet, label_smoothing=0.0).backward()
    alone = torch.nn.functional.cross_entropy(logits[3], labels)
    (expected,) = torch.autograd.grad(alone, logits[3])
    assert torch.allclose(logits[3].grad, expected)  # type: ignore[arg-type]


def test_stem_and_blocks_take_the_mean_of_what_the_exits_ask_for() -> None:
    """The gradient of the summed losses is divided among them; what no loss reaches stays without one."""
    reached, untouched = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    (reached * torch.tensor([4.0, 8.0])).sum().backward()
    share_gradient([reached, untouched], n_losses=4)
    assert reached.grad is not None
    assert torch.equal(reached.grad, torch.tensor([1.0, 2.0]))
    assert untouched.grad is None


def test_a_narrowed_network_is_what_trained_within_the_whole(make: Any, whole: Any, images: torch.Tensor) -> None:
    """In train mode, the cut copy gives the logits of the narrow pass; at full width it is the exit, uncut."""
    network = make(whole, 2, whole.depth).train()
    widths = (0.5, 1.0, 0.25, 0.75)
    within = forward_narrowed(network, images, (2, whole.depth), widths)
    for depth in (2, whole.depth):
        assert torch.allclose(narrowed(network, depth, widths)(images), within[depth], atol=1e-4)  # another order of sums
    assert narrowed_architecture(whole, (1.0,) * 4) == whole


def test_sorting_channels_changes_no_answer(make: Any, whole: Any, images: torch.Tensor) -> None:
    """The channels are only put in another order, the one read with the largest kernels first."""
    network = make(whole)
    before = network(images)
    sort_channels([network.state_dict()], like=network)
    assert torch.allclose(network(images), before, atol=1e-4)  # another order of sums
    norms = network.blocks[-1].conv2.weight.abs().sum(dim=(0, 2, 3))
    assert torch.equal(norms, norms.sort(descending=True).values)


def test_a_narrowed_network_is_stored_and_read(whole: Any, tmp_path: Path) -> None:
    """Its architecture says what is left of each block."""
    small = narrowed(build(whole, torch.Generator().manual_seed(0)), whole.depth, (0.5,) * 4)
    save_network(small, tmp_path)
    assert load_network(tmp_path).architecture == small.architecture
    assert small.architecture.is_cut
