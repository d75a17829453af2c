"""A survey of people: its page, its answers and its power."""

from .answers import *  # noqa: F401,F403
