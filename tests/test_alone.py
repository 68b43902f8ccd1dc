"""A notebook by itself: it begins with its badge and one cell that installs the library, its cells say what they need.

`.ci/alone` copies each notebook into an empty folder and runs it from the top."""
import configparser, json, re
from pathlib import Path

import pytest
import torch
from execnb.shell import CaptureShell

from stpm_nb.press.needs import skip

ROOT = Path(__file__).parent.parent
SETTINGS = configparser.ConfigParser(delimiters=['='])
SETTINGS.read(ROOT/'settings.ini')
CFG = SETTINGS['DEFAULT']
BOOKS = {p.relative_to(ROOT).as_posix(): json.loads(p.read_text(encoding='utf-8'))['cells']
         for p in sorted((ROOT/'nbs').rglob('*.ipynb'))}
BADGE = ('[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]'
         '(https://colab.research.google.com/github/{repo}/blob/{branch}/{path})')
INSTALL = r'''# Run this first: it installs the library where it is missing, as in Colab
try: import stpm_nb
except ImportError:
    %pip install -q "stpm_nb(\[(?:onnx|nifti)\])? @ git\+{url}"( latex2mathml)?
%load_ext stpm_nb\.press\.needs'''
REAL = re.compile(r'^#\| real\b', re.M)
NEED = re.compile(r'weights|g\+\+|\$STPM_(DATA|RUNS)/[\w./]+|\.\./[\w./]+|onnx|onnxscript|onnxruntime|'
                  r'nibabel|latex2mathml|nbconvert')

def text(cell): return ''.join(cell['source'])

def code(path): return [c for c in BOOKS[path] if c['cell_type'] == 'code']

def needs(cell): return ' '.join(re.findall(r'^#\| (?:real|needs) (.+)', text(cell), re.M)).split()

@pytest.mark.parametrize('path', BOOKS)
def test_it_begins_with_badge_and_install_cell(path):
    badge, install = BOOKS[path][1:3]
    repo = CFG['git_url'].removeprefix('https://github.com/')
    assert text(badge) == BADGE.format(repo=repo, branch=CFG['branch'], path=path)
    assert re.fullmatch(INSTALL.format(url=re.escape(CFG['git_url'])), text(install))
    for cell in badge, install: assert cell['metadata']['tags'] == ['hide']              # from the site and the README
    assert install['metadata']['jupyter'] == dict(source_hidden=True)                    # folded in Jupyter

@pytest.mark.parametrize('path', BOOKS)
def test_cells_say_what_they_need(path):
    "And name it so that it can be looked for; what they take from the environment, they ask for."
    for cell in filter(lambda c: REAL.search(text(c)), code(path)):
        assert needs(cell), text(cell)
        for need in needs(cell): assert NEED.fullmatch(need), need
        for name in re.findall(r'''environ(?:\[|\.get\()['"](STPM_\w+)''', text(cell)):
            assert any(need.startswith(f'${name}/') for need in needs(cell)), text(cell)

@pytest.mark.parametrize('path', [p for p in BOOKS if any(REAL.search(text(c)) for c in code(p))])
def test_without_its_needs_a_real_cell_is_one_line(path, monkeypatch, tmp_path):
    for name in ('STPM_DATA', 'STPM_RUNS'): monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shell = CaptureShell()
    shell.run('%load_ext stpm_nb.press.needs')
    for cell in code(path):
        if not REAL.search(text(cell)): continue
        out = shell.run(text(cell))
        assert not shell.exc, text(cell)
        said = ''.join(''.join(o.get('text', '')) for o in out)
        assert said.startswith('Skipped. Not here: ') and said.count('\n') == 1 == len(out), said

def test_what_is_here_is_not_skipped(monkeypatch, tmp_path):
    (tmp_path/'screw').mkdir()
    cell = ['#| real weights $STPM_DATA/screw\n', 'pass\n']
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path))
    monkeypatch.setenv('STPM_DATA', str(tmp_path))
    assert 'make_teacher()' in skip(cell)[0] and 'screw' not in skip(cell)[0]
    (tmp_path/'checkpoints').mkdir()
    (tmp_path/'checkpoints'/'resnet18-f37072fd.pth').touch()
    assert skip(cell) == cell
    monkeypatch.delenv('STPM_DATA')
    assert '$STPM_DATA/screw (set STPM_DATA' in skip(cell)[0]
