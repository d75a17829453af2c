"""The examples as a newcomer runs them: ten lines of model, every benchmark, and scores that follow from what the model is."""
import ast
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent/'tools'/'examples'
sys.path.insert(0, str(EXAMPLES))

import chat_model  # noqa: E402
import dual_encoder  # noqa: E402
from worlds import report, write_world  # noqa: E402


@pytest.fixture(scope='module')
def world(tmp_path_factory): return write_world(tmp_path_factory.mktemp('world'), n=4)


def lines_of_class(file):
    cls, = [n for n in ast.parse((EXAMPLES/file).read_text()).body if isinstance(n, ast.ClassDef)]
    return cls.end_lineno - cls.lineno + 1 - 1     # without its docstring


def test_the_models_are_ten_lines():
    assert lines_of_class('dual_encoder.py') <= 10 and lines_of_class('chat_model.py') <= 10


def test_a_dual_encoder_on_everything(world):
    found = dual_encoder.main(world)
    assert len(found) == 3 + 13 + 1 and 'hierarchy' in found
    assert found['v1/labeled_s']['acc'].value > .3                                # it has heard the words
    assert found['devcv/leftright']['acc'].value == 1                             # the same picture again
    assert 'devcv/count' in report(found)


def test_a_chat_model_on_everything(world):
    found = chat_model.main(world)
    assert len(found) == 4 + 13 + 1
    assert found['v1/vtwt']['acc'].value == found['v1/vtwt']['acc'].chance == .5   # all ties
    assert all(e.no_answer == 0 for task, d in found.items() if task.startswith('devcv/') for e in d.values())
