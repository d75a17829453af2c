"""Entries and score files against the rules of the board: made by us they pass, and each way to go wrong is named.

The file `model.py` runs here under the interface of the organisers' lmms-eval fork (stubbed: the fork is in no registry) with our PyTorch, and, where
BABYVLM_BOARD_PYTHON names a Python with torch 2.1 and transformers 4.39 (their environment), with theirs: `make board`."""
import ast
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from babyvlm.benchmarks import lmms_eval as L
from babyvlm.benchmarks.leaderboard import (_imported, CHALLENGE, EXTRA, check_issue, check_submission, collate, fact_problems, model_problems, weights_problem,
                                            write_submission)
from babyvlm.models.babyllava import BabyLlava, BabyLlavaForConditionalGeneration, BabyLlavaProcessor, babyllava_toy
from babyvlm.models.babyllava_v2 import BabyLlavaV2, RecordProcessor, babyllava_v2_toy
from babyvlm.models.tokenizers import bpe_tokenizer, build_vocab, word_tokenizer
from babyvlm.models.vision import image_processor, num_image_tokens
from babyvlm.models.weights import seeded
from babyvlm.run.cli import app
from babyvlm.run.evaluate import load_model

WORDS = ['a red cup', 'a green cup', 'a blue hat', 'the image that is left', 'A B C D']


def loud(config):
    "A model whose answers depend on what it is asked."
    model = seeded(lambda: BabyLlavaForConditionalGeneration(config), 0).eval()
    with torch.no_grad():
        for name, p in model.language_model.named_parameters():
            if p.dim() > 1 and 'wte' not in name: p.mul_(8)
    return model


def save(kind, folder):
    "A small model of the captioning or the talking kind."
    if kind == 'talks':
        tokenizer = bpe_tokenizer(WORDS * 9, 300, 2)
        model = loud(babyllava_v2_toy(len(tokenizer), positions=512))
        with torch.no_grad(): model.feature_mean.fill_(.1), model.feature_std.fill_(1.3)
        images = image_processor(48, (.5, .4, .3), (.2, .3, .4), True, 'bicubic')
        BabyLlavaV2(model, RecordProcessor(images, tokenizer, num_image_tokens(model.config.vision_config), max_length=512)).save_pretrained(folder)
    else:
        tokenizer = word_tokenizer(build_vocab(WORDS, 1))
        model = loud(babyllava_toy(len(tokenizer), *kind.split(), positions=512))
        BabyLlava(model, BabyLlavaProcessor(image_processor(64), tokenizer, num_image_tokens(model.config.vision_config))).save_pretrained(folder)


@pytest.fixture(scope='module', params=['gpt2 resnext', 'llama vit', 'talks'])
def entry(request, tmp_path_factory):
    "A checkpoint, its place in a cache of the hub, and the folder that the command line makes of it."
    folder = tmp_path_factory.mktemp('entry')
    snapshot = folder/'hub'/'models--lab--baby'/'snapshots'/('0' * 40)
    save(request.param, snapshot)
    (snapshot.parent.parent/'refs').mkdir()
    (snapshot.parent.parent/'refs'/'main').write_text('0' * 40)
    (folder/'facts.json').write_text(json.dumps(dict(training_data='toy', model_description='a toy', revision='main')))
    args = ['leaderboard', '--submission', 'mine', '--name', 'my baby', '--checkpoint', 'lab/baby', '--weights', snapshot, '--facts', 'facts.json']
    here = os.getcwd()
    os.chdir(folder)
    try: done = CliRunner().invoke(app, list(map(str, args)))
    finally: os.chdir(here)
    assert done.exit_code == 0, done.output
    return SimpleNamespace(folder=folder, weights=snapshot, made=folder/'mine', said=done.output)


def test_what_the_command_writes_passes_the_rules(entry):
    assert check_submission(entry.made) == ([], []) and 'add' not in entry.said
    facts = json.loads((entry.made/'submission.json').read_text())
    assert facts['hf_model_url'] == facts['metadata']['hf_repo'] == facts['checkpoint'] == 'lab/baby' and facts['metadata']['submitter'] == 'lab'
    assert facts['metadata']['num_parameters'] == sum(p.numel() for p in BabyLlavaForConditionalGeneration.from_pretrained(entry.weights).parameters())


def pictures(folder):
    rng = np.random.default_rng(0)
    out = []
    for i, size in enumerate([(64, 64), (80, 50), (33, 70)]):
        out.append(str(folder/f'{i}.png'))
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8).repeat(1, 0)).save(out[-1])
    return out


def asked(paths):
    "Documents of the released form and what the harness asks of them."
    single = [dict(image=paths[:n], text=''.join(['<image>'] * n) + q) for n, q in [(1, 'a red cup'), (2, 'A B'), (3, 'the left')]]
    rounds = dict(image=paths, conversations=[dict([('from', w), ('value', v)]) for p in ('the', 'a', 'red') for w, v in (('human', f'{p} image (A) <image>'), ('gpt', 'A'))])
    return single, rounds


STUB = '''
import sys, types
class lmms:
    def __init__(self): self.task_dict, self._rank, self._world_size = {}, 0, 1
    @property
    def rank(self): return self._rank
known = {}
def register_model(*names):
    def add(cls):
        assert issubclass(cls, lmms) and all(hasattr(cls, m) for m in ('loglikelihood', 'generate_until', 'generate_until_multi_round'))
        known.update(dict.fromkeys(names, cls))
        return cls
    return add
for name in ('lmms_eval', 'lmms_eval.api', 'lmms_eval.api.model', 'lmms_eval.api.registry', 'lmms_eval.utils'): sys.modules[name] = types.ModuleType(name)
sys.modules['lmms_eval.api.model'].lmms, sys.modules['lmms_eval.api.registry'].register_model = lmms, register_model
'''
DRIVER = STUB + '''
import importlib.util, json
from PIL import Image
facts, single, rounds = json.load(open(sys.argv[1]))
spec = importlib.util.spec_from_file_location(facts['registered_model'], sys.argv[2])
module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
lm = known[facts['registered_model']](pretrained=facts['checkpoint'], conv_template=facts['conv_template'], batch_size=16, device='cpu')
lm.task_dict = {'t': {'test': [*single, rounds]}}
look = lambda doc: [Image.open(p).convert('RGB') for p in doc['image']]
ask = lambda *args: types.SimpleNamespace(args=args)
out = dict(
    said=lm.generate_until([ask(d['text'], {'max_new_tokens': 64}, look, i, 't', 'test') for i, d in enumerate(single)]),
    told=lm.generate_until_multi_round([ask('', {}, look, None, len(single), 't', 'test')]),
    loss=lm.loglikelihood([ask('', w, look, 0, 't', 'test') for w in ('a red cup', 'a blue hat')]),
    later=lm.loglikelihood([ask('the', lambda doc: 'left', look, 0, 't', 'test')]),
    versions=[sys.modules[m].__version__ for m in ('torch', 'transformers')])
print(json.dumps(out))
'''


def run(entry, python, tmp_path, first=''):
    single, rounds = asked(pictures(tmp_path))
    (tmp_path/'in.json').write_text(json.dumps([json.loads((entry.made/'submission.json').read_text()), single, rounds]))
    env = {k: v for k, v in os.environ.items() if first or k != 'PYTHONPATH'}
    env |= dict(HF_HUB_CACHE=str(entry.folder/'hub'), HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1')
    done = subprocess.run([python, '-c', first + DRIVER, str(tmp_path/'in.json'), str(entry.made/'model.py')], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), single, rounds


def agrees(found, single, rounds, weights):
    "The file says what the library's own adapter says."
    adapter = L.Adapter(load_model(weights, 'cpu'))
    look = [[Image.open(p) for p in d['image']] for d in single]
    assert found['said'] == L.words(adapter, [({}, str(i), d['text'], look[i]) for i, d in enumerate(single)])
    assert [*map(json.loads, found['told'])] == [*map(json.loads, L.conversations(adapter, [(rounds, 'm')]))]
    ours = L.losses(adapter, [(str(i), p, look[0], w) for i, (p, w) in enumerate([('', 'a red cup'), ('', 'a blue hat'), ('the', 'left')])])
    assert [x for x, _ in found['loss'] + found['later']] == pytest.approx(ours, rel=1e-4)
    assert len(set(map(str, ours))) == 3


def test_model_py_runs_alone_and_says_what_babyvlm_says(entry, tmp_path):
    assert 'babyvlm' not in {m.split('.')[0] for m in _imported(ast.parse((entry.made/'model.py').read_text()))}
    first = 'import babyvlm\n'   # torchvision does not load beside this torch without it
    agrees(*run(entry, sys.executable, tmp_path, first), entry.weights)


def test_model_py_runs_with_the_versions_of_the_board(entry, tmp_path):
    python = os.environ.get('BABYVLM_BOARD_PYTHON')
    if not python: pytest.skip('no environment of the board here: run `make board`, or set BABYVLM_BOARD_PYTHON')
    found, *rest = run(entry, python, tmp_path)
    assert [v.split('.')[:2] for v in found['versions']] == [['2', '1'], ['4', '39']]
    agrees(found, *rest, entry.weights)


def test_facts_that_the_board_stores_are_taken_and_numbers_demanded(tmp_path):
    stored = ('num_image_tokens flops num_images_data num_hours_data data_preprocessing data_syn_aug other_hyp hf_repo revision submitter main_contributions '
              'optimizer learning_rate training_epochs batch_size max_seq_length gpu_train').split()
    assert set(EXTRA) == set(stored) and list(CHALLENGE) == ['model_type', 'vision_encoder', 'language_model', 'training_data', 'num_parameters',
                                                             'model_description']
    every = {k: 'me/x' for k in stored} | dict(flops=1e15, num_images_data=3, num_parameters=1_100_000_000)
    write_submission(tmp_path, 'x', 'me/x', every)
    assert json.loads((tmp_path/'submission.json').read_text())['metadata'] == every
    assert check_submission(tmp_path) == ([], ['model_type', 'vision_encoder', 'language_model', 'training_data', 'model_description'])
    for key in ('num_parameters', 'flops', 'num_images_data'):
        for bad in ('1.1B', '1100000000', True, 0, -3, float('nan'), None, [1]):
            assert any(key in p for p in fact_problems({key: bad})), (key, bad)
            with pytest.raises(ValueError, match=key): write_submission(tmp_path/'bad', 'x', 'me/x', {key: bad})


def test_an_entry_of_their_own_wrapper_needs_no_model_py(tmp_path):
    facts = dict(model_name='x', checkpoint='me/x', registered_model='babyllava', conv_template='baby_v1', metadata=dict(submitter='me'))
    def check(**change):
        (tmp_path/'submission.json').write_text(json.dumps(facts | change))
        return check_submission(tmp_path)
    assert check() == ([], list(CHALLENGE)) and check(metadata={}) == ([], [*CHALLENGE, 'submitter'])
    assert check(registered_model='')[0] == ['neither model.py nor registered_model']
    assert 'is not owner/name' in check(hf_model_url='https://huggingface.co/me/x')[0][0] and check(hf_model_url='me/x')[0] == []
    (tmp_path/'model.py').write_text(wrapper('babyllava'))
    assert 'overwrite' in check()[0][0] and check(registered_model='mine')[0] == ["model.py registers ['babyllava'], but registered_model is 'mine'"]


def wrapper(name, methods=('generate_until', 'generate_until_multi_round', 'loglikelihood'), extra=''):
    head = f"from lmms_eval.api.model import lmms\nfrom lmms_eval.api.registry import register_model\n{extra}\n@register_model('{name}')\nclass Own(lmms):\n"
    return head + '\n'.join(f'    def {m}(self, requests): return []' for m in methods)


@pytest.mark.parametrize('text, name, says', [
    (wrapper('x'), 'x', ''), (wrapper('model'), '', ''), (wrapper('x'), '', 'registered_model is'), ('def f(:', 'x', 'line 1'),
    (wrapper('x', ['generate_until', 'loglikelihood']), 'x', 'no generate_until_multi_round'), ('x = 1', 'x', 'registers no model'),
    (wrapper('x', extra='from babyvlm.run.evaluate import load_model'), 'x', 'not installed there')])
def test_a_model_py_is_read_for_what_the_runner_needs(text, name, says):
    found = model_problems(text, name)
    assert (found == []) if not says else any(says in f for f in found)


@pytest.mark.parametrize('name, fine', [('me/x', True), ('me-2/x.y_z', True), ('https://example.org/x.tar', True), ('x', False), ('checkpoints/mine/last', False),
                                        ('/data/x', False), ('./x', False), ('~/x', False), ('C:\\x', False), ('me/x y', False), ('me/x,device=cpu', False),
                                        ('https://example.org/x?download=true', False), ('REPLACE-with-your-id', False), ('me//x', False), ('', False)])
def test_only_what_the_organisers_can_load_is_a_checkpoint(name, fine, tmp_path):
    assert (weights_problem(name) == '') == fine


def test_a_folder_that_lies_here_is_no_hub_name(tmp_path, monkeypatch):
    (tmp_path/'runs'/'last').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert 'this machine only' in weights_problem('runs/last')


def issue(model_py, **change):
    parts = {'⚠️ Model name (unique)': 'x', '⚠️ Checkpoint (HuggingFace repo id, or a public URL)': 'me/x', '⚠️ Your model.py wrapper': model_py,
             '🔹 Registered wrapper name (the @register_model name in your model.py)': 'mine', '🔹 (Optional) Link your HuggingFace model': '_No response_',
             '👶 Model type': 'Other', '👶 Vision encoder': 'ViT', '👶 Language model / backbone': 'GPT-2', '👶 Training data': 'SAYCam',
             '👶 Total number of parameters': '1100000000', '👶 Brief description of the model': 'a toy'}
    names = dict(link='🔹 (Optional) Link your HuggingFace model', count='👶 Total number of parameters', registered='🔹 Registered wrapper name (the '
                 '@register_model name in your model.py)', kind='👶 Model type')
    return '\n\n'.join(f'### {k}\n\n{v}' for k, v in (parts | {names[k]: v for k, v in change.items()}).items())


def fenced(text, kind='python'): return f'```{kind}\n{text}\n```'


@pytest.mark.parametrize('body, says', [
    (issue(fenced(wrapper('mine'))), ''), (issue(fenced(wrapper('mine'), '')), ''), (issue(wrapper('mine')), ''), (issue('_No response_', registered='babyllava'), ''),
    (issue(fenced(wrapper('mine', extra='"""\n```\nexample\n```\n"""'))), 'closing ```'), (issue(fenced(wrapper('mine', extra='## helpers\n'))), 'the text is cut there'),
    (issue(fenced(wrapper('mine', extra='## description of it\n'))), 'second model_description'), (issue(fenced('x = 1')), '40 are ignored'),
    (issue('https://example.org/model.py'), 'is a link'), (issue(fenced('# https://example.org\n' + wrapper('mine'))), 'is a link'),
    (issue(fenced(wrapper('mine'), 'py')), 'is not ```python'), (issue(fenced(wrapper('mine')), link='https://huggingface.co/me/x'), 'not owner/name'),
    (issue(fenced(wrapper('mine')), count='1.1 billion'), 'not digits alone'), ('Hello, here is my model.', "'model_name' is missing"),
    (issue(fenced(wrapper('mine'))).replace('me/x', 'runs/x/last'), 'no hub name')])
def test_an_issue_is_read_as_the_board_reads_it(body, says):
    wrong, missing = check_issue(body)
    assert (wrong, missing) == ([], []) if not says else any(says in w for w in wrong), wrong


def test_a_fact_left_open_in_an_issue_is_named():
    assert check_issue(issue(fenced(wrapper('mine')), kind='_No response_')) == ([], ['model_type'])


def results(path, scores, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({'results': {k: {f'{m},none': v for m, v in d.items()} for k, d in scores.items()}, **more}))


PV, COUNT = {'baby_pv': {'acc': .4}}, {'baby_count': {'acc': .1}}


@pytest.mark.parametrize('one, two', [(dict(model_name='lab/a'), dict(model_name='lab/b')),
                                      (dict(config=dict(model='a')), dict(config=dict(model='b'))),
                                      (dict(config=dict(model='a', model_args='pretrained=me/x,conv_template=v')),
                                       dict(config=dict(model='a', model_args=dict(pretrained='me/y'))))])
def test_a_score_file_is_about_one_model(tmp_path, one, two):
    results(tmp_path/'a'/'1_results.json', PV, **one)
    results(tmp_path/'b'/'2_results.json', COUNT, **two)
    with pytest.raises(ValueError, match='results of 2 models'): collate(tmp_path)
    assert collate(tmp_path/'a')[0] == PV and collate(tmp_path/'b')[0] == COUNT
    results(tmp_path/'b'/'2_results.json', COUNT, **one)
    assert collate(tmp_path)[0] == PV | COUNT


@pytest.mark.parametrize('more, says', [({'config': {'limit': 8}}, 'limit'), ({'config': {'limit': .1}}, 'limit'),
                                        ({'n-samples': {'baby_pv': {'original': 90, 'effective': 8}}, 'config': {'limit': 8}}, '8 of 90 items'),
                                        ({'n-samples': {'baby_pv': {'original': 90, 'effective': 90}}, 'config': {'limit': 100}}, ''),
                                        ({'n-samples': {'mmmu': {'original': 9, 'effective': 1}}, 'config': {'limit': None}}, '')])
def test_a_part_of_the_items_is_no_score(tmp_path, more, says):
    results(tmp_path/'x_results.json', PV, **more)
    if not says: assert collate(tmp_path)[0] == PV; return
    with pytest.raises(ValueError, match=says): collate(tmp_path)


def test_the_last_path_wins_as_on_the_board(tmp_path):
    for name, value in {'b/20260101_results.json': .1, 'a/20260301_results.json': .3, '.old/20270101_results.json': .9}.items():
        results(tmp_path/name, {'baby_pv': {'acc': value}})
    assert collate(tmp_path)[0] == {'baby_pv': {'acc': .1}}


def test_a_folder_without_results_and_one_of_two_models_are_refused_in_a_line(tmp_path):
    def said(*words): return CliRunner().invoke(app, ['leaderboard', *map(str, words)])
    (tmp_path/'none').mkdir()
    for where in ('none', 'nowhere'):
        out = said(tmp_path/where)
        assert out.exit_code == 2 and out.output == f"babyvlm: no *_results.json in '{tmp_path/where}'; give what `babyvlm-lmms-eval --output_path` wrote, or a score file\n"
    for name in 'xy':
        (tmp_path/'all'/name).mkdir(parents=True)
        (tmp_path/'all'/name/f'{name}_results.json').write_text(json.dumps(dict(model_name=f'lab/{name}', results=dict(baby_pv={'acc,none': .5}))))
    out = said(tmp_path/'all')
    assert out.exit_code == 2 and 'results of 2 models' in out.output and "'lab/y' in " in out.output and 'give the folder of one of them' in out.output
    out = said(tmp_path/'all'/'x')
    assert out.exit_code == 0 and 'mean of 11' in out.output and '10 missing' in out.output
    (tmp_path/'cvcl').mkdir(), (tmp_path/'cvcl'/'config.json').write_text('{"model_type": "babyvlm_cvcl"}')
    out = said('--submission', tmp_path/'s', '--name', 'x', '--checkpoint', 'lab/x', '--weights', tmp_path/'cvcl')
    assert out.exit_code == 2 and out.output.endswith('write your own and name it with --model-py\n')
    assert said('--issue', tmp_path/'gone.md').output == f"babyvlm: no file or folder '{tmp_path/'gone.md'}'\n"

@pytest.mark.parametrize('one, other', [(dict(model_name='lab/a'), dict(model_name_sanitized='lab__b')), (dict(model_name='lab/a'), dict(config=dict(model_args='pretrained=lab/b'))),
                                        (dict(config=dict(model_args='pretrained=a,peft=x')), dict(config=dict(model_args=dict(pretrained='a', peft='y'))))])
def test_two_models_are_told_apart_by_any_fact_of_their_files(tmp_path, one, other):
    for name, facts in (('1', one), ('2', other)): (tmp_path/f'{name}_results.json').write_text(json.dumps(dict(results={'baby_pv': {'acc,none': .25}}, **facts)))
    with pytest.raises(ValueError, match='results of 2 models'): collate(tmp_path)
    (tmp_path/'2_results.json').unlink()
    assert collate(tmp_path)[0] == {'baby_pv': {'acc': .25}}


def result(folder, name, scores, **facts):
    folder.mkdir(exist_ok=True); (folder/f'{name}_results.json').write_text(json.dumps(dict(results=scores, **facts)))


def test_blanks_texts_and_filters_of_a_result_file(tmp_path):
    result(tmp_path/'a', 'x', dict(baby_count={'acc,none': .5}), config=dict(model_args='pretrained=x/a, revision=1'))
    result(tmp_path/'a', 'y', dict(baby_pv={'acc,none': .5}), config=dict(model_args='pretrained=x/a,revision=2'))
    result(tmp_path/'b', 'x', dict(baby_count={'acc,none': .5}), **{'n-samples': dict(baby_count=dict(original='10', effective='5'))})
    result(tmp_path/'c', 'x', dict(baby_count={'acc,none': .5, 'acc,strict': .7}))
    for folder, said in (('a', 'revision: '), ('b', '5 of 10 items'), ('c', '0.5 and 0.7; keep one filter')):
        with pytest.raises(ValueError, match=said): collate(tmp_path/folder)
    result(tmp_path/'d', 'x', dict(baby_count={'acc,none': .5, 'acc,strict': .5}))
    assert collate(tmp_path/'d')[0] == dict(baby_count=dict(acc=.5))


@pytest.mark.parametrize('change, said', [*((dict([(k, v)]), f"'{k}' is no text") for k in ('model_name', 'checkpoint', 'registered_model', 'hf_model_url') for v in (5, ['x'])),
                                          (dict(metadata=dict(learning_rate=float('nan'))), 'learning_rate: nan')])
def test_facts_of_another_kind_are_named(tmp_path, change, said):
    facts = dict(model_name='x', checkpoint='me/x', registered_model='mine', metadata=dict(submitter='me')) | change
    (tmp_path/'submission.json').write_text(json.dumps(facts)); (tmp_path/'model.py').write_text(wrapper('mine'))
    assert any(said in w for w in check_submission(tmp_path)[0])
    (tmp_path/'model.py').write_bytes(b'x = "\xe9"')
    assert 'model.py: byte 5 is not UTF-8' in check_submission(tmp_path)[0][0]


@pytest.mark.parametrize('config, said', [('[1]', 'no settings'), ('{"model_type": "babyllava"}', 'has no vision_config'), ('{"model_type": "babyllava", "vision_config": {}, "text_config": null}', 'has no text_config')])
def test_settings_that_are_none_are_refused_in_a_line(tmp_path, config, said):
    (tmp_path/'config.json').write_text(config)
    out = CliRunner().invoke(app, ['leaderboard', '--submission', str(tmp_path/'s'), '--name', 'n', '--checkpoint', 'a/b', '--weights', str(tmp_path)])
    assert out.exit_code == 2 and said in out.output and len(out.output.strip().splitlines()) == 1, out.output
