"""The version, as ``ternbin --version``, results and manifests give it."""

__version__ = "0.1.0"
