__version__ = "0.1.0"

from babyvlm._compat import guard_torchvision

guard_torchvision()
