"Models of the three papers, and `load_model` for any of them."
from importlib import import_module


def __getattr__(name):   # the loader knows every family, and none should load before it is asked for
    if name != 'load_model': raise AttributeError(f"module 'babyvlm.models' has no attribute {name!r}")
    return import_module('babyvlm.run.evaluate').load_model
