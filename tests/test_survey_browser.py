"""A survey page in a real browser without a screen: from the first click to the saved file."""
import csv
import io
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from babyvlm.analysis.survey.answers import ExclusionRules, analyse, exclude, read_responses
from babyvlm.analysis.survey.page import build_survey
from babyvlm.items import Item

FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync']
NASTY = '<img src=x onerror="window.hacked=1">, "quoted" & é'


def chromium():
    "Path of a Chromium, or None."
    found = os.environ.get('BABYVLM_CHROMIUM') or shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    return found if found and Path(found).exists() else None


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    sync_api = pytest.importorskip('playwright.sync_api', reason='Playwright for Python is not installed')
    if not chromium(): pytest.skip('no Chromium on the PATH; install it or set BABYVLM_CHROMIUM')
    with sync_api.sync_playwright() as p:
        context = p.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp('profile')), executable_path=chromium(), headless=True, args=FLAGS,
            accept_downloads=True, has_touch=True, viewport=dict(width=900, height=760))
        yield context
        context.close()


@pytest.fixture(scope='module')
def items(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    for name in ('red', 'green', 'blue', 'grey'): Image.new('RGB', (60, 60), name).save(folder/f'{name}.png')
    red, green, blue, grey = (str(folder/f'{c}.png') for c in ('red', 'green', 'blue', 'grey'))
    rounds = [dict(prompt='Touch the new image. (A) <image>', options=('A',), gold=0),
              dict(prompt="Let's try more. Touch the new image. (A) <image> (B) <image>", options=('A', 'B'), gold=1)]
    return [Item('vtwt/0', 'vtwt', [red], options=(NASTY, 'a green thing'), gold=0),
            Item('labeled_s/0', 'labeled_s', [red, green, blue, grey], options=('blue',), gold=2, choice='images'),
            Item('pv/0', 'picture_vocabulary', [red, green], "Touch the image of 'green' (A) <image> (B) <image>", ('A', 'B'), 1),
            Item('vdr/0', 'vdr', [red, green, blue], "<image><image><image> where does it go? 'left' or 'right'.", ('left', 'right'), 0),
            Item('count/0', 'count', [red], '<image> How many cups?', tuple(map(str, range(1, 13))), 11),
            Item('memory/0', 'memory', [red, red, blue], choice='open', rounds=rounds),
            Item('wino/0', 'baby_winoground', [red, green], options=('a red thing', 'a green thing'), choice='both')]


def opened(browser, page_file, person):
    "The page after consent, number and introduction."
    page = browser.new_page()
    page.set_default_timeout(15_000)
    page.asked = []
    page.on('request', lambda r: page.asked.append(r.url) if not r.url.startswith(('data:', 'blob:')) else None)
    page.errors = []
    page.on('pageerror', lambda e: page.errors.append(str(e)))
    page.on('console', lambda m: page.errors.append(m.text) if m.type == 'error' else None)
    page.goto(page_file.as_uri())
    page.get_by_role('button', name='I agree').click()
    assert page.get_by_role('button', name='Go on').is_disabled()
    page.fill('#person', str(person))
    page.keyboard.press('Enter')
    page.get_by_role('button', name='Start').click()
    return page


def answer_all(page, how, key, right=True):
    "Answer every question; `how` is 'keyboard' or 'touch'."
    seen = []
    for _ in range(60):
        page.wait_for_selector('#jspsych-html-button-response-btngroup button:enabled, #file')
        if page.locator('#file').count(): return seen
        if page.locator('.text').count():               # a pause between two tasks
            page.get_by_role('button', name='Go on').click(); page.wait_for_selector('.ask, #file')
            continue
        text = page.locator('.ask').inner_text()
        n = page.locator('#jspsych-html-button-response-btngroup button').count()
        at = place_of(page, text, n, key)
        seen.append(text)
        if how == 'keyboard': page.keyboard.press('1234567890-='[at])
        else: page.locator('#jspsych-html-button-response-btngroup button').nth(at).tap()
        page.wait_for_selector(f'body[data-answered="{len(seen)}"]')
    raise AssertionError('the survey does not end')


def place_of(page, text, n, key):
    "Where the right answer is; what the person sees is all that is used."
    if 'please press' in text: return int(text.rstrip('.').split()[-1]) - 1
    buttons = page.locator('#jspsych-html-button-response-btngroup button')
    labels = [buttons.nth(i).inner_text().split('\n')[0] for i in range(n)]
    for words, answer in key.items():
        if words in text:
            if isinstance(answer, int): return answer % n
            return next(i for i, l in enumerate(labels) if l.startswith(answer))
    return 0


KEY = {'“green”': 1, 'where does it go': 'left', 'How many': 11, 'Which picture is new': -1, 'Which words fit the picture': NASTY[:4]}


@pytest.mark.parametrize('how, save', [('keyboard', 'csv'), ('touch', 'json')])
def test_from_the_first_click_to_the_saved_file(browser, items, tmp_path, how, save):
    page_file = build_survey(items, tmp_path/'demo.html', checks=2, save=save)
    page = opened(browser, page_file, person=3)
    with page.expect_download() as download:
        seen = answer_all(page, how, KEY)
    saved = tmp_path/'answers'/download.value.suggested_filename
    download.value.save_as(saved)
    assert saved.name.startswith('demo_3_') and saved.suffix == f'.{save}'
    assert len(seen) == 11 + 2 and page.errors == [] and page.asked == [page_file.as_uri()]
    assert page.evaluate('window.hacked') is None

    rows = json.loads(saved.read_text()) if save == 'json' else list(csv.DictReader(io.StringIO(saved.read_text())))
    assert {str(r['person']) for r in rows} == {'3'} and len({r['session'] for r in rows}) == 1
    assert all(float(r['milliseconds']) > 0 for r in rows)
    own = ('rt', 'stimulus', 'response', 'trial_type', 'trial_index', 'time_elapsed', 'plugin_version')   # of jsPsych
    assert {str(r['trial_type']) for r in rows} == {'html-button-response'} and all(r[c] not in ('', None) for r in rows for c in own)
    assert [float(r['response']) for r in rows] == [float(r['place']) for r in rows] and rows[0]['stimulus'].endswith('?')
    found = read_responses(tmp_path/'answers', tmp_path/'demo.key.json')
    a = found.answers.set_index(['item', 'round'])
    assert len(a) == 11 and found.checks.right.tolist() == [1, 1]
    for unit in (('vtwt/0', 0), ('pv/0', 0), ('vdr/0', 0), ('count/0', 0), ('memory/0', 1)): assert a.right[unit] == 1, unit
    assert a.place['vtwt/0', 0] in (0, 1)
    page.close()


def test_places_turn_from_person_to_person(browser, items, tmp_path):
    page_file = build_survey(items[:1], tmp_path/'turn.html', checks=0)
    places = []
    for person in (1, 2):
        page = opened(browser, page_file, person)
        with page.expect_download() as download: answer_all(page, 'keyboard', KEY)
        download.value.save_as(tmp_path/'answers'/download.value.suggested_filename)
        page.close()
    a = read_responses(tmp_path/'answers', tmp_path/'turn.key.json').answers
    assert sorted(a.place) == [0, 1] and a.right.tolist() == [1, 1]


def test_who_does_not_agree_leaves_no_file_and_who_stops_keeps_what_was_answered(browser, items, tmp_path):
    page_file = build_survey(items[:3], tmp_path/'stop.html', checks=0)
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.get_by_role('button', name='I do not agree').click()
    page.get_by_text('Nothing was saved').wait_for()
    page.close()
    page = opened(browser, page_file, person=1)
    page.on('dialog', lambda d: d.accept())
    page.wait_for_selector('#jspsych-html-button-response-btngroup button:enabled')
    page.keyboard.press('1')
    page.wait_for_selector('body[data-answered="1"]')
    with page.expect_download() as download: page.get_by_role('button', name='Stop and save').click()
    download.value.save_as(tmp_path/'answers'/'one.csv')
    found = read_responses(tmp_path/'answers', tmp_path/'stop.key.json')
    assert len(found.answers) == 1 and found.answers.given[0] == 3
    with pytest.raises(ValueError, match='stopped early'): exclude(found)
    page.close()


def test_a_picture_is_an_answer_and_a_clip_plays(browser, items, tmp_path):
    page_file = build_survey([items[2], items[3]], tmp_path/'tap.html', checks=0)
    page = opened(browser, page_file, person=1)
    with page.expect_download() as download:
        for n in range(2):
            if n:
                page.wait_for_selector('body[data-answered="1"]')
                page.get_by_role('button', name='Go on').tap()
                page.wait_for_selector('.ask')
            page.wait_for_selector('#jspsych-html-button-response-btngroup button:enabled')
            if page.locator('button img').count() == 2: page.locator('button img').nth(1).tap()
            else:
                page.wait_for_selector('.clip img:nth-child(3).now')
                page.keyboard.press('1')
    download.value.save_as(tmp_path/'answers'/'one.csv')
    a = read_responses(tmp_path/'answers', tmp_path/'tap.key.json').answers
    assert a.set_index('item').right.to_dict() == {'pv/0': 1, 'vdr/0': 1}
    page.close()


def test_real_files_of_several_people_are_analysed(browser, items, tmp_path):
    page_file = build_survey([items[0], items[4]], tmp_path/'many.html', checks=1)
    for person in (1, 2):
        page = opened(browser, page_file, person)
        with page.expect_download() as download: answer_all(page, 'keyboard', KEY)
        download.value.save_as(tmp_path/'answers'/download.value.suggested_filename)
        page.close()
    found = analyse(read_responses(tmp_path/'answers', tmp_path/'many.key.json'), n_boot=100, rules=ExclusionRules(seconds=0))   # a robot answers at once
    assert found.ledger.kept == 2 and found.ledger.before.seen == 2
    assert found.tasks.set_index('task').accuracy['count'].value == 1


WIDTHS = ((390, 844), (820, 1180), (1280, 720))


def inside_and_apart(page):
    "What is wrong with the places of the buttons that can be pressed."
    w, h = page.evaluate('[document.documentElement.clientWidth, innerHeight]')
    boxes = page.eval_on_selector_all('button:not([hidden])', """bs => bs.map(b => { const r = b.getBoundingClientRect()
        return [b.innerText || b.ariaLabel, r.left, r.top, r.right, r.bottom, b.scrollWidth > b.clientWidth + 1] })""")
    wrong = [('outside', name, l, t, r, b) for name, l, t, r, b, _ in boxes if l < 0 or t < 0 or r > w or b > h]
    wrong += [('cut', name) for name, *_, cut in boxes if cut]
    wrong += [('small', name) for name, l, t, r, b, _ in boxes if min(r - l, b - t) < 40]
    wrong += [('overlap', m[0], n[0]) for i, m in enumerate(boxes) for n in boxes[:i]
              if min(m[3], n[3]) - max(m[1], n[1]) > .5 and min(m[4], n[4]) - max(m[2], n[2]) > .5]
    return wrong


@pytest.fixture(scope='module')
def every_task(tmp_path_factory):
    "One item of each task of the toolbox, a long phrase, Baby Winoground."
    from babyvlm.benchmarks.devcv.files import toy_devcv
    from babyvlm.run.commands import benchmark_items
    folder = tmp_path_factory.mktemp('devcv')
    toy_devcv(folder, train=0, val=0, test=4, recordings=8)
    found = benchmark_items(['devcv'], folder/'home', n=1)
    pictures = found[0].images[:2]
    long = 'a phrase of a hundred and some letters that somebody said at breakfast while a cup fell from the table to the floor'
    return [*found, Item('vtwt/0', 'vtwt', pictures[:1], options=(long, 'the dog'), gold=0),
            Item('wino/0', 'baby_winoground', pictures, options=('a red thing', 'a green thing'), choice='both')]


@pytest.mark.parametrize('scheme, width, height', [('light', *WIDTHS[0]), ('dark', *WIDTHS[0]), ('light', *WIDTHS[1]), ('dark', *WIDTHS[2])])
def test_every_screen_fits_and_axe_finds_nothing(browser, every_task, tmp_path, scheme, width, height):
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='axe-playwright-python is not installed').Axe()
    page = browser.new_page()
    page.set_viewport_size(dict(width=width, height=height)); page.emulate_media(color_scheme=scheme)
    page.goto(build_survey(every_task, tmp_path/'all.html', checks=1).as_uri())
    button, seen, wrong = page.locator('#jspsych-html-button-response-btngroup button'), set(), []
    for step in range(120):
        page.wait_for_selector('#jspsych-html-button-response-btngroup button:enabled, #person, #file')
        title = page.locator('main h2').first.inner_text()
        wrong += [(title, *x) for x in inside_and_apart(page)]
        if (scheme == 'light') == (width == 390) and title not in seen and not title.startswith('Part ') or step == 6:
            found = axe.run(page).response['violations']
            wrong += [(title, v['id'], v['nodes'][0]['html'][:120]) for v in found if v['impact'] in ('serious', 'critical', 'moderate')]
        seen.add(title)
        paper = page.eval_on_selector_all('kbd', 'ks => ks.map(k => getComputedStyle(k).backgroundColor)')
        wrong += [(title, 'a key is white in the dark')] * (set(paper) - {'rgba(0, 0, 0, 0)'} != set())
        wrong += [(title, 'words touch the edge')] * (page.locator('main h2').first.bounding_box()['x'] < 8)
        if page.locator('#file').count(): break
        rows = Counter(page.eval_on_selector_all('.jspsych-btn:has(img)', 'bs => bs.map(b => b.offsetTop)')).values()
        wrong += [(title, 'one picture of four stands alone')] * (sorted(rows) == [1, 3])
        if page.locator('#person').count(): page.fill('#person', '2')
        elif page.locator('.ask').count(): assert page.evaluate("document.activeElement.tagName") == 'H2', title
        page.evaluate('window.before = document.querySelector("main h2")')
        button.first.click()
        page.wait_for_function('document.querySelector("main h2") !== window.before')
    assert wrong == [] and len(seen) > 15 and page.locator('#file').count()
    said = ' '.join(seen).lower()
    for words in ('respond', 'answer with', 'only a letter', 'image', '(a)', 'boxs do'): assert words not in said, words
    page.close()


def test_by_keys_alone_and_with_a_progress_that_is_told(browser, items, tmp_path):
    page = opened(browser, build_survey([items[0], items[4]], tmp_path/'keys.html', checks=0), person=1)
    bar = page.get_by_role('progressbar', name='Progress')
    assert bar.get_attribute('aria-valuenow') == '0' and page.get_by_role('main').count() == page.get_by_role('heading', level=1).count() == 1
    page.wait_for_selector('#jspsych-html-button-response-btngroup button:enabled')
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.parentElement.id') == 'jspsych-html-button-response-btngroup'
    with page.expect_download():
        page.keyboard.press('Enter')
        page.get_by_role('heading', name='Part 2 of 2').wait_for()
        assert bar.get_attribute('aria-valuenow') == '50'
        page.wait_for_selector('.text button:enabled, main button:enabled')
        page.get_by_role('button', name='Go on').focus(); page.keyboard.press('Enter')
        page.wait_for_selector('.ask')
        page.wait_for_selector('#jspsych-html-button-response-btngroup button:enabled')
        page.keyboard.press('-')
    page.close()
