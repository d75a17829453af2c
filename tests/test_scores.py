"""A folder of checkpoints becomes a page of scores with one command; what fails is on it with its reason."""
import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from browser import browser, opened

from babyvlm.estimate import Estimate
from babyvlm.models.chat import Question, chat
from babyvlm.pictures import open_image
from babyvlm.run import scorecard as scores
from babyvlm.run.cli import app
from babyvlm.run.evaluate import Evaluation, Unit
from babyvlm.run.scorecard import Scores, differences_of, draw_tests, find_models, write_scores


class Names:
    "Embeds picture and text at random, and cannot speak."
    def __init__(self, name): self.name, self.rng = name, np.random.default_rng(0)
    def encode_images(self, images):
        for i in images: open_image(i)
        return self.rows(len(images))
    def encode_texts(self, texts): return self.rows(len(texts))
    def rows(self, n): return (x := self.rng.normal(size=(n, 8))) / np.linalg.norm(x, axis=1, keepdims=True)


class Says:
    "A chat model of the hub: it has `say`."
    def __init__(self, name): self.name = name
    def say(self, questions, room): return [('A' if q.images else '') for q in questions]


@pytest.fixture(scope='module')
def tests(tmp_path_factory):
    return draw_tests(tmp_path_factory.mktemp('data')/'toy', devcv=6, labeled_s=1, vtwt=8, winoground=4, captions=4)


@pytest.fixture
def models(tmp_path, monkeypatch):
    for m in ('eyes', 'mouth', '<b>bold</b>'):
        (tmp_path/'models'/m).mkdir(parents=True); (tmp_path/'models'/m/'config.json').write_text('{}')
    (tmp_path/'models'/'half').mkdir(); (tmp_path/'models'/'stray.ckpt').write_bytes(b'')
    def load(path):
        if path.name == 'half': raise OSError(f'{path} holds no config.json')
        return (Says if path.name == 'mouth' else Names)(f'{path.name}@1234')
    monkeypatch.setattr(scores, 'load_model', load)
    return tmp_path/'models'


def run(*words): return CliRunner().invoke(app, [str(w) for w in words])


def test_one_command_fills_the_page(tests, models, tmp_path):
    out = run('evaluate', '--models', models, '--benchmark', 'v1', '--benchmark', 'devcv', '--labels', tests, '--out', tmp_path/'r')
    assert out.exit_code == 1, 'two of the folder could not be read'
    page, rows = (tmp_path/'r'/'report.html').read_text(), list(csv.DictReader(open(tmp_path/'r'/'scores.csv')))
    got = {(r['model'], r['benchmark']) for r in rows if r['n']}
    assert {('eyes@1234', 'vtwt'), ('mouth@1234', 'devcv/memory'), ('mouth@1234', 'saycam_caption')} <= got
    assert {r['model'] for r in rows if not r['benchmark']} == {'half', 'stray.ckpt'}
    assert ('eyes@1234', 'devcv/count') not in got
    assert 'eyes compares pictures with texts: devcv/count needs a model that ranks options or answers in words' in page.replace('@1234', '')
    assert 'half holds no config.json' in page and str(models) not in page
    assert 'published 0.863' in page and 'pixel matcher' in page and '<b>bold' not in page
    ids, targets = set(re.findall(r' id="([^"]+)"', page)), set(re.findall(r'href="#([^"]+)"', page))
    assert targets - {'scores.csv', 'differences.csv'} <= ids and not re.findall(r'(?:src|href)="(?:https?:)?//', page), 'self-contained'


def test_the_second_call_asks_nothing_again(tests, models, tmp_path, monkeypatch):
    call = ('evaluate', '--models', models/'mouth', '--benchmark', 'devcv/count', '--labels', tests, '--out', tmp_path/'r')
    assert run(*call).exit_code == 0
    first = (tmp_path/'r'/'scores.csv').read_text()
    monkeypatch.setattr(Says, 'say', lambda *a: 1 / 0)
    assert run(*call).exit_code == 0 and (tmp_path/'r'/'scores.csv').read_text() == first


def test_labels_are_found_where_the_cards_put_them(tests, models, tmp_path, monkeypatch):
    monkeypatch.setenv('BABYVLM_DATA', str(tests))
    out = run('evaluate', '--models', models/'mouth', '--benchmark', 'devcv/pv', '--out', tmp_path/'r')
    assert out.exit_code == 0, out.output
    monkeypatch.setenv('BABYVLM_DATA', '')
    out = run('evaluate', '--models', models/'mouth', '--benchmark', 'devcv/pv', '--out', tmp_path/'r')
    assert out.exit_code == 2 and 'BABYVLM_DATA' in out.output


def test_one_bad_file_costs_one_task(tests, models, tmp_path):
    import shutil
    shutil.copytree(tests, tmp_path/'toy')
    file = tmp_path/'toy'/'devcv'/'nursery'/'test'/'leftright'/'data.json'
    file.write_text(json.dumps(dict(data=[])))
    out = run('evaluate', '--models', models/'mouth', '--benchmark', 'devcv', '--labels', tmp_path/'toy', '--out', tmp_path/'r')
    assert out.exit_code == 1 and 'leftright: data.json: expected a list' in out.output and 'on devcv/count, fair' in out.output
    (tmp_path/'toy'/'devcv'/'other').mkdir(); shutil.copytree(tmp_path/'toy'/'devcv'/'nursery'/'test', tmp_path/'toy'/'devcv'/'other'/'test')
    out = run('evaluate', '--models', models/'mouth', '--benchmark', 'devcv', '--labels', tmp_path/'toy')
    assert out.exit_code == 2 and 'name one of these folders' in out.output


def test_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'): find_models(tmp_path/'none')
    with pytest.raises(FileNotFoundError, match='holds no model'): find_models(tmp_path)
    for words in (('--benchmark', 'v1'), ('--model', 'a', '--models', 'b', '--benchmark', 'v1')):
        assert run('evaluate', *words).exit_code == 2


def test_pictures_of_a_question_stand_where_they_are_marked():
    q = Question('(A) <image> (B) <image>', ('1', '2', '3'), earlier=(('<image> new?', 'A'),))
    said = [(m['role'], [p['type'] for p in m['content']]) for m in chat(q)]
    assert said == [('user', ['image', 'text']), ('assistant', ['text']), ('user', ['text', 'image', 'text', 'image'])]
    with pytest.raises(ValueError, match='2 marks'): Question('<image> <image>', ('1',))


@pytest.mark.parametrize('text,why', [('{"model_type": "babyllava"', 'config.json'), ('[]', 'are an object')])
def test_a_configuration_that_cannot_be_read_is_named(text, why, tmp_path):
    (tmp_path/'mine').mkdir(); (tmp_path/'mine'/'config.json').write_text(text)
    model, said = scores._read(tmp_path/'mine', {})
    assert model is None and why in said


def test_two_label_sets_stand_on_one_page(tests, models, tmp_path):
    other = draw_tests(tmp_path/'other', seed=1, devcv=6, labeled_s=1, vtwt=8, winoground=4, captions=4)
    def call(labels): return run('evaluate', '--models', models/'mouth', '--benchmark', 'devcv/count', '--labels', labels, '--out', tmp_path/'r')
    assert call(tests).exit_code == 0
    alone = (tmp_path/'r'/'scores.csv').read_text()
    assert call(other).exit_code == 0
    rows = list(csv.DictReader(open(tmp_path/'r'/'scores.csv')))
    assert len({r['labels'] for r in rows}) == 2 and {r['source'] for r in rows} == {'toy', 'other'}
    page = (tmp_path/'r'/'report.html').read_text()
    assert page.count('Object Counting, labels') >= 4 and 'unpaired' in page and (tmp_path/'r'/'differences.csv').exists()
    for journal in (tmp_path/'r'/'replies').rglob('*.jsonl'): assert len(journal.read_text().splitlines()) == 7
    (other/'devcv'/'nursery'/'test'/'count'/'data.json').write_text('{')
    assert call(other).exit_code == 1, 'a number that was asked for is missing'
    assert len([r for r in csv.DictReader(open(tmp_path/'r'/'scores.csv')) if r['n']]) == 2, 'what was there stays there'
    assert alone.splitlines()[1] in (tmp_path/'r'/'scores.csv').read_text()


def test_a_picture_that_comes_back_is_asked_again(tests, models, tmp_path, monkeypatch):
    import shutil
    shutil.copytree(tests, tmp_path/'toy')
    asked, say = [], Names.encode_images
    monkeypatch.setattr(Names, 'encode_images', lambda self, images: asked.append(len(images)) or say(self, images))
    picture = sorted((tmp_path/'toy'/'saycam'/'frames').glob('*.jpg'))[0]
    kept = picture.read_bytes(); picture.unlink()
    for out in (tmp_path/'r', tmp_path/'one.jsonl'):
        def call():
            how = ('--models', models/'eyes') if out.suffix == '' else ('--model', 'eyes')
            return run('evaluate', *how, '--benchmark', 'v1/vtwt', '--labels', tmp_path/'toy', '--out', out)
        from babyvlm.run import evaluate as evaluation
        monkeypatch.setattr(evaluation, 'load_model', lambda spec, out='.': Names('eyes@1234'))
        picture.unlink(missing_ok=True)
        first = call()
        assert first.exit_code == 0 and 'asked 8 = answered 7 + no answer 0 + skipped 1' in first.output, first.output
        picture.write_bytes(kept)
        second = call()
        assert second.exit_code == 0 and 'asked 8 = answered 8 + no answer 0 + skipped 0' in second.output, second.output
        n = len(asked); call(); assert len(asked) == n, 'now everything is known'


@pytest.mark.parametrize('apart', [dict(labels='ffff0000'), dict(mode='reference'), dict(protocol='chat')], ids=lambda d: next(iter(d)))
def test_one_model_asked_in_two_ways_stands_on_one_page(tmp_path, apart):
    units = tuple(Unit(f'u{k}', f'k{k}', '', float(k % 2)) for k in range(8))
    one = Evaluation('m@1', 'vtwt', 'fair', dict(acc=Estimate(.5, .2, .8, 8, .5)), [], units=units, labels='aaaa0000', source='toy', protocol='loglik')
    table = differences_of(Scores([one, replace(one, **apart)]))
    assert len({*table.a, *table.b}) == 2 and write_scores(Scores([one, replace(one, **apart)]), tmp_path).is_file()


@pytest.mark.parametrize('width, scheme', [(1280, 'light'), (390, 'dark')])
def test_the_page_fits_a_desk_and_a_phone(tests, models, tmp_path, width, scheme):
    "Nothing is cut at the side, and axe-core finds nothing."
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='axe-playwright-python is not installed').Axe()
    run('evaluate', '--models', models, '--benchmark', 'v1', '--benchmark', 'devcv', '--labels', tests, '--out', tmp_path/'r')
    with browser() as b:
        page = opened(b, tmp_path/'r'/'report.html', width, color_scheme=scheme)
        wide = page.eval_on_selector_all('.scroll', 'all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)')
        found = axe.run(page).response['violations']
        assert (wide, [(v['id'], v['nodes'][0]['html'][:100]) for v in found], page.complaints) == ([], [], [])
        assert page.evaluate('document.documentElement.scrollHeight') <= 20_000
