"""Hierarchical recognition: metrics over paths, questions, and a run of them."""

from .metrics import *  # noqa: F401,F403
