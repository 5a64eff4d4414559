"""tools/lazyconfig_train_net.py: train, evaluate, resume, in one process and in two."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from rsd2.commands import train
from rsd2.config import load_config, save_config
from rsd2.data.datasets import register_dota_instances
from rsd2.testing import shrink

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "lazyconfig_train_net.py"


@pytest.fixture(autouse=True)
def config(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "engine"))
    monkeypatch.chdir(tmp_path)
    import toy

    (tmp_path / "config.py").write_text(toy.CONFIG)


def _run(*opts):
    """Run the tool in this process."""
    train.run_process(train.parse_arguments(["--config-file", "config.py", *opts]))


def _weights(path):
    return torch.load(path, weights_only=True)


def _same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def _losses_of(*opts):
    """Run the tool in this process and return the loss of each training batch."""
    import toy

    toy.LOSSES.clear()
    _run(*opts)
    return list(toy.LOSSES)


COMMON = ("train.max_iter=6", "train.eval_period=3", "train.checkpointer.period=3")


@pytest.mark.parametrize("options", [(), ("dataloader.train.num_workers=2", "train.accumulate=2")])
def test_resumed_training_equals_an_uninterrupted_one_to_the_last_bit(options):
    options = (*COMMON, *options, "train.ema.enabled=true", "train.amp.enabled=true")
    options = (*options, "train.amp.dtype=bfloat16", "train.clip_grad.enabled=true")
    whole = _losses_of(*options, "train.output_dir=whole")
    # As a run looks that was killed after its first checkpoint.
    Path("killed").mkdir()
    shutil.copy("whole/model_0000002.pth", "killed")
    Path("killed/last_checkpoint").write_text("model_0000002.pth")
    Path("killed/.model_0000005.pth.0.partial").write_text("half written")
    torch.rand(5)
    resumed = _losses_of("--resume", *options, "train.output_dir=killed")
    assert len(set(whole)) == len(whole) and resumed == whole[len(whole) // 2 :]
    assert _same(_weights("whole/model_final.pth"), _weights("killed/model_final.pth"))
    assert set(_weights("whole/model_final.pth")) == {"model", "trainer", "ema", "iteration"}
    assert not list(Path("killed").glob(".*")), "the debris of the killed run is gone"


def test_drawn_seed_is_resumed_too():
    options = (*COMMON, "train.seed=-1")
    whole = _losses_of(*options, "train.output_dir=whole")
    Path("killed").mkdir()
    shutil.copy("whole/model_0000002.pth", "killed")
    Path("killed/last_checkpoint").write_text("model_0000002.pth")
    assert _losses_of("--resume", *options, "train.output_dir=killed") == whole[3:]
    results = [json.loads(Path(x, "results.json").read_text()) for x in ("whole", "killed")]
    assert results[0]["results"] == results[1]["results"]
    assert results[0]["seed"] >= 0


def test_signal_saves_and_resuming_continues_exactly(monkeypatch):
    import toy

    _run(*COMMON, "train.output_dir=whole")
    original = toy.ToyMapper.__call__

    def interrupted(self, sample):
        self.calls = getattr(self, "calls", 0) + 1
        if self.augment and self.calls == 4:  # in the second iteration
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, sample)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(toy.ToyMapper, "__call__", interrupted)
        _run(*COMMON, "train.output_dir=killed")
    assert stop.value.code == 128 + signal.SIGTERM
    assert Path("killed/last_checkpoint").read_text() == "model_0000001.pth"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    _run("--resume", *COMMON, "train.output_dir=killed")
    assert _same(_weights("whole/model_final.pth"), _weights("killed/model_final.pth"))


def test_evaluation_only_repeats_the_training_s_results_from_its_saved_config():
    _run("train.ema.enabled=true", "train.ema.warmup=1", "train.output_dir=trained")
    trained = json.loads(Path("trained/results.json").read_text())
    assert trained["results"]["bbox"] != trained["results"]["ema/bbox"]
    assert trained["iteration"] == trained["max_iter"] == 4
    _run(
        "--eval-only", "train.init_checkpoint=trained/model_final.pth", "train.output_dir=evaluated"
    )
    evaluated = json.loads(Path("evaluated/results.json").read_text())
    assert evaluated["results"] == trained["results"]
    assert evaluated["iteration"] == 4 and "model_final" in evaluated["checkpoint"]
    shutil.copy("trained/config.yaml", "config.yaml")
    _run("--eval-only", "--resume", "--config-file", "config.yaml")
    again = json.loads(Path("trained/results.json").read_text())
    assert again["results"] == trained["results"]
    # Training that is complete is only evaluated again.
    _run("--resume", "train.ema.enabled=true", "train.output_dir=trained")
    assert json.loads(Path("trained/results.json").read_text())["results"] == trained["results"]


def test_wrong_weights_stop_the_run():
    from rsd2.engine import RunError
    from rsd2.weights.errors import CheckpointError

    with pytest.raises(RunError, match=r"train\.init_checkpoint=FILE"):
        _run("--eval-only")
    with pytest.raises(CheckpointError, match=r"no checkpoint missing\.pth"):
        _run("train.init_checkpoint=missing.pth")
    _run("model.channels=8", "train.max_iter=1", "train.output_dir=wide")
    with pytest.raises(CheckpointError, match=r"head\.weight \(1, 8\) in the file, \(1, 4\)"):
        _run("train.init_checkpoint=wide/model_final.pth")
    _run(
        "train.init_checkpoint=wide/model_final.pth", "train.init_strict=false", "train.max_iter=1"
    )


def test_epochs_give_the_length_and_the_saved_config_says_it():
    from rsd2.config import load_config
    from rsd2.engine import RunError

    # 7 samples in batches of 2, two batches a step: 1.5 epochs are 2.625 steps
    _run("train.epochs=1.5", "train.max_iter=null", "train.accumulate=2", "train.output_dir=out")
    assert json.loads(Path("out/results.json").read_text())["iteration"] == 3
    saved = load_config("out/config.yaml")
    assert saved.train.max_iter == saved.lr_multiplier.max_iter == 3 and saved.train.epochs is None
    with pytest.raises(RunError, match=r"train\.epochs=2 and train\.max_iter=4 are two lengths"):
        _run("train.epochs=2")
    with pytest.raises(RunError, match=r"give train\.epochs or train\.max_iter"):
        _run("train.max_iter=null")


def test_detector_inherits_from_a_pretraining_and_resumes_what_it_became(caplog):
    from rsd2.weights.errors import CheckpointError

    _run("train.max_iter=1", "train.ema.enabled=true", "train.output_dir=first")
    content = _weights("first/model_final.pth")
    content["model"] |= {"teacher.weight": torch.zeros(2, 2)}
    content["model"] |= {"head.weight": torch.zeros(9, 4), "head.bias": torch.zeros(9)}
    torch.save(content, "pretrained.pth")
    inherit = (
        "train.init_inherit={_target_: rsd2.weights.inheritance.Inheritance, starts_anew: [head]"
    )
    options = ("train.init_checkpoint=pretrained.pth", "train.max_iter=1")
    with pytest.raises(CheckpointError, match=r"unknown to the model: teacher\.weight"):
        _run(*options, inherit + "}", "train.output_dir=fine")
    options = (*options, inherit + ", pretraining_only: [teacher]}", "train.output_dir=fine")
    with caplog.at_level("INFO"):
        _run(*options)
    assert "dropped 1 (of the pre-training only): teacher 1" in caplog.text
    assert "dropped 2 (of 9 classes, the model has 1): head 2" in caplog.text
    assert "starts anew 2 (the classes are others): head 2" in caplog.text
    # the detector's own checkpoint has no teacher, and a resumed run does not inherit again
    _run("--resume", *options[:1], "train.max_iter=2", *options[2:])
    assert _weights("fine/model_final.pth")["iteration"] == 1


def test_misspelt_override_is_one_line_and_nothing_is_started(monkeypatch, capsys):
    command = [str(TOOL), "--config-file", "config.py", "train.max_itr=3"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOL), run_name="__main__")
    assert stop.value.code == 1
    assert capsys.readouterr().err == (
        "lazyconfig_train_net.py: error: override 'train.max_itr=3': no key train.max_itr; "
        "did you mean train.max_iter?\n"
    )
    assert not Path("output").exists()
    monkeypatch.setattr(sys, "argv", command[:1])
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOL), run_name="__main__")


def test_two_processes_compute_what_one_does_with_the_whole_batch():
    options = (
        "--config-file",
        "config.py",
        "model.dropout=0.0",
        "model.norm=false",
        "dataloader.train.total_batch_size=4",
        "train.max_iter=2",
        "train.clip_grad.enabled=true",
        "train.accumulate=2",
    )
    _run(*options[2:], "train.output_dir=one")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "engine")])
    done = subprocess.run(
        [sys.executable, *launcher, str(TOOL), *options, "train.output_dir=two"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, two = _weights("one/model_final.pth"), _weights("two/model_final.pth")
    assert one["model"].keys() == two["model"].keys()
    for key, value in one["model"].items():
        torch.testing.assert_close(value, two["model"][key])
    assert len(two["trainer"]["random_state"]) == 2
    results = json.loads(Path("two/results.json").read_text())
    assert results["processes"] == 2
    assert Path("two/log.txt.rank1").is_file()


@pytest.mark.parametrize("flags", [[], ["--eval-only", "train.init_checkpoint=weights.pth"]])
@pytest.mark.parametrize("is_registered", [True, False])
def test_missing_data_are_one_sentence(flags, is_registered, tmp_path, capsys):
    config = ROOT / "configs" / "rotated_deformable_detr_small_synthetic.py"
    cfg = shrink(load_config(config))
    torch.save({"model": instantiate(cfg.model).state_dict()}, tmp_path / "weights.pth")
    save_config(cfg, tmp_path / "small.yaml")
    name = f"data_that_are_not_there_{len(flags)}" if is_registered else "registered_by_nobody"
    if is_registered:
        register_dota_instances(name, {"thing_classes": ["ship"]}, "labels", "images")
    split = "test" if flags else "train"
    names = f"dataloader.{split}.dataset.names={name}"
    assert train.main(["--config-file", str(tmp_path / "small.yaml"), *flags, names]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith(f"lazyconfig_train_net.py: error: dataloader.{split}: ")
    assert ("no image folder" if is_registered else f"{name}' is not registered") in line
