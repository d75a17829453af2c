"""Surveys: coverage of every planted effect, laws of the analysis, files that are wrong, and what a page must never hold."""
import json
import re
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from babyvlm.analysis.survey import answers as survey
from babyvlm.analysis.survey.answers import (Responses, analyse, by_person, exclude, from_sums, item_table,
                                             read_responses)
from babyvlm.analysis.survey.mixed_logistic import fit_crossed
from babyvlm.analysis.survey.page import build_survey, orders, screens, survey_data
from babyvlm.analysis.survey.power import accuracy_coverage, effect_coverage, mixed_coverage
from babyvlm.data.saycam import Ledger
from babyvlm.items import Item
from babyvlm.nursery.people import Crowd, draw

DIFFICULTY = np.random.default_rng(3).normal(0, .8, 20)
ITEMS = pd.DataFrame([dict(item=f'{t}/{j}', round=0, task=t, options=k, gold=j % k) for t, k in (('a', 2), ('b', 4)) for j in range(15)])


def study(seed=0, people=20, **kw):
    answers, checks, truth = draw(Crowd(people=people, **kw), ITEMS, dict(b=1.), seed)
    return Responses(answers, checks, Ledger.count(people, [], 'people')), truth


def test_five_hundred_studies_hold_what_was_planted():
    found = accuracy_coverage(Crowd(people=24), DIFFICULTY, np.repeat([2, 4], 10))
    found = dict(accuracy=found['effective Wilson'], naive=found['Wilson'])
    assert found['naive'].high < .95                      # answers of one person are not independent
    effects = effect_coverage(Crowd(people=24), DIFFICULTY + np.repeat([0., 1.], 10), np.full(20, 4))
    effects |= mixed_coverage(seed=2) | dict(accuracy=found['accuracy'])
    assert len(effects) == 7 and {e.n for e in effects.values()} == {500}
    for name, e in effects.items(): assert .93 <= e.value <= .97, (name, e)


def test_planted_effects_come_back_in_one_analysis():
    s, truth = study(people=60)
    found = analyse(s, n_boot=200)
    for t, e in found.tasks.set_index('task').accuracy.items(): assert e.low - .02 < truth.accuracy[t] < e.high + .02
    reasons = found.people.set_index('person').reason
    assert (reasons[truth.careless] != '').mean() > .9 and (reasons[~truth.careless] == '').all()
    effect = found.mixed['log-odds'][1]
    assert effect.high < 0                                # task b was planted as harder


def test_order_of_rows_and_names_of_people_do_not_matter():
    s, _ = study()
    mixed = s.answers.sample(frac=1, random_state=1).reset_index(drop=True)
    names = {p: f'x{n}' for n, p in enumerate(reversed(sorted(set(mixed.person))))}
    other = Responses(mixed.assign(person=mixed.person.map(names)), s.checks.assign(person=s.checks.person.map(names)), s.ledger)
    a, b = analyse(s, n_boot=100), analyse(other, n_boot=100)
    for column in ('accuracy', 'wilson', 'alpha', 'favourite is right'):
        pd.testing.assert_series_equal(a.tasks[column].map(lambda e: round(e.value, 12)), b.tasks[column].map(lambda e: round(e.value, 12)))
    assert [str(x) for x in a.mixed['log-odds']] == [str(x) for x in b.mixed['log-odds']]


def test_intervals_at_the_ceiling_and_with_equal_people():
    everyone = from_sums(np.full(12, 10.), np.full(12, 10.))
    assert everyone.value == everyone.high == 1 and .6 < everyone.low < .9       # no better than 12 facts
    assert by_person([1, 0] * 10, np.repeat(range(10), 2)).low > .2               # people do not differ at all
    unequal = from_sums([9, 1], [10, 2])
    assert unequal.value == pytest.approx(10 / 12) and unequal.n == 12


def test_everybody_says_the_same():
    same = pd.DataFrame([dict(person=p, item=f'i{j}', task='t', answer=0, gold=0, options=4) for p in 'abc' for j in range(5)])
    found = analyse(same, n_boot=100)
    row = found.tasks.iloc[0]
    assert row.accuracy.value == 1 and np.isnan(row.alpha.value) and np.isnan(row.reliability)
    assert np.isfinite(found.mixed['log-odds'][0].value)   # a prior keeps it finite


def test_too_little_to_model_says_so():
    few = pd.DataFrame([dict(person=p, item='i', task='t', answer=int(p == 'a'), gold=1, options=2) for p in 'ab'])
    assert analyse(few, n_boot=100).mixed.note[0] == '2 people, 1 items'
    with pytest.raises(ValueError, match='too few'): fit_crossed(np.ones((2, 1)), np.ones((1, 1)))


def test_nobody_is_left():
    s, _ = study(careless=1.)
    with pytest.raises(ValueError, match='all 20 people are left out'): exclude(s)


def test_who_always_taps_the_same_place_and_who_stops_early():
    s, _ = study(careless=0., lapse=0.)
    p, q = sorted(set(s.answers.person))[:2]
    a = s.answers.copy()
    a.loc[a.person == p, 'place'] = 0
    a = a[(a.person != q) | (a.trial < 5)]
    left = exclude(Responses(a, s.checks, s.ledger)).ledger
    assert left.skipped == {'always the same place': 1, 'stopped early': 1}
    assert left.examples == {'always the same place': [p], 'stopped early': [q]}


@pytest.mark.parametrize('change, message', [
    (dict(answer='x'), "one.json row 1: 'answer' is 'x', expected a whole number"), (dict(answer=9), 'it has 4 options'),
    (dict(item='other'), "item 'other' round 0 is not in the key")])
def test_a_wrong_row_is_named(tmp_path, change, message):
    key = dict(survey='s', items=[dict(item='i', round=0, task='t', options=4, gold=1)])
    row = dict(survey='s', person=1, session='q', kind='item', item='i', round=0, answer=1) | change
    (tmp_path/'one.json').write_text(json.dumps([row]))
    with pytest.raises(ValueError, match=message): read_responses(tmp_path, key)


def test_files_that_do_not_count_are_in_the_ledger(tmp_path):
    key = dict(survey='s', items=[dict(item='i', round=0, task='t', options=4, gold=1)])
    row = dict(survey='s', person=1, session='q', kind='item', item='i', round=0, answer=1)
    files = {'a.json': row, 'b.json': row, 'c.json': row | dict(session='z'), 'd.json': row | dict(survey='old', session='y', person=2),
             'e.json': row | dict(kind='check', right=1, session='x', person=3), 'f.json': row | dict(session='w', person=4)}
    for name, r in files.items(): (tmp_path/name).write_text(json.dumps([r]))
    (tmp_path/'s.key.json').write_text(json.dumps(key))
    found = read_responses(tmp_path, tmp_path/'s.key.json')
    assert found.ledger.before.skipped == {'saved twice': 1, 'number used again': 1, 'another survey': 1, 'no answers': 1}
    assert found.ledger.before.kept == 2 and len(found.answers) == 2
    (tmp_path/'f.json').write_text('{broken')
    with pytest.raises(ValueError, match='f.json: not JSON'): read_responses(tmp_path, key)


KEY = dict(survey='s', items=[dict(item=f'i{j}', round=0, task='t', options=4, gold=j) for j in range(4)])


def saved(person, session, careful=True, kind=('item', 'check')):
    """The rows of one person: four answers, all right or all wrong, and two checks."""
    rows = [dict(kind='item', item=f'i{j}', answer=j if careful else (j + 1) % 4, milliseconds=2000) for j in range(4)]
    rows += [dict(kind='check', item=f'c{j}', right=careful) for j in range(2)]
    return pd.DataFrame([dict(survey='s', person=person, session=session) | r for r in rows if r['kind'] in kind])


def by_person_and_session(found):
    a, c = found.answers.groupby('person').right, found.checks.groupby('person').right
    return {p: (len(x), x.mean(), c.get_group(p).mean() if p in c.groups else None) for p, x in a}


def test_it_does_not_matter_in_which_file_a_row_stands(tmp_path):
    people = [saved(1, 'a'), saved(2, 'b', careful=False), saved(3, 'c')]
    right = {'a': (4, 1., 1.), 'b': (4, 0., 0.), 'c': (4, 1., 1.)}
    layouts = {'one each': people, 'all in one': [pd.concat(people)], 'mixed': [pd.concat(people).sample(frac=1, random_state=0)],
               'answers and checks': [t for k in ('item', 'check') for t in [pd.concat(people).query('kind == @k')]],
               'two and one': [pd.concat(people[:2]), people[2]],
               'checks without a session': [pd.concat(people).assign(session=lambda t: t.session.where(t.kind == 'item'))]}
    for name, tables in layouts.items():
        (folder := tmp_path/name).mkdir()
        for n, t in enumerate(tables): t.to_csv(folder/f'{n}.csv', index=False)
        found = read_responses(folder, KEY)
        assert by_person_and_session(found) == right, name
        assert found.ledger.kept == 3 and not found.ledger.before.skipped, name
        assert by_person_and_session(read_responses(pd.concat(tables), KEY)) == right, name
    assert exclude(found).ledger.examples == {'attention checks': ['b']}


def test_one_name_of_a_session_for_everybody():
    found = read_responses(pd.concat([saved('ann', '001'), saved('bob', '001', careful=False)]), KEY)
    assert by_person_and_session(found) == {'001/ann': (4, 1., 1.), '001/bob': (4, 0., 0.)}


def test_a_save_that_is_there_twice_counts_once(tmp_path):
    a, b = saved(1, 'a'), saved(2, 'b')
    pd.concat([a, b, a]).to_csv(tmp_path/'all.csv', index=False)          # two downloads below each other
    b.iloc[:2].to_csv(tmp_path/'b early.csv', index=False)
    saved(2, 'b', careful=False).to_csv(tmp_path/'b other.csv', index=False)
    saved(9, 'z', kind=['check']).to_csv(tmp_path/'quit.csv', index=False)
    saved(9, 'y').to_csv(tmp_path/'restart.csv', index=False)             # nothing was answered under this number before
    found = read_responses(tmp_path, KEY)
    assert by_person_and_session(found) == {'a': (4, 1., 1.), 'b': (4, 1., 1.), 'y': (4, 1., 1.)}
    assert found.ledger.before.examples == {'saved twice': ['all.csv, a', 'b early.csv'], 'answered again': ['b other.csv'],
                                            'no answers': ['quit.csv']}


@pytest.mark.parametrize('right', ['true', 'TRUE', 'True', '1', '1.0', 'WAHR', 'T', 'yes'])
@pytest.mark.parametrize('separator', [',', ';', '\t'])
def test_tables_as_other_programs_write_them(tmp_path, right, separator):
    gap = {'TRUE': 'NA', 'T': '.'}.get(right, '')
    rows = ['kind survey session person item round answer milliseconds right'.split()]
    if right == 'yes': rows = [[c.title() for c in rows[0]]]
    rows += [['item', 's', 'q', '2.0', f'i{j}', '0.0', f'{j}.0', '900,5' if separator == ';' else '900.5', gap] for j in range(4)]
    rows += [['check', 's', 'q', '2', f'c{j}', gap, gap, gap, right] for j in range(4)] + [[''] * 9]
    text = '\r\n'.join(separator.join(r) for r in rows)
    (tmp_path/'P1.CSV').write_bytes(('\ufeff' + 'sep=;\r\n' * (separator == ';') + text).encode())
    found = read_responses(tmp_path, KEY)
    assert by_person_and_session(found) == {'q': (4, 1., 1.)} and set(found.answers.seconds) == {.9005}
    rows[5][-1] = 'maybe'
    (tmp_path/'P1.CSV').write_text('\n'.join(separator.join(r) for r in rows))
    with pytest.raises(ValueError, match="P1.CSV row 5: 'right' is 'maybe', expected true or false"): read_responses(tmp_path, KEY)


def test_json_with_nulls_and_truth(tmp_path):
    rows = json.loads(saved(1, 'a').assign(round=None, trial=float('nan')).to_json(orient='records'))
    assert rows[0]['right'] is None and rows[4]['right'] is True and rows[4]['answer'] is None
    (tmp_path/'a.JSON').write_text(json.dumps(rows))
    assert by_person_and_session(read_responses(tmp_path, KEY)) == {'a': (4, 1., 1.)}
    (tmp_path/'a.JSON').unlink()
    (tmp_path/'a.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    assert by_person_and_session(read_responses(tmp_path, KEY)) == {'a': (4, 1., 1.)}


def test_every_file_of_a_folder_is_read_or_named(tmp_path):
    for n, name in enumerate(('anna.csv', 'BEN.CSV', 'Cleo.Csv')): saved(n, name).to_csv(tmp_path/name, index=False)
    for name in ('._anna.csv', '.DS_Store', 'notes.txt', 'dora.xlsx'): (tmp_path/name).write_bytes(b'\0\5\x16\7')
    (tmp_path/'old').mkdir()
    for name in ('Page.KEY.JSON', 'key.json'): (tmp_path/name).write_text(json.dumps(KEY))
    found = read_responses(tmp_path, tmp_path/'key.json')
    assert found.ledger.kept == 3 and found.ledger.before.seen == 8
    assert found.ledger.before.examples == {'a folder': ['old'], 'a hidden file': ['.DS_Store', '._anna.csv'],
                                            'neither csv nor json': ['dora.xlsx', 'notes.txt']}


@pytest.mark.parametrize('text, message', [
    ('item,answer\ni0,1\n', "one.csv row 1: neither 'session' nor 'person'"), ('person,answer\n1,1\n', "one.csv row 1: no 'item'"),
    ('person,item,answer\n1,i0,1,7\n', 'one.csv row 1: more cells than columns'),
    ('person,item,answer,note\n1,i0,1,"\n2,i0,1,x\n', 'one.csv: a quotation mark is never closed, in line 2'), ('person,item,answer\n1,i\0,1\n', 'one.csv line 2: a NUL'),
    ('person,item,answer,answer\n1,i0,1,2\n', "one.csv: two columns are called 'answer'"),
    ('person,kind,item\n1,practice,i0\n', "one.csv row 1: kind 'practice'"),
    ('person,item,answer\n1,i0,1.5\n', "one.csv row 1: 'answer' is '1.5', expected a whole number"),
    ('person,item,answer\n1,i0,inf\n', "'answer' is 'inf', expected a whole number"),
    ('person,item,answer,milliseconds\n1,i0,1,soon\n', "'milliseconds' is 'soon', expected a number"),
    ('person,item,answer,milliseconds\n1,i0,1,-900\n', "'milliseconds' is -900, expected 0 or more"),
    ('person,item,answer,milliseconds\n1,i0,1,9_00\n', "'milliseconds' is '9_00', expected a number"),
    ('person,item,answer\n1,i0,true\n', "'answer' is 'true', expected a whole number")])
def test_a_wrong_table_says_where(tmp_path, text, message):
    (tmp_path/'one.csv').write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)): read_responses(tmp_path, KEY)


@pytest.mark.parametrize('items, message', [
    (None, "expected 'survey' and 'items'"), ([dict(item='i0', options=2, gold=2)], "gold 2 of 'i0', it has 2 options"),
    ([dict(item='i0', options=10**9, gold=0)], "'i0' has 1000000000 options; at most 1000"), ([dict(item='i0', options=2, gold=0, task=[1])], "'task' is [1], expected a name"),
    ([dict(item='i0', options=2, gold=0), dict(item='i0', options=2, gold=1)], 'an item and round is there twice')])
def test_a_key_that_is_wrong_is_refused(tmp_path, items, message):
    (tmp_path/'one.csv').write_text('person,item,answer\n1,i0,1\n')
    with pytest.raises(ValueError, match=re.escape(message)): read_responses(tmp_path, dict(survey='s', items=items))


def test_a_name_is_no_list_and_links_in_a_circle_are_named(tmp_path):
    (tmp_path/'one.csv').write_text('person,item,answer\n1,i0,1\n')
    for name in ('circle.csv', 'gone.csv'): (tmp_path/name).symlink_to('circle.csv' if name == 'circle.csv' else 'nowhere')
    assert read_responses(tmp_path, KEY).ledger.before.examples == {'no file': ['circle.csv', 'gone.csv']}
    (tmp_path/'two.json').write_text(json.dumps([dict(person=['p'], item='i0', answer=1)]))
    with pytest.raises(ValueError, match="two.json row 1: 'person' is .'p'., expected a name"): read_responses(tmp_path, KEY)


@pytest.fixture
def pictures(tmp_path):
    for name in 'abcd': Image.new('RGB', (20, 20), '#' + name * 6).save(tmp_path/f'{name}.png')
    return [str(tmp_path/f'{n}.png') for n in 'abcd']


def test_a_page_holds_no_answers_and_no_path(pictures, tmp_path):
    items = [Item('secret-word', 't', pictures[:1], options=('right </script> one', 'other'), gold=0)]
    page = build_survey(items, tmp_path/'p.html').read_text()
    assert str(tmp_path) not in page and '</script> one' not in page
    data, key = survey_data(items, 'p')
    assert 'gold' not in json.dumps(data['units']) and key['items'][0]['gold'] == 0
    assert "default-src 'none'" in page and "connect-src 'none'" in page      # whatever jsPsych could do, the browser refuses
    own = files('babyvlm').joinpath('assets', 'survey.js').read_text()
    for outside in ('fetch(', 'XMLHttpRequest', 'sendBeacon', 'WebSocket', 'http'): assert outside not in own, outside
    assert not re.search(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="?http', page)


def test_released_items_with_gold_first_do_not_put_it_first(pictures):
    s, = screens(Item('v', 'vtwt', pictures[:1], options=('yes', 'no'), gold=0))
    assert s.turn
    s, = screens(Item('c', 'count', pictures[:1], '<image> How many?', ('1', '2', '3'), 0))
    assert not s.turn                                     # numbers keep their order


@pytest.mark.parametrize('sizes, per_task', [((4, 4), None), ((6, 6, 6), 4), ((5, 3), 2), ((7,), 3)])
def test_items_are_seen_equally_often(sizes, per_task):
    tasks = [f't{n}' for n, k in enumerate(sizes) for _ in range(k)]
    plan = orders(tasks, per_task)
    for t in set(tasks):
        counts = [sum(i in r for r in plan) for i, x in enumerate(tasks) if x == t]
        assert max(counts) - min(counts) <= 2 * len(sizes), counts   # within one round of task orders
    assert plan == orders(tasks, per_task) and all(len(set(r)) == len(r) for r in plan)


def test_wrong_keys_are_flagged_and_hard_items_are_not():
    s, _ = study(people=40, careless=0.)
    a = s.answers
    a.loc[a['item'] == 'b/0', 'gold'] = 3
    a['right'] = (a.answer == a.gold).astype(float)
    t = item_table(a)
    assert t[t['key disputed']]['item'].tolist() == ['b/0']
    assert survey.ExclusionRules() == survey.ExclusionRules()


@pytest.mark.parametrize('kind', ['GIF', 'PNG', 'WEBP'])
def test_people_see_the_picture_of_a_film_that_models_see(tmp_path, kind):
    import base64
    import io

    from PIL import Image

    from babyvlm.analysis.survey.page import picture_uri
    path = tmp_path/'a'
    Image.new('RGB', (32, 32), 'red').save(path, kind, save_all=True, append_images=[Image.new('RGB', (32, 32), 'blue')])
    shown = Image.open(io.BytesIO(base64.b64decode(picture_uri(path).split(',')[1])))
    r, g, b = shown.convert('RGB').getpixel((0, 0))
    assert getattr(shown, 'n_frames', 1) == 1 and r > 200 > 60 > b
