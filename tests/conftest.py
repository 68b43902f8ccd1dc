"""Warnings from our own code are errors: in the tests, in the cells of notebooks, and in the commands that they start.

`nbdev_test` executes every notebook. `pytest tests/test_notebooks.py` does it once more, a test per cell, and names the
cell that fails: so it runs only when it is asked for by name."""
import gc, os, sys
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')     # two processes test beside each other, a core each

import matplotlib.pyplot as plt

from commands import few_draws

# the library, the tests, the cells of a notebook, cells given to `exec`
OURS = 'stpm_nb', 'test_', '__main__', '<string>'
ROOT = Path(__file__).parent.parent
MODULES = ['.'.join(p.relative_to(ROOT).with_suffix('').parts) for p in (ROOT/'stpm_nb').rglob('*.py')]

def pytest_configure(config):
    """Others' warnings stay warnings: one library may use what another one deprecates, which we cannot mend.

    RuntimeWarning is ours whoever utters it: NumPy raises it from within itself for our numbers."""
    anyone = ['error::RuntimeWarning']
    for line in (*anyone, *(f'error:::{module}' for module in OURS)): config.addinivalue_line('filterwarnings', line)
    os.environ['PYTHONWARNINGS'] = ','.join(f'error:::{module}' for module in MODULES)  # only whole names count here

def pytest_ignore_collect(collection_path, config):
    "Leave the notebooks' cells out, unless they are asked for."
    asked = any('test_notebooks' in arg for arg in config.args)
    if collection_path.name == 'test_notebooks.py' and not asked: return True

def pytest_collection_finish(session):
    "What is imported stays: the search for garbage need not look at it."
    if 'stpm_nb.tool.report' in sys.modules: few_draws()
    gc.collect()
    gc.freeze()

def pytest_runtest_teardown(item, nextitem):
    "Networks and figures hold on to themselves in circles, until someone looks for garbage: every tenth test does."
    plt.close('all')
    if item.session.items.index(item) % 10 == 0: gc.collect()
