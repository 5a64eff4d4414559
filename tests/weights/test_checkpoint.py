"""Checkpoints: never another model's weights in silence, never code, never half a file."""

import pickle
import re

import pytest
import torch
from torch import nn

from rsd2.weights.checkpoint import Checkpointer, load_checkpoint, load_weights
from rsd2.weights.errors import CheckpointError


def _model(width=2):
    return nn.Sequential(nn.Linear(width, 3), nn.BatchNorm1d(3))


def test_weights_round_trip_with_and_without_wrapper_prefix(tmp_path):
    model, other = _model(), _model()
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    load_weights(other, tmp_path / "bare.pth")
    assert torch.equal(other[0].weight, model[0].weight)
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        wrapped = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
        torch.save({"model": wrapped, "iteration": 4}, tmp_path / "wrapped.pth")
        other = _model()
        assert load_weights(other, tmp_path / "wrapped.pth")["iteration"] == 4
        assert torch.equal(other[0].weight, model[0].weight)


def test_averaged_weights_on_demand(tmp_path):
    model, average, other = _model(), _model(), _model()
    torch.save(
        {"model": model.state_dict(), "ema": {"model": average.state_dict(), "updates": 1}},
        tmp_path / "both.pth",
    )
    load_weights(other, tmp_path / "both.pth", ema=True)
    assert torch.equal(other[0].weight, average[0].weight)
    torch.save(model.state_dict(), tmp_path / "raw.pth")
    with pytest.raises(CheckpointError, match="no averaged weights"):
        load_weights(other, tmp_path / "raw.pth", ema=True)


def test_every_difference_is_listed_and_nothing_is_loaded(tmp_path, caplog):
    state = _model(width=5).state_dict()
    del state["1.bias"]
    state["head.weight"] = torch.zeros(1)
    del state["1.num_batches_tracked"]  # a counter, which files of other tools lack
    torch.save(state, tmp_path / "other.pth")
    model = _model()
    before = model[1].weight.clone()
    with pytest.raises(CheckpointError) as error:
        load_weights(model, tmp_path / "other.pth")
    for part in (
        "1 missing from the file: 1.bias",
        "1 unknown to the model: head.weight",
        "0.weight (3, 5) in the file, (3, 2) in the model",
        "train.init_strict=false",
    ):
        assert part in str(error.value)
    assert "num_batches" not in str(error.value)
    assert torch.equal(model[1].weight, before)
    load_weights(model, tmp_path / "other.pth", strict=False)
    assert torch.equal(model[0].bias, state["0.bias"])
    assert "1.bias" in caplog.text


def test_checkpoint_of_another_model_is_an_error_even_if_not_strict(tmp_path):
    torch.save({"stem.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="another model: not one key fits"):
        load_weights(_model(), tmp_path / "other.pth", strict=False)


class _Evil:
    def __reduce__(self):
        return (print, ("this code was run",))


def test_code_in_a_file_is_never_run(tmp_path, capsys):
    torch.save({"model": {"x": _Evil()}}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"more than tensors.*convert_checkpoint"):
        load_checkpoint(tmp_path / "evil.pth")
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps({"model": _Evil()}))
    with pytest.raises(CheckpointError, match=r"pickle.*tools/convert_checkpoint.py"):
        load_checkpoint(tmp_path / "weights.pkl")
    assert "this code was run" not in capsys.readouterr().out


def test_unusable_files_are_named(tmp_path):
    torch.save({"model": _model().state_dict()}, tmp_path / "model_final.pth")
    with pytest.raises(CheckpointError, match=r"no checkpoint .*there are: model_final\.pth"):
        load_checkpoint(tmp_path / "model_finl.pth")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "nowhere" / "x.pth")
    whole = (tmp_path / "model_final.pth").read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("text", b"hello")):
        (tmp_path / f"{name}.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name}.pth"):
            load_checkpoint(tmp_path / f"{name}.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_checkpoint(tmp_path / "list.pth")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": {}}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match=r"keys: meta, state_dict.*convert_checkpoint"):
        load_checkpoint(tmp_path / "foreign.pth")


def test_full_disk_keeps_the_previous_checkpoint_and_says_so(tmp_path, monkeypatch):
    model = _model()
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    before = (tmp_path / "model_0000001.pth").read_bytes()

    def full(data, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    for name in ("model_0000002", "model_0000001"):
        with pytest.raises(CheckpointError, match=r"No space left.*model_0000001.pth.*--resume"):
            checkpointer.save(name, iteration=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]
    assert (tmp_path / "model_0000001.pth").read_bytes() == before


def test_checkpointer_resumes_strictly_and_initializes_as_told(tmp_path):
    class Counter:
        value = 0

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]

    counter = Counter()
    counter.value = 7
    model = _model()
    Checkpointer(model, str(tmp_path), trainer=counter).save("model_0000003", iteration=3)
    fresh, again = Counter(), _model()
    checkpointer = Checkpointer(again, str(tmp_path), trainer=fresh, strict=False)
    path = checkpointer.get_checkpoint_file()
    assert checkpointer.load(path, checkpointables=[])["iteration"] == 3 and fresh.value == 0
    checkpointer.resume_or_load("", resume=True)
    assert fresh.value == 7 and torch.equal(again[0].weight, model[0].weight)
    wide = Checkpointer(_model(width=4), str(tmp_path), trainer=fresh, strict=False)
    wide.load(path, checkpointables=[])
    with pytest.raises(CheckpointError, match="of another shape"):
        wide.resume_or_load("", resume=True)
    (tmp_path / "model_0000003.pth").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpointer.resume_or_load("", resume=True)


class Holder(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def in_pyramid():
    return Holder(backbone=Holder(bottom_up=nn.Linear(2, 3), fpn_lateral2=nn.Linear(3, 1)))


def test_a_backbone_goes_into_a_pyramid_and_out_of_it(tmp_path):
    classifier = Holder(backbone=nn.Linear(2, 3), head=nn.Linear(3, 4))
    detector, plain = in_pyramid(), Holder(backbone=nn.Linear(2, 3), neck=nn.Linear(3, 1))
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    before = detector.backbone.fpn_lateral2.weight.clone()
    load_weights(detector, tmp_path / "classifier.pth", strict=False)
    assert torch.equal(detector.backbone.bottom_up.weight, classifier.backbone.weight)
    assert torch.equal(detector.backbone.fpn_lateral2.weight, before)
    torch.save(detector.state_dict(), tmp_path / "detector.pth")
    load_weights(plain, tmp_path / "detector.pth", strict=False)
    assert torch.equal(plain.backbone.weight, classifier.backbone.weight)
    with pytest.raises(CheckpointError, match="unknown to the model: backbone.fpn_lateral2.bias"):
        load_weights(plain, tmp_path / "detector.pth")


def test_a_pyramid_s_own_weights_stay_where_they_are(tmp_path):
    detector, other = in_pyramid(), in_pyramid()
    torch.save(detector.state_dict(), tmp_path / "detector.pth")
    load_weights(other, tmp_path / "detector.pth")
    assert all(torch.equal(a, b) for a, b in zip(detector.parameters(), other.parameters()))


def test_weights_that_are_not_finite_are_named_and_never_trained_on(tmp_path, caplog):
    state = _model().state_dict()
    state["0.weight"][0, 0] = float("nan")
    torch.save({"model": state}, tmp_path / "diverged.pth")
    load_weights(_model(), tmp_path / "diverged.pth")
    sentence = r"NaN or infinite numbers in 1 of 7 tensors \(0\.weight\): are these the right"
    assert re.search(sentence, caplog.text)
    with pytest.raises(CheckpointError, match=sentence):
        Checkpointer(_model(), str(tmp_path)).load(tmp_path / "diverged.pth", checkpointables=[])


def test_a_mask_of_minus_infinity_is_a_weight_like_others(tmp_path, caplog):
    model = _model()
    model.register_buffer("mask", torch.full((2,), float("-inf")))
    torch.save(model.state_dict(), tmp_path / "masked.pth")
    Checkpointer(model, str(tmp_path)).load(tmp_path / "masked.pth", checkpointables=[])
    assert "infinite" not in caplog.text


def test_arrays_of_numpy_are_weights_too(tmp_path):
    model, other = _model(), _model()
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    torch.save({"model": state, "best": state["0.bias"].max()}, tmp_path / "arrays.pth")
    load_weights(other, tmp_path / "arrays.pth")
    assert torch.equal(other[0].weight, model[0].weight)


def test_a_folder_instead_of_a_file_is_a_sentence(tmp_path):
    torch.save(_model().state_dict(), tmp_path / "model_final.pth")
    with pytest.raises(CheckpointError, match=r"is a folder; name the file.*model_final\.pth"):
        load_checkpoint(tmp_path)
