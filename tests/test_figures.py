"""The grammar of figures: each fault that can be measured is found when it is planted, and a clean picture has none."""
import base64
import functools
import io
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from PIL import Image

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


PARTS = {'#a8501a', '#7d3a10', '#d9e5f2', '#f4dcc4', '#d8eadf', '#ece6f3'}   # boxes of the diagrams of training: what learns, and the parts of a model
FLOW = {'#1b6b4c', '#f2a65e', '#d9792b', '#a8541a'}                          # bars of the steps that make a corpus: kept, and left out by reason
GREYS = {'#8a94a0', '#b9c2cc', '#eef1f4', '#4a5662', '#f4f2ee'}              # nearly grey
PLAIN = {'white', 'black', 'none', 'k', 'w', 'Greys', 'viridis', 'rocket_r'}   # no colour; and the maps that stand for an amount, beside a number or a scale
DRAWS = re.compile(r'\b(?:axe?s?|plt|sns|fig)\b\.')
HEX = re.compile(r"""['"](#[0-9a-fA-F]{3,6})['"]""")
WORD = re.compile(r"""\b(?:\w*colou?rs?|palette|cmap|c|fc|ec|mec|mfc)\s*=\s*[\[(]?['"]([A-Za-z][\w:]*)['"]""")
OTHERS = re.compile(r'color_palette|get_cmap|\bcm\.\w+|colormaps|set_palette')
NOTEBOOKS = sorted(p for p in Path(__file__).parents[1].glob('nbs/**/*.ipynb') if '.ipynb_checkpoints' not in p.parts)


@functools.cache
def code(path):
    "Number, source and outputs of the code cells of a page."
    return [(i, ''.join(c['source']), c['outputs']) for i, c in enumerate(json.loads(path.read_text(encoding='utf-8'))['cells']) if c['cell_type'] == 'code']


def own_colours(source):
    "Colours of a drawing cell that are neither grey nor of the grammar."
    def grey(c): return len({c[1:][k::3] if len(c) == 4 else c[1 + 2*k:3 + 2*k] for k in range(3)}) == 1
    return [c for c in HEX.findall(source) if not grey(c) and c not in GREYS | PARTS | FLOW] + [c for c in WORD.findall(source) if c not in PLAIN] + OTHERS.findall(source)


def test_all_pages_take_their_colours_from_the_grammar():
    "Pages of results and of the library, exported cells and lessons: `look`, `roles` and `looks` give the colours, or there is none."
    assert {(p.stem, i): f for p in NOTEBOOKS for i, s, _ in code(p) if DRAWS.search(s) and 'faults(' not in s and (f := own_colours(s))} == {}


@pytest.mark.parametrize('line, found', [("ax.plot(x, color='#4477aa')", ['#4477aa']), ("ax.plot(x, c='tab:blue')", ['tab:blue']), ("plt.bar(x, color=['red', 'k'])", ['red']),
                                         ("sns.heatmap(x, cmap='magma')", ['magma']), ("ax.barh(x, color=sns.color_palette('Set2')[0])", ['color_palette']),
                                         ("ax.plot(x, color='#8c8c8c', mfc='none')", []), ("ax.plot(x, **look('CVCL'))", [])])
def test_a_colour_of_its_own_is_found(line, found): assert own_colours(line) == found


KNOWN = np.array([to_rgb(c) for c in sorted({c for c, _ in (LOOK | SETTINGS).values()} | PARTS | FLOW)]) * 255
LATER = {('04_dino', 36)}   # older than its code: it is drawn anew where the numbers beside it come out
PHOTOS = re.compile('imshow|show_item|open_image|heatmap|plot_audit|Image|contact_sheet')   # cells that show pictures or amounts


def foreign(png, least=100, near=4):
    "Colours of many pixels that are no grey, none of the grammar, no tint of it, and no edge between one that is there and white or ink."
    with Image.open(io.BytesIO(png)) as im: pixels = Image.alpha_composite(Image.new('RGBA', im.size, 'white'), im.convert('RGBA')).convert('RGB')
    r, g, b = np.asarray(pixels, np.int64).reshape(-1, 3).T
    codes, n = np.unique((r << 16) + (g << 8) + b, return_counts=True)
    seen = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1)
    there = (np.abs(seen[n >= least//4, None] - KNOWN).max(2) <= 1).any(0)   # which colours of the grammar
    def known(colour, end):
        way = KNOWN - end
        share = (((colour - end) * way).sum(1) / np.maximum((way ** 2).sum(1), 1)).clip(0, 1)
        on = np.abs(colour - end - share[:, None] * way).max(1) <= near
        return (on & (there | (share > .97) | ((share < .65) & (end == 255)))).any()
    return ['#%02x%02x%02x' % tuple(c) for c in seen[n >= least] if np.ptp(c) > 12 and not known(c, 255) and not known(c, 34)]


def test_the_stored_pictures_of_library_pages_have_the_colours_of_the_grammar():
    "This sees what a source does not say: the colours that matplotlib takes when it is given none, and pictures older than their code."
    found = {(p.stem, i): foreign(base64.b64decode(''.join(o['data']['image/png']))) for p in NOTEBOOKS if 'papers' not in p.parts
             for i, s, outputs in code(p) if not PHOTOS.search(s) for o in outputs if 'image/png' in o.get('data', {})}
    assert len(found) > 25 and {where: f[:3] for where, f in found.items() if f and where not in LATER} == {}
    assert all(found[where] for where in LATER), 'drawn anew: no exception any more'


def test_the_colours_of_a_picture_are_seen():
    def painted(**how):
        fig, ax = plt.subplots(figsize=(2, 2)); ax.bar([1], [1], **how); ax.set_facecolor('white'); out = io.BytesIO(); fig.savefig(out, format='png'); return out.getvalue()
    assert foreign(painted(color=look('CVCL')['color'], alpha=.4)) == foreign(painted(color='#8c8c8c')) == []
    for colour, seen in (('C0', '#4c72b0'), ('#1f77b4', '#1f77b4'), ('#2f8f6b', '#2f8f6b')): assert seen in foreign(painted(color=colour))


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
