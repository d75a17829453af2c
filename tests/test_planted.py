"""Every mistake of this field's history is noticed by a test; `python -m pytest -m slow tests/test_planted.py` plants them all, some ten minutes."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
from planted_bugs import HISTORY, OURS

HERE = Path(__file__).parent


@pytest.mark.parametrize('name, bug', (HISTORY | OURS).items(), ids=[*HISTORY, *OURS])
def test_each_bug_has_its_place_and_its_tests(name, bug):
    "A line that was rewritten must be planted anew: the script would have nothing to change."
    bug.trial(name)
    for node in bug.nodes:
        file, test = node.split('::')
        assert f'def {test}(' in (HERE.parent/file).read_text(), node


def test_the_committed_result_is_about_these_bugs():
    kept = json.loads((HERE/'reliability'/'planted_bugs.json').read_text())
    assert list(kept['bugs']) == [*HISTORY, *OURS] and kept['caught'] == kept['planted'] == len(HISTORY | OURS)


@pytest.mark.slow
def test_every_planted_bug_is_caught():
    done = subprocess.run([sys.executable, str(HERE/'planted_bugs.py'), '--jobs', '2'], capture_output=True, text=True)
    assert done.returncode == 0, '\n'.join(l for l in done.stdout.splitlines() if '"caught"' not in l) + done.stderr[-2000:]
