"""Let a torchvision whose C++ library needs CUDA load beside a CPU-only torch.

A CPU torch and the registry's torchvision can meet in one environment; the C++ library of the second then does not
load and `import torchvision` fails on the missing operator `torchvision::nms`. The guard waits for that import, tries
the real library first, and only if it does not load declares the two operator schemas it would have brought.
Calling `nms` then still raises; nothing here needs it. Cost: nothing until torchvision is imported.
"""
import importlib.abc
import importlib.machinery
import sys
from pathlib import Path


class _TorchvisionGuard(importlib.abc.MetaPathFinder):
    lib = None

    def find_spec(self, name, path=None, target=None):
        if name != 'torchvision': return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name)
        if spec is None: return None
        import torch
        try:
            torch.ops.load_library(next(Path(spec.origin).parent.glob('_C*.so')))
        except (OSError, StopIteration):
            type(self).lib = lib = torch.library.Library('torchvision', 'DEF')
            for op in ('nms', 'qnms'):
                lib.define(f'{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        return spec


def guard_torchvision():
    "Install the guard once, unless torchvision is already loaded."
    if 'torchvision' in sys.modules or any(isinstance(f, _TorchvisionGuard) for f in sys.meta_path): return
    sys.meta_path.insert(0, _TorchvisionGuard())
