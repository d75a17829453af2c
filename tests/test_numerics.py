"Three kinds of processor, simulated: what decides data is the same on all, and each knows what it computes with."
import json
import os
import subprocess
import sys

import pytest

from babyvlm.numerics import differing, same_bits

LEVELS = dict(native={}, capped=dict(ATEN_CPU_CAPABILITY='avx2', ONEDNN_MAX_CPU_ISA='AVX2', MKL_CBWR='AVX2'),
              low=dict(ATEN_CPU_CAPABILITY='default', ONEDNN_MAX_CPU_ISA='SSE41', MKL_CBWR='COMPATIBLE', OPENBLAS_CORETYPE='Nehalem'))
SCRIPT = '''
import json, sys
from babyvlm.config import profile
from babyvlm.experiments.sources import Sources
from babyvlm.experiments.v1_data import V1Data
from babyvlm.numerics import numerics
from babyvlm.store import Store
small = dict(nursery=dict(utterances=300, web=300, labeled_s=22, vtwt=20, baby_winoground=8, captions=4), clip=dict(epochs=3),
             data=dict(threshold=0.))
data = V1Data(profile('toy', small), Store(sys.argv[1]))
kept, ledger = data.filtered()
moved = data.transferred()
drawn = {a.stage: a.manifest['files'] for a in data.used.values() if a.stage.startswith('nursery')}
weights = next(a for a in data.used.values() if a.stage == 'clip').manifest['files']['model.safetensors']
print(json.dumps(dict(numerics=numerics(), drawn=drawn, kept=kept.uids, moved=moved['uid'][:], weights=weights,
                      similarity=data.scored().similarity.tolist())))
'''


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    def start(name):
        env = {k: v for k, v in os.environ.items() if k not in LEVELS['low']} | dict(LEVELS[name], OMP_NUM_THREADS='1')
        words = [sys.executable, '-c', SCRIPT, str(tmp_path_factory.mktemp(name))]
        return subprocess.Popen(words, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    started = {name: start(name) for name in LEVELS}
    out = {name: p.communicate(timeout=240) for name, p in started.items()}
    for name, p in started.items(): assert p.returncode == 0, f'{name}: {out[name][1][-2000:]}'
    return {name: json.loads(o.splitlines()[-1]) for name, (o, _) in out.items()}


@pytest.mark.parametrize('what', ['drawn', 'weights', 'kept', 'moved'])
def test_data_are_the_same_on_every_processor(runs, what):
    assert runs['native'][what], 'something must be there to compare'
    for name in LEVELS: assert runs[name][what] == runs['native'][what], name


def test_similarities_agree_far_below_any_difference_that_matters(runs):
    for name in LEVELS: assert runs[name]['similarity'] == pytest.approx(runs['native']['similarity'], abs=1e-7), name


def test_records_tell_the_processors_apart(runs):
    native, low = (runs[k]['numerics'] for k in ('native', 'low'))
    assert same_bits(native, native) and not same_bits(native, low)
    assert 'settings.MKL_CBWR: None and COMPATIBLE' in differing(native, low)


def test_the_record_does_not_hang_on_what_was_imported_before():
    "A run and the `verify` that looks at it load different modules, and are on the same machine."
    def record(first): return subprocess.run([sys.executable, '-c', f'{first}; import json; from babyvlm.numerics import numerics; print(json.dumps(numerics()))'],
                                             check=True, capture_output=True, text=True).stdout
    assert record('pass') == record('import scipy.linalg, scipy.optimize, sklearn.linear_model')
