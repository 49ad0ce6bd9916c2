"""Laws of `search.distill` and `search.reduce_depth`: stages equal the generator, and a resumed run ends with the same bytes."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from laws.search_data import open_data, small_config
from laws.stage_runs import Stages, read, require_agreement
from odn.data.batches import training_batches
from odn.models.network import build
from odn.models.stored_networks import save_network
from odn.report.findings import read_findings
from odn.report.summary import summarize
from odn.searching.climb import conclude, expand
from odn.searching.data import SearchData
from odn.searching.depth_reduction import exit_of
from odn.searching.growth import Grown, grown, train_depth
from odn.searching.teaching import TrainedTeacher, as_teacher, normalising, objective_of, teacher_of, train_teacher
from odn.stages import train
from odn.tracking.record import read_record
from odn.training import checkpoint as checkpoints
from odn.training import fit as fitting
from odn.training.fit import EpochRow
from odn.training.objective import Objective
from odn.training.seed import generator
from odn.training.state import TrainState

REDUCED: dict[str, Any] = {  # depth 1 reads 27 %, far below what it reaches after a long depth reduction
    "search": {"distill": "shallower", "reduce_depth": True, "target": 0.42, "cooldown_gain": 0.0},
    "distill": {"reduce_epochs": 8, "weight": 0.3},
}


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Run a search that is accepted at a depth that a depth reduction then goes below."""
    stages = Stages(small_config(**REDUCED), tmp_path_factory.mktemp("reduced"))
    stages.search()
    stages.truncate()
    return stages


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> SearchData:
    """Prepare the small digits once."""
    stages = Stages(small_config(), tmp_path_factory.mktemp("digits"))
    return open_data(stages.config, stages.prepared)


@pytest.mark.parametrize("distill", ["shallower", "exits", "full"])
def test_a_taught_search_is_the_same_in_memory_and_by_stages(distill: str, tmp_path: Path) -> None:
    """Weights, records and costs of two depths, with the teacher handed on in files."""
    search = {"distill": distill, "target": 0.999, "schedule": [1, 2]}
    stages = Stages(small_config(search=search, distill={"epochs": 2}, growth={"max_epochs": 2}), tmp_path)
    stages.search()
    require_agreement(stages, tmp_path)
    assert (stages.depths / "2/teacher").exists() == (distill != "exits")


def test_a_teacher_changes_what_is_learnt_and_is_paid_for(digits: SearchData) -> None:
    """Taught, the same depth has other weights, and each epoch costs a third of the teacher's MACs more."""
    config = small_config(search={"distill": "full"}, growth={"min_epochs": 1, "max_epochs": 1})
    teacher = build(grown(None, data=digits, config=config, depth=8).network.architecture, generator(1, "teacher"))
    taught, alone = (
        next(
            event
            for event in train_depth(None, data=digits, config=config, depth=1, checkpoint=None, teacher=who)
            if isinstance(event, Grown)
        )
        for who in (as_teacher(teacher, machine=digits.machine), None)
    )
    name = "stem.conv.weight"
    assert not torch.equal(taught.state.network.get_parameter(name), alone.state.network.get_parameter(name))
    assert taught.step.cost - alone.step.cost == pytest.approx(alone.step.cost * alone.step.macs_full / 3 / alone.step.macs)


def test_a_weight_of_zero_learns_from_the_labels_alone(digits: SearchData) -> None:
    """Then the loss is that of nobody teaching, bit for bit."""
    config = small_config(search={"distill": "full"}, distill={"weight": 0.0})
    network = grown(None, data=digits, config=config, depth=2).network
    batch = next(training_batches(digits.train, batch_size=32, augment=config.augment, generator=generator(0, "test")))
    taught = objective_of(config, network, teacher=as_teacher(network, machine=digits.machine))
    shown = {"depth": 2, "settings": config.train, "machine": digits.machine}
    network.eval()
    assert torch.equal(taught.loss(network, *batch, **shown)[1], Objective().loss(network, *batch, **shown)[1])  # type: ignore[arg-type]


def test_an_exit_learns_from_the_head_above_it(digits: SearchData) -> None:
    """Its loss is 0 where both say the same, and no gradient reaches the teaching head."""
    config = small_config(search={"distill": "exits"}, distill={"weight": 1.0})
    first = grown(None, data=digits, config=config, depth=1)
    network = grown(first, data=digits, config=config, depth=2).network
    assert network.head_depths == (1, 2)
    batch = next(training_batches(digits.train, batch_size=32, augment=config.augment, generator=generator(0, "test")))
    shown = {"depth": 2, "settings": config.train, "machine": digits.machine}
    objective = objective_of(config, network, teacher=None)
    taught, plain = (one.loss(network, *batch, **shown)[1] for one in (objective, Objective()))  # type: ignore[arg-type]
    (taught - plain).backward()

    def gradient_at(depth: int) -> float:
        gradient = network.get_parameter(f"heads.{depth}.weight").grad
        return 0.0 if gradient is None else float(gradient.abs().sum())

    assert gradient_at(1) > 0
    assert gradient_at(2) < 1e-6


def test_an_exit_has_its_head_whatever_the_depth_starts_from(digits: SearchData) -> None:
    """Where nothing is inherited (`rewind`), the shallower head is there too."""
    config = small_config(search={"distill": "exits"}, growth={"init": "rewind"})
    first = grown(None, data=digits, config=config, depth=1)
    assert grown(first, data=digits, config=config, depth=2).network.head_depths == (1, 2)


def test_a_teacher_sees_images_as_it_is_used_to(digits: SearchData) -> None:
    """Grown on another mean and deviation, it says of a batch what it says of the same pixels normalised its own way."""
    config = small_config()
    own = as_teacher(grown(None, data=digits, config=config, depth=1).network, machine=digits.machine)
    pixels = digits.train.batch(slice(0, 8))
    used_to = (pixels / 255 - 0.25) / 0.5
    teacher = normalising(own, mean=(0.25,), std=(0.5,), data=digits)
    there = teacher.logits(digits.train.normalised(pixels), machine=digits.machine)
    assert torch.allclose(there, own.logits(used_to, machine=digits.machine), atol=1e-5)


def test_a_teacher_that_is_to_come_from_outside_must_be_given(digits: SearchData) -> None:
    """In memory nobody fetches one."""
    config = small_config(search={"distill": "models:/odn-digits/1"})
    with pytest.raises(ValueError, match="search.distill models:/odn-digits/1: a teacher must be given"):
        teacher_of(config, before=None, outside=None, machine=digits.machine)
    with pytest.raises(ValueError, match="a teacher must be given"):
        next(expand(digits, config))


def interrupted(events: Iterator[object], rows: int) -> None:
    """Break a phase off behind so many epochs."""
    for event in events:
        rows -= isinstance(event, EpochRow)
        if not rows:
            break


def test_an_interrupted_teacher_ends_with_the_same_bytes(digits: SearchData, tmp_path: Path) -> None:
    """Broken off behind its first epoch it goes on, and what it spent is booked once."""
    config, kept = small_config(distill={"epochs": 2}, model={"width": 1 / 16}), tmp_path / "teacher.safetensors"
    interrupted(train_teacher(data=digits, config=config, checkpoint=kept), 1)
    for name, checkpoint in (("resumed", kept), ("quiet", None)):
        *_, done = train_teacher(data=digits, config=config, checkpoint=checkpoint)
        assert isinstance(done, TrainedTeacher)
        assert done.cost == pytest.approx(2 * (len(digits.train) // 32) * 32 / len(digits.train))
        save_network(done.network, tmp_path / name)
    assert (tmp_path / "resumed/weights.safetensors").read_bytes() == (tmp_path / "quiet/weights.safetensors").read_bytes()


def test_a_reduced_model_meets_the_target_or_is_not_kept(reduced: Stages) -> None:
    """The shallower depth is kept with its own accuracy, and everything that was tried stands in the record."""
    record, card = read(reduced.folder / "model/search.json"), read(reduced.folder / "model/card.json")
    kept = [one for one in record["reductions"] if one["reached"]]
    assert kept
    assert card["depth"] == kept[-1]["depth"] == read(reduced.folder / "metrics/search.json")["depth"] < card["reduced_from"]
    assert card["val_accuracy"] == kept[-1]["n_correct"] / kept[-1]["n"] >= card["target"]
    assert card["weights_from"] == "reduce"
    assert [entry["depth"] for entry in record["ledger"] if entry["phase"] == "reduce"] == [one["depth"] for one in record["reductions"]]
    assert record["full_network_epochs"] == sum(entry["full_network_epochs"] for entry in record["ledger"])


def test_a_depth_reduction_that_misses_leaves_the_accepted_depth(reduced: Stages) -> None:
    """After one epoch of cooldown nothing is good enough: the try is on record, the model is what it was without it."""
    runs = {}
    for name, changes in (("missed", {"reduce_epochs": 1, "weight": 1.0}), ("plain", None)):
        other = copy.copy(reduced)
        search = REDUCED["search"] | {"reduce_depth": changes is not None, "target": 0.45}
        other.config, other.folder = small_config(search=search, distill=REDUCED["distill"] | (changes or {})), reduced.folder / name
        other.truncate()
        runs[name] = other
    record = read(runs["missed"].folder / "model/search.json")
    assert [one["reached"] for one in record["reductions"]] == [False]
    weights = [(run.folder / "model/weights.safetensors").read_bytes() for run in runs.values()]
    assert weights[0] == weights[1]


def test_depth_reduction_in_memory_is_that_by_stages(reduced: Stages, tmp_path: Path) -> None:
    """The same tries come out, and the same bytes."""
    data, config = open_data(reduced.config, reduced.prepared), reduced.config
    done = conclude(list(expand(data, config)), data=data)
    record = read(reduced.folder / "model/search.json")
    assert [vars(one) for one in done.finished.reductions] == record["reductions"]
    assert [vars(one) for one in done.ledger] == record["ledger"]
    assert (done.depth, done.val_accuracy, done.reason) == (record["depth"], record["val_accuracy"], record["reason"])
    save_network(done.model, tmp_path)
    assert (tmp_path / "weights.safetensors").read_bytes() == (reduced.folder / "model/weights.safetensors").read_bytes()


def test_an_interrupted_depth_reduction_ends_with_the_same_bytes(reduced: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at a checkpoint of the first depth reduction, truncate goes on from there; the finish before it is not trained again."""
    other, keep, seen = copy.copy(reduced), checkpoints.save_checkpoint, []

    def watched(path: Path, checkpoint: Any) -> None:
        keep(path, checkpoint)
        seen.append(path.parent.name)

    def killed(path: Path, checkpoint: Any) -> None:
        watched(path, checkpoint)
        if path.parent.name.startswith("reduce"):
            raise KeyboardInterrupt

    other.folder = reduced.folder / "killed"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fitting, "save_checkpoint", killed)
        other.truncate()
    first = len(seen)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "save_checkpoint", watched)
        other.truncate()
    assert "truncate" not in seen[first:]
    for name in ("weights.safetensors", "search.json", "card.json"):
        assert (other.folder / "model" / name).read_bytes() == (reduced.folder / "model" / name).read_bytes()


def test_a_reduced_model_is_compared_with_what_it_was_reduced_from(reduced: Stages) -> None:
    """On test, by McNemar's test; and the epochs of the depth reduction stand in the history."""
    record, card = reduced.evaluate(), read(reduced.folder / "model/card.json")
    assert record["reduced_from_depth"] == card["reduced_from"]
    assert 0 <= record["mcnemar_p_reduced_from"] <= 1
    assert ",reduce," in (reduced.folder / "plots/history.csv").read_text()
    findings = read_findings(reduced.config, model=reduced.folder / "model", metrics=reduced.folder / "metrics")
    text = summarize(findings, registration=None, model=Path("model"), report=None).describe()
    assert f"Reduction depth {card['depth']} was tried again: val accuracy" in text
    assert f"depth {card['depth']} is kept, its val accuracy" in text


def test_the_record_for_mlflow_knows_a_reduced_depth(reduced: Stages) -> None:
    """The results belong to the search though another depth was accepted, and the kept depth's curve runs on into its reduction."""
    places = {name: reduced.folder / name for name in ("model", "metrics", "plots", "report")}
    dataset = reduced.prepared / "dataset.json"
    record = read_record(reduced.config, dataset=dataset, search=reduced.places, **places)
    assert record.search is not None
    kept = next(one for one in record.depths if one.depth == record.search.depth)
    assert len(kept.points) == kept.step.epochs + reduced.config.distill.reduce_epochs


def test_an_exit_cut_out_of_a_training_state_has_its_logits(digits: SearchData) -> None:
    """Cut out of the deeper state, weights, average and momentum are those of its first blocks."""
    config = small_config(search={"distill": "exits"})
    first = grown(None, data=digits, config=config, depth=1)
    deeper = grown(first, data=digits, config=config, depth=2)
    cut = exit_of(deeper, 1)
    assert isinstance(cut, TrainState)
    assert cut.momentum.keys() == dict(cut.network.named_parameters()).keys()
    images = digits.val.normalised(digits.val.batch(slice(0, 4)))
    assert torch.equal(cut.average.eval()(images), deeper.average.eval()(images, 1))


def test_a_changed_teacher_does_not_resume_what_another_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken off with one weight and started with another, a depth comes out as if it had never been broken off."""
    base: dict[str, dict[str, Any]] = {
        "search": {"distill": "full", "schedule": [1]},
        "growth": {"min_epochs": 1, "max_epochs": 2},
        "model": {"width": 1 / 16},
    }
    stages = {w: Stages(small_config(**base, distill={"epochs": 1, "weight": w}), tmp_path / str(w)) for w in (0.2, 0.9)}
    keep = checkpoints.save_checkpoint

    def killed(path: Path, checkpoint: Any) -> None:
        keep(path, checkpoint)
        if path.parent.name == "train-1":
            raise KeyboardInterrupt

    def run(one: Stages, progress: Path) -> bytes:
        train.run(one.config, depth=1, after=0, prepared=one.prepared, search=one.places, progress=progress)
        return (one.depths / "1/weights.safetensors").read_bytes()

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fitting, "save_checkpoint", killed)
        run(stages[0.2], tmp_path / "shared")
    assert run(stages[0.9], tmp_path / "shared") == run(stages[0.9], tmp_path / "fresh")


def test_the_ledger_holds_the_full_depth_teacher(tmp_path: Path) -> None:
    """It is trained once, before the first depth, and paid for in full-network epochs."""
    search = {"distill": "full", "target": 0.999, "schedule": [1, 2]}
    stages = Stages(
        small_config(search=search, distill={"epochs": 2}, growth={"min_epochs": 1, "max_epochs": 1}, model={"width": 1 / 16}), tmp_path
    )
    stages.search()
    stages.truncate()
    record = read(tmp_path / "model/search.json")
    assert [entry["phase"] for entry in record["ledger"]].count("teacher") == 1
    assert (record["ledger"][0]["depth"], record["ledger"][0]["epochs"]) == (8, 2)
    assert record["ledger"][0]["full_network_epochs"] == read(stages.depths / "2/teacher/teacher.json")["full_network_epochs"] < 2
    assert (tmp_path / "plots/history.csv").read_text().splitlines()[1].startswith("8,teacher,1,")
