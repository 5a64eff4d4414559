"""Every experiment of the project: loads, reloads, and trains and detects at toy size."""

import ast
import math
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances, RotatedBoxes
from detectron2.utils.events import EventStorage
from detectron2.utils.registry import locate
from omegaconf import OmegaConf

from rsd2.commands.view_checks import views_of
from rsd2.config import (
    EXPORTED_NAMES,
    apply_overrides,
    config_depth,
    get_config,
    load_config,
    save_config,
)
from rsd2.config.checks import config_leaves
from rsd2.data.mappers.views import note_on_view
from rsd2.engine import build_optimizer
from rsd2.testing import random_rotated_boxes, shrink

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("configs", "projects/*/configs")
EXPERIMENTS = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.py"))
FILES = sorted([*ROOT.glob("configs/**/*.py"), *ROOT.glob("projects/*/configs/**/*.py")])


def names(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=EXPERIMENTS, ids=names(EXPERIMENTS))
def experiment(request):
    return request.param


@pytest.fixture(scope="module")
def cfg(experiment):
    return load_config(experiment)


def build(cfg):
    torch.manual_seed(0)
    return instantiate(cfg.model)


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def located_leaves(node):
    """Values by key, with the classes that targets name, however they are named."""
    leaves = dict(config_leaves(node))
    names = [k for k in leaves if k.rpartition(".")[2] == "_target_" and isinstance(leaves[k], str)]
    return {**leaves, **{name: locate(leaves[name]) for name in names}}


def detector_of(cfg):
    """The config of the detector, which in a pre-training is a part of the model, and its key."""
    return (
        (cfg.model.detector, "model.detector") if "detector" in cfg.model else (cfg.model, "model")
    )


def random_batch(num_classes, embedding_dim=None):
    """Two images as the mapper gives them, one with objects, one without."""
    batch = []
    for index, (size, num_objects) in enumerate([((64, 64), 5), ((48, 64), 0)]):
        generator = torch.Generator().manual_seed(index)
        instances = Instances(size)
        instances.gt_boxes = RotatedBoxes(random_rotated_boxes(num_objects, min(size), 6, 30))
        instances.gt_classes = torch.arange(num_objects) % num_classes
        if embedding_dim is not None:
            instances.gt_embeddings = torch.randn(num_objects, embedding_dim, generator=generator)
        image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        # The original image was twice as large.
        full = {"height": 2 * size[0], "width": 2 * size[1]}
        batch.append({"image": image, "instances": instances, **full})
    return batch


def as_the_model_takes(batch, cfg):
    """The batch with upright boxes, or with labels of whole images, where the model wants them."""
    for x in batch:
        boxes = x["instances"].gt_boxes
        if "roi_heads" in cfg.model and not finds_rotated_boxes(cfg):
            centers, sides = boxes.tensor[:, :2], boxes.tensor[:, 2:4]
            x["instances"].gt_boxes = Boxes(
                torch.cat([centers - sides / 2, centers + sides / 2], 1)
            )
        elif is_embedding(cfg):
            x["views"] = torch.rand(2, 3, 48, 48)
        elif is_feature_learning(cfg):  # one size for all
            x["image"] = x["image"][:, :48]
        elif is_classifier(cfg):
            x["image"], x["label"] = x["image"][:, :48], len(boxes) % cfg.model.num_classes
        elif takes_clips(cfg):
            x["instances"].gt_boxes = Boxes(
                torch.cat([boxes.tensor[:, :2], boxes.tensor[:, :2] + 5], 1)
            )
            image = x.pop("image")
            x["frames"] = torch.stack([image.roll(-t, dims=1) for t in range(5)])
    return batch


def finds_rotated_boxes(cfg):
    return "RROIHeads" in str(cfg.model.roi_heads._target_)


def takes_clips(cfg):
    return "motion_at_eval" in cfg.model


def is_classifier(cfg):
    return "feature" in cfg.model


def is_feature_learning(cfg):
    return is_embedding(cfg) or ("encoder" in cfg.model and "masks" in cfg.model)


def is_embedding(cfg):
    return "output" in cfg.model


def test_there_are_experiments():
    assert EXPERIMENTS


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_file_has_no_lambda_no_device_and_registers_nothing(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Lambda), f"{where}: a lambda cannot be saved"
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            assert "register" not in function.rpartition(".")[2], f"{where}: {function}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert node.value.partition(":")[0] != "cuda", f"{where}: a device"
    assert config_depth(path) <= 3


def test_exports_the_five_names(experiment, cfg):
    assert set(EXPORTED_NAMES) <= set(LazyConfig.load(str(experiment)))
    devices = {k: v for k, v in config_leaves(cfg) if k.rpartition(".")[2] == "device"}
    assert devices == {"train.device": "auto"}
    assert (cfg.train.max_iter is None) != (cfg.train.epochs is None), "one length, not two"
    assert instantiate(shrink(cfg).lr_multiplier)(0.0) > 0


def test_objects_have_the_sizes_of_the_training_in_the_evaluation(cfg, experiment):
    target = cfg.model._target_
    model = locate(target) if isinstance(target, str) else target

    def views(split):
        names = OmegaConf.select(cfg, f"dataloader.{split}.dataset.names")
        # The names of windows hold their size; all whole images count as of one size.
        window = re.search(r"_(\d{3,4})_\d+(_virtual)?$", names if isinstance(names, str) else "")
        side = int(window[1]) if window else 1024
        return views_of(cfg, split, [{"height": side, "width": side}])

    tested = views("test") if cfg.dataloader.get("test") is not None else None
    if tested is None:
        pytest.skip("nothing is evaluated, or not on images")
    in_shares = getattr(model, "measures_in_shares", False)
    note = note_on_view(views("train"), tested.middle, in_shares, "test", "")
    # As published, VISO's frames become 512 pixels in training and 1024 in the test.
    assert ("0.50 times" in note) if experiment.stem == "micml_dla34_viso" else note == ""


def test_saved_config_builds_the_same_model(cfg, tmp_path):
    save_config(cfg, tmp_path / "config.yaml")
    loaded = load_config(tmp_path / "config.yaml")
    assert located_leaves(loaded.train) == located_leaves(cfg.train)
    # Names and shapes, not values: YAML sorts its keys, so parts are drawn in another order.
    assert shapes(build(shrink(cfg))) == shapes(build(shrink(loaded)))


def test_saved_config_still_follows_overrides(cfg, tmp_path):
    save_config(cfg, tmp_path / "config.yaml")
    loaded = load_config(tmp_path / "config.yaml", ["train.max_iter=1234"])
    assert loaded.lr_multiplier.max_iter == 1234
    detector, key = detector_of(cfg)
    if "embed_dim" not in detector:
        pytest.skip("no width that other values are derived from")
    wide = [f"{key}.embed_dim=64", f"{key}.encoder.num_heads=4"]
    models = [build(apply_overrides(shrink(one), wide)) for one in (cfg, loaded)]
    assert shapes(models[0]) == shapes(models[1]) != shapes(build(shrink(cfg)))


def test_trains_and_detects(cfg, caplog):
    cfg = shrink(cfg)
    model = build(cfg)
    optimizer = build_optimizer(cfg.optimizer, model)
    # Of a rate for layers that the model does not have, which the first lines of a log would show.
    assert not [r.getMessage() for r in caplog.records if r.name.startswith("rsd2.engine")]
    trainable = [p for p in model.parameters() if p.requires_grad]
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len(trainable) and set(map(id, grouped)) == set(map(id, trainable))

    num_classes = detector_of(cfg)[0].get("num_classes", 1)
    batch = random_batch(num_classes, cfg.model.get("embedding_dim"))
    batch = as_the_model_takes(batch, cfg)
    model.train()
    # A layer that starts at zero hides those before it from the first gradient.
    for p in trainable:
        if p.dim() > 1 and not p.any():
            torch.nn.init.normal_(p, std=0.02)
    before = [p.detach().clone() for p in trainable]
    with EventStorage():
        losses = model(batch)
    assert losses and all(math.isfinite(v.item()) for v in losses.values()), losses
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in trainable)
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused, f"distributed training would wait for the gradients of {unused}"
    # Asked of the gradients, because weight decay moves what has none.
    silent = [n for n, p in model.named_parameters() if p.requires_grad and not p.grad.any()]
    assert len(silent) < 0.2 * len(trainable), silent
    optimizer.step()
    # only what has no gradient stays
    still = [p for p, old in zip(trainable, before) if torch.equal(p, old)]
    assert not any(p.grad.any() for p in still)
    assert len(still) < 0.2 * len(trainable)

    model.eval()
    with torch.no_grad():
        outputs = model([{k: v for k, v in x.items() if k != "instances"} for x in batch])
    assert len(outputs) == len(batch)
    if is_classifier(cfg):
        sums = torch.stack([output["scores"].sum() for output in outputs])
        assert torch.allclose(sums, torch.ones(len(batch)))
        return
    if is_feature_learning(cfg):
        assert all(output["features"].isfinite().all() for output in outputs)
        return
    for x, output in zip(batch, outputs):
        found = output["instances"]
        assert found.image_size == (x["height"], x["width"])
        assert len(found.pred_boxes) == len(found.scores) == len(found.pred_classes)
        assert found.pred_boxes.tensor.isfinite().all()


def test_row_of_an_ablation_table_changes_what_it_says_and_trains(ablation_row, caplog):
    before = dict(config_leaves(load_config(ablation_row.config)))
    cfg = load_config(ablation_row.config, ablation_row.overrides)
    after = dict(config_leaves(cfg))
    changed = [key for key in before | after if before.get(key, ...) != after.get(key, ...)]
    for override in ablation_row.overrides:
        key = override.partition("=")[0]
        assert key.startswith(("model.", "dataloader.train.")), "the recipe is the same for all"
        assert any(f"{one}.".startswith(f"{key}.") for one in changed), f"{override} has no effect"
    test_trains_and_detects(cfg, caplog)


def test_shrink_makes_every_loader_small_and_changes_nothing_else(cfg):
    before = OmegaConf.to_yaml(cfg)
    small = shrink(cfg)
    assert OmegaConf.to_yaml(cfg) == before
    leaves = dict(config_leaves(small.dataloader))
    assert all(v == 0 for k, v in leaves.items() if k.endswith("num_workers"))
    assert all(v == 64 for k, v in leaves.items() if k.endswith("short_edge_length"))
    assert small.dataloader.train.total_batch_size == 2
    assert small.train.max_iter == small.lr_multiplier.max_iter == 2
    assert small.optimizer == cfg.optimizer
    assert sum(p.numel() for p in build(small).parameters()) < 500_000


@pytest.mark.parametrize("name", ["small", "r50"])
@pytest.mark.parametrize("norm", ["BN", "GN", "FrozenBN"])
def test_shrink_keeps_the_backbone_s_norm(name, norm):
    cfg = get_config(f"common/models/rotated_deformable_detr_{name}.py")
    backbone = cfg.model.backbone
    for node in [backbone] if name == "small" else [backbone.stem, backbone.stages]:
        node.norm = norm
    model = build(shrink(cfg))
    kinds = {type(m).__name__ for m in model.backbone.modules() if "Norm" in type(m).__name__}
    expected = {"BN": "BatchNorm2d", "GN": "GroupNorm", "FrozenBN": "FrozenBatchNorm2d"}
    # What the config freezes turns into FrozenBN.
    assert kinds - {"FrozenBatchNorm2d"} == {expected[norm]} - {"FrozenBatchNorm2d"}


def test_shrink_names_what_it_does_not_know():
    cfg = get_config("common/models/rotated_deformable_detr_small.py")
    cfg.model.backbone = {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}
    with pytest.raises(ValueError, match=r"no rule for model\.backbone = Linear; it knows ResNet"):
        shrink(cfg)
    with pytest.raises(ValueError, match=r"model = Linear; it knows RotatedDeformableDETR"):
        shrink(OmegaConf.create({"model": {"_target_": "torch.nn.Linear"}}))
