"Names that other programs rely on."
from importlib import import_module

import pytest

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
