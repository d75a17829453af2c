"""A survey page in a real browser without a screen: from the first click to the saved file."""
import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from babyvlm.analysis.survey.answers import Rules, analyse, exclude, read_responses
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
            if isinstance(answer, int): return answer
            return next(i for i, l in enumerate(labels) if l.startswith(answer))
    return 0


KEY = {"'green'": 1, 'where does it go': 'left', 'How many': 11, "Let's try": 1, 'Which words fit the picture': NASTY[:4]}


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
            if n: page.wait_for_selector('body[data-answered="1"]')
            page.wait_for_selector('#jspsych-html-button-response-btngroup button:enabled')
            if page.locator('figure.option').count(): page.locator('figure.option').nth(1).tap()
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
    found = analyse(read_responses(tmp_path/'answers', tmp_path/'many.key.json'), n_boot=100, rules=Rules(seconds=0))   # a robot answers at once
    assert found.ledger.kept == 2 and found.ledger.before.seen == 2
    assert found.tasks.set_index('task').accuracy['count'].value == 1
