"""A published value counts as filled by a row about it, never by a number that happens to be equal."""
import json
import warnings

import pytest

from babyvlm.reporting.coverage import published_cells, read_saved


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
