"""People of other laboratories: real forms of their files, wrong ones by name, and estimators that find what was planted."""
import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import cohen_kappa_score
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from typer.testing import CliRunner

from babyvlm.analysis.survey.concordance import compare_shares, divergence, envelope, icc, kappa, model_shares, retest
from babyvlm.analysis.survey.difficulty import fit_difficulty
from babyvlm.analysis.survey.exports import ability_bins, age_bins, read_people, read_shares, shares_of
from babyvlm.items import Journal, Reply
from babyvlm.nursery.people import Crowd, draw
from babyvlm.run.cli import app

# header and quoting of jsPsych's own csv(): every cell quoted, CRLF, nothing for null
JSPSYCH = ('"rt","stimulus","response","trial_type","trial_index","plugin_version","time_elapsed","subject","item","correct"\r\n'
           '"","<p>Welcome</p>","","instructions","0","2.1.0","1800","k1","",""\r\n'
           '"1161","Which one is the dog?","2","html-button-response","1","2.1.0","3100","k1","dog","true"\r\n'
           '"","Which one is the cup?","","html-button-response","2","2.1.0","8100","k1","cup","false"\r\n')
PSYCHOPY = ('word,corrAns,trials.thisRepN,trials.thisTrialN,trials.thisN,trials.thisIndex,instr.started,key_resp.keys,key_resp.corr,key_resp.rt,participant,session,'
            'date,expName,psychopyVersion,frameRate,\n,,,,,,0.9,,,,7,001,d,vocab,2021.2.3,60.01,\ndog,left,0,0,0,3,,left,1,0.451,7,001,d,vocab,2021.2.3,60.01,\n'
            'cup,right,0,1,1,0,,None,0,,7,001,d,vocab,2021.2.3,60.01,\n')
MOUSE = 'word,trials.thisN,mouse.clicked_name,mouse.time,participant,psychopyVersion\ndog,0,"[\'picture_2\']","[1.25, 1.3]",7,2024.1.4\n'
R = '"","participant","item","response","correct","rt","age"\n"1","a","dog","dog",TRUE,900,4.5\n"2","b","dog",NA,NA,NA,6.5\n"3","c","dog","cat",FALSE,1100,9\n'
RAW = 'participant_id,age_group,targetWord,answerWord\np1,4,key,key\np2,4,key,rag\n'


def read(tmp_path, name, text, **named):
    (tmp_path/name).write_bytes(text.encode())
    return read_people(tmp_path/name, **named)


def test_real_forms(tmp_path):
    found = read(tmp_path, 'j.csv', JSPSYCH)
    assert (found.program, found.ledger.skipped) == ('jsPsych', {'no answer': 1, 'not a question': 1})
    assert found.answers.iloc[0].to_dict() == dict(person='k1', item='dog', answer='2', right=1., seconds=1.161, bin='')
    found = read(tmp_path, 'p.csv', PSYCHOPY)
    assert (found.program, found.ledger.skipped) == ('PsychoPy', {'no answer': 1, 'no item': 1})
    assert found.answers.iloc[0].to_dict() == dict(person='7', item='dog', answer='left', right=1., seconds=.451, bin='')
    assert read(tmp_path, 'm.csv', MOUSE).answers[['answer', 'seconds']].values.tolist() == [['picture_2', 1.25]]
    found = read(tmp_path, 'r.csv', R)
    assert found.answers.right.tolist() == [1, 0] and found.ledger.skipped == {'no answer': 1}
    assert age_bins(found.answers, [5, 8])['bin'].tolist() == ['to 5', 'above 8']
    raw = shares_of(read(tmp_path, 'raw.csv', RAW).answers, {'key': ['key', 'rag', 'lava', 'grape']})
    assert raw.share.tolist() == [.5, .5, 0, 0] and set(raw['bin']) == {'4'} and set(raw.n) == {2}
    (tmp_path/'j.json').write_text(json.dumps([dict(rt=900, response=1, trial_type='image-button-response', trial_index=0, subject='s', item='dog')]))
    assert read_people(tmp_path/'j.json').answers.answer.tolist() == ['1']


@pytest.mark.parametrize('sep, cell, seconds', [(',', '"1,900"', 1.9), (',', '"12,345,678.5"', 12345.6785), (',', '"812,5"', .8125), (',', '"0,900"', .0009),
                                                 (';', '1,900', .0019), (';', '512,300', .5123), ('\t', '1,900', .0019)])
def test_a_comma_in_milliseconds_is_what_the_file_makes_of_it(tmp_path, sep, cell, seconds):
    for column, named in (('rt', {}), ('how long', dict(seconds='how long'))):
        text = f'subject,item,response,{column}\n'.replace(',', sep) + sep.join(('1', 'dog', 'cat', cell))
        assert read(tmp_path, 'p.csv', text, **named).answers.seconds.tolist() == pytest.approx([seconds])


@pytest.mark.parametrize('name, text, named, why', [
    ('a.csv', 'time,x\n1,2\n', {}, 'a.csv: no column says which person'), ('b.csv', 'subject,response\n1,2\n', {}, 'b.csv: no column says which item'),
    ('c.csv', 'subject,item\n1,2\n', {}, 'c.csv: neither an answer nor'), ('d.csv', JSPSYCH, dict(item='word'), "d.csv: no column 'word'"),
    ('e.csv', PSYCHOPY.replace('instr.started', 'other.keys'), {}, 'e.csv: 2 response components'), ('f.xlsx', 'PK', {}, "'f.xlsx': expected .csv"),
    ('g.csv', JSPSYCH.replace('"true"', '"perhaps"'), {}, "g.csv row 2: 'correct' is 'perhaps'"), ('h.json', '{"a": 1}', {}, 'h.json: expected a list'),
    ('i.csv', JSPSYCH.replace('"k1","dog"', '"","dog"'), {}, "i.csv row 2: no 'subject'"), ('n.csv', 'subject,item,response,rt\n1,a,b,-5\n', {}, "n.csv row 1: 'rt' is -5, expected 0 or more"), ('k.csv', 'subject,item,response\n', {}, 'k.csv: no rows'),
    ('l.csv', 'subject,item,response\n1,,\n', {}, r'l.csv \(table\): no answers in 1 rows')])
def test_a_wrong_file_is_refused_by_name(tmp_path, name, text, named, why):
    with pytest.raises(ValueError, match=why): read(tmp_path, name, text, **named)


def test_published_shares_and_wrong_ones(tmp_path):
    def shares(text):
        (tmp_path/'human.csv').write_text(text)
        return read_shares(tmp_path/'human.csv')
    vocab = shares('text1,age_bin,trial,image1,image2,image3,image4\nkey,4,1,0.7,0.2,0.1,0\nkey,7,1,1,0,0,0\n')
    assert vocab.groupby('bin').share.apply(list).tolist() == [[.7, .2, .1, 0], [1, 0, 0, 0]] and set(vocab['item']) == {'00000'}
    assert shares('trial,text1,image1,image2\n2,the cat is not red,0.5,0.5\n')['bin'].tolist() == ['', '']
    assert shares('age_bin,prop,trial\n1.5,0.693361509320091,37\n').share.round(3).tolist() == [.693, .307]
    for text, why in (('age_bin,prop,trial\n1.5,1.2,37\n', 'row 1: shares'), ('age_bin,prop\n1,1\n', 'human.csv: columns age_bin, prop'),
                      ('age_bin,prop,trial\n1.5,x,37\n', "'prop' is 'x'"), ('age_bin,prop,trial\n1,.5,1\n1,.5,1\n', 'row 2: .* again')):
        with pytest.raises(ValueError, match=why): shares(text)


def test_divergence_and_kappa_equal_the_libraries():
    rng = np.random.default_rng(0)
    for _ in range(20):
        p, q = rng.dirichlet(np.ones(5), 2)
        assert divergence(p, q, epsilon=0) == pytest.approx(entropy(p, q)) and divergence(p, p, epsilon=0) == pytest.approx(0, abs=1e-12)
        a, b = rng.integers(0, 3, (2, 50))
        assert kappa(a, b) == pytest.approx(cohen_kappa_score(a, b)) == kappa(b, a)
    assert np.isfinite(divergence([1, 0], [0., 1.])) and np.isnan(kappa([1, 1], [1, 1]))


def test_a_model_that_is_the_people_reaches_the_floor_and_another_does_not():
    rng = np.random.default_rng(1)
    scores = {str(i): rng.normal(size=4) for i in range(150)}
    rows = [dict(bin='4', item=i, option=str(o), share=v, n=30) for i, s in scores.items() for o, v in enumerate(rng.multinomial(30, softmax(2*s))/30)]
    people = pd.DataFrame(rows)
    own = compare_shares(people, scores, n_boot=200).iloc[0]
    other = compare_shares(people, {i: rng.normal(size=4) for i in scores}, n_boot=200).iloc[0]
    assert abs(own.beta - 2) < .25 and own.divergence.low < own.floor.high + .01 and other.divergence.low > own.divergence.high
    assert own.overlap.value > .85 and other.overlap.high < own.overlap.low
    published = compare_shares(people, scores, 'reference', n_boot=50).iloc[0]
    whole = model_shares(list(scores.values()), [g.share.to_numpy() for _, g in people.groupby('item', sort=False)], 'reference')[1][0]
    assert published.beta == pytest.approx(whole)
    with pytest.raises(ValueError, match="item '0': 2 scores, 4 options"): compare_shares(people, {'0': [1, 2]})
    assert compare_shares(people, {k: scores[k] for k in list(scores)[:100]}, n_boot=50).iloc[0].divergence.skipped == 50


def test_the_envelope_holds_one_more_person_and_not_a_guesser():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 4, 150)
    def says(right): return np.where(rng.random(150) < right, truth, rng.integers(0, 4, 150))
    answers = pd.DataFrame([dict(person=f'p{n}', item=i, answer=a) for n, r in enumerate((.6, .65, .7, .75, .8, .85)) for i, a in enumerate(says(r))])
    table = envelope(answers, dict(person=dict(enumerate(says(.72))), guesser=dict(enumerate(says(0.)))), n_boot=50)
    assert table.set_index('rater').inside[['person', 'guesser']].tolist() == [True, False]
    last = table.kappa[5]
    assert last.low < .85 < last.high + .05                # kappa of knowing 85 % is .85 against a consensus that is right
    with pytest.raises(ValueError, match='answered .* twice'): envelope(pd.concat([answers, answers]))


def test_retest_finds_the_planted_reliability_in_most_studies():
    for scores in (np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]), np.random.default_rng(0).random((9, 3))):
        long = pd.DataFrame([dict(who=i, time=j, x=float(x)) for i, r in enumerate(scores) for j, x in enumerate(r)])
        who, time, rest = anova_lm(ols('x ~ C(who) + C(time)', long).fit()).mean_sq
        n, k = scores.shape
        assert icc(scores) == pytest.approx((who - rest) / (who + (k - 1)*rest + k*(time - rest)/n))
    hits = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        p = rng.beta(6, 3, 80)
        def once(): return pd.DataFrame([dict(person=i, item=j, answer=r, right=r) for i, q in enumerate(p) for j, r in enumerate((rng.random(20) < q)*1.)])
        true = (6*3/(9**2*10)) / (6*3/(9**2*10) + 6*3/(9*10)/20)       # variance of a beta, and of 20 answers
        hits += (e := retest(once(), once(), n_boot=200)['icc']).low < true < e.high
    assert hits >= 9


@pytest.mark.parametrize('model', ['rasch', '2pl'])
def test_planted_difficulties_and_abilities_come_back(model):
    items = pd.DataFrame([dict(item=f'i{j:02d}', task='t', options=2 + 2*(j % 2), gold=0) for j in range(20)])
    crowd = Crowd(people=500, level=.6, ability_sd=1.2, difficulty_sd=1., lapse=0., careless=0.)
    answers, _, truth = draw(crowd, items, seed=4)
    fit = fit_difficulty(answers.sample(frac=.9, random_state=0), model, dict(zip(items['item'], 1 / items.options)))
    planted = (truth.difficulty - .6) / 1.2
    inside = [e.low <= b <= e.high for e, b in zip(fit.items.difficulty, planted)]
    assert np.mean(inside) >= .85 and np.corrcoef([e.value for e in fit.items.difficulty], planted)[0, 1] > .97
    assert abs(np.median([e.value for e in fit.items.discrimination]) - 1.2) < .25
    assert np.corrcoef(fit.ability[answers.person.unique()], truth.ability)[0, 1] > .75      # of 120 such fits the least is .76, the median .81


def test_two_models_nest_and_wrong_answers_are_named():
    answers, _, _ = draw(Crowd(people=60), pd.DataFrame([dict(item=f'i{j}', task='t', options=4, gold=0) for j in range(6)]))
    assert fit_difficulty(answers, '2pl').loglik > fit_difficulty(answers).loglik - .5
    for change, why in ((dict(right=.5), 'neither 0 nor 1'), (dict(item='i0'), 'answered an item twice')):
        with pytest.raises(ValueError, match=why): fit_difficulty(answers.assign(**change))
    with pytest.raises(ValueError, match='expected rasch or 2pl'): fit_difficulty(answers, '3pl')


def test_ability_is_that_on_other_items():
    rng = np.random.default_rng(0)
    lucky = pd.DataFrame([dict(person=p, item=i, answer='', right=float(rng.random() < .5), bin='') for p in range(200) for i in range(2)])
    by = ability_bins(lucky, 2).groupby('bin').right.mean()
    assert abs(by.iloc[0] - by.iloc[1]) < .12             # two answers by luck tell nothing of each other


def people(*words): return CliRunner().invoke(app, ['survey', 'people', *map(str, words)])


def jspsych(path, level, seed, ages=False):
    "A jsPsych file of 30 people who choose among three buttons; button 0 is right."
    rng, rows = np.random.default_rng(seed), []
    for p in range(30):
        rows.append(f'"","<p>Welcome</p>","","instructions","0","p{p}","","","{3 + p % 6}"')
        for i, q in enumerate(np.linspace(*level, 12)):
            k = int(rng.choice(3, p=[q, .7*(1 - q), .3*(1 - q)]))
            rows.append(f'"{rng.integers(500, 3000)}","Which?","{k}","html-button-response","{i + 1}","p{p}","{i:05d}","{str(k == 0).lower()}","{3 + p % 6}"')
    path.write_bytes('\r\n'.join(['"rt","stimulus","response","trial_type","trial_index","subject","item","correct","age"', *rows]).encode())
    return path


def test_a_jspsych_file_beside_a_journal_and_a_second_time(tmp_path):
    first, second = jspsych(tmp_path/'one.csv', (.4, .9), 0), jspsych(tmp_path/'two.csv', (.4, .9), 1)
    kept = Journal(tmp_path/'m.jsonl', 'm')
    kept.write([Reply(f'{i:05d}', scores=tuple(np.log([q, .7*(1 - q), .3*(1 - q)])), chosen=0) for i, q in enumerate(np.linspace(.4, .9, 12))], ['k'] * 12)
    out = people(first, '--again', second, '--model', f"m={tmp_path/'m.jsonl'}", '--ages', '4,6', '--guess', .33, '--out', tmp_path/'o')
    assert out.exit_code == 0 and 'one.csv (jsPsych): 360 answers; left out: 30 not a question' in out.output, out.output
    read = {n: pd.read_csv(tmp_path/'o'/f'{n}.csv', dtype=dict(bin=str)) for n in ('shares', 'ceiling', 'models', 'kappa', 'difficulty', 'retest')}
    assert set(read['models'].bin) == {'to 4', '4 to 6', 'above 6'} and {'divergence', 'floor', 'overlap'} <= set(read['models'].metric)
    d = read['models'].pivot(index='bin', columns='metric', values='value')
    assert (d.divergence < d.floor + .05).all()                    # the model is what people were drawn from
    ceiling = read['ceiling'].pivot(index='bin', columns='who', values='value')
    assert (ceiling['the other people'] < ceiling['best possible']).all() and (ceiling.m <= ceiling['best possible'] + 1e-9).all()
    hard = read['difficulty'].query("metric == 'difficulty'").value
    assert np.corrcoef(hard, range(12))[0, 1] < -.8 and len(read['kappa']) == 31
    page = (tmp_path/'o'/'people.html').read_text()
    assert page.count('<table>') == 5 and '<svg' in page and 'highest person' in (tmp_path/'o'/'people.txt').read_text()


def test_a_published_human_csv_beside_the_journal_of_evaluate(tmp_path):
    (tmp_path/'human.csv').write_text('text1,age_bin,trial,image1,image2,image3,image4\nkey,4,1,0.7,0.2,0.1,0\nkey,7,1,1,0,0,0\nbun,4,2,0.4,0.3,0.2,0.1\nbun,7,2,0.9,0.1,0,0\n')
    Journal(tmp_path/'m.jsonl', 'm').write([Reply(f'{i:05d}', scores=(2., 1., 0., 0.), chosen=0) for i in (0, 1)], ['a', 'b'])
    out = people(tmp_path/'human.csv', '--model', f"clip={tmp_path/'m.jsonl'}")
    assert out.exit_code == 0 and 'clip' in out.output and 'published shares have no single people' in out.output, out.output
    top = next(l for l in out.output.splitlines() if 'best possible' in l)
    assert '0.550' in top, 'of 4-year-olds: the mean of .7 and .4'


def test_an_r_file_beside_a_table_of_answers(tmp_path):
    words = [f'"{n}","{p}","i{i}","{"dog" if (p, i) != ("c", 1) else "cat"}",{"TRUE" if (p, i) != ("c", 1) else "FALSE"},900,4.5' for n, (p, i) in enumerate((p, i) for p in 'abcd' for i in range(3))]
    (tmp_path/'r.csv').write_text('\n'.join(['"","participant","item","response","correct","rt","age"', *words]))
    (tmp_path/'m.csv').write_text('item,answer\ni0,dog\ni1,cat\ni2,dog\n')
    out = people(tmp_path/'r.csv', '--model', f"m={tmp_path/'m.csv'}", '--abilities', 2)
    assert out.exit_code == 0 and 'r.csv (table): 12 answers' in out.output and 'ability 1 of 2' in out.output and ' m  model' in out.output, out.output


@pytest.mark.parametrize('name, text, words, why', [
    ('a.csv', 'time,x\n1,2\n', (), 'a.csv: no column says which person'), ('b.csv', JSPSYCH.replace('"true"', '"perhaps"'), (), "b.csv row 2: 'correct' is 'perhaps'"),
    ('human.csv', 'age_bin,prop,trial\n1.5,1.2,37\n', (), 'human.csv row 1: shares'), ('human.csv', 'age_bin,prop,trial\n1.5,.2,37\n', ('--ages', '3'), 'in bins already'),
    ('c.csv', JSPSYCH, ('--ages', '6,4'), 'expected rising numbers'), ('c.csv', JSPSYCH, ('--ages', 'nan,4'), 'expected rising numbers'), ('c.csv', JSPSYCH, ('--model', 'm'), "'m': expected NAME=FILE"),
    ('c.csv', JSPSYCH, ('--model', 'm=none.csv'), 'none.csv'), ('c.csv', JSPSYCH, ('--column', 'item=word'), "no column 'word'"), ('p.csv', PSYCHOPY.replace('instr.started', 'other.keys'), (), 'p.csv: 2 response components'),
    ('c.csv', JSPSYCH, ('--ages', '3', '--abilities', 2), 'give --ages or --abilities'), ('none/x.csv', None, (), 'no file of answers')])
def test_a_wrong_file_of_people_is_refused_by_the_command(tmp_path, name, text, words, why):
    if text: (tmp_path/name).write_text(text)
    out = people(tmp_path/name, *words)
    assert out.exit_code == 2 and why in out.output and len(out.output.strip().splitlines()) == 1, out.output


def test_options_that_are_named_otherwise_are_refused(tmp_path):
    jspsych(tmp_path/'one.csv', (.4, .9), 0)
    for text, why in (('item,option,score\n00000,left,1\n00000,right,0\n', "m, item '00000': scores of left, right, but people chose among 0, 1, 2"),
                      ('item,option,score\nx,0,1\n', 'people were given none of its items'), ('item,option,score\n00000,0,high\n', "m.csv row 1: 'score' is 'high'")):
        (tmp_path/'m.csv').write_text(text)
        out = people(tmp_path/'one.csv', '--model', f"m={tmp_path/'m.csv'}")
        assert out.exit_code == 2 and why in out.output, out.output


def test_a_model_beside_people_is_never_left_out_in_silence(tmp_path):
    human, journal = tmp_path/'human.csv', tmp_path/'m.jsonl'
    human.write_text('text1,age_bin,trial,image1,image2\nred,3,1,.6,.4\nblue,3,2,.7,.3\n')
    call = ['survey', 'people', str(human), '--model', f'mine={journal}']
    journal.write_text('{"journal": 1}\n{"uid": "00000", "text": "(A)"}\n{"uid": "00001", "text": "(B)"}\n')
    out = CliRunner().invoke(app, call)
    assert out.exit_code == 0 and 'models mine: words, no scores' in out.output and '--model NAME=FILE' not in out.output, out.output
    journal.write_text('{"journal": 1}\n{"uid": "00000", "text": "well"}\n')
    out = CliRunner().invoke(app, call)
    assert out.exit_code == 2 and 'm.jsonl: no reply names an option' in out.output, out.output


def test_a_save_a_line_as_a_jspsych_server_keeps_them(tmp_path):
    rows = [dict(trial_type='html-button-response', trial_index=0, participant=p, item='i', response=1, correct=True) for p in 'ab']
    for name, text in dict(lists='\n'.join(json.dumps([r]) for r in rows) + '\n', rows='\r\n'.join(map(json.dumps, rows)), one=json.dumps(rows)).items():
        (tmp_path/f'{name}.json').write_text(text)
        assert list(read_people(tmp_path/f'{name}.json').answers.person) == ['a', 'b']
    (tmp_path/'cut.json').write_text('[{"a": 1}]\n[{"a": }]')
    with pytest.raises(ValueError, match='cut.json line 2: not JSON'): read_people(tmp_path/'cut.json')


@pytest.mark.parametrize('count', [0, 1, -1])
def test_people_are_sorted_into_two_bins_or_more(tmp_path, count):
    (tmp_path/'c.csv').write_text(JSPSYCH)
    assert people(tmp_path/'c.csv', '--abilities', count).exit_code == 2


def test_a_row_that_is_there_twice_counts_once(tmp_path):
    from babyvlm.analysis.survey.exports import read_people
    rows = [f'{p},i{k},{k % 2},1,90{k}' for p in 'ab' for k in range(3)]
    for text in (rows, rows + rows, rows + rows[:1]):
        (tmp_path/'h.csv').write_text('\n'.join(['participant,item,response,correct,rt', *text]))
        found = read_people(tmp_path/'h.csv')
        assert len(found.answers) == 6 and found.ledger.skipped == ({'a row that is there twice': len(text) - 6} if len(text) > 6 else {})
