"""Laws of images that are not held: whatever they are read from, the same training, prepared the same, and few of them here at a time."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from laws.search_data import prepare_digits, small_config
from odn.config import Config
from odn.data import batches, sharding
from odn.data.batches import on_device, shuffled, training_batches
from odn.data.dataset import read_manifest, read_split, verified_split
from odn.data.sharded import UPLOADS
from odn.data.sharding import GROUP, spread
from odn.data.shards import HERE, Shards
from odn.errors import DataError, StorageError
from odn.searching.data import SearchData, opened
from odn.searching.growth import Grown, train_depth
from odn.sections import AugmentConfig
from odn.storage import Objects
from odn.training import checkpoint as checkpoints
from odn.training import fit as fitting

BUCKET = "prepared"
PLACE = f"s3://{BUCKET}/digits"
A_SHARD = 4  # digits


def config_of(**data: Any) -> Config:
    """Return settings for 84 training images: 21 shards, more than are kept at a time."""
    return small_config(
        data={"max_images": 120, **data},
        model={"width": 1 / 16},
        train={"batch_size": 16, "precision": "fp32", "device": "cpu"},
        growth={"min_epochs": 2, "max_epochs": 2, "patience": 1},
    )


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "SHARD_BYTES", A_SHARD * 8 * 8)


@pytest.fixture
def mapped(tmp_path: Path) -> Path:
    """Prepare digits on this disk."""
    return prepare_digits(config_of(), tmp_path / "mapped")


@pytest.fixture
def streamed(tmp_path: Path, bucket: str) -> Path:
    """Prepare the same digits in a bucket."""
    return prepare_digits(config_of(shards=PLACE), tmp_path / "streamed")


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    """Make a bucket, and remove it."""
    s3.create_bucket(Bucket=BUCKET)
    yield BUCKET
    for one in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=one["Key"])
    s3.delete_bucket(Bucket=BUCKET)


def shards_of(folder: Path) -> tuple[str, ...]:
    """Name the shards of a split that lies in a bucket."""
    images = read_split(folder, objects=Objects).images
    assert isinstance(images, Shards)
    return images.index.shards


def open_data(prepared: Path) -> SearchData:
    """Open train and val as a stage does."""
    return opened(prepared, config=config_of(), objects=Objects)


def trained(data: SearchData, *, checkpoint: Path | None = None) -> tuple[dict[str, torch.Tensor], Any]:
    """Return the weights and the rows of a short training."""
    *_, last = train_depth(None, data=data, config=config_of(), depth=1, checkpoint=checkpoint)
    assert isinstance(last, Grown)
    return last.state.average.state_dict(), last.rows


def require_same(one: tuple[dict[str, torch.Tensor], Any], other: tuple[dict[str, torch.Tensor], Any]) -> None:
    """Require the same rows, and the same bytes of every tensor."""
    assert one[1] == other[1]
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0].keys() | other[0].keys())


def test_held_read_ahead_and_streamed_give_the_same_bytes(
    mapped: Path, streamed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights and rows of a training; the streamed one is killed within an epoch, and goes on."""
    data = open_data(mapped)
    assert isinstance(data.train.pixels, torch.Tensor)
    expected = trained(data)
    assert "read batch by batch" not in capsys.readouterr().err
    monkeypatch.setattr(batches, "MEMORY_SHARE", 0.0)
    data = open_data(mapped)
    assert isinstance(data.train.pixels, np.memmap)
    require_same(trained(data), expected)
    assert capsys.readouterr().err.startswith("odn: 0.0 GB of images are more than 0% of the ")

    kept = tmp_path / "kept.safetensors"
    with monkeypatch.context() as killing, pytest.raises(KeyboardInterrupt):
        killing.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
        killing.setattr(fitting, "save_checkpoint", kept_until_step_3)
        trained(open_data(streamed), checkpoint=kept)
    data = open_data(streamed)
    shards = data.train.pixels
    assert isinstance(shards, Shards)
    require_same(trained(data, checkpoint=kept), expected)
    assert len(shards._here) == HERE < len(shards.index.shards) == 21


def kept_until_step_3(path: Path, checkpoint: checkpoints.Checkpoint[Any]) -> None:
    """Save a checkpoint; within an epoch, break off behind it."""
    checkpoints.save_checkpoint(path, checkpoint)
    if checkpoint.record["step"] == 3:
        raise KeyboardInterrupt


def test_a_bucket_holds_what_is_prepared_on_disk(mapped: Path, streamed: Path, s3: Any) -> None:
    """Shards, one after the other, are the array; any reader of .npy reads one; of the record only where images lie is another."""
    there, here = (read_manifest(prepared / "dataset.json") for prepared in (streamed, mapped))
    assert replace(there, index={}) == here
    assert set(there.index) == {"train", "val", "test"}
    for name in there.index:
        split, array = read_split(streamed / name, objects=Objects), np.asarray(read_split(mapped / name).images)
        assert np.array_equal(split.images[:], array)
        assert np.array_equal(split.images[len(array) - 1], array[-1])
        assert np.array_equal(split.images[np.array([5, 1, 9])], array[[5, 1, 9]])
    assert sorted(path.name for path in (streamed / "train").iterdir()) == [".odn-manifest.json", "labels.npy", "shards.json"]
    content = s3.get_object(Bucket=BUCKET, Key=f"digits/{shards_of(streamed / 'val')[0]}.npy")["Body"].read()
    assert np.load(io.BytesIO(content)).shape == (A_SHARD, 1, 8, 8)


def test_duplicates_are_dropped_from_a_bucket_as_from_a_disk(tmp_path: Path, s3: Any, bucket: str) -> None:
    """The split is written anew without them."""
    found = []
    for number, shards in enumerate((None, PLACE)):
        config = config_of(shards=shards, source="folder", root=str(class_folders(tmp_path / "raw")), duplicates="drop", max_images=None)
        found.append(read_manifest(prepare_digits(config, tmp_path / str(number)) / "dataset.json"))
    assert found[0].duplicates["dropped_train"] > 0
    assert replace(found[1], index={}) == found[0]


def class_folders(root: Path) -> Path:
    """Write two classes of images, of which a third are there twice."""
    for number in range(60):
        image = np.random.default_rng(number % 40).integers(0, 256, (8, 8), dtype=np.uint8)
        (root / str(number % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / str(number % 2) / f"{number}.png")
    return root


def test_a_prepare_that_was_broken_off_uploads_the_rest(mapped: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store fails at about the tenth shard; the next run reads what is there, and ends with the same record."""
    put, names = Objects.put, list[str]()

    def failing(self: Objects, name: str, file: Any) -> None:
        if len(names) >= 9:
            raise StorageError("the store is full")
        put(self, name, file)
        names.append(name)

    with monkeypatch.context() as full, pytest.raises(StorageError, match="the store is full"):
        full.setattr(Objects, "put", failing)
        prepare_digits(config_of(shards=PLACE), tmp_path / "broken")
    assert not (tmp_path / "broken" / "work" / "prepared" / "dataset.json").exists()

    def counted(self: Objects, name: str, file: Any) -> None:
        names.append(name)
        put(self, name, file)

    monkeypatch.setattr(Objects, "put", counted)
    prepared = prepare_digits(config_of(shards=PLACE), tmp_path / "broken")
    assert replace(read_manifest(prepared / "dataset.json"), index={}) == read_manifest(mapped / "dataset.json")
    n_shards = sum(len(shards_of(prepared / name)) for name in ("train", "val", "test"))
    assert n_shards <= len(names) <= n_shards + UPLOADS  # those behind the failing one may be done, and are not noted


def test_what_is_not_in_the_bucket_any_more_is_named(streamed: Path, s3: Any) -> None:
    """A shard that was removed, one that was changed, and an index that was."""
    split = read_split(streamed / "train", objects=Objects)
    gone, changed = (f"digits/{name}.npy" for name in shards_of(streamed / "train")[:2])
    s3.delete_object(Bucket=BUCKET, Key=gone)
    with pytest.raises(StorageError, match=rf"s3://{BUCKET}/{gone} at http.* refuses: 404: there is no such object; .*repro -f prepare"):
        split.images[0]
    s3.put_object(Bucket=BUCKET, Key=changed, Body=b"other images")
    with pytest.raises(DataError, match=rf"{PLACE}: {changed.removeprefix('digits/')} is not what was prepared; run 'dvc repro -f prep"):
        split.images[A_SHARD]
    index = streamed / "train" / "shards.json"
    index.write_text(index.read_text().replace("/digits", "/others"))
    with pytest.raises(DataError, match="train is not what was prepared"):
        verified_split(streamed / "train", manifest=read_manifest(streamed / "dataset.json"), objects=Objects)
    with pytest.raises(DataError, match="the images of .*train lie at s3://prepared/others"):
        read_split(streamed / "train")


def test_an_epoch_shows_every_image_once_group_by_group() -> None:
    """Of 80 images in shards of 4: each once, those of eight shards together; another epoch has others together."""
    orders = [shuffled(80, shard=4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert orders[0].sort().values.tolist() == list(range(80))
    groups = [{frozenset((part // 4).tolist()) for part in order.split(4 * GROUP)} for order in orders]
    assert all(sorted(map(len, found)) == [4, GROUP, GROUP] for found in groups)
    assert groups[0] != groups[2]


def test_a_split_of_one_group_is_shuffled_as_a_whole() -> None:
    """Smaller data sets are shown in the order in which they always were."""
    mixed = shuffled(GROUP * 4, shard=4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(mixed, torch.randperm(GROUP * 4, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize(
    ("n", "wanted", "expected"), [(20, 100, range(20)), (32, 4, range(0, 32, 8)), (9999, 4, range(0, 32, 8)), (9999, 40, range(64))]
)
def test_a_few_of_many_images_come_from_few_groups(n: int, wanted: int, expected: range) -> None:
    """Evenly spread over a split of one group, over the first groups of a larger one."""
    assert spread(n, shard=4, wanted=wanted) == expected


def test_an_epoch_downloads_each_shard_about_once(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are used next are not given up for those behind them: of 49 shards few come a second time, where groups meet."""
    wide = config_of(shards=PLACE, max_images=280)
    split = read_split(prepare_digits(wide, tmp_path) / "train", objects=Objects)
    manifest, names, get = read_manifest(tmp_path / "work" / "prepared" / "dataset.json"), list[str](), Objects.get

    def counted(self: Objects, name: str, file: Any) -> None:
        names.append(name)
        get(self, name, file)

    monkeypatch.setattr(Objects, "get", counted)
    images = on_device(split, manifest=manifest, device=torch.device("cpu"))
    nothing = AugmentConfig(shift=0, rotate=0.0, scale=0.0, flip=False)
    shown = sum(
        len(labels) for _, labels in training_batches(images, batch_size=4, augment=nothing, generator=torch.Generator().manual_seed(0))
    )
    assert shown == len(split) == 4 * len(set(names)) == 196
    assert len(names) <= 1.2 * 49
