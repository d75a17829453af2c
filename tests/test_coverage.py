"""A published value counts as filled by a row about it, never by a number that happens to be equal."""
import json
import warnings

import pytest

from babyvlm.experiments.sources import MARK
from babyvlm.reporting.coverage import published_cells, read_saved, released_counts


def saved(folder, label):
    "A table without models whose one row quotes people's Left/Right of the V2 paper."
    (folder/'v2').mkdir()
    (folder/'v2'/'x.json').write_text(json.dumps(dict(kind='table', name='v2/x', runs=[])))
    (folder/'v2'/'x.csv').write_text(f'{label},metric,published,value,n\n{"Shoes" if label == "other" else "Left/Right"},this run,0.945,0.9,10\n')
    return read_saved(folder)


@pytest.mark.parametrize('label', ['task', 'kind', 'other'])
def test_an_equal_number_of_another_row_fills_nothing(tmp_path, label):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        cells = published_cells(saved(tmp_path, label))
    filled = cells[cells.value.notna()]
    assert filled.task.tolist() == ([] if label == 'other' else ['Left/Right']) and (filled.part == 'v2/x').all()


SIZES = '''model,task,metric,status,published,value
'-,filtered SAYCam,pairs,{status},67000,226
'''


@pytest.mark.parametrize('status', ['rehearsal', 'same data', 'toy world'])
def test_a_count_of_released_files_is_filled_by_files_and_by_no_toy(tmp_path, status):
    (tmp_path/'v1').mkdir()
    (tmp_path/'v1'/'s.json').write_text(json.dumps(dict(kind='table', name='v1/s', runs=[])))
    (tmp_path/'v1'/'s.csv').write_text(SIZES.format(status=status))
    cells = published_cells(read_saved(tmp_path))
    found = cells[(cells.file == 'sizes') & cells.value.notna()]
    assert found.value.tolist() == ([] if status == 'toy world' else [226])


def test_counts_of_a_rehearsal_are_not_called_released(tmp_path):
    (tmp_path/'babylmms-eval').mkdir()
    (tmp_path/'babylmms-eval'/'vtwt.csv').write_text('image\na\nb\n')
    assert [(r['status'], r['estimate'].value) for r in released_counts(tmp_path)] == [('label-only', 2)]
    (tmp_path/MARK).write_text('')
    assert [r['status'] for r in released_counts(tmp_path)] == ['rehearsal']
