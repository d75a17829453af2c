__version__ = "0.1.0"

from babyvlm._compat import guard_torchvision, keep_old_paths

guard_torchvision()
keep_old_paths()
