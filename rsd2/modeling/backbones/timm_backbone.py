"""Models of timm that return feature maps, as Detectron2 backbones.

Shapes: B images, C channels, H, W height and width in pixels.
"""

from __future__ import annotations

import difflib
import inspect
import math
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn

from rsd2.layers.pointwise import use_pointwise_convolutions

if TYPE_CHECKING:
    from types import ModuleType

LAST_MAP = "last_feat"
# Arguments of timm's transformers that allow images of other sizes than the weights' own.
_ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False}


@BACKBONE_REGISTRY.register()
class TimmBackbone(Backbone):
    """A model of timm (https://github.com/huggingface/pytorch-image-models) without its head.

    Maps are named by their strides, ``stride4``, ``stride8`` and so on, whatever the family
    of the model; of several maps with one stride, the last is taken. ``last_feat`` is the last map,
    which a `SimplePyramid` takes from a plain vision transformer. Transformers that timm can
    run on images of any size do so.

    Args:
        name: timm's name of the model, as ``timm.list_models()`` lists them.
        out_features: maps to return; None returns one map of each stride, fine to coarse.
        in_channels: number of channels of the image.
        frozen_norm: whether BatchNorm keeps its statistics and affine parameters. It does
            not learn from random weights. Other norms are trained.
        freeze_at: 0 trains everything; n freezes all layers that the first n of timm's maps
            depend on, and their BatchNorm. In a ResNet, 1 is the stem and 2 also ``layer1``; in
            a plain vision transformer, n is the patch embedding and n blocks.
        weights: file with a state dict of timm, ``.pth`` or ``.safetensors``, with or without
            classifier; None for random weights. Weights for 3 channels are adapted to
            ``in_channels``. A saved detector does not need the file: give None to load one.
        pretrained: whether timm downloads its weights.
        size_divisibility: number that must divide the sides of images; None takes the smallest one
            that the strides of all the model's maps divide.
        options: more arguments of the model, like ``drop_path_rate`` or ``img_size``.

    Raises:
        ImportError: timm is not installed.
        FileNotFoundError: there is no file ``weights``.
        ValueError: timm has no such model, the model has no such map, ``freeze_at`` is out of its
            range, or the weights do not fill the model.
    """

    def __init__(
        self,
        name: str,
        *,
        out_features: Sequence[str] | None = None,
        in_channels: int = 3,
        frozen_norm: bool = False,
        freeze_at: int = 0,
        weights: str | None = None,
        pretrained: bool = False,
        size_divisibility: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        timm = _import_timm()
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=3)
            raise ValueError(f"timm {timm.__version__} has no model {name!r}; near it: {near}")
        if weights is not None and pretrained:
            raise ValueError("give either a file of weights or pretrained=True, not both")

        # Some facts are known only of a built model; the meta device builds one without memory.
        with torch.device("meta"):
            classifier = timm.create_model(name, pretrained=False)
            arguments = {"in_chans": in_channels, **_any_size(classifier), **(options or {})}
            skeleton = timm.create_model(name, features_only=True, **arguments)

        info = skeleton.feature_info
        indices, strides = list(info.out_indices), info.reduction()
        # A later map of the same stride replaces an earlier one.
        maps = {f"stride{stride}": index for index, stride in zip(indices, strides)}
        known = {**maps, LAST_MAP: indices[-1]}

        names = list(maps if out_features is None else out_features)
        unknown = [one for one in names if one not in known]
        if unknown or not names:
            raise ValueError(f"{name} has no maps {unknown or names}; it has {list(known)}")

        chosen = sorted({known[one] for one in names})
        self.net = timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=chosen, **arguments
        )

        self._name, self._arguments = name, arguments
        self._positions = {one: chosen.index(known[one]) for one in names}
        # Swin and its relatives return their channels last.
        self._is_channels_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")

        channels = self.net.feature_info.channels()
        reductions = self.net.feature_info.reduction()
        self._out_features = names
        self._out_feature_channels = {k: channels[i] for k, i in self._positions.items()}
        self._out_feature_strides = {k: reductions[i] for k, i in self._positions.items()}
        self._size_divisibility = size_divisibility or math.lcm(*strides)

        # timm's statistics are for pixels in [0, 1], Detectron2's for 0-255.
        config = classifier.pretrained_cfg
        self.pixel_mean = [255 * value for value in config["mean"]]
        self.pixel_std = [255 * value for value in config["std"]]

        # Before anything is frozen, because random weights must not be kept.
        if weights is not None:
            _load(self.net, Path(weights), config.get("first_conv"), in_channels)

        limit = len(classifier.feature_info)
        if not 0 <= freeze_at <= limit:
            raise ValueError(f"freeze_at must be in 0 to {limit} for {name}, got {freeze_at}")
        if freeze_at:
            with torch.device("meta"):
                early = timm.create_model(
                    name, features_only=True, out_indices=[freeze_at - 1], **arguments
                )
                # Two images, because BatchNorm refuses to normalise a single value.
                images = torch.zeros(2, in_channels, *config["input_size"][1:])
            _freeze(self.net, _names_that_matter(early, images))
        if frozen_norm:
            # timm's own function, because its norms often contain the activation, which must stay.
            self.net = timm.layers.freeze_batch_norm_2d(self.net)
        use_pointwise_convolutions(self.net)

    @property
    def size_divisibility(self) -> int:
        """Number that must divide the sides of images."""
        return self._size_divisibility

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the feature maps.

        Args:
            images: (B, in_channels, H, W) normalised; ``size_divisibility`` divides H and W.

        Returns:
            Maps (B, C, H / stride, W / stride) by name, in the order of ``out_features``.

        Raises:
            ValueError: a map has another size than its stride says, because the sides do not
                divide or the model has convolutions without padding.
        """
        maps = self.net(images)
        if self._is_channels_last:
            maps = [x.permute(0, 3, 1, 2).contiguous() for x in maps]

        height, width = images.shape[-2:]
        for name, position in self._positions.items():
            stride, size = self._out_feature_strides[name], tuple(maps[position].shape[-2:])
            # Boxes are placed by the strides, so that a map of another size would shift them.
            if (size[0] * stride, size[1] * stride) != (height, width):
                raise ValueError(
                    f"the map {name} of an image of {height} x {width} pixels has {size[0]} x "
                    f"{size[1]} positions, which is not stride {stride}; pad images to multiples "
                    f"of {self.size_divisibility}, or take another model"
                )
        return {name: maps[position] for name, position in self._positions.items()}

    def layer_depths(self) -> dict[str, int]:
        """Say how deep in the model each parameter lies, for learning rates that fall with depth.

        Returns:
            Name of a parameter -> number of timm's group of layers, 0 at the image; one for each
            block of a transformer, a ConvNeXt or a ResNet.
        """
        timm = _import_timm()
        # Only the whole model knows its groups, under names that a model of maps flattens.
        with torch.device("meta"):
            whole = timm.create_model(self._name, pretrained=False, **self._arguments)
        groups = timm.models.group_parameters(whole, whole.group_matcher(), reverse=True)
        depths = {key.replace(".", "_"): depth for key, depth in groups.items()}
        names = [name for name, _ in self.net.named_parameters()]
        return {f"net.{name}": depths[_name_in(name, depths)] for name in names}


def _name_in(key: str, known: Mapping[str, Any]) -> str:
    """Find the name of the whole model, dots as underscores, for that of a model of maps."""
    # Some of timm's wrappers put the model one level down.
    names = [part.replace(".", "_") for part in (key, key.partition(".")[2])]
    return next((one for one in names if one in known), names[0])


def _import_timm() -> ModuleType:
    """Import timm only when it is used: it is an optional extra."""
    try:
        # The submodule, because Python takes any folder named timm for a package.
        import timm.models
    except ImportError as error:
        raise ImportError("TimmBackbone needs timm: pip install 'rsd2[timm]'") from error
    return timm


def _any_size(model: nn.Module) -> dict[str, bool]:
    """Return the arguments that let a model of this class take images of any size; often none."""
    # Subclasses pass on arguments that they do not name.
    signatures = [inspect.signature(c).parameters for c in type(model).__mro__ if c is not object]
    accepted = {name for parameters in signatures for name in parameters}
    return {name: value for name, value in _ANY_SIZE.items() if name in accepted}


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file without running its code; errors as in `_load`."""
    from safetensors import SafetensorError
    from timm.models import load_state_dict

    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file of weights; rsd2 get-weights gets some; for a saved detector, "
            "set weights of the backbone to null"
        )
    # Errors that the readers raise for broken bytes.
    unreadable = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, AttributeError)
    try:
        tensors = load_state_dict(str(path))
    except (*unreadable, TypeError, ValueError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} cannot be read as a state dict: {reason}; save the "
            "tensors alone: torch.save(model.state_dict(), ...)"
        ) from error

    # Checkpoints may hold other things beside the tensors, like an epoch.
    return {key: value for key, value in tensors.items() if isinstance(value, torch.Tensor)}


def _load(
    net: nn.Module, path: Path, first_conv: str | Sequence[str] | None, in_channels: int
) -> None:
    """Fill a model of timm without its head from a file with timm's names.

    Args:
        net: model to fill in place.
        path: file with the tensors.
        first_conv: names of the convolutions that see the image.
        in_channels: number of channels of the image.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or a weight is missing or of another shape.
    """
    from timm.models import adapt_input_conv

    # timm folds "stages.0" into "stages_0" where it cuts a model into maps.
    tensors = {key.replace(".", "_"): value for key, value in _read(path).items()}
    first = [first_conv] if isinstance(first_conv, str) else list(first_conv or ())
    adaptable = {f"{name}.weight".replace(".", "_") for name in first}

    filled, problems = {}, []
    for key, own in net.state_dict().items():
        name = _name_in(key, tensors)
        value = tensors.get(name)
        if value is not None and name in adaptable and value.shape[1] == 3 != in_channels:
            value = adapt_input_conv(in_channels, value)

        if value is not None and value.shape == own.shape:
            filled[key] = value
        elif not key.endswith("num_batches_tracked"):  # old files lack this count of steps
            what = "is missing" if value is None else f"is {tuple(value.shape)}"
            problems.append(f"{key} {tuple(own.shape)} {what}")

    if problems:
        raise ValueError(
            f"{path} does not fill the model: {len(problems)} of {len(net.state_dict())} weights, "
            f"{'; '.join(problems[:3])}; take a file of the same model with timm's names"
        )
    net.load_state_dict(filled, strict=False)


def _names_that_matter(net: nn.Module, images: torch.Tensor) -> list[str]:
    """Return the names of the parameters that a model's maps depend on, by its gradients."""
    named = {key: value for key, value in net.named_parameters() if value.requires_grad}
    # A parameter that does not reach the sum gets no gradient.
    total = sum(x.sum() for x in net(images))
    gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return [key for key, gradient in zip(named, gradients) if gradient is not None]


def _freeze(net: nn.Module, names: Sequence[str]) -> None:
    """Freeze parameters, and the statistics of the BatchNorm layers that own some of them."""
    from timm.utils.model import freeze

    for name in names:
        net.get_parameter(name).requires_grad_(False)

    owners = dict.fromkeys(name.rpartition(".")[0] for name in names)
    norms = [name for name in owners if isinstance(net.get_submodule(name), nn.BatchNorm2d)]
    if norms:  # without names, timm would freeze the whole model
        freeze(net, norms)
