"""Configs: find, load, override, check and save LazyConfigs.

An experiment is a Python file that exports five names, ``model dataloader optimizer lr_multiplier
train``. This module reports every mistake in it before a model is built: a missing file or name, a
misspelt key, a value of the wrong type, an argument that its target lacks.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from rsd2.io.files import replaced_file

from .checks import ConfigError, apply_overrides, check_arguments, config_leaves
from .renames import gather_options, use_current_names

EXPORTED_NAMES = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


def config_roots() -> tuple[Path, ...]:
    """Return the existing folders in which :func:`get_config` looks, in order.

    Returns:
        ``configs`` and ``projects`` of a checkout; of an installed wheel ``rsd2/configs`` and
        ``rsd2/projects``.
    """
    package = Path(__file__).resolve().parents[1]
    home = package.parent if (package.parent / "pyproject.toml").is_file() else package
    return tuple(path for name in ("configs", "projects") if (path := home / name).is_dir())


def find_config(name: str | Path) -> Path | None:
    """Find a config by its path, or by its name among those of this project.

    Args:
        name: path of a file, or a name like ``"rotated_faster_rcnn_r50_dota.py"`` or
            ``"MutDet/configs/mutdet_r50_dota_pretrain.py"``; ``configs`` or ``projects`` may stand
            before it, as in a checkout.

    Returns:
        Path of the file; None if there is none.
    """
    return Path(name) if Path(name).is_file() else _named_config(name)


def _named_config(name: str | Path) -> Path | None:
    parts = Path(name).parts
    for root in config_roots():
        inner = parts[1:] if parts[:1] == (root.name,) else parts
        if not inner:
            continue

        places = [root.joinpath(*inner)]
        if root.name == "projects":
            # In a wheel the folder of a project is its package: BottomHeavy is bottom_heavy.
            packages = [p for p in root.iterdir() if p.name.replace("_", "") == inner[0].lower()]
            places += [package.joinpath(*inner[1:]) for package in packages]
        for place in places:
            if place.is_file():
                return place
    return None


def _known_names() -> list[str]:
    """List the names of the project's own configs."""
    return sorted(
        path.relative_to(root).as_posix()
        for root in config_roots()
        for path in root.rglob("*.py")
        if "configs" in path.relative_to(root.parent).parts
    )


def get_config(path: str, keys: str | tuple[str, ...] | None = None) -> Any:
    """Load a config of this project by its name, for use inside another config.

    Args:
        path: relative to ``configs`` or ``projects``, like ``"common/train.py"``.
        keys: as in ``LazyConfig.load``: one name, a tuple of names, or None for all.

    Returns:
        The named object(s), or a DictConfig of every exported name.

    Raises:
        ConfigError: no such file; the message lists the nearest names.
    """
    file = _named_config(path)
    if file is not None:
        return LazyConfig.load(str(file), keys)
    known = _known_names()
    near = difflib.get_close_matches(path, known, n=5, cutoff=0.4) or known[:20]
    raise ConfigError(f"no config {path!r}; the nearest of {len(known)} names: {', '.join(near)}")


def read_config_file(file: Path) -> DictConfig:
    """Read a config as it stands, whatever it exports.

    Args:
        file: a ``.py`` LazyConfig or a saved ``.yaml``, whose modules may have moved since.

    Returns:
        What the file exports.

    Raises:
        ConfigError: the file is of another kind, or broken.
    """
    if file.suffix not in (".py", ".yaml", ".yml"):
        raise ConfigError(f"config file {file} has to end in .py, .yaml or .yml")

    try:
        if file.suffix == ".py":
            cfg = LazyConfig.load(str(file))
        else:
            # As LazyConfig.load does, but by the names that modules and options have today.
            saved = yaml.unsafe_load(use_current_names(file.read_text(encoding="utf-8")))
            cfg = OmegaConf.create(gather_options(saved), flags={"allow_objects": True})
    except SyntaxError as error:
        cause = error.__cause__ if isinstance(error.__cause__, SyntaxError) else error
        raise ConfigError(f"syntax error in {file}, line {cause.lineno}: {cause.msg}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not readable YAML: {error}") from error

    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"{file} holds a {type(cfg).__name__}, not a mapping of exported names")
    return cfg


def load_config(file: str | Path, opts: Sequence[str] = ()) -> DictConfig:
    """Load an experiment, apply overrides and check it.

    Args:
        file: a ``.py`` LazyConfig or a saved ``.yaml``: its path, or its name, see
            :func:`find_config`.
        opts: overrides ``key.sub=value``, see :func:`apply_overrides`.

    Returns:
        The config, with interpolations unresolved.

    Raises:
        ConfigError: file missing or broken, exported name missing, bad override or argument.
    """
    found = find_config(file)
    if found is None:
        file = Path(file)
        folder = file.parent if file.parent.is_dir() else Path()
        here = sorted(p.name for p in folder.iterdir() if p.suffix in (".py", ".yaml", ".yml"))
        near = difflib.get_close_matches(file.name, here, n=5, cutoff=0.4) or here[:10]
        known = difflib.get_close_matches(file.as_posix(), _known_names(), n=3, cutoff=0.6)
        ours = f"; configs of rsd2 with such a name: {', '.join(known)}" if known else ""
        raise ConfigError(
            f"no config file {file}; in {folder.resolve()}: {', '.join(near) or 'none'}{ours}"
        )

    file = found
    cfg = read_config_file(file)
    missing = [name for name in EXPORTED_NAMES if name not in cfg]
    if missing:
        raise ConfigError(
            f"{file} does not export {', '.join(missing)}; an experiment exports "
            f"{', '.join(EXPORTED_NAMES)} (found: {', '.join(map(str, cfg)) or 'nothing'})"
        )

    apply_overrides(cfg, opts)
    check_arguments(cfg)
    return cfg


def save_config(cfg: DictConfig, path: str | Path) -> None:
    """Write a config as YAML that :func:`load_config` reads back, interpolations kept.

    Args:
        cfg: the config.
        path: path of the YAML file, which appears complete or not at all.

    Raises:
        ConfigError: a value cannot be written (a lambda, an open object); its key is named.
        OSError: the file cannot be written.
    """
    for key, value in config_leaves(cfg):
        if key.endswith("_target_") and "<" not in getattr(value, "__qualname__", "<"):
            continue  # saved by its dotted name, also where it is a method of a class
        try:
            yaml.unsafe_load(yaml.dump(value))
        except (yaml.YAMLError, TypeError, AttributeError, ImportError, ValueError) as error:
            raise ConfigError(
                f"{key} = {value!r} cannot be saved; use a named function or class"
            ) from error

    with replaced_file(path) as temporary:
        try:
            LazyConfig.save(cfg, str(temporary))
        finally:
            # Detectron2 writes this beside a file that it cannot write as YAML.
            Path(f"{temporary}.pkl").unlink(missing_ok=True)


def config_depth(file: str | Path) -> int:
    """Count the files in the longest inheritance chain of a config; 1 is a file of its own.

    Relative imports, ``get_config("...")``, ``LazyConfig.load("...")`` and ``load_rel`` count.

    Args:
        file: path of a ``.py`` config.

    Returns:
        Length of the chain, >= 1.

    Raises:
        ConfigError: a parent is missing, is named by an expression, or the chain is a loop.
    """
    return _depth(Path(file).resolve(), ())


def _depth(file: Path, above: tuple[Path, ...]) -> int:
    if file in above:
        raise ConfigError("configs inherit in a loop: " + " -> ".join(map(str, (*above, file))))
    if not file.is_file():
        raise ConfigError(f"{above[-1] if above else file} inherits from {file}, which is missing")
    parents = list(_parents(file)) if file.suffix == ".py" else []
    return 1 + max((_depth(parent, (*above, file)) for parent in parents), default=0)


def _parents(file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.ImportFrom) and node.level > 0 and node.module:
            folder = file.parents[node.level - 1]
            yield (folder / Path(*node.module.split("."))).with_suffix(".py")
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition("LazyConfig.")[2]
            if name not in ("get_config", "load", "load_rel") or not node.args:
                continue
            if name == "load" and "LazyConfig" not in ast.unparse(node.func):
                continue
            argument = node.args[0]
            parent = argument.value if isinstance(argument, ast.Constant) else None
            if not isinstance(parent, str):
                raise ConfigError(f"{file}:{node.lineno}: name the parent config by a plain string")

            if name == "get_config":
                yield (_named_config(parent) or Path(parent)).resolve()
                continue
            checkout = [root.parent for root in config_roots()]
            bases = [file.parent] if name == "load_rel" else [Path.cwd(), *checkout]
            found = [base / parent for base in bases]
            yield next((path.resolve() for path in found if path.is_file()), Path(parent))
