"Scripts that a test starts and kills, forked from one process that has the heavy imports behind it."
import multiprocessing
import os
import sys
from unittest import mock

HEAVY = ['torch', 'transformers', 'babyvlm.items', 'babyvlm.models.cvcl', 'babyvlm.training.trainer']


def _run(code, args, env, out):
    os.environ.update(env)
    os.dup2(out.fileno(), 1)
    sys.argv = ['-c', *args]
    exec(compile(code, '<script>', 'exec'), {'__name__': '__main__'})
    sys.stdout.flush()


class Script:
    "Like `subprocess.Popen([sys.executable, '-c', code, *args], stdout=PIPE, text=True)` on one thread."
    def __init__(self, code, *args, **env):
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload(HEAVY)
        read, write = context.Pipe(duplex=False)
        self.process = context.Process(target=_run, args=(code, [*map(str, args)], env, write), daemon=True)
        with mock.patch.dict(os.environ, OMP_NUM_THREADS='1'): self.process.start()
        write.close()
        self.stdout = os.fdopen(os.dup(read.fileno()))
        read.close()
        self.kill = self.process.kill

    @property
    def returncode(self): return self.process.exitcode
    def poll(self): return self.process.exitcode

    def wait(self, timeout=240):
        self.process.join(timeout)
        assert self.returncode is not None, f'not at its end after {timeout} s'
        return self.returncode

    def communicate(self, timeout=240):
        said = self.stdout.read()
        self.wait(timeout)
        return said, None
