"""Images with one label each: ImageNet's folders, CIFAR-100, ImageNet32, crops of objects.

The user provides the files; ``README.md`` beside this file shows where they belong. A dataset is a
list of dicts or, if all pixels fit into memory, an `ArrayImages`.

Shapes: N images, H, W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR100
from torchvision.datasets.folder import find_classes, make_dataset

from rsd2.io.arrays import ArrayFileError, read_arrays
from rsd2.io.image_io import IMAGE_EXTENSIONS

BACKGROUND = "background"
_IMAGENET32_SIDE = 32


class ArrayImages(Dataset):
    """Images in memory.

    Args:
        images: (N, H, W, 3) uint8, RGB.
        labels: (N,) integers.
        source: name of the images in messages, and the file name of every image.
    """

    def __init__(self, images: np.ndarray, labels: Sequence[int] | np.ndarray, source: str) -> None:
        if len(images) != len(labels) or images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                f"{source}: {len(labels)} labels for images of shape {images.shape} and type "
                f"{images.dtype}; (N, H, W, 3) uint8 and N labels are needed"
            )

        self.images, self.source = images, source
        self.labels = np.asarray(labels, dtype=np.int64)

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        """Return one image as a dict.

        Args:
            index: index of the image, in [0, N).

        Returns:
            ``pixels`` (H, W, 3) uint8, ``label``, ``image_id``, ``file_name``.
        """
        return {
            "pixels": self.images[index],
            "label": int(self.labels[index]),
            "image_id": index,
            "file_name": self.source,
        }


def load_image_folder(folder: str | Path, classes: Sequence[str] | None = None) -> list[dict]:
    """List the images of a folder with one subfolder for each class, ImageNet's layout.

    Args:
        folder: folder that holds ``<class>/<image>``.
        classes: names of the subfolders in the order of the labels; None takes all, sorted.

    Returns:
        Dicts with ``file_name``, ``label``, ``image_id``.

    Raises:
        FileNotFoundError: no such folder, no subfolder, or a class without subfolder or image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder} with one subfolder for each class")
    classes = find_classes(folder)[0] if classes is None else list(classes)
    indices = {name: index for index, name in enumerate(classes)}
    # torchvision compares endings as they are written, and cameras write ``.JPG``.
    extensions = (*IMAGE_EXTENSIONS, *(e.upper() for e in IMAGE_EXTENSIONS))
    samples = make_dataset(folder, indices, extensions=extensions)
    return [
        {"file_name": str(path), "label": label, "image_id": index}
        for index, (path, label) in enumerate(samples)
    ]


def load_cifar100(root: str | Path, train: bool) -> ArrayImages:
    """Read CIFAR-100; torchvision checks the files against their checksums first.

    Args:
        root: folder that holds ``cifar-100-python``.
        train: True for the 50,000 training images, False for the 10,000 test images.

    Returns:
        Images of 32 x 32 pixels, 100 classes.

    Raises:
        FileNotFoundError: the files are absent or differ from the published ones.
    """
    try:
        data = CIFAR100(str(root), train=train, download=False)
    except RuntimeError as error:
        raise FileNotFoundError(
            f"{Path(root) / 'cifar-100-python'} is absent or damaged; unpack "
            f"cifar-100-python.tar.gz into {root}"
        ) from error

    return ArrayImages(data.data, data.targets, str(Path(root) / "cifar-100-python"))


def load_imagenet32(folder: str | Path, train: bool) -> ArrayImages:
    """Read the down-sampled ImageNet of Chrabaszcz et al. (arXiv 1707.08819) from its NumPy files.

    Args:
        folder: folder that holds ``train_data_batch_1.npz`` to ``_10.npz`` and ``val_data.npz``.
        train: True for the ten training files (3.9 GB in memory), False for the validation file.

    Returns:
        Images of 32 x 32 pixels, 1000 classes counted from 0.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a file is damaged or has other content; the message names it.
    """
    names = [f"train_data_batch_{i}.npz" for i in range(1, 11)] if train else ["val_data.npz"]
    paths = [Path(folder) / name for name in names]
    # All absent files in one message, not one for each attempt.
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(absent)}; take the npz release of ImageNet 32x32, not the "
            "pickled one"
        )

    images, labels = zip(*(_read_imagenet32(path) for path in paths))
    return ArrayImages(np.concatenate(images), np.concatenate(labels), str(folder))


def _read_imagenet32(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        arrays = read_arrays(path, ("data", "labels"))
    except (OSError, ArrayFileError) as error:
        raise ValueError(f"{path} is damaged or not a file of ImageNet32: {error}") from error

    # The published files may hold a list of labels instead of an array.
    data, labels = arrays["data"], arrays["labels"].reshape(-1)

    side = _IMAGENET32_SIDE
    if data.dtype != np.uint8 or data.shape != (len(labels), 3 * side * side):
        raise ValueError(
            f"{path}: data of shape {data.shape} and type {data.dtype} for {len(labels)} labels; "
            f"({len(labels)}, {3 * side * side}) uint8 is needed"
        )
    # The release counts classes from 1, torch's losses count from 0.
    if len(labels) and not (labels.min() >= 1 and labels.max() <= 1000):
        raise ValueError(f"{path}: labels {labels.min()} to {labels.max()}, expected 1 to 1000")

    # A row is the red, then the green, then the blue plane.
    return data.reshape(-1, 3, side, side).transpose(0, 2, 3, 1), labels.astype(np.int64) - 1


def load_object_crops(
    dataset_name: str, size: int = 32, background_per_image: float = 2.0, seed: int = 0
) -> list[dict]:
    """Cut a detection dataset into windows around its objects, and windows without any.

    Args:
        dataset_name: registered dataset of upright or rotated boxes.
        size: side of the windows, pixels; never resized.
        background_per_image: average number of windows of the last class for each image; windows
            that contain the centre of an annotated object are not used.
        seed: seed that chooses their places.

    Returns:
        Dicts with ``file_name``, ``height``, ``width`` (of the image), ``window`` (4 integers x0,
        y0, x1, y1), ``label`` (classes of the dataset, then background), ``image_id``. Crowds,
        uncertain objects and objects to ignore get no window.

    Raises:
        ValueError: size or number of windows out of range.
    """
    if size < 1 or background_per_image < 0:
        raise ValueError(
            f"size has to be >= 1 and background_per_image >= 0, got {size}, {background_per_image}"
        )

    background = len(MetadataCatalog.get(dataset_name).thing_classes)
    crops: list[dict] = []
    rng = np.random.default_rng(seed)
    for image in DatasetCatalog.get(dataset_name):
        kept = {key: image[key] for key in ("file_name", "height", "width")}
        annotations = image.get("annotations", [])
        centers = np.array([_center(a) for a in annotations]).reshape(-1, 2)
        windows = [
            (np.rint(center - size / 2).astype(int), annotation["category_id"])
            for center, annotation in zip(centers, annotations)
            if not any(annotation.get(k, 0) for k in ("iscrowd", "ignore", "uncertain"))
        ]
        # A smaller image has one corner, and the crop is padded.
        limit = np.maximum([image["width"] - size, image["height"] - size], 0)
        for _ in range(rng.poisson(background_per_image)):
            corner = rng.integers(0, limit + 1)
            # Objects to ignore count here: their pixels are no background.
            inside = (centers >= corner) & (centers < corner + size)
            if not inside.all(axis=1).any():
                windows.append((corner, background))

        for corner, label in windows:
            window = [*(int(v) for v in corner), *(int(v) + size for v in corner)]
            crops.append({**kept, "window": window, "label": label, "image_id": len(crops)})

    return crops


def _center(annotation: dict) -> tuple[float, float]:
    box = annotation["bbox"]
    if annotation["bbox_mode"] == BoxMode.XYWHA_ABS:
        return box[0], box[1]
    x0, y0, x1, y1 = BoxMode.convert(list(box), annotation["bbox_mode"], BoxMode.XYXY_ABS)
    return (x0 + x1) / 2, (y0 + y1) / 2


def load_classification(name: str) -> list[dict] | ArrayImages:
    """Load a registered dataset of labelled images.

    Args:
        name: name in Detectron2's catalog.

    Returns:
        The dataset as its reader returns it.

    Raises:
        ValueError: the dataset is empty, or its images have no ``label``.
    """
    data = DatasetCatalog.get(name)
    if len(data) == 0 or "label" not in data[0]:
        what = "is empty" if len(data) == 0 else "has no labels of whole images"
        raise ValueError(f"the dataset {name} {what}; look at its folder or at its name")
    return data


def register_classification(root: str | Path) -> None:
    """Register the datasets of labelled images.

    Names: ``imagenet_train`` ``_val``, ``cifar100_train`` ``_test``, ``imagenet32_train``
    ``_val``, and crops of generated scenes, ``synthetic_crops_train`` ``_val`` and
    ``synthetic_tiny_crops_train`` ``_val``. Calling it again moves them to another root.

    Args:
        root: folder that holds ``imagenet``, ``cifar-100-python``, ``imagenet32``.
    """
    root = Path(root)
    readers: dict[str, Callable[[], list[dict] | ArrayImages]] = {}
    for split in ("train", "val"):
        readers[f"imagenet_{split}"] = partial(load_image_folder, root / "imagenet" / split)
        readers[f"imagenet32_{split}"] = partial(
            load_imagenet32, root / "imagenet32", split == "train"
        )
        for scenes in ("synthetic", "synthetic_tiny"):
            readers[f"{scenes}_crops_{split}"] = partial(load_object_crops, f"{scenes}_{split}")

    for split in ("train", "test"):
        readers[f"cifar100_{split}"] = partial(load_cifar100, root, split == "train")
    # Readers are registered anew, because the root may have changed.
    for name, reader in readers.items():
        if name in DatasetCatalog.list():
            if MetadataCatalog.get(name).get("builtin_root") is None:
                continue  # the user's own
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)

        DatasetCatalog.register(name, reader)
        MetadataCatalog.get(name).set(builtin_root=str(root), evaluator_type="classification")
