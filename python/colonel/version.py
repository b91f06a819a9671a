"""The version of the installed package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("colonel")
except PackageNotFoundError:
    # Run from a checkout by PYTHONPATH.
    __version__ = "0+checkout"
