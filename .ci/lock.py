"""Write .ci/lock.txt: the versions of everything that `.[dev]` brought into this environment, those with which the toy tables were made."""
import re
import sys
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

root = Path(__file__).resolve().parent.parent
EXTRAS = ('train', 'match', 'explore', 'endpoint', 'analysis', 'dev')


def declared():
    "Requirements in settings.ini, all extras of a full installation."
    ini = ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini', encoding='utf-8')
    return [Requirement(r) for k in ('', *(f'{e}_' for e in EXTRAS)) for r in ini['DEFAULT'][f'{k}requirements'].split()]


def closure(wanted):
    "Name -> version of what is installed for these requirements, and for theirs."
    found, left = {}, list(wanted)
    while left:
        r = left.pop()
        name = canonicalize_name(r.name)
        if r.marker is not None and not any(r.marker.evaluate({'extra': e}) for e in ('', *r.extras)): continue
        if name in found: continue
        try: found[name] = re.sub(r'\+.*', '', version(name))
        except PackageNotFoundError: sys.exit(f'{name} is not installed here: make the lock in the environment of `make`')
        for line in requires(name) or ():
            need = Requirement(line)
            chosen = [e for e in ('', *r.extras) if need.marker is None or need.marker.evaluate({'extra': e})]
            if chosen: need.marker = None; left.append(need)
    return dict(sorted(found.items()))


if __name__ == '__main__':
    head = f'# Made by .ci/lock.py on Python {sys.version_info.major}.{sys.version_info.minor}: the versions of the toy run. Used by `make LOCK=1`.\n'
    lines = [f'{n}=={v}\n' for n, v in closure(declared()).items()]
    (root/'.ci'/'lock.txt').write_text(head + ''.join(lines), encoding='utf-8')
