"""Configs: find, load, override, check and save LazyConfigs."""

from .checks import ConfigError, apply_overrides, check_arguments, check_overrides
from .config import (
    EXPORTED_NAMES,
    config_depth,
    config_roots,
    get_config,
    load_config,
    read_config_file,
    save_config,
)

__all__ = [
    "ConfigError",
    "EXPORTED_NAMES",
    "apply_overrides",
    "check_arguments",
    "check_overrides",
    "config_depth",
    "config_roots",
    "get_config",
    "load_config",
    "read_config_file",
    "save_config",
]
