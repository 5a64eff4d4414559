"""Checks of a config: overrides have an effect, and targets accept their arguments.

Part of :mod:`rsd2.config`, which is the module to import from.
"""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from detectron2.utils.registry import locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# The tool fills these in, so a config need not hold them.
LATE_ARGUMENTS = frozenset({"optimizer.params.model"})


class ConfigError(ValueError):
    """A config or an override is wrong; the message says where, and what to write instead."""


def check_overrides(cfg: DictConfig, opts: Sequence[str]) -> None:
    """Raise if :func:`apply_overrides` would; ``cfg`` stays as it is.

    Args:
        cfg: config.
        opts: overrides.

    Raises:
        ConfigError: every wrong override, one line each.
    """
    apply_overrides(copy.deepcopy(cfg), opts)


def apply_overrides(cfg: DictConfig, opts: Sequence[str]) -> DictConfig:
    """Apply ``key.sub=value`` overrides in place, refusing what would have no effect.

    Values follow Hydra's grammar whatever Detectron2 is installed: ``1e-4``, ``true``, ``null``,
    ``[1,2]``, ``{a:1}``, ``'quoted=text'``; ``None`` means null. A key must exist, or be an
    argument of the target it is given to; ``+key=value`` adds an entry to a plain dictionary.

    Args:
        cfg: config.
        opts: overrides.

    Returns:
        ``cfg``.

    Raises:
        ConfigError: every wrong override, one line each, with the nearest right key or type.
    """
    errors = []
    for opt in opts:
        try:
            key, value, added = _parse_override(opt)
            _override(cfg, key, value, added)
        except ConfigError as error:
            errors.append(f"override {opt!r}: {error}")
    if errors:
        raise ConfigError("\n".join(errors))
    return cfg


def _parse_override(opt: str) -> tuple[str, Any, bool]:
    key, equals, raw = opt.partition("=")
    if not equals:
        raise ConfigError("write it as key.sub=value (flags go before the overrides)")
    try:
        parsed = OverridesParser.create().parse_override(opt)
    except HydraException as error:
        hint = f"quote the value: {key}='\"{raw}\"'" if raw else "it is no key=value"
        raise ConfigError(f"cannot be read ({str(error).splitlines()[0]}); {hint}") from error
    if parsed.is_delete() or parsed.is_sweep_override():
        raise ConfigError("a config can neither delete nor sweep; give one value")
    value = parsed.value()
    return parsed.key_or_group, None if value == "None" else value, parsed.is_add()


def _override(cfg: DictConfig, key: str, value: Any, added: bool) -> None:
    parent, name, existing = _find(cfg, key, added)
    if isinstance(value, dict) and isinstance(existing, DictConfig):
        for sub, sub_value in value.items():
            _override(cfg, f"{key}.{sub}", sub_value, added)
        return
    value = _coerce(value, existing, _annotation(parent, name), "_target_" in parent)
    OmegaConf.update(cfg, key, value, merge=True, force_add=True)


def _find(cfg: DictConfig, key: str, added: bool) -> tuple[Any, str, Any]:
    """Return (the node that holds the key, the last part of the key, its current value)."""
    node: Any = cfg
    parts = key.split(".")
    for depth, part in enumerate(parts):
        prefix, last = ".".join(parts[:depth]), depth == len(parts) - 1
        if not isinstance(node, (DictConfig, ListConfig)):
            raise ConfigError(f"{prefix} is the value {node!r}, so it has no {part!r}")
        names = _legal_names(node)
        exists = part in names[0]
        if not exists and not (last and (part in names[1] or added)):
            raise ConfigError(_suggestion(cfg, prefix, part, parts[depth + 1 :], names))

        if last:
            index = int(part) if isinstance(node, ListConfig) else part
            return node, part, _value(node, index) if exists else None

        # What an interpolation points to is shared: changed through it, others would change too.
        index = int(part) if isinstance(node, ListConfig) else part
        if OmegaConf.is_interpolation(node, index):
            raw = OmegaConf.to_container(node, resolve=False)[index]
            raise ConfigError(f"{'.'.join(parts[: depth + 1])} is {raw}; override that instead")
        node = _value(node, index)
    raise ConfigError("the key is empty")


def _legal_names(node: DictConfig | ListConfig) -> tuple[set[str], set[str]]:
    """Return (the names in the node, the further arguments that its target accepts)."""
    if isinstance(node, ListConfig):
        return {str(i) for i in range(len(node))}, set()
    keys = {str(key) for key in node}
    signature = _signature(node) if "_target_" in node else None
    if signature is None:
        return keys, set()
    return keys, {p.name for p in signature.parameters.values() if _is_argument(p)}


def _suggestion(
    cfg: DictConfig, prefix: str, part: str, rest: list[str], names: tuple[set[str], set[str]]
) -> str:
    start = f"{prefix}." if prefix else ""
    if part in names[1]:
        return f"{start}{part} is not set yet; give it whole: {start}{part}={{...}}"

    names = sorted((names[0] | names[1]) - {"_target_"})
    near = difflib.get_close_matches(part, names, n=3, cutoff=0.6)
    tail = "".join(f".{r}" for r in rest)
    found = [f"{start}{name}{tail}" for name in near]
    wanted = rest[-1] if rest else part
    # A derived value is not worth suggesting: what it is derived from has the same name elsewhere.
    leaves = [key for key, value in config_leaves(cfg) if "${" not in str(value)]
    found += [key for key in leaves if key.split(".")[-1] == wanted and key not in found][:3]

    if found:
        return f"no key {start}{part}; did you mean {' or '.join(found)}?"
    return f"no key {start}{part}; {prefix or 'the config'} has {', '.join(names) or 'no keys'}"


def _coerce(value: Any, existing: Any, annotation: Any, has_target: bool) -> Any:
    """Return ``value`` in the type of ``existing``, or say which type is expected."""
    if value is None or existing is None or (isinstance(value, str) and "${" in value):
        return value
    shown = f"got {value!r} ({type(value).__name__})"

    # bool comes before int, of which it is a subclass.
    if isinstance(existing, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"expects true or false, {shown}")
    elif isinstance(existing, (int, float)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"expects a number like {existing!r}, {shown}")
        if isinstance(existing, float):
            return float(value)
        if float(value).is_integer():
            return int(value)
        if annotation in (int, "int") or not has_target:
            raise ConfigError(f"expects an integer like {existing!r}, {shown}")
    elif isinstance(existing, str):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, (bool, dict)):
            raise ConfigError(f"expects text like {existing!r}, {shown}; quote it if it is text")
    elif isinstance(existing, ListConfig):
        plain = [x for x in existing if not isinstance(x, (DictConfig, ListConfig))]
        kinds = (str,) if all(isinstance(x, str) for x in plain) else (int, float)
        if not isinstance(value, list) and not (
            len(plain) == len(existing) and isinstance(value, kinds)
        ):
            raise ConfigError(f"expects a list like [a,b], {shown}")
    elif isinstance(existing, DictConfig):
        raise ConfigError(f"is a group with the keys {', '.join(map(str, existing))}; {shown}")
    return value


def check_arguments(cfg: DictConfig, late: Iterable[str] = LATE_ARGUMENTS) -> None:
    """Compare every ``_target_`` in a config with its signature, without building anything.

    Args:
        cfg: the config.
        late: dotted keys whose values are filled in after loading.

    Raises:
        ConfigError: one line for each unknown target, unknown or missing argument, ``???`` or
            interpolation that leads nowhere.
    """
    errors: list[str] = []
    _check_node(cfg, "", frozenset(late), errors)
    if errors:
        raise ConfigError("\n".join(errors))


def _check_node(
    node: DictConfig | ListConfig, path: str, late: frozenset[str], errors: list[str]
) -> None:
    if isinstance(node, DictConfig) and "_target_" in node:
        try:
            errors += _argument_errors(node, path, late)
        except ConfigError as error:
            errors.append(f"{path}: {error}")

    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        name = f"{path}.{key}" if path else str(key)
        try:
            if OmegaConf.is_missing(node, key):
                errors.append(f"{name} is ???; give it a value")
                continue
            value = node[key]
        except OmegaConfBaseException as error:
            errors.append(f"{name} cannot be resolved: {str(error).splitlines()[0]}")
            continue

        if OmegaConf.is_config(value) and not OmegaConf.is_interpolation(node, key):
            _check_node(value, name, late, errors)


def _argument_errors(node: DictConfig, path: str, late: frozenset[str]) -> list[str]:
    signature = _signature(node)
    if signature is None:
        return []
    parameters = signature.parameters.values()
    names = [p.name for p in parameters if _is_argument(p)]
    target = node["_target_"] if isinstance(node["_target_"], str) else node["_target_"].__name__

    errors = []
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in (str(k) for k in node if k != "_target_" and k not in names):
            near = difflib.get_close_matches(key, names, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it takes {', '.join(names)}"
            errors.append(f"{path}.{key}: {target} has no such argument; {hint}")

    for p in parameters:
        needed = _is_argument(p) and p.default is p.empty and p.name not in node
        if needed and f"{path}.{p.name}" not in late:
            errors.append(f"{path}.{p.name} is missing; {target} needs it")
    return errors


def _is_argument(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _signature(node: DictConfig) -> inspect.Signature | None:
    """Return the signature of the node's target, or None where Python cannot tell it."""
    target: str | Callable[..., Any] = node["_target_"]
    if isinstance(target, str):
        try:
            located = locate(target)
        except Exception as error:  # pydoc and hydra raise whatever the imported module raises
            raise ConfigError(f"_target_ {target} cannot be imported: {error}") from error
        if located is None:
            raise ConfigError(f"_target_ {target} does not exist")
        target = located

    if not callable(target):
        return None  # a target that is itself a config is built first
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):
        return None


def _annotation(parent: Any, name: str) -> Any:
    if not isinstance(parent, DictConfig) or "_target_" not in parent:
        return None
    signature = _signature(parent)
    known = signature is not None and name in signature.parameters
    return signature.parameters[name].annotation if known else None


def _value(node: DictConfig | ListConfig, key: Any) -> Any:
    """Return a value, or None where it is missing or its interpolation leads nowhere."""
    try:
        return None if OmegaConf.is_missing(node, key) else node[key]
    except OmegaConfBaseException:
        return None


def config_leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Walk a config.

    Args:
        node: config, container of plain Python objects, or value.
        path: dotted key of ``node``.

    Yields:
        (dotted key, value) of every leaf, an interpolation as its text.
    """
    container = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    if isinstance(container, (dict, list)):
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            yield from config_leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, container
