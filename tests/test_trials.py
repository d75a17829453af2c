"""Lists of trials in the forms in which they are released, and what is no list."""
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from babyvlm.analysis.explorer import Explorer
from babyvlm.benchmarks.protocols import protocol_of
from babyvlm.benchmarks.trials import audited, credit, load_trials, score
from babyvlm.items import Journal, Reply, score_shape
from babyvlm.models.tiny import tiny_vlm
from babyvlm.run import evaluate as evaluation
from babyvlm.run.cli import app
from test_leaderboard import save

DEVBENCH = 'text1,image1,image2,image3,image4\nkey,images/key.jpg,images/rag.jpg,images/grape.jpg,images/lava.jpg\n'
LEVANTE = ('task,item_uid,answer,response_alternatives,prompt_phrase,full_prompt,trial_type\nvocab,v__key,key,"rag,grape,lava",key,Choose: key.,test\n'
           'vocab,,,,,Welcome,instructions\n')
TOM = ('item,answer,trial_type,response_alternatives,chance_level,assessment_stage,prompt,item_uid,image\n,,instructions,,,instructions,A story.,,\n'
       '1c,chair,false_belief_question,rug,0.5,test_response,Where will she look?,tom_1,1c.webp\n')
BABY = [dict(taskId=7, question='Which?', image='images/7.png', ansType='choice', options=['red', 'blue'], choiceAns=1, type='F', subtype='colour'),
        dict(taskId=8, question='How many?', image='images/8.png', ansType='blank', blankAns='Seven', type='F', subtype='count')]
NOUN = dict(image_positive='p.png', image_negative='n.png', caption_positive='a dog', frequency_bin='[1,2)')
GRAM = dict(image_0='0.png', image_1='1.png', caption_a='a dog bites', caption_b='a bites dog', freq_bin='[1,2)')


def read(tmp_path, name, text):
    (tmp_path/name).write_text(text)
    return load_trials(tmp_path/name)


def test_released_forms(tmp_path):
    item, = read(tmp_path, 'manifest.csv', DEVBENCH)
    assert (item.choice, item.gold, item.options, len(item.images)) == ('images', 0, ('key',), 4)
    item, = read(tmp_path, 'levante.csv', LEVANTE)
    assert item.options[item.gold] == 'key' and set(item.options) == {'key', 'rag', 'grape', 'lava'} and item.group == 'v__key'
    item, = read(tmp_path, 'tom.csv', TOM)
    assert item.options[item.gold] == 'chair' and item.images[0].endswith('1c.webp')
    closed, blank = read(tmp_path, 'meta_data.jsonl', '\n'.join(map(json.dumps, BABY)))
    assert (closed.uid, closed.gold, blank.choice) == ('7', 1, 'open') and credit(blank, Reply('8', text='seven.')) == 1
    assert read(tmp_path, 'manifest_nouns_cartoon.json', json.dumps(dict(items=[NOUN])))[0].choice == 'images'
    pair, = read(tmp_path, 'manifest_grammatical_negation_cartoon.json', json.dumps(dict(items=[GRAM])))
    assert credit(pair, Reply(pair.uid, scores=((.9, .8), (.1, .3)))) == 1 and credit(pair, Reply(pair.uid, scores=((1, 1), (1, 1))), 'reference') == 0


def test_options_that_have_pictures_are_chosen_among_pictures(tmp_path):
    for word in ('key', 'rag', 'grape', 'lava'): Image.new('RGB', (8, 8)).save(tmp_path/f'{word}.png')
    item, = read(tmp_path, 'levante.csv', LEVANTE)
    assert (item.choice, item.options, Path(item.images[item.gold]).name, len(item.images)) == ('images', ('key',), 'key.png', 4)
    (tmp_path/'rag.png').unlink()
    item, = read(tmp_path, 'levante.csv', LEVANTE)
    assert any(p.endswith('rag.png') for p in item.images), 'a picture that lacks is left out by name when it is asked'


def test_a_list_without_pictures_is_nothing_for_a_model_that_compares_them(tmp_path):
    items = read(tmp_path, 'levante.csv', LEVANTE)
    dual = SimpleNamespace(name='clip', encode_images=lambda x: x, encode_texts=lambda x: x)
    with pytest.raises(TypeError, match='cannot answer these items'): protocol_of(dual, items)


WRONG = [('a.csv', 'x,y\n1,2\n', 'a.csv: columns x, y; expected images, options, answer'), ('b.json', '{"items": []}', 'b.json: no rows'), ('c.jsonl', '{"x"', 'c.jsonl line 1: not JSON'),
         ('own.csv', 'images,options,answer\na.png,cup|ball,dog\n', "own.csv line 2: the answer 'dog' is none of cup, ball; write it as it stands there, or its place, 0 to 1"),
         ('own.csv', 'images,options,answer\na.png,"cup|\nball",cup\nb.png,cup|ball,\n', "own.csv line 4: 'answer' is empty; fill it"),
         ('own.csv', 'images,options,answer\na.png,cup|cup|ball,cup\n', "own.csv line 2: 'cup' is right and is there twice"),
         ('own.csv', 'images,options,answer\n../private.png,cup|ball,cup\n', "own.csv line 2: the picture '../private.png' is outside the folder of pictures"),
         ('own.csv', 'id,images,options,answer\nx,a.png,cup|ball,cup\nx,a.png,cup|ball,cup\n', "own.csv: 2 trials are called 'x'; give each an id"),
         ('own.jsonl', '{"images": ["a.png"], "options": ["cup", "ball"], "answer": 0}\n{"images": ["a.png"], "options": ["cup"]}\n', "own.jsonl line 2: no 'answer', which the first trial has; add it"),
         ('manifest.csv', DEVBENCH + ',images/a.jpg,images/b.jpg,images/c.jpg,images/d.jpg\n', "manifest.csv line 3: 'text1' is empty; fill it"),
         ('levante.csv', LEVANTE + 'vocab,v__bun,,"rag,grape,lava",bun,Choose: bun.,test\n', "levante.csv line 4: 'answer' is empty; fill it"),
         ('meta_data.jsonl', json.dumps(BABY[0]) + '\n' + json.dumps(BABY[0] | dict(taskId=9, choiceAns=4)), "meta_data.jsonl line 2: the answer '4' is none of red, blue"),
         ('meta_data.jsonl', json.dumps({k: v for k, v in BABY[0].items() if k != 'options'}), "meta_data.jsonl line 1: 'options' is missing"),
         ('own.csv', 'images,options,answer\na.png,cup,cup\n', "own.csv line 2: 'cup' is all there is to choose from; add another"),
         ('own.csv', 'images;options;answer\na.png;cup|ball;cup\n', 'own.csv: columns images;options;answer (commas part the cells)'),
         ('own.tsv', 'images\toptions\tanswer\na.png\tcup|ball\tcup\n', 'own.tsv: a list of trials ends in .csv, .json, .jsonl; save a sheet as CSV'),
         ('manifest_nouns.json', json.dumps(dict(items=[NOUN | dict(image_negative='')])), "manifest_nouns.json item 1: 'image_negative' is empty"),
         ('manifest_grammatical.json', json.dumps(dict(items=[GRAM | dict(caption_b='')])), "manifest_grammatical.json item 1: 'caption_b' is empty"),
         ('manifest_nouns.json', json.dumps(dict(items=[NOUN, NOUN | dict(caption_positive='')])), "manifest_nouns.json item 2: 'caption_positive' is empty"),
         ('manifest_grammatical.json', json.dumps(dict(items=[GRAM, {k: v for k, v in GRAM.items() if k != 'image_1'}])), "manifest_grammatical.json item 2: no 'image_1'")]


def mine(**k): return json.dumps([dict(images=['a.png'], options=['cup', 'ball'], answer=0) | k])


WRONG += [('own.json', mine(options=['cup', None]), 'own.json item 1: one of'), ('own.json', mine(options=['cup', '']), 'own.json item 1: one of'), ('own.json', mine(images=[None]), "own.json item 1: "),
          ('own.json', mine(answer=None), "own.json item 1: 'answer' is empty"), ('own.json', mine(options=[f'o{k}' for k in range(30)]), 'own.json item 1: 30 choices, 26 letters'),
          ('own.csv', 'images,options,answer\na.png,cup|ball|,cup\n', 'own.csv line 2: one of'), ('own.csv', 'images,options,answer\na.png,cup|ball,cup,x\n', 'own.csv line 2: more cells than columns'),
          ('own.csv', 'images,options,answer\na.png,cup|b\0ll,cup\n', 'own.csv line 2: a NUL'), ('own.csv', 'images,options,answer\na.png,cup|ball,"cup\n', 'own.csv: a quotation mark'),
          *(('own.json', mine(**{k: ['x']}), f"own.json item 1: '{k}' is ['x']") for k in ('id', 'prompt', 'group')), ('own.json', mine(answer=True), "'answer' is True"),
          ('own.csv', f'images,options,answer\na.png,cup|ball,{"9"*5000}\n', 'own.csv line 2: the answer'), ('own.csv', 'images,options,answer\nC:\\a.png,cup|ball,cup\n', 'outside the folder'),
          ('own.csv', 'images,options,answer\n..\\a.png,cup|ball,cup\n', 'outside the folder'), ('own.csv', 'images,options,answer\na\0.png,cup|ball,cup\n', 'own.csv line 2: '),
          ('meta_data.jsonl', json.dumps(BABY[0] | dict(options=None)), "meta_data.jsonl line 1: 'options' is empty"), ('meta_data.jsonl', json.dumps(BABY[0] | dict(taskId=None)), "'taskId' is empty"),
          ('meta_data.jsonl', json.dumps(BABY[1] | dict(blankAns=None)), "'blankAns' is empty"), ('levante.csv', LEVANTE.replace('rag,grape,lava', 'rag,'), 'levante.csv line 2: one of')]


@pytest.mark.parametrize('name,text,why', WRONG, ids=[f'{n} {k}' for k, (n, _, _) in enumerate(WRONG)])
def test_a_wrong_list_is_refused_by_name(tmp_path, name, text, why, monkeypatch):
    (tmp_path/name).write_text(text)
    monkeypatch.setattr(evaluation, 'load_model', lambda spec, out='.': SimpleNamespace(name='m@1', loglik=None))
    for command in (['audit'], ['evaluate', '--model', 'm']):
        out = CliRunner().invoke(app, [*command, '--benchmark', f'trials:{tmp_path/name}'])
        assert out.exit_code == 2 and why in out.output and len(out.output.strip().splitlines()) == 1, out.output


KINDS = {'manifest.csv': DEVBENCH, 'levante.csv': LEVANTE, 'tom.csv': TOM, 'meta_data.jsonl': '\n'.join(map(json.dumps, BABY)),
         'manifest_nouns.json': json.dumps(dict(items=[NOUN])), 'manifest_grammatical.json': json.dumps(dict(items=[GRAM])),
         'own.jsonl': '{"images": ["1.png", "2.png"], "options": ["a cup"], "answer": "2.png", "group": "cup"}\n'}


@pytest.mark.parametrize('name', KINDS)
def test_every_kind_is_evaluated_audited_and_opened(tmp_path, name, monkeypatch):
    items = read(tmp_path, name, KINDS[name])
    for p in {p for i in items for p in i.images}:
        Path(p).parent.mkdir(exist_ok=True)
        Image.new('RGB', (8, 8), 'red').save(p, 'PNG')
    class Ranks:
        name = 'ranks@1'
        def loglik(self, items): return [np.arange(np.prod(score_shape(i)), dtype=float).reshape(score_shape(i)) for i in items]
    class Says:
        name = 'says@1'
        def say(self, questions, room): return ['(A)' for _ in questions]
    words = any(i.choice == 'open' for i in items)
    monkeypatch.setattr(evaluation, 'load_model', lambda spec, out='.': Says() if words else Ranks())
    out = CliRunner().invoke(app, ['evaluate', '--model', 'm', '--benchmark', f'trials:{tmp_path/name}', '--mode', 'reference', '--out', str(tmp_path/'r')])
    assert out.exit_code == 0 and f'on trials/{name.rpartition(".")[0]}, reference' in out.output and f'items: asked {len(items)} = answered' in out.output, out.output
    assert ('left out: 1 row of' in out.output) == (name in ('levante.csv', 'tom.csv')), 'rows that instruct are counted'
    told = CliRunner().invoke(app, ['audit', '--benchmark', f'trials:{tmp_path/name}', '--mode', 'reference'])
    assert told.exit_code == 0 and ' surprise' in told.output and 'constant' in told.output, told.output
    kept, = (tmp_path/'r'/'replies'/'trials'/name.rpartition('.')[0]).glob('*.jsonl')
    seen = Explorer(items, {'m': list(Journal(kept).done.values())})
    assert not {'not judged', 'skipped'} & set(seen.table().verdict) and seen.export(tmp_path/'e.html').stat().st_size > 1000


def test_two_captions_are_ranked_by_a_model_that_also_says_words(tmp_path):
    for p in ('0.png', '1.png'): Image.new('RGB', (32, 32), 'red').save(tmp_path/p)
    (tmp_path/'grammar.json').write_text(json.dumps(dict(items=[GRAM])))
    model = evaluation.load_model(tiny_vlm(tmp_path/'hub', 'qwen2_5_vl', ['a dog bites']))
    done, = evaluation.evaluate_benchmark(model, f"trials:{tmp_path/'grammar.json'}")
    assert done.protocol == 'loglik' and np.shape(done.replies[0].scores) == (2, 2)


def test_the_audit_sees_that_the_right_one_is_always_first(tmp_path):
    items = read(tmp_path, 'm.csv', DEVBENCH.splitlines()[0] + ''.join(f'\nw{k},a{k}.jpg,b{k}.jpg,c{k}.jpg,d{k}.jpg' for k in range(12)))
    table, odd = audited('m', items, 'reference')
    assert table.loc['first', 'acc'].value == 1 and table.loc['constant', 'acc'].value == 0 and any('first' in o for o in odd)
    fair = score('m', items, [Reply(i.uid, scores=(1, 1, 1, 1)) for i in items])['acc']
    assert fair.value == .25 == fair.chance


def test_a_list_of_several_kinds_is_audited(tmp_path):
    rows = ''.join(f'{k}.png,cup|ball,{k % 2},\n{k}.png|{k}b.png|{k}c.png,a cup,{k % 3},\n' for k in range(6))
    items = read(tmp_path, 'own.csv', 'images,options,answer,prompt\n' + rows)
    table, _ = audited('own', items)
    assert table.loc['ideal', 'acc'].value == 1 and table.loc['constant', 'acc'].value == pytest.approx(5/12) == table.loc['chance', 'acc']


def test_cells_as_other_programs_write_them(tmp_path):
    same, = read(tmp_path, 'own.json', mine(answer=1., group=None, prompt=None, id=0))
    assert (same.gold, same.group, same.uid) == (1, '', '0') and read(tmp_path, 'own.json', mine(group=7))[0].group == '7'
    assert read(tmp_path, 'own.csv', ',images,options,answer\n0, a.png , cup | ball , cup \n')[0].gold == 0           # an index of pandas, blanks
    assert read(tmp_path, 'own.csv', 'images,options,answer\na.png,,seven\n')[0].choice == 'open'
    many = ','.join(f'image{k}' for k in range(1, 13))
    item, = read(tmp_path, 'm.csv', f'text1,{many},image_type\nkey,{many},photo\n')
    assert [Path(p).name for p in item.images] == many.split(',')
    closed, blank = read(tmp_path, 'b.jsonl', json.dumps(BABY[0] | dict(ansType='Choice', choiceAns=1.)) + '\n' + json.dumps(BABY[1] | dict(blankAns='Seven.')))
    assert closed.gold == 1 and [credit(blank, Reply('8', text=t)) for t in ('Seven', '<think>six?</think>seven.', '**seven**', 'six')] == [1, 1, 1, 0]


def test_a_lab_asks_its_own_trials(tmp_path, monkeypatch):
    for k in range(4): Image.new('RGB', (8, 8)).save(tmp_path/f'{k}.png')
    (tmp_path/'own.csv').write_text('images,options,answer,group\n' + ''.join(f'{k}.png,cup|ball,{"cup" if k < 3 else "ball"},g{k // 2}\n' for k in range(4)))
    class Says:
        name = 'm@1'
        def say(self, questions, room): return ['(A)' if 'x' not in q.text else 'no idea' for q in questions]
    monkeypatch.setattr(evaluation, 'load_model', lambda spec, out='.': Says())
    out = CliRunner().invoke(app, ['evaluate', '--model', 'm', '--benchmark', f"trials:{tmp_path/'own.csv'}", '--out', str(tmp_path/'r')])
    assert out.exit_code == 0 and 'm@1 on trials/own, fair' in out.output and '0.750' in out.output, out.output


@pytest.mark.parametrize('kind', ['gpt2 resnext', 'talks'])
def test_a_saved_babyllava_ranks_the_pictures_of_a_vocabulary_test(tmp_path, kind):
    (tmp_path/'images').mkdir()
    for p in read(tmp_path, 'manifest.csv', DEVBENCH)[0].images: Image.new('RGB', (32, 32), 'red' if 'key' in p else 'blue').save(p)
    save(kind, tmp_path/'model')
    done, = evaluation.evaluate_benchmark(evaluation.load_model(tmp_path/'model', 'cpu'), f"trials:{tmp_path/'manifest.csv'}")
    assert done.protocol == 'loglik' and len(done.replies[0].scores) == 4 and done.scores['acc'].n == 1
