"""The DevCV Toolbox: tasks, how they are built, their files, and how replies are scored."""

from .read import find_tasks, load_items  # noqa: F401
from .score import *  # noqa: F401,F403
from .tasks import TASKS, build, register  # noqa: F401
