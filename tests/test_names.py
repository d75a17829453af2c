"Names that other programs rely on."
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from babyvlm import _compat
from babyvlm._compat import MOVED, PARTED

NAMES = {'babyvlm.matching': 'match verify', 'babyvlm.data.conversations': 'load_records save_records',
         'babyvlm.data.taxonomy': 'load_hierarchy load_annotations build_questions',
         'babyvlm.benchmarks.v1': 'load_labeled_s load_vtwt load_baby_winoground load_saycam_caption score',
         'babyvlm.benchmarks.devcv': 'load_items score_items TASKS leaderboard_scores',
         'babyvlm.benchmarks.hierarchy': 'hca leaf_acc por s_por tor score_paths',
         'babyvlm.benchmarks.parsing': 'parse_letter parse_number parse_direction', 'babyvlm.benchmarks.likelihood': 'loglik',
         'babyvlm.benchmarks.audit': 'audit', 'babyvlm.models': 'load_model', 'babyvlm.analysis.probing': 'fit_probe',
         'babyvlm.analysis.survey': 'read_responses analyse', 'babyvlm.estimate': 'Estimate bootstrap paired_difference',
         'babyvlm.reporting.published': 'published'}


@pytest.mark.parametrize('module', NAMES)
def test_a_name_is_there(module):
    there = import_module(module)
    assert not [n for n in NAMES[module].split() if not callable(getattr(there, n, None)) and n != 'TASKS']


def test_a_name_that_nobody_has_is_an_error():
    with pytest.raises(ImportError, match='load_modle'): exec('from babyvlm.models import load_modle')


@pytest.mark.parametrize('old', MOVED)
def test_an_old_path_goes_on_working(old):
    sys.modules.pop(f'babyvlm.{old}', None)
    with pytest.warns(DeprecationWarning, match=re.escape(f"'babyvlm.{old}' has moved: import from 'babyvlm.{MOVED[old][0]}'")) as said: there = import_module(f'babyvlm.{old}')
    assert said[-1].filename == __file__ or 'importlib' in said[-1].filename
    for place in map(import_module, (f'babyvlm.{m}' for m in MOVED[old])):
        for name in getattr(place, '__all__', ()): assert getattr(there, name) is not None, name
    with pytest.raises(AttributeError, match=f"has moved to 'babyvlm.{MOVED[old][0]}', which has no attribute 'nobody'"): there.nobody  # noqa: B018


@pytest.mark.parametrize('words', ['from babyvlm.models.vlms import load_vlm, Question, open_upright', 'from babyvlm.models import vlms', 'from babyvlm.recipes import v1',
                                   'from babyvlm.benchmarks.items import open_image', 'from babyvlm.data.recordings import frames_at, spoken', 'import babyvlm.recipes.v2_data',
                                   'from babyvlm.benchmarks.catalogue import *\nload_items', 'from babyvlm.data.devcv import build, VARIANTS', 'from babyvlm.evaluation import Family'])
def test_a_program_of_before_runs(words):
    for old in MOVED:   # as in a new process
        sys.modules.pop(f'babyvlm.{old}', None)
        package, _, name = f'babyvlm.{old}'.rpartition('.')
        if hasattr(sys.modules.get(package), name): delattr(sys.modules[package], name)
    with pytest.warns(DeprecationWarning, match='has moved'): exec(words)


def test_no_module_of_today_is_listed_as_moved_and_importing_loads_none():
    import babyvlm
    assert not [m for m in MOVED if (Path(babyvlm.__file__).parent/(m.replace('.', '/') + '.py')).exists()]
    code = "import sys, babyvlm; sys.exit(bool([m for m in sys.modules if m.startswith('babyvlm.') and m != 'babyvlm._compat']))"
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


def test_no_two_classes_have_one_name():
    import babyvlm
    root, found = Path(babyvlm.__file__).parent, {}
    for p in sorted(root.rglob('*.py')):
        for name in re.findall(r'^class ([A-Z]\w*)\b', p.read_text(encoding='utf-8'), re.M): found.setdefault(name, []).append(p.relative_to(root).as_posix())
    assert not {n: where for n, where in found.items() if len(where) > 1}


OLD = ['data.pretraining import Clip, segment, write_frames', 'data.child_directed import Endpoint, _unpack', 'training.trainer import EpochSampler, write_rows', 'models.hub_models import halving, letters_of',
       'items import open_image, evaluate', 'analysis.survey.answers import Rules', 'analysis.survey import Rules', 'run.speed import PARTS', 'models.cvcl import DualEncoder', 'benchmarks.hierarchy.run import Items']


@pytest.mark.parametrize('words', OLD)
def test_a_name_that_moved_goes_on_working(words):
    with pytest.warns(DeprecationWarning, match="has moved: it is 'babyvlm") as said: exec(f'from babyvlm.{words}')
    assert said[-1].filename != _compat.__file__


@pytest.mark.parametrize('old', PARTED)
def test_every_place_of_a_moved_name_is_there(old):
    for place in PARTED[old]:
        was, renamed, new = place.rpartition('=')
        assert hasattr(import_module(f'babyvlm.{old}' if renamed else f'babyvlm.{place}'), new if renamed else '__all__')
    with pytest.raises(ImportError, match='nobody'): exec(f'from babyvlm.{old} import nobody')
