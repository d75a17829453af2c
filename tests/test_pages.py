"""The program that runs pages and compares what they print with what is stored."""
import importlib.util
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4 as new

PROGRAM = Path(__file__).resolve().parent.parent/'.ci'/'pages.py'


class InTurn:
    "Workers that need no process."
    def map(self, f, xs): return map(f, xs)
    def __enter__(self): return self
    def __exit__(self, *_): pass


@pytest.fixture
def program(tmp_path, monkeypatch):
    "The program, for a checkout that holds one page; `same`: whether the stored outputs promise the same bits."
    spec = importlib.util.spec_from_file_location('ci_pages', PROGRAM)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'ci_pages', module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    monkeypatch.setattr(module, 'RECORD', tmp_path/'pages.json')
    monkeypatch.setattr(module, 'workers', InTurn)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setenv('IN_TEST', '1')
    def ask(same, *cells, words=()):
        monkeypatch.setattr(module, 'numbers', lambda: (dict(processor='mine'), same))
        page = new.new_notebook(cells=[new.new_code_cell(s, outputs=[output(o)] if o else []) for s, o in cells])
        page.metadata = dict(kernelspec=dict(display_name='python3', language='python', name='python3'))
        (tmp_path/'nbs').mkdir(exist_ok=True)
        if cells: nbformat.write(page, tmp_path/'nbs'/'01_page.ipynb')
        return module.main(list(words))
    return ask


def output(text): return new.new_output('execute_result', data={'text/plain': text}, execution_count=None)


@pytest.mark.parametrize('cells, status, says', [
    ([('1 + 1', '2')], 0, '0 outputs differ'),
    ([('x = 3', None), ('x + 1', '5')], 1, "cell 1: '5' became '4'"),
    ([("'a word'", None)], 1, "'' became ''a word''"),
    ([('assert 1 > 2, "recall 0.1, expected 0.2 or more"', None)], 1, 'cell 0: AssertionError: recall 0.1, expected 0.2 or more')])
def test_a_page_prints_what_is_stored(program, capfd, cells, status, says):
    assert program(True, *cells) == status
    assert says in capfd.readouterr().out


def test_numbers_of_another_machine_are_shown_and_fail_nobody(program, capfd):
    assert program(False, ('2.5 + 1', '3.4')) == 0
    assert "other numerics: 01_page.ipynb, cell 0: '3.4' became '3.5'" in capfd.readouterr().out


def test_what_changed_is_stored(program, capfd):
    assert program(True, ('2 + 2', '5'), words=['--write']) == 0
    assert program(True) == 0
    assert '0 outputs differ' in capfd.readouterr().out
