"""Entry points that run once a process (plugins/__init__.py)."""

import logging
from importlib.metadata import entry_points

import vllm.envs as envs

logger = logging.getLogger(__name__)

DEFAULT_PLUGINS_GROUP = "vllm.general_plugins"

# A global of the module: a forked child inherits it and loads nothing again, a spawned one starts with False.
plugins_loaded = False


def load_general_plugins() -> None:
    global plugins_loaded
    if plugins_loaded:
        return
    plugins_loaded = True
    allowed = envs.VLLM_PLUGINS
    plugins = []
    for entry in entry_points(group=DEFAULT_PLUGINS_GROUP):
        if allowed is not None and entry.name not in allowed:
            continue
        try:
            plugins.append(entry.load())
        except Exception:
            # A plugin that can't be imported is passed over; one that fails when called is not.
            logger.exception("Failed to load plugin %s", entry.name)
    for plugin in plugins:
        plugin()
