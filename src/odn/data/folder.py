"""Read images from class folders, ROOT/CLASS/IMAGE, or from class folders in split folders, ROOT/train/CLASS/IMAGE.

N images, C channels, H height, W width. Files and folders whose names start with a dot are not looked at; everything else counts,
so that nothing is skipped silently.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from odn.cores import usable_cores
from odn.data.checksums import NAME as CHECKSUMS
from odn.data.checksums import require_name
from odn.data.dataset import SPLITS, Images
from odn.data.decoding import Header, check_header, decode, odd_images_raise, read_header
from odn.data.in_order import in_order
from odn.data.progress import Show, silent
from odn.data.sources import Part, Raw
from odn.data.splits import Indices
from odn.errors import DataError

Files = dict[str, list[Path]]  # of each class, in order


def copy_class_folders(root: Path, *, into: Path, show: Show = silent) -> None:
    """Copy the class folders and their images, after a look at each image's header.

    Raises:
        DataError: there is no such folder, it holds no class folders, a class is empty, or a file is not an image.
    """
    if not root.is_dir():
        found = "is a file" if root.is_file() else "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"data.root: {root} {found}; name a folder that holds one folder of images a class")
    files = check_class_folders(root, shown_as=str(root), show=show)
    for path in files:
        (into / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)

    def copy(path: Path) -> None:
        shutil.copyfile(path, into / path.relative_to(root))

    with show("copy images", total=len(files)) as tick:
        for _ in in_order(copy, files, threads=usable_cores()):
            tick(1)


def check_class_folders(root: Path, *, shown_as: str, show: Show = silent) -> list[Path]:
    """Require two class folders at least, an image at least in each, and nothing but images; return the files.

    Only the images' headers are read.

    Raises:
        DataError: naming the folder or the file as it is below `shown_as`, the place that the user knows.
    """
    files = _in_one(_layout(root, shown_as=shown_as))

    def check(path: Path) -> None:  # the header is enough here; decoding comes with `prepare`
        check_header(path, shown_as=f"{shown_as}/{path.relative_to(root).as_posix()}")

    with odd_images_raise(), show("look at images", total=len(files)) as tick:
        for _ in in_order(check, files, threads=usable_cores()):
            tick(1)
    return files


def open_folder(folder: Path, *, image_size: int | None, show: Show = silent) -> Raw:
    """Open class folders; the classes are the folders' names in order, and an image is decoded when it is read.

    Val and test are those of the folder where it has them, else None.

    Raises:
        DataError: as `check_class_folders`, or images of different sizes (unless they are resized).
    """
    layout = _layout(folder, shown_as=str(folder))
    paths = _in_one(layout)
    with odd_images_raise(), show("read headers", total=len(paths)) as tick:
        headers = []
        for header in in_order(read_header, paths, threads=usable_cores()):
            headers.append(header)
            tick(1)
    height, width = _common_size(paths, headers, image_size=image_size)
    channels = max(header.channels for header in headers)
    shape = (channels, height, width)
    parts = {name: _part(files, root=folder, shape=shape, image_size=image_size) for name, files in layout.items()}
    return Raw(
        classes=tuple(layout["train"]), channels=channels, height=height, width=width,
        train=parts["train"], val=parts.get("val"), test=parts.get("test"), notes=tuple(_notes(paths, headers, image_size=image_size)),
    )  # fmt: skip


def _part(files: Files, *, root: Path, shape: tuple[int, int, int], image_size: int | None) -> Part:
    paths = [path for of_class in files.values() for path in of_class]
    labels = np.repeat(np.arange(len(files), dtype=np.int64), [len(of_class) for of_class in files.values()])

    def read(indices: Indices) -> Images:
        images = np.empty((len(indices), *shape), np.uint8)

        def fill(position: int) -> None:
            images[position] = decode(paths[indices[position]], channels=shape[0], image_size=image_size)

        with odd_images_raise():
            for _ in in_order(fill, range(len(indices)), threads=usable_cores()):
                pass
        return images

    return Part(labels=labels, read=read, name=lambda index: paths[index].relative_to(root).as_posix())


def _in_one(layout: Mapping[str, Files]) -> list[Path]:
    return [path for files in layout.values() for of_class in files.values() for path in of_class]


def _layout(root: Path, *, shown_as: str) -> dict[str, Files]:
    """Return the files of each class by split, or all as `train`; or the DataError that names what is out of place."""
    names = {path.name for path in _visible(root) if path.is_dir()}
    is_split = "train" in names and len(names) > 1 and names <= set(SPLITS) and any(path.is_dir() for path in _visible(root / "train"))
    if not is_split:
        return {"train": _class_files(root, shown_as=shown_as)}
    _refuse_strays(root, shown_as=shown_as)
    layout = {name: _class_files(root / name, shown_as=f"{shown_as}/{name}") for name in SPLITS if name in names}
    for name, files in layout.items():
        if differing := sorted(files.keys() ^ layout["train"].keys()):
            has, lacks = (name, "train") if differing[0] in files else ("train", name)
            raise DataError(
                f"{shown_as}/{lacks} has no folder of the class {differing[0]!r}, which {shown_as}/{has} has; every split needs every class"
            )
    return layout


def _class_files(root: Path, *, shown_as: str) -> Files:
    """Return the files of each class in order."""
    _refuse_strays(root, shown_as=shown_as)
    files = {folder.name: _visible(folder) for folder in _visible(root) if folder.is_dir()}
    if len(files) < 2:
        found = "no class folders" if not files else "one class folder"
        raise DataError(f"{shown_as} holds {found}; expected one folder a class, two at least")
    for name, paths in files.items():
        if not paths:
            raise DataError(f"{shown_as}/{name}: the class folder is empty; add images to it or remove it")
        for path in paths:
            shown = f"{shown_as}/{name}/{path.name}"
            require_name(path.name, shown_as=shown)
            if path.is_dir():
                raise DataError(
                    f"{shown} is a folder; a class folder holds images only: move them up or give them a class of their own "
                    "(folders of splits are train, test and, where there is one, val)"
                )
            if not path.is_file():
                raise DataError(f"{shown} is not a regular file, or a link to nothing; remove it")
    return files


def _refuse_strays(root: Path, *, shown_as: str) -> None:
    for path in _visible(root):
        if path.is_dir():
            require_name(path.name, shown_as=f"{shown_as}/{path.name}")
        elif path.name != CHECKSUMS:
            raise DataError(f"{shown_as}/{path.name} lies beside the class folders; move it into one of them, or out of {shown_as}")


def _visible(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def _common_size(paths: Sequence[Path], headers: Sequence[Header], *, image_size: int | None) -> tuple[int, int]:
    """Return the (H, W) that all images have or get, or the DataError that names what has not."""
    first = headers[0]
    if image_size is None:
        for path, one in zip(paths, headers, strict=True):
            if (one.height, one.width) != (first.height, first.width):
                raise DataError(
                    f"{path} is {one.width}x{one.height} pixels but {paths[0]} is {first.width}x{first.height}; "
                    "set data.image_size to resize them all, or make them one size"
                )
        return first.height, first.width
    return image_size, image_size


def _notes(paths: Sequence[Path], headers: Sequence[Header], *, image_size: int | None) -> Iterator[str]:
    """Say what is done to images beside what was asked for."""
    grey = [path for path, header in zip(paths, headers, strict=True) if header.channels == 1]
    if 0 < len(grey) < len(headers):
        yield f"{len(grey):,} of {len(headers):,} images are grey, and become color of three equal channels: {grey[0]} is one"
    sides = [min(one.height, one.width) for one in headers]
    if image_size is not None and min(sides) < image_size:
        at, n_small = sides.index(min(sides)), sum(side < image_size for side in sides)
        yield (
            f"{n_small:,} of {len(sides):,} images are smaller than data.image_size {image_size} and are enlarged, which adds no detail: "
            f"the smallest, {paths[at]}, is {headers[at].width}x{headers[at].height} pixels"
        )
