"""The operators in torch's dispatcher: traced, compiled, differentiated, cast, and replaced."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.library import opcheck

from rsd2 import ops
from rsd2.ops import extension
from rsd2.testing import random_rotated_boxes

OPERATORS = torch.ops.rsd2


def boxes(count: int, seed: int, grad: bool = False) -> torch.Tensor:
    return random_rotated_boxes(count, 60.0, 8.0, 40.0, seed, torch.float64).requires_grad_(grad)


def calls() -> dict[str, tuple]:
    """Operator -> (overload, arguments, keywords)."""
    scores, idxs = torch.rand(6), torch.tensor([0, 0, 1, 1, 0, 1])
    ones, pair = boxes(6, 1), (boxes(6, 1), boxes(7, 2))
    matrix, diagonal = torch.ones(6, 7).double(), torch.ones(6).double()
    return {
        "matrix": (OPERATORS.box_iou_rotated.default, (boxes(6, 1, True), boxes(7, 2, True)), {}),
        "out": (OPERATORS.box_iou_rotated.out, pair, {"out": torch.zeros(6, 7).double()}),
        "matrix backward": (OPERATORS.box_iou_rotated_backward.default, (matrix, *pair), {}),
        "pairs": (OPERATORS.paired_iou_rotated.default, (boxes(6, 1, True), boxes(6, 2, True)), {}),
        "pairs backward": (
            OPERATORS.paired_iou_rotated_backward.default, (diagonal, ones, boxes(6, 2)), {}
        ),
        "sparse": (OPERATORS.sparse_iou_rotated.default, (*pair, 0.1), {}),
        "maxima": (OPERATORS.max_iou_rotated.default, pair, {}),
        "nms": (OPERATORS.batched_nms_rotated.default, (ones, scores, idxs, 0.2), {}),
    }  # fmt: skip


@pytest.mark.parametrize("name", calls())
def test_operators_pass_the_checks_of_torch(name):
    operator, arguments, keywords = calls()[name]
    results = opcheck(operator, arguments, keywords)
    assert set(results.values()) == {"SUCCESS"}


def everything(one, two, scores, idxs):
    return (
        ops.box_iou_rotated(one, two) * 2,
        ops.paired_iou_rotated(one, two[:6]),
        *ops.sparse_iou_rotated(one, two, 0.1),
        *ops.max_iou_rotated(one, two),
        ops.nms_rotated(one, scores, 0.2),
        ops.batched_nms_rotated(one, scores, idxs, 0.2),
        torch.ops.detectron2.box_iou_rotated(one, two),
        torch.ops.detectron2.nms_rotated(one, scores, 0.2),
    )


@pytest.fixture
def compiler():
    """Function (function) -> compiled without a break; results may have any length."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        yield lambda function: torch.compile(function, fullgraph=True, backend="aot_eager")
    torch._dynamo.reset()


def test_compiles_without_a_graph_break(compiler):
    compiled = compiler(everything)
    for count in (7, 9):  # the second time with another shape
        arguments = (boxes(6, 1), boxes(count, 2), torch.rand(6), torch.arange(6) % 2)
        for found, expected in zip(compiled(*arguments), everything(*arguments)):
            assert torch.equal(found, expected)


def test_gradient_compiles_without_a_graph_break(compiler):
    def loss(one, two):
        return (1 - ops.paired_iou_rotated(one, two[:6])).sum() + ops.box_iou_rotated(
            one, two
        ).sum()

    gradients = []
    for function in (loss, compiler(loss)):
        one, two = boxes(6, 1, True), boxes(7, 2, True)
        function(one, two).backward()
        gradients.append((one.grad, two.grad))
    for found, expected in zip(*gradients):
        torch.testing.assert_close(found, expected)
        assert expected.abs().sum() > 0


def test_out_compiles_without_a_graph_break(compiler):
    def write(one, two, out):
        return ops.box_iou_rotated(one, two, out=out) + 1

    one, two, out = boxes(6, 1), boxes(7, 2), torch.zeros(6, 7).double()
    assert torch.equal(compiler(write)(one, two, out), ops.box_iou_rotated(one, two) + 1)
    assert torch.equal(out, ops.box_iou_rotated(one, two))


def test_a_second_derivative_is_refused():
    one, two = boxes(6, 1, True), boxes(6, 2, True)
    weight = torch.ones(6).double().requires_grad_()
    loss = (weight * ops.paired_iou_rotated(one, two)).sum()
    (gradient,) = torch.autograd.grad(loss, one, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


def test_autocast_raises_half_precision_and_leaves_double():
    half = boxes(6, 1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ops.box_iou_rotated(half, half).dtype == torch.float32
        assert OPERATORS.box_iou_rotated(half, half).dtype == torch.float32
        assert OPERATORS.box_iou_rotated(boxes(6, 1), boxes(6, 1)).dtype == torch.float64
        kept = OPERATORS.batched_nms_rotated(half, half[:, 0], torch.zeros(6).long(), 0.2)
    assert torch.equal(kept, ops.nms_rotated(half, half[:, 0], 0.2))


def run_python(code: str, **variables: str) -> str:
    """Run code in a fresh interpreter; its standard output and error."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    environment = {**os.environ, "PYTHONPATH": path, "RSD2_OPS": "", **variables}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


WORK = """
import torch
from rsd2 import ops
box = torch.tensor([[0., 0, 4, 2, 0], [1, 0, 4, 2, 0]], requires_grad=True)
iou = ops.box_iou_rotated(box, box)
iou.sum().backward()
print(ops.nms_rotated(box, torch.ones(2), 0.7).tolist(), round(iou[0, 1].item(), 6))
"""


def test_references_stand_in_on_request_without_a_warning():
    code = WORK + "print(ops.extension.is_compiled('box_iou_rotated', 'CPU'))"
    output = run_python(code, RSD2_OPS="reference")
    assert output.split("\n")[:2] == ["[0, 1] 0.6", "False"]
    assert "UserWarning" not in output


def test_one_warning_when_references_stand_in(tmp_path):
    # A copy of the package without its library, as an installation without a compiler leaves it.
    source = Path(ops.__file__).parents[1]
    package = tmp_path / "rsd2"
    package.mkdir()
    (package / "__init__.py").write_text((source / "__init__.py").read_text())
    (package / "ops").mkdir()
    for file in (source / "ops").glob("*.py"):
        (package / "ops" / file.name).write_text(file.read_text())
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + WORK
    code += "assert ops.__file__.startswith(sys.path[0])"
    output = run_python(code)
    assert "[0, 1] 0.6" in output
    assert output.count("UserWarning") == 1
    assert "without its compiled library" in output and extension.REBUILD in output
    # A library of other sources is not mixed with them.
    if extension.LIBRARY_PATH is not None:
        os.link(extension.LIBRARY_PATH, package / "ops" / extension.LIBRARY_PATH.name)
        text = (package / "ops" / "extension.py").read_text()
        changed = text.replace("float threshold)", "float minimum)")
        assert changed != text
        (package / "ops" / "extension.py").write_text(changed)
        with pytest.raises(AssertionError, match="sparse_iou_rotated differs. Build it again"):
            run_python(code)


def test_report_names_the_library():
    info = extension.build_info()
    if extension.LIBRARY_PATH is None:
        assert info == extension.WHY_NOT
    else:
        assert str(extension.LIBRARY_PATH) in info
        assert info.split()[-1] in ("default", "avx2", "avx512")
        # Not always the torch that is running: other releases load the same library.
        assert re.search(r"built with torch 2\.\d+\.\d+; ", info)


@pytest.mark.skipif(
    not extension.is_compiled("box_iou_rotated", "CPU")
    or extension.is_compiled("box_iou_rotated", "CUDA")
    or shutil.which("nm") is None,
    reason="needs a library for the CPU alone, and nm",
)
def test_the_library_calls_only_c_functions_of_torch():
    """Releases of torch change their C++ functions, and keep the C functions of the stable ABI."""
    command = ["nm", "-D", "--undefined-only", str(extension.LIBRARY_PATH)]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "torch_call_dispatcher" in names
    # Mangled names with a namespace of torch; those of the C++ library itself begin alike.
    assert [name for name in names if re.match(r"_Z.*(?:2at|3c10|5torch)", name)] == []


@pytest.mark.skipif(not extension.is_compiled("box_iou_rotated", "CPU"), reason="no library")
@pytest.mark.parametrize("isa", ["default", "avx2"])
def test_narrower_instruction_sets_have_the_same_bits(isa, tmp_path):
    code = """
import sys, torch
from rsd2 import ops
from rsd2.ops import extension
from rsd2.testing import random_rotated_boxes
one, two = (random_rotated_boxes(300, 500.0, seed=seed) for seed in (1, 2))
torch.save([ops.box_iou_rotated(one, two), ops.paired_iou_rotated(one, two)], sys.argv[1])
print(extension.build_info().split()[-1])
""".replace("sys.argv[1]", repr(str(tmp_path / "iou.pt")))
    assert run_python(code, RSD2_ISA=isa).split()[0] in (isa, "default")
    one, two = (random_rotated_boxes(300, 500.0, seed=seed) for seed in (1, 2))
    expected = [ops.box_iou_rotated(one, two), ops.paired_iou_rotated(one, two)]
    found = torch.load(tmp_path / "iou.pt", weights_only=True)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("implementation", ["kernel", "reference"])
def test_many_boxes_meet_in_bounded_memory(implementation):
    # The matrix of 2,000 x 250,000 would take 2 GB in float32, and half a GB as a mask. The
    # reference has a quarter of the rows, to save time.
    code = """
import resource, torch
from rsd2 import ops
from rsd2.testing import random_rotated_boxes
torch.set_num_threads(1)
truth = random_rotated_boxes(ROWS, 8000.0, 8.0, 60.0, seed=1)
candidates = random_rotated_boxes(250_000, 8000.0, 8.0, 60.0, seed=2)
ops.max_iou_rotated(truth[:10], candidates[:10]), ops.sparse_iou_rotated(truth[:10], truth)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = ops.max_iou_rotated(truth, candidates)
rows, columns, iou = ops.sparse_iou_rotated(truth, candidates, 0.1)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert len(rows) > 4 * len(truth) and (found.row_max > 0.1).sum() == len(rows.unique())
assert torch.equal(found.row_max[rows].max(), iou.max())
print(grown / 1024)
"""
    is_reference = implementation == "reference"
    variables = {"RSD2_OPS": "reference"} if is_reference else {}
    code = code.replace("ROWS", "500" if is_reference else "2000")
    grown = float(run_python(code, **variables).split()[0])
    assert grown < 200, f"{grown} MB"
