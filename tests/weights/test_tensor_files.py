"""Other people's files are read as data: none of their code runs, damage is a clear error."""

from __future__ import annotations

import argparse
import gzip
import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from rsd2.weights.checkpoint import load_checkpoint
from rsd2.weights.errors import CheckpointError
from rsd2.weights.tensor_files import (
    read_tensors,
    read_weight_file,
    tensors_digest,
    without_wrappers,
)


class Evil:
    """A pickle of it creates a file when it is loaded by a free unpickler."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return (Path.touch, (self.witness,))


class EvilCommand(Evil):
    def __reduce__(self):
        return (os.system, (f"touch {self.witness}",))


@pytest.mark.parametrize("kind", [Evil, EvilCommand])
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, kind, suffix, writer):
    path, witness = tmp_path / f"weights{suffix}", tmp_path / "witness"
    content = {"model": {"w": torch.zeros(2)}, "extra": kind(witness)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"model": {"w": np.zeros(2)}, "extra": kind(witness)}))
    with pytest.raises(ValueError, match="cannot be read as plain tensors"):
        read_tensors(path)
    assert not witness.exists()
    # the same file does run in a free unpickler, so that the test can fail
    if writer == "pickle":
        pickle.loads(path.read_bytes())
        assert witness.exists()


@pytest.fixture
def history_buffer():
    """A class of a logger that the reader of its checkpoint cannot import."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self) -> None:
            self.log = np.arange(3.0)
            self.methods = {"mean": self.mean}

        def mean(self) -> float:
            return float(self.log.mean())

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer
    names = ["mmengine", "mmengine.logging", module.__name__]
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    sys.modules[module.__name__] = module
    yield HistoryBuffer
    for name in names:
        sys.modules.pop(name, None)


def test_openmmlab_checkpoint_with_its_bookkeeping(tmp_path, history_buffer):
    path = tmp_path / "epoch_36.pth"
    weight = torch.randn(2, 3)
    numbers = [np.float64(0.5), np.float32(1), np.int64(7), np.bool_(True)]
    torch.save(
        {
            "meta": {"epoch": 36, "CLASSES": ("a", "b"), "scores": numbers, "seed": np.arange(2)},
            "message_hub": {"log_scalars": OrderedDict(loss=history_buffer())},
            "state_dict": OrderedDict({"module.neck.weight": weight, "count": torch.tensor(3)}),
            "optimizer": {"state": {0: {"exp_avg": weight}}, "param_groups": [{"lr": 1e-4}]},
        },
        path,
    )
    for name in [name for name in sys.modules if name.startswith("mmengine")]:
        del sys.modules[name]
    with pytest.raises(ModuleNotFoundError):
        torch.load(path, weights_only=False)
    tensors = read_tensors(path)
    assert list(tensors) == ["neck.weight", "count"]
    assert torch.equal(tensors["neck.weight"], weight)


@pytest.mark.parametrize("protocol", [2, 4])
def test_detectron2_pickle_of_numpy_arrays(tmp_path, protocol):
    path = tmp_path / "R-50.pkl"
    weight = np.random.randn(4, 3).astype(np.float32)
    content = {"model": {"stem.conv1.weight": weight}, "__author__": "x", "matching": True}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    tensors = read_tensors(path)
    assert torch.equal(tensors["stem.conv1.weight"], torch.from_numpy(weight))


def test_bare_state_dict_and_values_that_are_no_tensors(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.ones(2), "epoch": 3, "name": "x", "n": np.float32(2)}, path)
    assert {k: v.tolist() for k, v in read_tensors(path).items()} == {"w": [1.0, 1.0], "n": 2.0}


def test_objects_arrays_are_ignored(tmp_path):
    path = tmp_path / "weights.pkl"
    values = {"w": np.ones(2), "names": np.array(["a", "b"]), "o": np.array([None, 1])}
    path.write_bytes(pickle.dumps(values))
    assert list(read_tensors(path)) == ["w"]


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        read_tensors(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "holds no tensors.*epoch"),
        ([torch.zeros(1)], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
    ],
)
def test_files_without_a_state_dict(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        read_tensors(path)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_damaged_files_are_one_kind_of_error(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"w": torch.randn(40)}, path)
    else:
        path.write_bytes(pickle.dumps({"w": np.random.randn(40)}))
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    broken = [b"", b"\x00", b"<html>not found</html>", good[: len(good) // 2], good[:-9], good[5:]]
    for _ in range(60):
        noisy = bytearray(good)
        for position in rng.integers(0, min(len(good), 200), size=4):
            noisy[position] = rng.integers(256)
        broken.append(bytes(noisy))
    refused = 0
    for content in broken:
        path.write_bytes(content)
        try:
            read_tensors(path)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused >= 6


def test_several_state_dicts_in_one_file_keep_their_names(tmp_path):
    path = tmp_path / "jepa.pth.tar"
    parts = {
        "encoder": {"module.a": torch.ones(2)},
        "target_encoder": {"module.a": torch.zeros(2)},
        "opt": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
    }
    torch.save(parts, path)
    tensors = read_tensors(path)
    assert set(tensors) == {"encoder.a", "target_encoder.a"}
    assert torch.equal(tensors["encoder.a"], torch.ones(2))


def test_numbers_of_numpy_are_read_and_objects_of_numpy_are_not(tmp_path):
    path = tmp_path / "weights.pth"
    numbers = {"best": np.float64(0.5), "epoch": np.int64(3), "scores": np.arange(3.0)}
    torch.save({"model": {"w": torch.ones(2)}, **numbers}, path)
    content = read_weight_file(path)
    assert content["best"] == 0.5 and content["epoch"] == 3
    assert content["scores"].tolist() == [0.0, 1.0, 2.0]
    torch.save({"model": {"w": torch.ones(2)}, "when": np.datetime64("2024-01-01")}, path)
    with pytest.raises(CheckpointError, match="numpy"):
        read_weight_file(path)


def _without_its_end(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def _archive(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model_final.pth", content)
    return stream.getvalue()


def _program(content: bytes) -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 1), torch.zeros(1, 2)), stream)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore")  # torch calls its programs deprecated
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: b"", r"is empty \(0 bytes\)"),
        (_without_its_end, "is damaged or incomplete: its end is missing"),
        (
            lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
            "is a pointer of git-LFS, not the weights themselves; fetch them with `git lfs pull`",
        ),
        (lambda _: b"\n<!DOCTYPE html><html>Log in</html>", "is a web page, not a file of weights"),
        (lambda _: b"Not Found\n", "is a text that begins with 'Not Found'"),
        (gzip.compress, "is packed with gzip; unpack it first"),
        (_archive, "is a zip archive of model_final.pth; unpack it first"),
        (_program, "is a TorchScript program, not a state dict"),
    ],
    ids=["empty", "cut", "git-LFS", "web page", "text", "gzip", "zip", "TorchScript"],
)
def test_a_file_that_is_no_file_of_weights_is_called_what_it_is(tmp_path, make, reason):
    torch.save({"w": torch.randn(50)}, tmp_path / "whole.pth")
    path = tmp_path / "weights.pth"
    path.write_bytes(make((tmp_path / "whole.pth").read_bytes()))
    for read in (read_weight_file, read_tensors, load_checkpoint):
        with pytest.raises(CheckpointError, match=f"weights.pth {reason}") as error:
            read(path)
        assert len(str(error.value).splitlines()) == 1
        assert "weights_only" not in str(error.value) and "documentation" not in str(error.value)


def test_an_object_of_a_foreign_class_is_named(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=0.1)}, path)
    with pytest.raises(CheckpointError, match=r"more than tensors .*\(argparse\.Namespace\)"):
        read_weight_file(path)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(CheckpointError, match=r"\(torch\.nn\.modules\.linear\.Linear\)"):
        read_weight_file(path)


def test_safetensors_are_read_whatever_their_suffix(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    weight = torch.randn(2, 3)
    for name in ("weights.safetensors", "weights.pth"):
        safetensors.save_file({"module.w": weight}, tmp_path / name, {"format": "pt"})
        assert torch.equal(read_tensors(tmp_path / name)["w"], weight)
        assert torch.equal(load_checkpoint(tmp_path / name)["model"]["module.w"], weight)
    whole = (tmp_path / "weights.pth").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-4])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is damaged or incomplete"):
        read_tensors(tmp_path / "cut.safetensors")


def test_safetensors_without_their_package_are_a_sentence(tmp_path, monkeypatch):
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    (tmp_path / "w.safetensors").write_bytes(content)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(CheckpointError, match="is not installed: pip install safetensors"):
        read_tensors(tmp_path / "w.safetensors")


def test_names_lose_what_wrappers_add_and_two_of_one_name_are_refused():
    wrapped = {"module._orig_mod.a": 1, "b._orig_mod.c": 2, "d.module.e": 3}
    assert without_wrappers(wrapped) == {"a": 1, "b.c": 2, "d.module.e": 3}
    assert without_wrappers({"module.a": 1}, own=["module.a"]) == {"module.a": 1}
    with pytest.raises(CheckpointError, match="holds a twice"):
        without_wrappers({"module.a": 1, "a": 2})


def test_a_digest_is_of_the_content_whatever_the_order_and_the_memory():
    matrix = torch.arange(6.0).view(2, 3)
    base = tensors_digest({"a": matrix, "b": torch.tensor(1)})
    assert base == tensors_digest({"b": torch.tensor(1), "a": matrix.T.contiguous().T})
    changed = matrix.clone()
    changed[1, 2] += 1e-6
    others = [{"a": changed, "b": torch.tensor(1)}, {"c": matrix, "b": torch.tensor(1)}]
    others += [{"a": matrix.to(torch.bfloat16), "b": torch.tensor(1)}, {}]
    assert len({base, *map(tensors_digest, others)}) == 5
