"""Configs: what is wrong is said before anything is built, and what is saved loads again."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.solver import LRMultiplier
from omegaconf import OmegaConf
from torch import nn

from rsd2.config import (
    ConfigError,
    apply_overrides,
    check_arguments,
    check_overrides,
    config_depth,
    find_config,
    get_config,
    load_config,
    save_config,
)

EXPERIMENT = """
from detectron2.config import LazyCall as L
from torch import nn
from rsd2.config import get_config
model = L(nn.Linear)(in_features=4, out_features="${.in_features}")
dataloader = {"train": {"total_batch_size": 2}, "names": ["a", "b"]}
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").step
train = get_config("common/train.py").train
"""


@pytest.fixture
def experiment(tmp_path) -> Path:
    path = tmp_path / "experiment.py"
    path.write_text(EXPERIMENT)
    return path


def test_override_reaches_the_schedule_by_interpolation(experiment):
    def rates(opts):
        cfg = load_config(experiment, opts)
        parameter = nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        schedule = instantiate(cfg.lr_multiplier)
        scheduler = LRMultiplier(optimizer, schedule, cfg.train.max_iter)
        found = []
        for _ in range(cfg.train.max_iter):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    found = rates(["train.max_iter=3600"])
    assert found[0] == pytest.approx(1 / 3)
    assert found[250] == pytest.approx(2 / 3)
    assert found[499] < 1.0
    assert found[500] == found[3199] == 1.0
    assert found[3200] == pytest.approx(0.1)
    assert rates(["train.max_iter=900"])[799:801] == pytest.approx([1.0, 0.1])
    shorter = rates(["train.max_iter=3600", "lr_multiplier.warmup_iters=10"])
    assert shorter[9] < 1.0 and shorter[10] == 1.0


def test_saved_config_loads_again_and_builds_the_same(experiment, tmp_path):
    cfg = load_config(experiment, ["model.in_features=7", "train.max_iter=720"])
    save_config(cfg, tmp_path / "config.yaml")
    again = load_config(tmp_path / "config.yaml")
    assert again.model.out_features == 7
    assert instantiate(again.model).weight.shape == (7, 7)
    # Interpolations survive: both files still follow an override.
    again = load_config(tmp_path / "config.yaml", ["train.max_iter=360"])
    assert again.lr_multiplier.max_iter == 360
    save_config(again, tmp_path / "twice.yaml")
    apply_overrides(again, ["train.max_iter=720"])
    save_config(again, tmp_path / "third.yaml")
    assert (tmp_path / "third.yaml").read_text() == (tmp_path / "config.yaml").read_text()
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".pkl") == []


def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path):
    cfg = OmegaConf.create({"a": {"f": lambda x: x}}, flags={"allow_objects": True})
    with pytest.raises(ConfigError, match=r"a\.f = .*named function"):
        save_config(cfg, tmp_path / "config.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_itr=9", "did you mean train.max_iter?"),
        ("trian.max_iter=9", "did you mean train.max_iter"),
        ("train.amp.enable=true", "did you mean train.amp.enabled?"),
        ("optimizer.weight_decy=0", "did you mean optimizer.weight_decay?"),
        ("optimizer.amsgard=true", "did you mean optimizer.amsgrad?"),
        ("optimizer.params.weight_decay_nrm=0", "optimizer.params.weight_decay_norm"),
        ("model.max_iter=9", "did you mean train.max_iter?"),
        ("train.max_iter.x=9", "train.max_iter is the value 90000"),
        ("train.max_iter=1.5", "expects an integer like 90000, got 1.5"),
        ("train.max_iter=many", "expects a number like 90000, got 'many'"),
        ("train.amp.enabled=1", "expects true or false, got 1"),
        ("train.amp=true", "is a group with the keys enabled, dtype"),
        ("train.output_dir=true", "expects text"),
        ("dataloader.names=3", "expects a list"),
        ("dataloader.names.2=c", "no key dataloader.names.2"),
        ("train.amp={enabld: true}", "did you mean train.amp.enabled?"),
        ("train.max_iter", "write it as key.sub=value"),
        ("~train.seed", "write it as key.sub=value"),
        ("train.seed=1,2", "give one value"),
        ("train.init_checkpoint=a=b.pth", "quote the value"),
    ],
)
def test_wrong_override_says_what_is_right(experiment, override, message):
    with pytest.raises(ConfigError) as error:
        load_config(experiment, [override])
    assert message in str(error.value)


def test_every_wrong_override_is_reported_and_none_applied_by_the_check(experiment):
    cfg = load_config(experiment)
    with pytest.raises(ConfigError) as error:
        check_overrides(cfg, ["train.max_itr=1", "train.sed=2", "train.seed=5"])
    assert len(str(error.value).splitlines()) == 2
    assert cfg.train.seed == 0


def test_values_are_read_in_the_type_of_the_config(experiment):
    cfg = load_config(
        experiment,
        [
            "train.max_iter=1e3",
            "train.clip_grad.max_norm=1",
            "train.output_dir=2024",
            "train.init_checkpoint='x=y.pth'",
            "train.seed=None",
            "train.checkpointer.max_to_keep=null",
            "optimizer.amsgrad=true",
            "optimizer.params.weight_decay_norm=0.5",
            "dataloader.names=c",
            "dataloader.train={total_batch_size: 8}",
            "+train.amp.note=mine",
            "train.eval_period=${train.max_iter}",
        ],
    )
    assert cfg.train.max_iter == 1000 and isinstance(cfg.train.max_iter, int)
    assert isinstance(cfg.train.clip_grad.max_norm, float)
    assert cfg.train.output_dir == "2024" and cfg.train.init_checkpoint == "x=y.pth"
    assert cfg.train.seed is None and cfg.train.checkpointer.max_to_keep is None
    assert cfg.optimizer.amsgrad is True
    assert cfg.optimizer.params.weight_decay_norm == 0.5
    assert cfg.dataloader.names == "c" and cfg.dataloader.train.total_batch_size == 8
    assert cfg.train.amp.note == "mine" and cfg.train.amp.enabled is False
    assert cfg.train.eval_period == 1000


def test_elements_of_a_list_and_references_can_be_told_apart():
    cfg = OmegaConf.create({"steps": [{"size": 1}, {"size": 2}], "alias": "${steps.0}"})
    apply_overrides(cfg, ["steps.1.size=5"])
    assert [step.size for step in cfg.steps] == [1, 5]
    with pytest.raises(ConfigError, match=r"alias is \$\{steps.0\}; override that instead"):
        apply_overrides(cfg, ["alias.size=3"])


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (LazyCall(nn.Linear)(in_features=1, out_feature=2), "did you mean out_features or"),
        (LazyCall(nn.Linear)(in_features=1), "model.out_features is missing"),
        (LazyCall(nn.Linear)(in_features="???", out_features=1), "in_features is ???"),
        (LazyCall(nn.Linear)(in_features="${nowhere}", out_features=1), "cannot be resolved"),
        (LazyCall("torch.nn.Linaer")(in_features=1), "torch.nn.Linaer"),
        ([LazyCall(nn.ReLU)(inplac=True)], "model.0.inplac: ReLU has no such argument"),
    ],
)
def test_wrong_arguments_are_found_without_building(node, message):
    cfg = OmegaConf.create({}, flags={"allow_objects": True})
    cfg.model = node
    with pytest.raises(ConfigError) as error:
        check_arguments(cfg)
    assert message in str(error.value)


def test_broken_or_missing_files_are_named(tmp_path, experiment):
    with pytest.raises(ConfigError, match=r"no config file .*experimnt.py; .*experiment.py"):
        load_config(tmp_path / "experimnt.py")
    broken = tmp_path / "broken.py"
    broken.write_text("model = 1\ntrain = (\n")
    with pytest.raises(ConfigError, match=r"syntax error in .*broken.py, line 2"):
        load_config(broken)
    (tmp_path / "some.py").write_text("model = {}\ntrain = {}\n")
    with pytest.raises(ConfigError, match="does not export dataloader, optimizer, lr_multiplier"):
        load_config(tmp_path / "some.py")
    (tmp_path / "broken.yaml").write_text("model: [1\n")
    with pytest.raises(ConfigError, match="not readable YAML"):
        load_config(tmp_path / "broken.yaml")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"has to end in \.py"):
        load_config(tmp_path / "config.json")


def test_get_config_finds_commons_and_lists_the_nearest_names():
    train, again = get_config("common/train.py", "train"), get_config("common/train.py").train
    train.max_iter = 1
    assert again.max_iter == 90_000  # loads share nothing
    with pytest.raises(ConfigError, match=r"common/train\.py"):
        get_config("common/trian.py")


def test_depth_counts_the_longest_chain(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.py").write_text("model = {}\n")
    (tmp_path / "b.py").write_text(
        "from rsd2.config import get_config\nfrom .models.a import model\n"
        "train = get_config('common/train.py').train\n"
    )
    (tmp_path / "c.py").write_text("from .b import model, train\n")
    (tmp_path / "d.py").write_text(
        "from detectron2.config import LazyConfig\n"
        f"cfg = LazyConfig.load({str(tmp_path / 'c.py')!r})\n"
    )
    names = ("models/a", "b", "c", "d")
    assert [config_depth(tmp_path / f"{n}.py") for n in names] == [1, 2, 3, 4]
    assert LazyConfig.load(str(tmp_path / "c.py")).train.max_iter == 90_000
    (tmp_path / "e.py").write_text("from .e import model\n")
    with pytest.raises(ConfigError, match="loop"):
        config_depth(tmp_path / "e.py")
    (tmp_path / "f.py").write_text("from .gone import model\n")
    with pytest.raises(ConfigError, match=r"gone\.py, which is missing"):
        config_depth(tmp_path / "f.py")


@pytest.mark.parametrize(
    "name",
    [
        "rotated_faster_rcnn_r50_dota.py",
        "configs/rotated_faster_rcnn_r50_dota.py",
        "MutDet/configs/mutdet_small_synthetic_finetune.py",
        "projects/MutDet/configs/mutdet_small_synthetic_finetune.py",
    ],
)
def test_configs_are_found_by_name_in_any_folder(
    name: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_config(name)
    folder = "projects" if "MutDet" in name else "configs"
    assert found == next((repository / folder).rglob(Path(name).name))
    # A file at hand wins over a name.
    own = tmp_path / name
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("model = 1\n")
    assert find_config(name) == Path(name)


def test_unknown_name_of_a_config_names_those_like_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("rotated_faster_rcnn_r50.py") is None
    with pytest.raises(ConfigError, match=r"no config file .*: rotated_faster_rcnn_r50_dota.py"):
        load_config("rotated_faster_rcnn_r50_doto.py")
