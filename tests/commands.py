"""Commands as processes, as a shell starts them, without five seconds of imports each.

One process imports PyTorch and the library; each command is a fork of it that runs the script which pip installed."""
import multiprocessing, os, runpy, signal, sys, tempfile
from collections import namedtuple
from contextlib import suppress
from functools import partial
from pathlib import Path

BIN = Path(sys.executable).parent
Done = namedtuple('Done', 'code out err')
warm = multiprocessing.get_context('forkserver')
warm.set_forkserver_preload(['torch', 'stpm_nb.tool.commands', 'stpm_nb.tool.report', 'stpm_nb.lab.categories',
                             'stpm_nb.lab.speed'])

def few_draws():
    "Intervals come from twenty drawn test sets instead of a thousand, here and in the commands: nobody looks at them."
    from stpm_nb.tool import report, trust
    report.bootstrap = partial(trust.bootstrap, n=20)

def _script(args, cwd, env, said, before):
    "What the fork does: it becomes the command."
    for number, name in ((1, 'out'), (2, 'err')): os.dup2(os.open(said/name, os.O_WRONLY | os.O_CREAT), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)      # a shell in the background would have it ignored
    os.environ.update(MPLBACKEND='agg', **env)
    os.chdir(cwd)
    sys.argv = [str(BIN/args[0]), *args[1:]]
    few_draws()
    if before: before()
    runpy.run_path(sys.argv[0], run_name='__main__')

class Command:
    "A command that has been started. `before` is a function of a module that its process calls first."
    def __init__(self, *args, cwd='.', env=None, before=None):
        self.folder = tempfile.TemporaryDirectory()
        self.said = Path(self.folder.name)
        words = [str(arg) for arg in args]
        self.process = warm.Process(target=_script, args=(words, os.path.abspath(cwd), env or {}, self.said, before))
        self.process.start()

    def send(self, number):
        "Send a signal; a process that is over already gets none."
        with suppress(ProcessLookupError): os.kill(self.process.pid, number)

    def wait(self, seconds=300):
        "Its exit code (minus the signal that ended it) and what it said."
        self.process.join(seconds)
        if self.process.exitcode is None: self.process.kill()
        out, err = ((self.said/name).read_text() if (self.said/name).exists() else '' for name in ('out', 'err'))
        return Done(self.process.exitcode, out, err)

def run(*args, **kw): return Command(*args, **kw).wait()
