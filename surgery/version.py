"""The version of the package; hatch reads it from here. Imports nothing."""

__version__ = "0.1.0"
