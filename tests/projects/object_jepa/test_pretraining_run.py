"""Pre-training by the tool: recipes' values, a run on images, exact continuation after a stop."""

import ast
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from rsd2.commands import train
from rsd2.config import load_config
from rsd2.data.datasets import builtin
from rsd2.projects.object_jepa.masking import LOSS_SETS, MODES
from rsd2.testing import shrink, write_tiny_dota

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = ROOT / "projects" / "ObjectJEPA" / "configs"
SMALL = CONFIGS / "object_jepa_small_synthetic_pretrain.py"
TINY = (
    "model.encoder.embed_dim=32",
    "model.encoder.depth=1",
    "model.encoder.num_heads=2",
    "model.encoder.drop_path_rate=0.2",
    "model.predictor.embed_dim=16",
    "model.predictor.depth=1",
    "model.masks.num_predicted=12",
    "dataloader.train.mapper.augmentations.0.crop_size=[48,48]",
    "dataloader.train.total_batch_size=2",
    "train.max_iter=4",
    "train.log_period=1",
    "train.checkpointer.period=2",
    "train.device=cpu",
    "train.hooks.telemetry=null",
)


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiny_dota(tmp_path / "synthetic" / "train", num_images=5)
    write_tiny_dota(tmp_path / "synthetic" / "val", num_images=2, seed=1)
    builtin.register_all_synthetic(tmp_path)
    yield
    builtin.register_all_synthetic(builtin.datasets_root())


def run(*opts):
    train.run_process(train.parse_arguments(["--config-file", str(SMALL), *opts]))


def load(path):
    return torch.load(path, weights_only=True)


def test_a_stopped_run_continues_to_the_last_bit(scenes):
    run(*TINY, "train.output_dir=whole")
    rows = [json.loads(line) for line in Path("whole/metrics.json").read_text().splitlines()]
    assert [row["target_momentum"] for row in rows] == pytest.approx([0.5 ** (1 / 70)] * 4)
    assert rows[0]["weight_decay"] == pytest.approx(0.04)
    assert 0.04 < rows[1]["weight_decay"] < rows[3]["weight_decay"] < 0.4
    assert {"total_loss", "object_token_loss", "background_token_loss"} <= rows[0].keys()

    Path("killed").mkdir()
    shutil.copy("whole/model_0000001.pth", "killed")
    Path("killed/last_checkpoint").write_text("model_0000001.pth")
    run("--resume", *TINY, "train.output_dir=killed")
    whole, killed = load("whole/model_final.pth"), load("killed/model_final.pth")
    assert whole["model"].keys() == killed["model"].keys()
    assert all(torch.equal(killed["model"][key], value) for key, value in whole["model"].items())
    first = load("whole/model_0000001.pth")["model"]
    key = "encoder.blocks.0.mlp.fc1.weight"
    assert not torch.equal(first[f"target_{key}"], whole["model"][f"target_{key}"])
    assert not torch.equal(whole["model"][f"target_{key}"], whole["model"][f"context_{key}"])


def test_recipe_is_the_default_one():
    """Width, heads and width of the predictor of the two recipes."""
    for name, sizes in (("s", (384, 6, 192)), ("b", (768, 12, 384))):
        cfg = load_config(CONFIGS / f"object_jepa_vit_{name}_dota_pretrain.py")
        model = instantiate(cfg.model)
        encoder = model.context_encoder
        assert (encoder.embed_dim, encoder.num_heads, model.predictor.embed_dim) == sizes
        assert model.masks.counts(28 * 28) == (196, 588, 256)
        assert int(model.masks.max_object_predicted * 256) == 128
        decay = instantiate(cfg.train.hooks.weight_decay.scheduler)
        assert cfg.optimizer.weight_decay * decay(0.0) == pytest.approx(0.04)
        assert cfg.optimizer.weight_decay * decay(1.0) == pytest.approx(0.4)
        assert cfg.lr_multiplier.warmup_iters * 10 == cfg.train.max_iter
        batch = cfg.dataloader.train.total_batch_size
        assert cfg.optimizer.lr == max(1e-3 * batch / 2048, 1.5e-4)
        crop, pad = cfg.dataloader.train.mapper.augmentations[:2]
        assert crop.object_prob == 0.5 and list(crop.crop_size) == list(pad.crop_size) == [448, 448]


def test_biases_and_norms_do_not_decay():
    cfg = load_config(SMALL)
    model = instantiate(shrink(cfg).model)
    cfg.optimizer.params.model = model
    groups = instantiate(cfg.optimizer).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert (id(parameter) in decayed) == (parameter.dim() > 1), name
        else:
            assert id(parameter) not in {id(p) for group in groups for p in group["params"]}


def test_ablation_tries_every_mask_and_loss_set(ablation_rows):
    masks = [
        load_config(row.config, row.overrides).model.masks
        for row in ablation_rows.values()
        if CONFIGS in row.config.parents
    ]
    assert {one.mode for one in masks} == set(MODES)
    assert {one.loss_set for one in masks} == set(LOSS_SETS)


def suggestions(path):
    """What the docstring of a config tells to add to the command; each line is one suggestion."""
    for line in ast.get_docstring(ast.parse(path.read_text())).splitlines():
        words = re.findall(r"^\w+\.\S+=\S+(?: \w+\.\S+=\S+)*", line)
        if words and not re.search(r"=[A-Z]+\b", words[0]):
            yield words[0].split()


def test_what_configs_and_tables_suggest_can_be_run(ablation_rows):
    commands = [
        (path, opts) for path in sorted(CONFIGS.glob("*_pretrain.py")) for opts in suggestions(path)
    ]
    commands += [row[1:] for row in ablation_rows.values() if CONFIGS in row.config.parents]
    assert len(commands) >= 26

    for path, opts in commands:
        cfg = load_config(path, opts)
        model = instantiate(cfg.model)
        side = cfg.dataloader.train.mapper.augmentations[0].crop_size[0]
        kept, hidden, predicted = model.masks.counts((side // cfg.model.encoder.patch_size) ** 2)
        assert min(kept, hidden, predicted) >= 1, (path.name, opts)


def test_the_four_of_mask_and_target_differ_in_these_alone(ablation_rows):
    def model_of(name):
        return load_config(*ablation_rows[name][1:]).model

    object_latent = load_config(CONFIGS / "object_jepa_vit_s_dota_pretrain.py").model
    random_latent = model_of("random_latent")
    object_pixel, random_pixel = model_of("object_pixel"), model_of("random_pixel")
    assert random_latent.masks == random_pixel.masks != object_latent.masks
    assert object_pixel.masks == object_latent.masks
    assert object_pixel.predictor == random_pixel.predictor
    assert {m.target for m in (object_latent, random_latent)} == {"latent"}
    assert {m.target for m in (object_pixel, random_pixel)} == {"pixel"}
    assert len({str(m.encoder) for m in (object_latent, object_pixel, random_pixel)}) == 1


def test_the_seed_s_variant_is_its_pseudocode():
    cfg = load_config(CONFIGS / "object_jepa_seed_vit_b_dota_pretrain.py")
    model = instantiate(cfg.model)
    assert (model.masks.mode, model.masks.ratio, model.masks.num_predicted) == ("hard", 0.75, None)
    assert (model.masked_input, model.loss, model.target) == ("fill", "l2", "latent")
    assert model.predictor.mask_token is None and not model.normalize_target
