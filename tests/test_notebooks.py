"""Every checking cell of every notebook is one test, named by notebook and heading; so are the checks of exercises.

Cells of a notebook share one namespace and run in order: a test first runs the cells above it that have not run yet."""
import os, re
from pathlib import Path

import nbformat
import pytest
from execnb.shell import CaptureShell

NBS = Path(__file__).parent.parent/'nbs'
CHECK = re.compile(r'^\s*(assert|(test|check)_\w+\()|[;:] *(assert |test_\w+\()', re.M)
FLAGS = re.compile(r'^#\|\s*(real|slow)\b', re.M)

def cells(notebook):
    "[(heading, source, is a check)] of the code cells that need no real data and take no minutes."
    heading, out = 'top', []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == 'markdown':
            for line in re.findall(r'^#+ (.+)', re.sub(r'```.*?```', '', cell.source, flags=re.S), re.M): heading = line
        elif cell.cell_type == 'code' and not FLAGS.search(cell.source):
            out.append((heading, cell.source, bool(CHECK.search(cell.source))))
    return out

class Running:
    "A notebook being run from the top, a cell at a time."
    def __init__(self, notebook):
        self.cells, self.done, self.failed, self.shell, self.cwd = cells(notebook), 0, None, None, notebook.parent
    def upto(self, number):
        "Run the cells up to and including `number`; a failing one is reported with its source."
        if self.shell is None: self.shell = CaptureShell(path=str(self.cwd))
        while self.done <= number and not self.failed:
            heading, source, _ = self.cells[self.done]
            here = os.getcwd()
            os.chdir(self.cwd)           # a notebook may change its folder; pytest keeps its own
            try: out = self.shell.run(source)
            finally:
                self.cwd = os.getcwd()
                os.chdir(here)
            if self.shell.exc:
                error = self.shell.exc[1] if isinstance(self.shell.exc, tuple) else self.shell.exc
                self.failed = self.done, f'"{heading}" fails:\n\n{source}\n\n{type(error).__name__}: {error}'
            elif re.search(r'\d is still open', str(out)):
                self.failed = self.done, f'"{heading}" has no solution:\n\n{source}'
            self.done += 1
        if self.failed:
            where, why = self.failed
            pytest.fail(why if where == number else f'not run, because an earlier cell failed: {why}', pytrace=False)

running = {}
ITEMS = [pytest.param(nb, i, id=f'{nb.stem}: {heading} [{i}]') for nb in sorted(NBS.rglob('*.ipynb'))
         for i, (heading, _, check) in enumerate(cells(nb)) if check]

@pytest.mark.parametrize('notebook,number', ITEMS)
def test_cell(notebook, number):
    if notebook not in running:
        running.clear()                     # one notebook's memory at a time
        running[notebook] = Running(notebook)
    running[notebook].upto(number)
