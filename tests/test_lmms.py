"""Score files and submissions that are wrong, and the adapter on documents that are not ours; lmms-eval itself is in test_lmms_client."""
import ast
import importlib
import json
import sys
import types

import numpy as np
import pytest
from typer.testing import CliRunner

from babyvlm.benchmarks import lmms_eval as L
from babyvlm.benchmarks.devcv.files import toy_devcv
from babyvlm.benchmarks.devcv.score import TASKS, load_items
from babyvlm.benchmarks.leaderboard import METRICS, board_table, check_scores, check_submission, collate, write_submission
from babyvlm.items import Item, Reply
from babyvlm.run.cli import app


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp('toy')
    toy_devcv(folder, train=0, val=0, test=3, recordings=8)
    return folder/'home'


def test_eleven_keys_and_missing_ones_count_nothing():
    assert len(METRICS) == 11 and {x.key for x in TASKS.values() if x.key} | {'baby_winoground'} == set(METRICS)
    table = board_table({'baby_memory': {'acc_testing_adjusted': 1., 'acc_learning': .2}})
    assert table.percent.iloc[-1] == pytest.approx(100 / 11) and (table.note == 'missing: counts 0').sum() == 10


@pytest.mark.parametrize('scores, message', [
    ({'baby_pv': {'acc': 1.2}}, 'no fraction'), ({'baby_pv': {'acc': '0.5'}}, 'no fraction'), ({'baby_pv': {'acc': float('nan')}}, 'no fraction'),
    ({'baby_pv': {'acc': False}}, 'no fraction'), ({'baby_pv': .5}, 'no metrics'), ([], 'expected an object'), ({'results': []}, 'expected an object')])
def test_wrong_scores_are_refused_with_their_place(scores, message):
    with pytest.raises(ValueError, match=message): check_scores(scores)


def test_extra_metrics_alone_are_no_entry(tmp_path):
    (tmp_path/'x_results.json').write_text(json.dumps({'results': {'baby_memory': {'acc_learning,none': .5}}}))
    with pytest.raises(ValueError, match='none of the eleven'): collate(tmp_path)


def test_command_line_says_what_is_wrong_in_a_line(tmp_path):
    (tmp_path/'s.json').write_text('{"baby_pv": {"acc": 42}}')
    done = CliRunner().invoke(app, ['leaderboard', str(tmp_path/'s.json')])
    assert done.exit_code == 2 and 'baby_pv.acc: 42 is no fraction' in done.output and 'Traceback' not in done.output
    done = CliRunner().invoke(app, ['leaderboard', '--submission', str(tmp_path/'none')])
    assert done.exit_code == 2 and 'no submission.json' in done.output


@pytest.mark.parametrize('name', ['my baby', '7B "quoted"\\ \n', 'ünïcode', "it's; import os", 'BabyLLaVA', '__NAME__ """'])
def test_any_model_name_gives_a_model_py_that_is_python(tmp_path, name):
    out = write_submission(tmp_path/'e', name, 'me/weights')
    tree = ast.parse((out/'model.py').read_text(encoding='utf-8'))
    assert sum('register_model' in ast.unparse(n.decorator_list[0]) for n in tree.body if isinstance(n, ast.ClassDef) and n.decorator_list) == 1
    facts = json.loads((out/'submission.json').read_text(encoding='utf-8'))
    assert facts['model_name'] == name and facts['registered_model'].isidentifier() and check_submission(out)[0] == []


def test_placeholders_and_missing_parts_are_named(tmp_path):
    (tmp_path/'submission.json').write_text(json.dumps(dict(model_name='', checkpoint='REPLACE-me')))
    wrong, missing = check_submission(tmp_path)
    assert wrong == ["'model_name' is missing", 'the checkpoint is still a placeholder', 'neither model.py nor registered_model'] and len(missing) == 7


class Fake:
    name = 'fake'
    def loglik(self, items): return [np.linspace(-1, 0, len(i.options)) for i in items]


def test_a_model_that_only_ranks_answers_questions_and_rounds(home):
    adapter = L.Adapter(Fake(), batch_size=2)
    for task in ('pv', 'vdr-open', 'count'):
        items = load_items(home, task)
        said = L.words(adapter, [(L.as_doc(i), i.uid, i.prompt, L.doc_images(L.as_doc(i))) for i in items])
        assert said == [i.options[-1] for i in items]
    memory = load_items(home, 'memory')
    said, = L.conversations(adapter, [(L.as_doc(memory[0]), 'x')])
    assert json.loads(said) == ['A', *'B' * 14]


def test_foreign_documents_of_the_released_form(home):
    "What a hidden test file gives: no fields of ours."
    item = load_items(home, 'memory')[0]
    doc = dict(image=list(item.images), conversations=json.loads(L.as_doc(item)['conversations']))
    assert json.loads(L.conversations(L.Adapter(Fake()), [(doc, 'm')])[0]) == ['A', *'B' * 14]
    pv = load_items(home, 'pv')[0]
    pictures = L.doc_images(dict(image=list(pv.images)))
    for p in pictures: p.filename = ''                        # decoded by the harness, no path left
    assert L.words(L.Adapter(Fake()), [({}, 'p', pv.prompt, pictures)]) == ['D']


def test_every_document_survives_json(home):
    for task in TASKS:
        for i in load_items(home, task):
            back = L.as_item(json.loads(json.dumps(L.as_doc(i))))
            assert (back.uid, back.prompt, back.options, back.gold, back.images, back.rounds) == (i.uid, i.prompt, i.options, i.gold, i.images, i.rounds)


def test_importing_the_page_does_not_import_lmms_eval(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lmms_eval', None)       # any import of it would fail
    importlib.reload(importlib.import_module('babyvlm.benchmarks.lmms_eval'))
    with pytest.raises(AttributeError): L.nothing
    assert isinstance(L, types.ModuleType) and Reply and Item
