"""Norn deploys apps and gets them back when a deployment goes wrong."""

__version__ = "0.1.0"
