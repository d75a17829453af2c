"""Generated files must be what the notebooks generate: modules, clean notebooks, README and the site's list of pages."""
import subprocess
import sys
from pathlib import Path

import readme
import sidebar

root = Path(__file__).resolve().parent.parent
PLACES = (('babyvlm', '*.py'), ('nbs', '*.ipynb'), ('.', 'README.md'), ('.', '_quarto.yml'), ('figures/readme', '*'))


def snapshot():
    "Every generated file."
    found = (p for d, pattern in PLACES for p in ((root/d).rglob(pattern) if d != '.' else (root/d).glob(pattern)))
    return {p: p.read_bytes() for p in found if p.is_file() and '.ipynb_checkpoints' not in p.parts}


if __name__ == '__main__':
    before = snapshot()
    for command in ('nbdev_export', 'nbdev_clean'): subprocess.run([command], cwd=root, check=True)
    readme.write(); sidebar.write()
    after = snapshot()
    changed = sorted(str(p.relative_to(root)) for p in before.keys() | after.keys() if before.get(p) != after.get(p))
    if changed:
        sys.exit('these files were not what the notebooks make; they have been made again, look at them and commit:\n  ' + '\n  '.join(changed))
    print(f'{len(after)} files as generated')
