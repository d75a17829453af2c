"""Generated files must be what the notebooks generate: export and clean may change nothing."""
import subprocess
import sys
from pathlib import Path

root = Path(__file__).parent.parent


def snapshot(): return {p: p.read_bytes() for d, g in (('babyvlm', '*.py'), ('nbs', '*.ipynb')) for p in (root/d).rglob(g)
                        if '.ipynb_checkpoints' not in p.parts}


before = snapshot()
for command in ('nbdev_export', 'nbdev_clean'): subprocess.run([command], cwd=root, check=True)
after = snapshot()
changed = sorted(str(p.relative_to(root)) for p in before.keys() | after.keys() if before.get(p) != after.get(p))
if changed: sys.exit('these files are not what the notebooks make; run nbdev_export and nbdev_clean and commit:\n  ' + '\n  '.join(changed))
print(f'{len(after)} files as generated')
