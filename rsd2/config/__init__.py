"""Configs: find, load, override, check and save LazyConfigs."""

from .checks import ConfigError as ConfigError
from .checks import apply_overrides as apply_overrides
from .checks import check_arguments as check_arguments
from .checks import check_overrides as check_overrides
from .config import EXPORTED_NAMES as EXPORTED_NAMES
from .config import config_depth as config_depth
from .config import config_roots as config_roots
from .config import find_config as find_config
from .config import get_config as get_config
from .config import load_config as load_config
from .config import read_config_file as read_config_file
from .config import save_config as save_config
