"""The grammar of figures: each fault that can be measured is found when it is planted, and a clean picture has none."""
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

from babyvlm.estimate import Estimate
from babyvlm.experiments.claims import spoken
from babyvlm.reporting.figures import LOOK, SETTINGS, contrast, deutan_distance, faults, key, look, _lab, _linear, luminance, plot_rows, roles, use_style
from babyvlm.reporting.published import published
from babyvlm.reporting.tables import compare, plot_comparison, row, save_figure


@pytest.fixture(autouse=True)
def style(monkeypatch, tmp_path):
    monkeypatch.setenv('BABYVLM_FIGURES', str(tmp_path)); use_style(); yield tmp_path
    plt.close('all')


def clean():
    fig, ax = plt.subplots(figsize=(4, 3))
    for name in ('CVCL', 'BabyLLaVA-V2'): ax.plot([0, .5, 1], [.2, .5, .7], label=name, **look(name))
    ax.set(xlim=(-.05, 1.05), ylim=(0, 1), xlabel='share told', ylabel='score', title='A finding'); ax.legend()
    return fig, ax


def hidden_word(fig, ax): ax.text(.5, .95, 'grey words', color='#999999')
def word_on_a_box(fig, ax): ax.add_patch(plt.Rectangle((0, .8), 1, .15, fc='#d9792b')); ax.text(.3, .85, 'white words', color='white')
def two_words(fig, ax): ax.text(.5, .9, 'one word'); ax.text(.52, .9, 'another')
def colliding_ticks(fig, ax): ax.set_xticks([.5, .51], ['a long label', 'a long label'])
def off_the_sheet(fig, ax): ax.text(1.6, .5, 'a word on the right')
def cut_interval(fig, ax): ax.plot([.5, .5], [.8, 1.3])
def cut_bar(fig, ax): ax.bar([.5], [1.4], .1)
def cut_dots(fig, ax): ax.scatter([2.], [.5])
def alike(fig, ax): ax.plot(.1, .1, 'o', color='#4c6a92', label='c'); ax.plot(.2, .1, 'o', color='#7a5c99', label='d'); ax.legend()
def alike_in_grey(fig, ax): ax.plot(.1, .1, 'v', color='#c2571a', label='c'); ax.plot(.2, .1, 'v', color='#2c7bb6', label='d'); ax.legend()
def chance_without_a_line(fig, ax): ax.set_title('n = 400, chance 0.25')
def blank(fig, ax): ax.set_yticks([.2], ['its {rank} is'])
def faint(fig, ax): ax.plot(.1, .1, '*', color='#e8e0a0', label='c'); ax.legend()


PLANTED = [(hidden_word, "'grey words' has contrast"), (word_on_a_box, "'white words' has contrast"), (two_words, "'one word' lies on 'another'"),
           (colliding_ticks, 'lies on'), (off_the_sheet, 'leaves the sheet'), (cut_interval, 'cut by the axes'), (cut_bar, 'cut by the axes'), (cut_dots, 'cut by the axes'),
           (chance_without_a_line, 'no dotted line is drawn'), (blank, "'its {rank} is' has a blank"), (alike, "'c' and 'd' look alike"), (alike_in_grey, "'c' and 'd' look alike"), (faint, "'c' is drawn too faintly")]


def test_a_clean_picture_has_no_fault(): assert faults(clean()[0]) == []


@pytest.mark.parametrize('plant, said', PLANTED, ids=lambda x: getattr(x, '__name__', ''))
def test_a_planted_fault_is_found(plant, said):
    fig, ax = clean()
    fig.set_layout_engine('none')
    plant(fig, ax)
    assert any(said in f for f in faults(fig)), faults(fig)


def test_a_saved_figure_carries_its_faults(style):
    for name, plant in (('good', None), ('bad', hidden_word)):
        fig, ax = clean()
        if plant: plant(fig, ax)
        save_figure(fig, f'v1/{name}', 'Two lines that rise with the share told.', 'toy')
    found = {n: json.loads((style/'toy'/'v1'/f'{n}.json').read_text())['faults'] for n in ('good', 'bad')}
    assert found['good'] == [] and len(found['bad']) == 1


def test_measuring_changes_nothing_that_is_seen():
    fig, _ = clean()
    fig.canvas.draw(); before = np.asarray(fig.canvas.buffer_rgba()).copy()
    faults(fig); fig.canvas.draw()
    assert (np.asarray(fig.canvas.buffer_rgba()) == before).all()


def test_no_two_models_share_a_mark_and_all_can_be_seen():
    own = {m: x for m, x in LOOK.items() if m not in ('BabyLLaVA-filtered', 'BabyLLaVA-aug')}   # V1's ablation of one model
    for (a, x), (b, y) in itertools.combinations(own.items(), 2): assert x[1] != y[1], (a, b)
    assert {m: c for m, (c, _) in (LOOK | SETTINGS).items() if contrast(c, 'white') < 3} == {}
    assert look('Human (adult volunteers)')['marker'] != look('Gemini-2.5-flash')['marker'] and look('BabyLLaVA-V2, untuned') != look('BabyLLaVA-V2')


SAME = [{'Random chance', 'blind', 'no preference'}, {'blind: most frequent answer', 'always the first option'},   # who guesses; who always says one thing
        {'BabyLLaVA-GPT2', 'BabyLLaVA-filtered', 'BabyLLaVA-aug'}]


def test_a_colour_means_one_thing_in_all_figures():
    "No two models or settings have colours that can be taken for each other, but where they are one thing."
    known = {m: _lab(_linear(c)) for m, (c, _) in (LOOK | SETTINGS).items()}
    near = [(a, b) for a, b in itertools.combinations(known, 2) if np.linalg.norm(known[a] - known[b]) < 9 and not any({a, b} <= s for s in SAME)]
    assert near == []


GREYS = {'#222', '#333', '#444', '#555', '#595959', '#888', '#8a94a0', '#b9c2cc', '#eef1f4', '#4a5662', '#999'}
PARTS = {'#a8501a', '#7d3a10', '#d9e5f2', '#f4dcc4', '#d8eadf', '#ece6f3'}   # boxes of the diagrams of training: what learns, and the parts of a model


def test_pages_of_results_take_their_colours_from_the_grammar():
    found = {(p.stem, c) for p in Path(__file__).parents[1].glob('nbs/papers/**/[0-9]*.ipynb') for cell in json.loads(p.read_text(encoding='utf-8'))['cells']
             if cell['cell_type'] == 'code' for c in re.findall(r"'(#[0-9a-fA-F]{3,6})'", ''.join(cell['source']))}
    assert sorted(x for x in found if x[1] not in GREYS | PARTS) == []


def test_known_values_of_colour():
    assert contrast('#767676', 'white') == pytest.approx(4.54, abs=.01) and contrast('red', 'red') == 1
    assert luminance('white') == pytest.approx(1, abs=1e-6) and deutan_distance('#123456', '#123456') == 0
    assert deutan_distance('#4c6a92', '#7a5c99') < 10 < deutan_distance('#c2571a', '#2c5aa0')   # the pair that was confused, and one that is not


def test_the_picture_of_a_comparison_is_clean_and_says_n_and_chance():
    rows = [row(m, t, k, Estimate(v, v - .05, min(v + .05, 1), n, c, seeds=3)) for m, v in (('CVCL', 1.), ('BabyLLaVA-GPT2', .55), ('BabyLLaVA-Llama', .5))
            for t, k, n, c in (('VTWT', 'accuracy', 600, .5), ('Labeled-S', 'accuracy', 660, .25), ('Baby Winoground', 'group score', 200, 1/6))]
    fig = plot_comparison(compare(rows, published('v1', 'main')), ['Labeled-S', 'VTWT', 'Baby Winoground'])
    assert faults(fig) == []
    assert [a.get_title(loc='left') for a in fig.axes] == ['Labeled-S\nn = 660, chance 0.25', 'VTWT\nn = 600, chance 0.5', 'Baby Winoground\nn = 200, chance 0.17']


SAVED = sorted(Path(__file__).parents[1].glob('figures/*/**/*.json'))


def test_saved_figures_have_no_faults():
    figures = [d for d in (json.loads(p.read_text()) for p in SAVED) if d['kind'] == 'figure']
    assert figures and {d['name']: d.get('faults', 'never measured') for d in figures if d.get('faults') != []} == {}


def test_a_legend_outside_the_panels_is_judged_too():
    fig, ax = clean()
    key(fig, {'c': dict(color='#4c6a92', marker='o'), 'd': dict(color='#7a5c99', marker='o')})
    assert any("'c' and 'd' look alike" in f for f in faults(fig))


def test_an_interval_lies_above_its_mark_and_rows_do_not_cover_each_other():
    kinds = roles({'one': 'easier', 'two': 'harder'})
    e = Estimate(.5, .45, .55, 100, .25)
    ax = plot_rows({'task': dict.fromkeys(kinds, e)}, kinds, {'task': {'one': .5}})
    marks = [l for l in ax.lines if len(l.get_xdata()) == 1 and l.get_markerfacecolor() != 'none']
    intervals = [l for l in ax.lines if list(l.get_xdata()) == [.45, .55]]
    assert len(marks) == len(intervals) == 2 and min(l.zorder for l in intervals) > max(l.zorder for l in marks)
    assert marks[0].get_ydata()[0] != marks[1].get_ydata()[0] and ax.get_ylim() == (.5, -.5)


@pytest.mark.parametrize('low, high, seeds, said', [(.1, .3, 3, 'supported'), (-.3, -.1, 3, 'contradicted'), (-.1, .1, 3, 'undecided'),
                                                    (.1, .3, 1, 'not judged (1 training seed)')])
def test_a_title_changes_with_the_result(low, high, seeds, said):
    assert spoken('v1.7', Estimate((low + high)/2, low, high, 600, seeds=seeds)) == f'Nouns are easiest: {said}'


def topmost(svg):
    "Size and weight of the words that stand highest in a figure."
    found = []
    for how in re.findall('<text ([^>]*)>', svg):
        height = re.search(r' y="([\d.-]+)"|translate\([\d.-]+ ([\d.-]+)\)', how)
        found.append((float(height[1] or height[2]), re.search(r'font-size: ([\d.]+)px', how)[1], 'font-weight: 700' in how))
    return min(found)[1:]


def test_every_committed_figure_has_its_finding_above_it():
    "The title of the whole, larger than those of panels and pictures."
    drawn = sorted(Path(__file__).parents[1].glob('figures/study/**/*.svg'))
    assert len(drawn) > 30 and [p.stem for p in drawn if topmost(p.read_text(encoding='utf-8')) != ('11', True)] == []


def test_rows_of_figures_are_called_as_in_tables():
    "Memory has two scores, with two chances: `spelled` says which."
    pages = Path(__file__).parents[1].glob('nbs/papers/**/*.ipynb')
    sources = {p.stem: '\n'.join(''.join(c['source']) for c in json.loads(p.read_text(encoding='utf-8'))['cells']) for p in pages}
    assert len(sources) > 30 and [n for n, s in sources.items() if 'plot_rows(' in s and '{r["task"]}' in s] == []
