"""An exported detector as a function from images to detections, run by ONNX Runtime.

Shapes: B images of a call, N detections of one image, h, w size of that image, K classes,
R regions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Boxes, Instances, RotatedBoxes

from rsd2.modeling.postprocessing import finish_detections
from rsd2.modeling.soft_nms import soften_detections
from rsd2.structures import from_horizontal

from .description import Description, ExportError
from .onnx_file import NEEDS_EXTRA

Size = tuple[int, int]
Finish = Callable[[Sequence[torch.Tensor], Size, Size, dict], Instances]


def _finish_rotated_pairs(
    tensors: Sequence[torch.Tensor], input_size: Size, output_size: Size, finishing: dict
) -> Instances:
    """Apply the threshold, rotated NMS and scaling of `rsd2.modeling.postprocessing`."""
    boxes, scores, classes = tensors
    return finish_detections(boxes, scores, classes, input_size, output_size, **finishing)


def _finish_regions(
    tensors: Sequence[torch.Tensor], input_size: Size, output_size: Size, finishing: dict
) -> Instances:
    """Apply Detectron2's threshold, upright NMS and scaling, and give the boxes an angle of 0."""
    found, _ = fast_rcnn_inference_single_image(*tensors, input_size, **finishing)
    found = detector_postprocess(found, *output_size)
    # All detectors return rotated boxes, so that drawing and merging need one form only.
    found.pred_boxes = RotatedBoxes(from_horizontal(found.pred_boxes.tensor))
    return found


def _finish_peaks(
    tensors: Sequence[torch.Tensor], input_size: Size, output_size: Size, finishing: dict
) -> Instances:
    """Apply the threshold and soft-NMS of centre heads, and Detectron2's scaling."""
    boxes, scores, classes = tensors
    keep = scores > finishing["score_floor"]
    kept = boxes[keep], scores[keep], classes[keep]
    found = Instances(input_size)
    softened = soften_detections(*kept) if finishing["soft_nms"] else kept
    found.pred_boxes = Boxes(softened[0])
    found.scores, found.pred_classes = softened[1:]
    return detector_postprocess(found, *output_size)


FINISHERS: dict[str, Finish] = {
    "peaks": _finish_peaks,
    "rotated_pairs": _finish_rotated_pairs,
    "regions": _finish_regions,
}


class OnnxDetector:
    """A file of ``rsd2 export`` with the interface of `rsd2.inference.image_detector`.

    An image is resized as the model's test images were. What the graph's fixed input does not cover
    below and to the right is filled with the mean colour. A torch model knows where the image
    ends; this one takes the margin for a part of the image.

    Args:
        path: path of the ONNX file.
        num_threads: number of threads of ONNX Runtime; None for one thread per core.

    Attributes:
        description: description that the file contains.

    Raises:
        ExportError: the packages of the extra ``export`` are not installed, or the file is not a
            detector of ``rsd2 export``.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: str | Path, num_threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ExportError(NEEDS_EXTRA) from error
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}; `rsd2 export` writes one")

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # its notes on unfolded constants mean nothing to a user
        options.intra_op_num_threads = num_threads or 0

        # ONNX Runtime has no common base class for its errors.
        kinds = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented")
        errors = [getattr(onnxruntime.capi.onnxruntime_pybind11_state, kind) for kind in kinds]
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except tuple(errors) as error:
            raise ExportError(f"{path} cannot be run by ONNX Runtime: {error}") from error

        props = self._session.get_modelmeta().custom_metadata_map
        self.description = Description.from_props(props, str(path))
        if self.description.outputs not in FINISHERS:
            raise ExportError(
                f"{path} was exported for another program ({self.description.outputs}); export it "
                "again without --for"
            )
        resize = self.description.resize
        self._resize = None if resize is None else T.ResizeShortestEdge(*resize)

    def __call__(
        self, images: Sequence[np.ndarray]
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Detect objects in some images together.

        Args:
            images: (h, w, 3) uint8 RGB each, of any sizes that fit into the graph's input after
                resizing.

        Returns:
            For each image boxes (N, 5) in its own pixels and degrees, scores (N,), classes (N,).

        Raises:
            ExportError: the graph takes clips.
            ValueError: an image is too large for the graph.
        """
        if self.description.num_frames is not None:
            raise ExportError(
                f"a {self.description.model} detects objects in videos, not in images; rsd2 "
                "predict runs it on those"
            )
        sizes = [image.shape[:2] for image in images]
        return self.run([self.prepare(image) for image in images], sizes)

    def run(
        self, prepared: Sequence[tuple[np.ndarray, Size]], sizes: Sequence[Size]
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Run the graph on prepared images or clips, and finish the results.

        Args:
            prepared: pixels as the graph reads them, and (height, width) before padding.
            sizes: (height, width) before resizing, to which the results refer.

        Returns:
            See `__call__`; boxes (N, 4) XYXY of a graph of clips.
        """
        results = []
        step = self.description.batch or max(1, len(prepared))
        for start in range(0, len(prepared), step):
            part = prepared[start : start + step]
            # A graph of a fixed number of images gets the last image repeated as a filler.
            missing = step - len(part)
            pixels = np.stack([x for x, _ in part] + [part[-1][0]] * missing)

            outputs = self._session.run(None, {"pixels": pixels})
            for index, (_, size) in enumerate(part):
                tensors = [torch.from_numpy(output[index]) for output in outputs]

                results.append(self._finish(tensors, size, sizes[start + index]))
        return results

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, Size]:
        """Resize and pad an image.

        Args:
            image: (h, w, 3) uint8 RGB.

        Returns:
            (3, H, W) uint8, and (height, width) before padding.

        Raises:
            ValueError: the image is too large for the graph.
        """
        if self._resize is not None:
            image = self._resize.get_transform(image).apply_image(image)
        height, width = image.shape[:2]
        input_height, input_width = self.description.input_size
        if height > input_height or width > input_width:
            window = self.description.window
            raise ValueError(
                f"the graph takes images of {input_width} x {input_height} pixels, got "
                f"{width} x {height} after resizing; cut the image into windows of {window} "
                f"pixels, in rsd2 predict by --window {window} --padding"
            )
        # The graph subtracts the mean, so that this margin becomes zero, as in training.
        mean = np.round(self.description.pixel_mean).astype(np.uint8)
        filled = np.empty((3, input_height, input_width), np.uint8)
        filled[:] = mean[:, None, None]
        filled[:, :height, :width] = image.transpose(2, 0, 1)
        return filled, (height, width)

    def _finish(
        self, tensors: Sequence[torch.Tensor], size: Size, output_size: Size
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Apply the steps that follow the graph to one image."""
        finish = FINISHERS[self.description.outputs]
        found = finish(tensors, size, output_size, self.description.finishing)
        return found.pred_boxes.tensor, found.scores, found.pred_classes


class OnnxClipDetector:
    """An exported detector of clips with the interface of `rsd2.inference.clip_detector`.

    Args:
        detector: the opened file.

    Attributes:
        num_frames: number of frames of a clip.

    Raises:
        ExportError: the file takes images.
    """

    def __init__(self, detector: OnnxDetector) -> None:
        if detector.description.num_frames is None:
            raise ExportError(
                f"a {detector.description.model} detects objects in images, not in videos"
            )
        self.detector, self.num_frames = detector, detector.description.num_frames

    def __call__(
        self, clips: Sequence[Sequence[np.ndarray]]
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Detect objects in the newest frames of some clips together.

        Args:
            clips: clips of T images (h, w, 3) uint8 RGB of one size, newest first.

        Returns:
            For each clip boxes (N, 4) XYXY in pixels of its frames, scores (N,), classes (N,).

        Raises:
            ValueError: frames are too large for the graph.
        """
        prepared = []
        for clip in clips:
            frames = [self.detector.prepare(image) for image in clip]
            prepared.append((np.stack([pixels for pixels, _ in frames]), frames[0][1]))
        return self.detector.run(prepared, [clip[0].shape[:2] for clip in clips])
