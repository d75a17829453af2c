"""Remember how long the pages of a finished batch took: `python tools/minutes.py [PROFILE]`, after a run from an empty store on an idle machine."""
import csv
import json

from fastcore.script import Param, call_parse

from babyvlm.config import repo_root

FILE = 'babyvlm/assets/minutes.csv'


@call_parse
def main(profile:Param('whose batch', str, nargs='?')='toy'):
    "Replace the profile's rows of the file."
    path, runs = repo_root()/FILE, repo_root()/'_runs'/profile
    kept = [r for r in csv.DictReader(path.open()) if r['profile'] != profile] if path.exists() else []
    took = {p.relative_to(runs).with_suffix('').as_posix(): json.loads(p.read_text())['metadata']['papermill']['duration']
            for p in sorted(runs.rglob('*.ipynb'))}
    rows = [*kept, *(dict(profile=profile, page=g, minutes=round(s/60, 2)) for g, s in took.items())]
    with path.open('w', newline='') as f:
        out = csv.DictWriter(f, ['profile', 'page', 'minutes'], lineterminator='\n')
        out.writeheader()
        out.writerows(rows)
    print(f'{len(took)} pages, {sum(took.values())/60:.1f} minutes one after the other')
