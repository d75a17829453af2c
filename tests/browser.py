"""A real headless Chromium for tests, or a skip with its reason."""
import os
import shutil
from contextlib import contextmanager

import pytest

FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync']


def chromium(): return os.environ.get('BABYVLM_CHROMIUM') or next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


@contextmanager
def browser():
    "A browser; what a page complains about is an error of the test."
    sync_api = pytest.importorskip('playwright.sync_api', reason='Playwright for Python is not installed')
    if not chromium(): pytest.skip('no Chromium on the PATH; install it or set BABYVLM_CHROMIUM')
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium(), headless=True, args=FLAGS)
        try: yield b
        finally: b.close()


def opened(b, path, width=1280, **more):
    "A page of a file, with the list of what it complained about."
    page = b.new_page(viewport=dict(width=width, height=900), **more)
    page.complaints = []
    page.on('pageerror', lambda e: page.complaints.append(str(e)))
    page.on('console', lambda m: page.complaints.append(m.text) if m.type == 'error' else None)
    page.on('dialog', lambda d: (page.complaints.append(f'dialog: {d.message}'), d.dismiss()))
    page.goto(path if str(path).startswith('file:') else f'file://{path}')
    return page
