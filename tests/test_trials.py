"""Lists of trials in the forms in which they are released, and what is no list."""
import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from babyvlm.benchmarks.trials import audited, credit, load_trials, score
from babyvlm.items import Reply
from babyvlm.run import evaluate as evaluation
from babyvlm.run.cli import app

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


@pytest.mark.parametrize('name,text,why', [('a.csv', 'x,y\n1,2\n', 'columns x, y'), ('b.json', '{"items": []}', 'no rows'), ('c.jsonl', '{"x"', 'not JSON'),
                                           ('d.csv', 'images,options,answer\na.png,cup|ball,dog\n', "the answer 'dog' is none of"),
                                           ('e.jsonl', '{"taskId": 1, "ansType": "choice", "image": "x"}', 'is missing')])
def test_a_wrong_list_is_refused_by_name(tmp_path, name, text, why):
    with pytest.raises(ValueError, match=f'{name}.*{why}'): read(tmp_path, name, text)
    out = CliRunner().invoke(app, ['audit', '--benchmark', f'trials:{tmp_path/name}'])
    assert out.exit_code == 2 and name in out.output


def test_the_audit_sees_that_the_right_one_is_always_first(tmp_path):
    items = read(tmp_path, 'm.csv', DEVBENCH.splitlines()[0] + ''.join(f'\nw{k},a{k}.jpg,b{k}.jpg,c{k}.jpg,d{k}.jpg' for k in range(12)))
    table, odd = audited('m', items, 'reference')
    assert table.loc['first', 'acc'].value == 1 and table.loc['constant', 'acc'].value == 0 and any('first' in o for o in odd)
    fair = score('m', items, [Reply(i.uid, scores=(1, 1, 1, 1)) for i in items])['acc']
    assert fair.value == .25 == fair.chance


def test_a_lab_asks_its_own_trials(tmp_path, monkeypatch):
    for k in range(4): Image.new('RGB', (8, 8)).save(tmp_path/f'{k}.png')
    (tmp_path/'own.csv').write_text('images,options,answer,group\n' + ''.join(f'{k}.png,cup|ball,{"cup" if k < 3 else "ball"},g{k // 2}\n' for k in range(4)))
    class Says:
        name = 'm@1'
        def say(self, questions, room): return ['(A)' for _ in questions]
    monkeypatch.setattr(evaluation, 'load_model', lambda spec: Says())
    out = CliRunner().invoke(app, ['evaluate', '--model', 'm', '--benchmark', f"trials:{tmp_path/'own.csv'}", '--out', str(tmp_path/'r')])
    assert out.exit_code == 0 and 'm@1 on trials/own, fair' in out.output and '0.750' in out.output, out.output
