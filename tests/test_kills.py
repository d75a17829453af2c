"Killed, resumed, full disk, a clock that jumps: what is on disk is what an uninterrupted run writes."
import json
import os
import subprocess
import tempfile
from pathlib import Path

import kills
import pytest

from babyvlm.store import _HERE, write_whole


@pytest.mark.parametrize('stage', kills.STAGES)
def test_killed_at_any_call_it_resumes_to_the_same_bytes(stage):
    got = kills.killed(stage, int(os.environ.get('BABYVLM_KILLS', 3)), seed=1)
    assert got['same'] == got['rounds'] <= got['kills'], got   # points lie within the work: each round is killed at least once


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


@pytest.mark.slow
@pytest.mark.parametrize('stage', [*kills.TRAINERS, *kills.LONG])
def test_killed_work_of_minutes_resumes_to_the_same_bytes(stage):
    got = kills.killed(stage, int(os.environ.get('BABYVLM_KILLS', 3)), seed=1)
    assert got['same'] == got['rounds'] <= got['kills'], got   # points lie within the work: each round is killed at least once


@pytest.mark.parametrize('stage', kills.STAGES)
def test_two_at_once_end_or_are_refused_and_nothing_is_mixed(stage):
    ends, right = kills.at_once(stage)
    assert right and ends in ([0, 0], [0, 3]), ends   # 3: an error that says what to do


@pytest.mark.slow
@pytest.mark.parametrize('stage', kills.TRAINERS)
def test_two_trainers_of_one_folder_end_alike_or_one_is_refused(stage):
    ends, right = kills.at_once(stage)
    assert right and ends in ([0, 0], [0, 3]), ends


@pytest.mark.parametrize('stage', [s for s in kills.STAGES if s != 'filter'])   # that one writes its pictures beside
def test_a_folder_that_may_not_be_written_is_told_and_left_alone(stage):
    with tempfile.TemporaryDirectory() as d:
        folder, plain = Path(d)/'locked', Path(d)/'plain'
        for f in (folder, plain): f.mkdir()
        os.chmod(d, 0o755); folder.chmod(0o555)
        def reader():
            if os.geteuid() == 0: os.setuid(65534)   # root may write anywhere
        assert kills.forked(kills.STAGES[stage], folder, reader) == 3 and not list(folder.iterdir())
        folder.chmod(0o755)
        assert [kills.forked(kills.STAGES[stage], f) for f in (folder, plain)] == [0, 0] and kills.on_disk(folder) == kills.on_disk(plain)


def test_the_committed_kills_are_about_this_work():
    kept = json.loads(kills.RESULTS.read_text())
    assert set(kills.WORK) >= set(kept) >= {*kills.STAGES, *kills.TRAINERS} and all(f['same'] == f['rounds'] >= 30 for f in kept.values()), kept


def test_halves_of_ended_processes_go_and_no_other_file(tmp_path):
    over = subprocess.Popen(['true']); over.wait()
    other = 'f'*8 if _HERE != 'f'*8 else 'e'*8
    made = {f'a.json.{_HERE}-{over.pid}-7.part': False, f'a.json.{_HERE}-{os.getppid()}-7.part': True, f'a.json.{other}-{over.pid}-7.part': True,
            f'b.json.{other}-{over.pid}-7.part': False, 'my own.part': True, f'{_HERE}-{over.pid}-7.part': True}
    for name in made: (tmp_path/name).write_text('half')
    os.utime(tmp_path/f'b.json.{other}-{over.pid}-7.part', (0, 0))
    write_whole(tmp_path/'c.json', '1')
    assert {n: (tmp_path/n).exists() for n in made} == made
