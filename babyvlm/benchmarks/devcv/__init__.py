"""The DevCV Toolbox: tasks, how they are built, their files, and how replies are scored."""

from .score import *  # noqa: F401,F403
from .tasks import TASKS, load_items  # noqa: F401
