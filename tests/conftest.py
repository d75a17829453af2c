import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')

import babyvlm  # noqa: E402,F401  installs the torchvision guard before anything imports torchvision

SHARED = Path(__file__).parent.parent.parent/'shared'


@pytest.fixture(scope='session')
def real_data():
    "Folder of the released label files: BABYVLM_DATA, or ../shared/data beside the checkout."
    for d in (os.environ.get('BABYVLM_DATA'), SHARED/'data'):
        if d and Path(d).is_dir(): return Path(d)
    pytest.skip('the released label files are not here; set BABYVLM_DATA')


@pytest.fixture(scope='session')
def golden():
    "Folder of reference values for the metrics; it comes with the tests."
    return Path(__file__).parent/'golden'


def pytest_configure(config): config.addinivalue_line('markers', 'slow: minutes long; runs with -m slow')


def pytest_collection_modifyitems(config, items):
    "What takes minutes runs when it is asked for."
    if 'slow' in config.getoption('-m'): return
    for item in items:
        if 'slow' in item.keywords: item.add_marker(pytest.mark.skip(reason='takes minutes; run it with -m slow'))
