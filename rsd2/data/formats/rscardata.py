"""The folders and files of RsCarData, real or generated."""

from __future__ import annotations

from typing import NamedTuple


class SplitNames(NamedTuple):
    """Where a split of RsCarData keeps its files, relative to its root.

    Args:
        images: folder of the videos.
        old: COCO file of the first labels.
        new: COCO file of the complete labels, with tracks.
        voc: folder of VOC files inside a video's folder, or "" for none.
    """

    images: str
    old: str
    new: str
    voc: str


RSCARDATA_SPLITS = {
    "train": SplitNames(
        "images/train", "annotations/instances_train2017.json", "annotations/train_mot.json", ""
    ),
    "test": SplitNames(
        "images/test1024",
        "annotations/instances_test2017_1024.json",
        "annotations/test1024_mot.json",
        "xml_det",
    ),
}
