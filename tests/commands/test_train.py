"""tools/lazyconfig_train_net.py: train, evaluate, resume, in one process and in two."""

import json
import logging
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from torch.multiprocessing import ProcessExitedException

from rsd2.commands import train
from rsd2.config import load_config, save_config
from rsd2.data.datasets import register_dota_instances
from rsd2.engine import RunError
from rsd2.io.program import program_name
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


def test_a_page_of_errors_that_cannot_be_written_is_one_sentence():
    _run("train.output_dir=trained")
    options = ("--eval-only", "train.init_checkpoint=trained/model_final.pth")
    _run(*options, "train.output_dir=plain")
    wanted = (*options, "train.error_report=true", "train.output_dir=seen")
    with pytest.raises(RunError, match="train.error_report: .* holds neither Task1.zip"):
        _run(*wanted)
    assert Path("seen/results.json").is_file(), "the scores were written before"
    with pytest.raises(RunError, match="train.error_report=true needs the predictions"):
        _run(*wanted, "dataloader.evaluator.output_dir=null")


def test_wrong_weights_stop_the_run():
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

    # 7 samples in batches of 2, two batches a step: 1.5 epochs are 2.625 steps
    _run("train.epochs=1.5", "train.max_iter=null", "train.accumulate=2", "train.output_dir=out")
    assert json.loads(Path("out/results.json").read_text())["iteration"] == 3
    saved = load_config("out/config.yaml")
    assert saved.train.max_iter == saved.lr_multiplier.max_iter == 3 and saved.train.epochs is None
    with pytest.raises(RunError, match=r"train\.epochs=2 and train\.max_iter=4 are two lengths"):
        _run("train.epochs=2")
    with pytest.raises(RunError, match=r"give train\.epochs or train\.max_iter"):
        _run("train.max_iter=null")


def test_detector_inherits_from_a_pretraining_and_resumes_what_it_became(caplog, monkeypatch):
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
    # the logger of a run hands nothing on to the root logger, where caplog listens
    monkeypatch.setattr(logging.getLogger("rsd2.weights.inheritance"), "handlers", [caplog.handler])
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


@pytest.mark.parametrize(("code", "name"), [(3, None), (-9, "SIGKILL"), (-6, "SIGABRT")])
def test_a_process_that_a_signal_ends_fails_the_run(monkeypatch, capsys, code, name):
    """Of a signal the exit code is negative, which a shell would show as another number."""

    def launch(*_, **__):
        raise ProcessExitedException("gone", 1, 7, code, name)

    monkeypatch.setattr(train, "launch", launch)
    assert train.main(["--config-file", "config.py", "--num-gpus", "2"]) == (
        code if code > 0 else 1
    )
    said = capsys.readouterr().err
    assert (f"process 1 of the run was ended by {name}" in said) == (code < 0)


def test_processes_of_the_tool_explain_themselves_too():
    options = ("--config-file", "config.py", "--num-gpus", "2", "train.max_iter=null")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "engine")])
    done = subprocess.run(
        [sys.executable, str(TOOL), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 1
    assert "error: how long to train? give train.epochs or train.max_iter" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("optimizer.lr=-1.0", "optimizer: Invalid learning rate"),
        ("lr_multiplier.warmup_iters=-1", "with_warmup needs"),
        ("train.amp={enabled: true, dtype: float8}", "must be float16 or bfloat16"),
        ("train.device=abacus", "is no device; use auto, cpu or cuda"),
        ("dataloader.train.total_batch_size=0", "dataloader.train: dataloader.train.total_batch"),
    ],
)
def test_values_that_cannot_be_meant_are_one_sentence(option, message, capsys):
    assert train.main(["--config-file", "config.py", option]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"{program_name()}: error: ") and message in last


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
    assert line.startswith(f"{program_name()}: error: dataloader.{split}: ")
    assert ("no image folder" if is_registered else f"{name}' is not registered") in line


def _resume(*opts):
    """Resume the run of 4 iterations in ``run`` for 2 more."""
    _run("--resume", "train.max_iter=6", "train.output_dir=run", *opts)


@pytest.fixture
def begun():
    """A run of 4 iterations."""
    _run("train.output_dir=run")
    return _weights("run/model_final.pth")


OTHER_GROUPS = "+optimizer.params.lr_multipliers.head=0.1"


def _rates(path):
    groups = _weights(path)["trainer"]["optimizer"]["param_groups"]
    return [group["initial_lr"] for group in groups]


def test_a_resumed_run_obeys_rates_decay_and_schedule(begun, caplog):
    new = ("optimizer.lr=1e-5", "optimizer.weight_decay=0.3", "optimizer.betas=[0.8,0.9]")
    new = (*new, "lr_multiplier.warmup_iters=0", "dataloader.train.total_batch_size=1")
    _resume(*new)
    final = _weights("run/model_final.pth")
    groups = final["trainer"]["optimizer"]["param_groups"]
    assert _rates("run/model_final.pth") == pytest.approx([1e-6, 1e-5])
    assert {group["weight_decay"] for group in groups} == {0.3}
    assert {tuple(group["betas"]) for group in groups} == {(0.8, 0.9)}
    rows = [json.loads(line) for line in Path("run/metrics.json").read_text().splitlines()]
    rates = [row["lr"] for row in rows if "lr" in row]
    assert rates[-1] == pytest.approx(1e-5) and rates[0] != rates[-1]
    assert "optimizer.lr=1e-05 (was 0.01)" in caplog.text
    assert "dataloader.train.total_batch_size=1 (was 2)" in caplog.text
    # the moments were continued: their steps are those of the whole training
    steps = {float(x["step"]) for x in final["trainer"]["optimizer"]["state"].values()}
    assert steps == {6.0}
    assert load_config("run/config.yaml").optimizer.lr == 1e-5


def test_moments_follow_their_parameters_into_other_groups(begun):
    def by_name(checkpoint):
        names, state = checkpoint["trainer"]["parameter_names"], checkpoint["trainer"]["optimizer"]
        places = [place for group in state["param_groups"] for place in group["params"]]
        return {name: state["state"][place] for name, place in zip(names, places)}

    before = by_name(begun)
    # the head goes to the group of the backbone: torch would mix up the moments of head and norm
    _resume(OTHER_GROUPS)
    checkpoint = _weights("run/model_final.pth")
    assert checkpoint["trainer"]["parameter_names"] != begun["trainer"]["parameter_names"]
    after = by_name(checkpoint)
    assert after.keys() == before.keys()
    shapes = {key: value.shape for key, value in checkpoint["model"].items()}
    assert all(values["exp_avg"].shape == shapes[name] for name, values in after.items())


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("optimizer.amsgrad=true", r"optimizer\.amsgrad=true \(was null\): the optimizer would"),
        ("train.seed=5", r"train\.seed=5 \(was 0\): .* give train\.seed=0"),
        ("dataloader.train.seed=5", r"dataloader\.train\.seed=5 \(was null\): the order"),
        ("train.init_checkpoint=run/model_final.pth", "the last checkpoint is continued, not this"),
        ("model.channels=8", r"of another shape: .* --resume continues the same model"),
        ("dataloader.train.dataset.size=9", r"data are others: .*size=9 \(was 7\).*allow_new_data"),
    ],
)
def test_what_a_resumed_run_cannot_change_is_refused(begun, option, reason, capsys):
    config = Path("run/config.yaml").read_text()
    arguments = ("--config-file", "config.py", "--resume", "train.max_iter=6")
    assert train.main([*arguments, "train.output_dir=run", option]) == 1
    error = capsys.readouterr().err
    assert re.search(reason, error), error
    # nothing was trained, and the file still says what was
    assert Path("run/config.yaml").read_text() == config
    assert _same(_weights("run/model_final.pth"), begun)


def test_another_class_of_optimizer_is_refused(begun, capsys):
    text = Path("config.py").read_text()
    Path("config.py").write_text(text.replace('optim.py").AdamW', 'optim.py").SGD'))
    arguments = ("--config-file", "config.py", "--resume", "train.max_iter=6")
    assert train.main([*arguments, "train.output_dir=run"]) == 1
    error = capsys.readouterr().err
    assert "optimizer._target_=SGD (was AdamW): the moments that one optimizer gathered" in error


def test_other_data_are_trained_on_if_that_is_meant(begun, caplog):
    _resume("dataloader.train.dataset.size=9", "train.allow_new_data=true")
    assert "other images, data.num_images=9 (was 7)" in caplog.text
    assert _weights("run/model_final.pth")["iteration"] == 5


def test_a_drawn_seed_is_the_checkpoint_s_in_every_file():
    _run("train.output_dir=run", "train.seed=-1")
    seed = json.loads(Path("run/results.json").read_text())["seed"]
    _resume("train.seed=-1")
    assert json.loads(Path("run/results.json").read_text())["seed"] == seed
    assert load_config("run/config.yaml").train.seed == seed


def test_the_weights_that_a_run_began_with_may_be_named_again():
    _run("train.output_dir=first")
    start = "train.init_checkpoint={}first/model_final.pth"
    _run("train.output_dir=run", start.format(""))
    _resume(start.format(f"{Path.cwd()}/"))
    assert _weights("run/model_final.pth")["iteration"] == 5


def test_epochs_are_not_counted_on_with_another_batch_size(begun, capsys):
    arguments = ("--config-file", "config.py", "--resume", "train.output_dir=run")
    new = ("train.epochs=9", "train.max_iter=null", "dataloader.train.total_batch_size=1")
    assert train.main([*arguments, *new]) == 1
    assert "give train.epochs=null train.max_iter=..." in capsys.readouterr().err


@pytest.mark.parametrize("change", ["same", "rate", "groups", "class"])
def test_a_checkpoint_of_an_earlier_version_is_resumed_by_the_same_rules(begun, change, caplog):
    for key in ("settings", "parameter_names"):
        del begun["trainer"][key]
    torch.save(begun, "run/model_final.pth")
    if change == "class":
        text = Path("config.py").read_text()
        Path("config.py").write_text(text.replace('optim.py").AdamW', 'optim.py").SGD'))
        with pytest.raises(RunError, match="of the checkpoint has betas, that of the config"):
            _resume()
    elif change == "groups":
        with pytest.raises(RunError, match="which is which cannot be told"):
            _resume(OTHER_GROUPS)
    else:
        _resume(*(["optimizer.lr=1e-5"] * (change == "rate")))
        expected = [1e-6, 1e-5] if change == "rate" else [1e-3, 1e-2]
        assert _rates("run/model_final.pth") == pytest.approx(expected)
        assert ("resumed with other values: lr" in caplog.text) == (change == "rate")
