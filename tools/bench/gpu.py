"""The GPU rows of one part, on a machine that has a CUDA device and little else.

    python tools/bench/gpu.py matching [--seconds 420] [--out FOLDER] [--device cuda]

writes FOLDER/gpu_matching.json (default: $OUT, else tools/bench/results) after every row, so that a run which is stopped keeps what it
has. No row starts after `--seconds`. `--device cpu` runs the same code at small sizes: a rehearsal, not a measurement.
"""
import argparse
import importlib
import json
import os
import platform
import sys
import time
import traceback
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
PARTS = ('matching', 'likelihood', 'probing', 'embedding', 'training', 'questions')
PEERS = ('numpy', 'scipy', 'numba', 'sklearn', 'transformers')


def context(device):
    "Where and with what the rows are made."
    import torch
    found = dict(date=date.today().isoformat(), threads=torch.get_num_threads(), cores=os.cpu_count(),
                 python=platform.python_version(), torch=torch.__version__)
    found['device'] = torch.cuda.get_device_name() if device == 'cuda' else f'{platform.machine()}, rehearsal'
    if device == 'cuda': found['memory_gib'] = round(torch.cuda.get_device_properties(0).total_memory/2**30, 1)
    return found | {k: importlib.import_module(k).__version__ for k in PEERS}


def write(path, record):
    "Whole or not at all."
    new = path.with_suffix('.part')
    new.write_text(json.dumps(record, indent=1, default=float) + '\n')
    new.replace(path)


def run(part, out, device, seconds, quick):
    "All rows of a part, each written as soon as it is there; the exit status."
    where, rows, began = context(device), [], time.monotonic()
    path = out/f'gpu_{part}.json'
    late = lambda: time.monotonic() - began > seconds
    record = dict(context=where, command=f'python tools/bench/gpu.py {part}', rows=rows)
    try:
        for row in importlib.import_module(f'bench_{part}').gpu_rows(quick=quick, device=device, late=late):
            rows.append(row)
            write(path, record)
            sys.stdout.write(f'{time.monotonic() - began:6.0f} s  {json.dumps(row, default=float)}\n'); sys.stdout.flush()
    except Exception as e:  # a row that fails must not take the rows before it along; the status says that it did
        traceback.print_exc()
        record['stopped'] = f'{type(e).__name__}: {e}'
        write(path, record)
        return 1
    return 0


if __name__ == '__main__':
    a = argparse.ArgumentParser()
    a.add_argument('part', choices=PARTS)
    a.add_argument('--seconds', type=float, default=420)
    a.add_argument('--out', type=Path, default=Path(os.environ.get('OUT') or HERE/'results'))
    a.add_argument('--device', default='cuda')
    a = a.parse_args()
    import babyvlm  # noqa: F401  before transformers
    a.out.mkdir(parents=True, exist_ok=True)
    sys.exit(run(a.part, a.out, a.device, a.seconds, a.device == 'cpu'))
