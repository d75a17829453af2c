"Killed, resumed, full disk, a clock that jumps: what is on disk is what an uninterrupted run writes."
import os

import kills
import pytest


@pytest.mark.parametrize('stage', kills.STAGES)
def test_killed_at_any_call_it_resumes_to_the_same_bytes(stage):
    got = kills.killed(stage, int(os.environ.get('BABYVLM_KILLS', 3)), seed=1)
    assert got['same'] == got['rounds'] and got['kills'] > 0, got


@pytest.mark.parametrize('stage', kills.STAGES)
def test_a_full_disk_is_told_and_what_follows_is_whole(stage, tmp_path):
    (tmp_path/'plain').mkdir(); (tmp_path/'full').mkdir()
    assert kills.forked(kills.STAGES[stage], tmp_path/'plain') == 0
    assert kills.forked(kills.STAGES[stage], tmp_path/'full', kills.full_disk) == 3
    assert kills.forked(kills.STAGES[stage], tmp_path/'full') == 0
    assert kills.on_disk(tmp_path/'full') == kills.on_disk(tmp_path/'plain')


@pytest.mark.parametrize('stage', kills.STAGES)
def test_the_clock_decides_nothing(stage, tmp_path):
    (tmp_path/'plain').mkdir(); (tmp_path/'odd').mkdir()
    assert [kills.forked(kills.STAGES[stage], tmp_path/'plain'), kills.forked(kills.STAGES[stage], tmp_path/'odd', kills.jumping_clock)] == [0, 0]
    assert kills.on_disk(tmp_path/'odd') == kills.on_disk(tmp_path/'plain')
