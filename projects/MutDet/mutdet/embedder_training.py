"""A small backbone that learns from unlabelled crops: it plays ImageNet's part where there is none.

Source: SimCLR (arXiv 2002.05709), section 2.1: two views of a crop have to find each other among
those of all other crops of the batch (NT-Xent). No label of any kind enters, neither the classes of
the detector nor others, so a study that starts all its arms from this backbone favours none. The
crops are proposals of the embedded source on generated scenes of a seed of their own.

A view is a window around the box: either stretched to a square with the long side along x, as
embeddings are cut, or a square of any rotation, as the detector meets objects; with other sizes,
light, contrast and colour, sometimes grey, mirrored or noisy.

Shapes: M scenes, N crops, B crops of a batch, S side of the views, H, W of the scenes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from rsd2.io.files import make_output_folder, replaced_file
from rsd2.io.worker_pool import run_in_processes
from rsd2.modeling.backbones.small_resnet import small_resnet
from rsd2.ops import roi_align_rotated
from rsd2.structures import corners_to_boxes
from rsd2.synthetic import SceneConfig, draw_scene
from rsd2.weights.checkpoint import load_checkpoint
from rsd2.weights.errors import CheckpointError

from .box_filters import BoxFilters
from .embedder import CropSettings, FeatureExtractor, PooledBackbone, normalize
from .label_run import Labeller
from .proposals import FelzenszwalbProposals
from .reduction import unit

_FILTERS = BoxFilters(min_side=3.0, max_area_fraction=0.4, duplicate_iou=0.5, top_k=16)
_NEIGHBOURS = 5
_DIM = 128


@dataclass(frozen=True)
class EmbedderSettings:
    """How the backbone is trained.

    Attributes:
        steps: of the optimizer, >= 1.
        batch_size: B, crops per step, each in two views; >= 2.
        view_size: S, pixels.
        scenes: M that are drawn to train on.
        image_size: side of the scenes, pixels.
        scene_seed: of the scenes; the held-out ones have the next.
        temperature: of the loss, > 0.
        lr: highest rate of AdamW; a linear start over 50 steps, then a cosine to 0.
        seed: of weights and views.
    """

    steps: int = 600
    batch_size: int = 64
    view_size: int = 48
    scenes: int = 400
    image_size: int = 128
    scene_seed: int = 9001
    temperature: float = 0.2
    lr: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch_size": 2, "view_size": 8, "scenes": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.temperature <= 0 or self.lr <= 0:
            raise ValueError(f"temperature and lr are > 0, got {self.temperature}, {self.lr}")


class CropBank(NamedTuple):
    """Boxes on scenes.

    Args:
        images: (M, 3, H, W) uint8 RGB.
        scene: (N,) int64, index of the scene of each box.
        boxes: (N, 5) float32 proposals, pixels and degrees.
    """

    images: Tensor
    scene: Tensor
    boxes: Tensor


class _Scene(NamedTuple):
    image: np.ndarray
    proposals: np.ndarray
    true_boxes: np.ndarray
    names: list[str]


def draw_crops(settings: EmbedderSettings, *, num_workers: int = 0) -> CropBank:
    """Draw scenes, without their labels, and propose boxes on them.

    Args:
        settings: number, size and seed of the scenes.
        num_workers: processes; 0 for none besides this one.

    Returns:
        the scenes and their boxes.

    Raises:
        ValueError: if too few boxes are found for a batch.
    """
    scenes = _draw(settings.scenes, settings.image_size, settings.scene_seed, num_workers)
    counts = torch.tensor([len(scene.proposals) for scene in scenes])
    if counts.sum() < settings.batch_size:
        raise ValueError(
            f"{counts.sum()} crops of {settings.scenes} scenes cannot fill a batch of "
            f"{settings.batch_size}; draw more scenes"
        )
    images = torch.from_numpy(np.stack([scene.image for scene in scenes]))
    return CropBank(
        images.permute(0, 3, 1, 2).contiguous(),
        torch.repeat_interleave(torch.arange(len(scenes)), counts),
        torch.from_numpy(np.concatenate([scene.proposals for scene in scenes])),
    )


def train_embedder(
    bank: CropBank, settings: EmbedderSettings, path: str | Path, *, save_every: int = 100
) -> dict[str, Any]:
    """Train, or finish what was begun, and write the checkpoint.

    Args:
        bank: crops to learn from.
        settings: of the training.
        path: of the checkpoint. Its ``model`` has the names ``backbone.*`` of the small detector,
            ``configs/common/models/rotated_deformable_detr_small.py``, and nothing else; ``about``
            the settings and the last loss. Meanwhile ``<path>.training`` has the state.
        save_every: steps between two savings of the state, >= 1.

    Returns:
        ``about``.

    Raises:
        CheckpointError: if a state or checkpoint of other settings is there.
    """
    path = Path(path)
    state_path = path.with_name(f"{path.name}.training")
    make_output_folder(path.parent)
    torch.manual_seed(settings.seed)
    backbone = PooledBackbone(small_resnet(out_features=["res5"]), "res5")
    width = backbone.backbone.output_shape()["res5"].channels
    head = nn.Sequential(
        nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width // 2)
    )
    modules = nn.ModuleList([backbone, head]).train()
    optimizer = torch.optim.AdamW(modules.parameters(), lr=settings.lr, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(settings.seed)
    start, loss = 0, torch.tensor(math.nan)
    if state_path.is_file():
        state = load_checkpoint(state_path)
        _check_same(state_path, state["about"], settings)
        modules.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        start = state["step"]
    for step in tqdm(range(start, settings.steps), initial=start, total=settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, settings)
        chosen = torch.randint(len(bank.boxes), (settings.batch_size,), generator=generator)
        views = [make_views(bank, chosen, settings.view_size, generator) for _ in range(2)]
        loss = contrast(head(backbone(torch.cat(views))), settings.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % save_every == 0 and step + 1 < settings.steps:
            content = {"model": modules.state_dict(), "optimizer": optimizer.state_dict()}
            content |= {"generator": generator.get_state(), "step": step + 1}
            _save(state_path, content | {"about": asdict(settings)})
    about = {**asdict(settings), "crops": len(bank.boxes), "last_loss": loss.item()}
    weights = {f"backbone.{k}": v for k, v in backbone.backbone.state_dict().items()}
    _save(path, {"model": weights, "about": about})
    state_path.unlink(missing_ok=True)
    return about


def find_finished(path: str | Path, settings: EmbedderSettings) -> dict[str, Any] | None:
    """Look for the checkpoint of a finished training.

    Args:
        path: of the checkpoint.
        settings: that it has to have.

    Returns:
        its ``about``, or None if it is not there.

    Raises:
        CheckpointError: if it is of other settings, or no such checkpoint.
    """
    if not Path(path).is_file():
        return None
    about = load_checkpoint(path).get("about")
    _check_same(Path(path), about, settings)
    return about


def make_views(bank: CropBank, chosen: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Cut one random view of each chosen crop.

    Args:
        bank: of the crops.
        chosen: (B,) indices.
        size: S, pixels.
        generator: of all that is random.

    Returns:
        (B, 3, S, S) normalised views.
    """
    count = len(chosen)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    cx, cy, w, h, angle = bank.boxes[chosen].unbind(dim=1)
    is_square = uniform(0, 1) < 0.5
    side = torch.maximum(w, h)
    turn = torch.where(uniform(0, 1) < 0.5, 180.0, 0.0) + uniform(-15, 15)
    scale = torch.exp(uniform(math.log(1.1), math.log(2.2)))
    rois = torch.stack(
        [
            torch.arange(count, dtype=torch.float32),
            cx + uniform(-0.1, 0.1) * w,
            cy + uniform(-0.1, 0.1) * h,
            (torch.where(is_square, side, w) * scale * torch.exp(uniform(-0.15, 0.15))).clamp(4),
            (torch.where(is_square, side, h) * scale * torch.exp(uniform(-0.15, 0.15))).clamp(4),
            torch.where(is_square, uniform(-180, 180), angle + turn),
        ],
        dim=1,
    )
    views = roi_align_rotated(bank.images[bank.scene[chosen]].float(), rois, size, sampling_ratio=1)
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    light, contrast_factor = uniform(0.7, 1.3, 1, 1, 1), uniform(0.7, 1.3, 1, 1, 1)
    views = (views - mean) * contrast_factor + mean * light
    views = views * (1 + 0.1 * torch.randn(count, 3, 1, 1, generator=generator))
    grey = views.mean(dim=1, keepdim=True).expand_as(views)
    views = torch.where(uniform(0, 1, 1, 1, 1) < 0.2, grey, views)
    views = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, views.flip(3), views)
    return normalize(views + 4 * torch.randn(views.shape, generator=generator))


def contrast(projections: Tensor, temperature: float) -> Tensor:
    """Loss of two views of each crop: NT-Xent, equation 1 of SimCLR.

    Args:
        projections: (2B, D), the first views, then the second ones in the same order.
        temperature: > 0.

    Returns:
        scalar, the mean over all 2B views.
    """
    count = len(projections) // 2
    vectors = F.normalize(projections, dim=1)
    similarity = vectors @ vectors.T / temperature
    itself = torch.eye(2 * count, dtype=torch.bool)
    partner = (torch.arange(2 * count) + count) % (2 * count)
    return F.cross_entropy(similarity.masked_fill(itself, -math.inf), partner)


def measure_embedder(
    path: str | Path, settings: EmbedderSettings, *, scenes: int = 100, num_workers: int = 0
) -> list[dict[str, Any]]:
    """Measure how well a backbone's features tell the classes of true objects, which it never saw.

    Each true object of held-out scenes is named by its nearest neighbours among the others, see
    `neighbour_accuracy`. Random weights of the same architecture are measured beside it: they go a
    long way where classes differ in colour and shape.

    Args:
        path: of the checkpoint.
        settings: of the scenes, whose seed is increased by one.
        scenes: held-out scenes.
        num_workers: processes that draw them.

    Returns:
        a row for each backbone and each way to reduce: ``backbone``, ``whiten``, ``objects``,
        ``accuracy``, ``mean_class_accuracy``.
    """
    held_out = _draw(scenes, settings.image_size, settings.scene_seed + 1, num_workers)
    names = np.array([name for scene in held_out for name in scene.names])
    trained = PooledBackbone(small_resnet(out_features=["res5"]), "res5")
    trained.load_state_dict(load_checkpoint(path)["model"])
    torch.manual_seed(settings.seed)
    untrained = PooledBackbone(small_resnet(out_features=["res5"]), "res5")
    result = []
    for title, backbone in (("this backbone", trained), ("random weights", untrained)):
        extract = FeatureExtractor(backbone, CropSettings(settings.view_size))
        features = [extract(s.image, s.true_boxes) for s in held_out if len(s.true_boxes)]
        for whiten in (False, True):
            row = {"backbone": title, "whiten": whiten, "objects": len(names)}
            accuracy = neighbour_accuracy(np.concatenate(features), names, whiten=whiten)
            result.append({**row, **accuracy})
    return result


def neighbour_accuracy(
    features: np.ndarray, names: np.ndarray, *, whiten: bool
) -> dict[str, float]:
    """Name every object by its nearest neighbours among the others, and count what is right.

    Near is the cosine of embeddings as ``extract_embeddings.py`` makes them, fitted on these
    features; the five nearest vote.

    Args:
        features: (N, F), N > 5.
        names: (N,) classes.
        whiten: divide the components by their deviations.

    Returns:
        ``accuracy``: of all objects; ``mean_class_accuracy``: the mean over the classes.
    """
    dim = min(_DIM, features.shape[1], len(features) - 1)
    vectors = unit(PCA(dim, whiten=whiten, svd_solver="full").fit_transform(features))
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = names[np.argsort(-similarity, axis=1, kind="stable")[:, :_NEIGHBOURS]]
    classes = np.unique(names)
    votes = (nearest[:, :, None] == classes).sum(axis=1)
    right = classes[votes.argmax(axis=1)] == names
    by_class = [right[names == name].mean() for name in classes]
    return {"accuracy": float(right.mean()), "mean_class_accuracy": float(np.mean(by_class))}


def _rate(step: int, settings: EmbedderSettings) -> float:
    warm_up = min(1.0, (step + 1) / 50)
    return settings.lr * warm_up * (1 + math.cos(math.pi * step / settings.steps)) / 2


def _draw(count: int, image_size: int, seed: int, num_workers: int) -> list[_Scene]:
    jobs = [(image_size, seed, index) for index in range(count)]
    scenes = run_in_processes(_draw_one, jobs, num_workers)
    return list(tqdm(scenes, total=count, desc="scenes", unit="image"))


def _draw_one(job: tuple[int, int, int]) -> _Scene:
    image_size, seed, index = job
    scene = draw_scene(SceneConfig(size=image_size), seed, index)
    labels, _ = Labeller(FelzenszwalbProposals(), _FILTERS)(scene.image, "")
    easy = [item for item in scene.objects if item.difficult == 0]
    polygons = np.array([item.poly for item in easy]).reshape(-1, 4, 2)
    true_boxes = corners_to_boxes(torch.from_numpy(polygons)).float().numpy()
    return _Scene(scene.image, labels.boxes, true_boxes, [item.name for item in easy])


def _save(path: Path, content: dict[str, Any]) -> None:
    with replaced_file(path) as temporary:
        torch.save(content, temporary)


def _check_same(path: Path, about: object, settings: EmbedderSettings) -> None:
    """Refuse a file of other settings."""
    wanted = asdict(settings)
    if not isinstance(about, dict) or any(about.get(key) != wanted[key] for key in wanted):
        raise CheckpointError(
            f"{path} was made with other settings: {about}, asked for are {wanted}; choose another "
            "--output, or delete it"
        )
