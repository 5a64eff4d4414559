"""What is special about the study of pre-training: its arms, and its settings."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch

from rsd2.commands.make_synthetic import main as draw
from rsd2.config import load_config
from rsd2.projects.mutdet.study import PRESETS, main, study_jobs
from rsd2.projects.mutdet.study_arms import ARMS, SWEEP
from rsd2.study import change_settings


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "sweep"])
def test_arms_differ_in_their_start_alone(preset):
    settings = PRESETS[preset]
    jobs = study_jobs(settings, Path("OUT"))
    # Arms with several pre-trainings are fine-tuned from each.
    starts = 1 + (len(settings.arms) - 1) * len(settings.pretrain_seeds)
    for fraction, seed in product(settings.fractions, settings.seeds):
        share = (f"dataloader.train.dataset.fraction={fraction:g}", f"train.seed={seed}")
        commands = [job.command for job in jobs if set(share) <= set(job.command)]
        assert len(commands) == starts
        differing = ("train.init_checkpoint=", "train.init_inherit", "train.output_dir=")
        rest = {tuple(w for w in words if not w.startswith(differing)) for words in commands}
        assert len(rest) == 1


def test_the_sweep_measures_pre_trainings_that_the_study_takes_over():
    sweep = {job.name: job for job in study_jobs(PRESETS["sweep"], Path("OUT"))}
    assert {name for name in sweep if name.startswith("measure_")} == {
        f"measure_{arm}" for arm in SWEEP
    }
    study = [job for job in study_jobs(PRESETS["study"], Path("OUT")) if job.name in sweep]
    assert {"pretrain_mutdet", "measure_mutdet"} < {job.name for job in study}
    assert all(job == sweep[job.name] for job in study)


def test_arms_of_the_sweep_change_the_published_method_in_what_they_are_named_for():
    jobs = {job.name: job.command for job in study_jobs(PRESETS["sweep"], Path("OUT"))}
    published = set(jobs["pretrain_mutdet"])
    for arm in SWEEP:
        added = set(jobs[f"pretrain_{arm}"]) - published
        assert {one for one in added if "output_dir" not in one} == set(ARMS[arm].overrides)


def test_one_arm_differs_from_the_mended_method_in_its_embeddings_alone():
    settings = change_settings(PRESETS["study"], ["arms=both,no_whiten"])
    jobs = {job.name: job for job in study_jobs(settings, Path("OUT"))}
    added = set(jobs["pretrain_no_whiten"].command) - set(jobs["pretrain_both"].command)
    assert {one for one in added if "output_dir" not in one} == {
        'dataloader.train.dataset.folder="OUT/data/pseudo/synthetic_train_no_whiten"'
    }
    options = [set(map(str, jobs[f"embeddings{kind}"].command)) for kind in ("_no_whiten", "")]
    target = {f"OUT/data/pseudo/synthetic_train{kind}" for kind in ("_no_whiten", "")}
    assert options[0] ^ options[1] == {"--no-whiten", *target}
    assert "OUT/data/pseudo/synthetic_heldout_no_whiten" in jobs["measure_no_whiten"].command


def test_settings_are_checked():
    changed = change_settings(PRESETS["study"], ["fractions=0.5", "decay_at=0.5"])
    assert (changed.fractions, changed.decay_at) == ((0.5,), 0.5)
    for opt, message in {
        "finetune_step=7": "name=value with a name of arms",
        "fractions=2": r"must lie in \(0, 1\]",
        "arms=sam": "arms are some of none, detreg, detreg_sum",
        "pretrain_seeds=1,1": "pretrain_seeds must be different numbers",
        "compute_ratio=0": "compute_ratio must be positive",
        "decay_at=1": "between 0 and 1",
        "images=0": "images must be at least 1, got 0",
    }.items():
        with pytest.raises(ValueError, match=message):
            change_settings(PRESETS["study"], [opt])


def test_with_weights_no_backbone_is_trained_and_every_model_starts_from_the_file():
    settings = change_settings(PRESETS["demo"], ["weights=OUT/lite0.pth"])
    without, jobs = (
        {job.name: job for job in study_jobs(one, Path("OUT"))}
        for one in (PRESETS["demo"], settings)
    )
    assert set(without) - set(jobs) == {"embedder"}
    assert "embedder" not in {need for job in jobs.values() for need in job.needs}
    for name, job in jobs.items():
        if name.startswith("embeddings"):
            assert {"efficientnet_lite0", "OUT/lite0.pth"} <= set(job.command)
        if "--config-file" in job.command and "train" in job.command:
            words = [word for word in job.command if "=" in word]
            cfg = load_config(job.command[job.command.index("--config-file") + 1], words)
            detector = cfg.model.get("detector", cfg.model)
            assert detector.backbone.weights == "OUT/lite0.pth"
            assert bool(cfg.train.init_checkpoint) == name.startswith("finetune_both")


def test_the_harbour_is_mapped_by_the_first_arm_with_the_most_labels():
    jobs = {job.name: job for job in study_jobs(PRESETS["demo"], Path("OUT"))}
    job = jobs["map_harbour_768"]
    assert set(job.needs) == {"harbour_768", "finetune_none_100"}
    assert "OUT/finetune/none_100/model_final.pth" in job.command
    assert set(jobs["finetune_none_100"].makes) >= {"finetune/none_100/model_final.pth"}


def test_on_real_images_every_arm_starts_from_the_same_weights_and_nothing_is_drawn():
    jobs = study_jobs(PRESETS["hrsc"], Path("OUT"))
    names = [job.name for job in jobs]
    assert names[:3] == ["images", "pseudo_boxes", "embeddings"]
    assert not any(name.startswith(("scenes", "embedder", "measure")) for name in names)
    weights = PRESETS["hrsc"].weights
    for job in jobs[3:]:
        words = [word for word in job.command if "=" in word]
        cfg = load_config(job.command[job.command.index("--config-file") + 1], words)
        pre_trains = job.name.startswith("pretrain")
        detector = cfg.model.detector if pre_trains else cfg.model
        assert detector.backbone.weights == weights
        assert bool(cfg.train.init_checkpoint) == (not pre_trains and "none" not in job.name)
        if pre_trains:
            assert cfg.dataloader.train.dataset.folder == "OUT/data/pseudo/unlabelled"
            assert job.needs == ("embeddings",)


def test_real_images_without_shares_of_labels_are_refused():
    with pytest.raises(ValueError, match="give fractions"):
        change_settings(PRESETS["hrsc"], ["fractions="])


@pytest.mark.slow
def test_whole_story_on_images_laid_out_as_the_real_ones(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    root = tmp_path / "datasets"
    for split, count, seed in (("train", "8", "1"), ("test", "3", "2")):
        folder = root / "hrsc" / split
        words = ["--num-images", count, "--seed", seed, "--size", "96", "--num-workers", "0"]
        assert draw(["--output", str(folder), *words]) == 0
        # Every object is a ship here, or three images might show none.
        for path in (folder / "labelTxt").iterdir():
            lines = [line.split() for line in path.read_text().splitlines()]
            shown = [" ".join([*words[:8], "ship", *words[9:]]) for words in lines if words[8:]]
            path.write_text("\n".join(shown) + "\n")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    weights = tmp_path / "lite0.pth"
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), weights)

    output = tmp_path / "study"
    sizes = "arms=none,detreg fractions=0.5 pretrain_steps=2 finetune_steps=5 batch_size=2"
    sizes += f" num_clusters=3 embedding_dim=4 real_sets=hrsc_train weights={weights}"
    sizes += " detector=embed_dim=32,num_queries=10,max_detections=20"
    assert main(["--output", str(output), "--preset", "hrsc", *sizes.split()]) == 0
    rows = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert [row["arm"] for row in rows] == ["none", "DETReg"]
    assert rows[1]["stages_cpu_minutes"].keys() == {"pretrain_detreg"}
    text = (output / "results.md").read_text()
    assert text.count("| DETReg - none |") == 2, "a difference by each rule of the precision"
    assert "images" in text and "held-out" not in text
