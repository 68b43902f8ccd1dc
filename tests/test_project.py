"What only a script can test: the commands as processes, the built wheel, export and README."
import configparser, csv, importlib, inspect, json, os, re, shutil, signal, subprocess, sys, time, venv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from commands import BIN, Command, run
from stpm_nb.data import Category
from stpm_nb.features import make_teacher
from stpm_nb.lab import bench, speed
from stpm_nb.tool import readers, report, synthetic
from stpm_nb.tool.synthetic import make_synthetic
from stpm_nb.train import train_student

ROOT = Path(__file__).parent.parent
SETTINGS = configparser.ConfigParser(delimiters=['='])
SETTINGS.read(ROOT/'settings.ini')
CFG = SETTINGS['DEFAULT']
COMMANDS = dict(line.split('=') for line in CFG['console_scripts'].split())

def good(*args, **kw):
    "Run a command that succeeds; what it said."
    done = run(*args, **kw)
    assert done.code == 0, done
    return done.out

def train(*args, **kw): return good('stpm_train', *args, '--untrained', '--device', 'cpu', **kw)
def predict(*args, **kw): return good('stpm_predict', *args, '--device', 'cpu', **kw)

def shell(*args, cwd=None, **env):
    "Run another program; what it said on stdout. It sees nothing of this checkout but its own folder."
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | env
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, cwd=cwd, env=env)
    assert done.returncode == 0, f'{args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}'
    return done.stdout

@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_explains_itself(command, tmp_path):
    "Its help names each parameter of its function; asked in an empty folder, it leaves that empty."
    module, function = COMMANDS[command].split(':')
    code, out, err = run(command, '--help', cwd=tmp_path)
    assert code == 0 and out.startswith(f'usage: {command} ') and err == '' and not list(tmp_path.iterdir())
    for p in inspect.signature(getattr(importlib.import_module(module), function)).parameters.values():
        spelled = f'--{"no-" if p.default is True else ""}' + p.name.replace('_', '[-_]')      # as fastcore does
        name = p.name if p.default is p.empty else spelled
        assert re.search(rf'^  {name} .*\w', out, re.M), f'{command} --help lacks {name}:\n{out}'

def test_help_waits_for_no_pytorch():
    out = shell(sys.executable, '-c', 'import stpm_nb.tool.commands, sys\nprint("torch" in sys.modules)', cwd=ROOT)
    assert out == 'False\n'

def test_an_interrupted_import_is_one_sentence(tmp_path):
    "Ctrl-C while PyTorch is being imported, here played by a module of that name."
    (tmp_path/'torch.py').write_text('raise KeyboardInterrupt')
    program = 'import sys\nsys.path.insert(0, sys.argv[1])\nfrom stpm_nb.tool import commands as c\n{}'
    for call in ('c.stpm_demo("o")', 'c.stpm_train("a")', 'c.stpm_predict("a", "b")'):
        done = subprocess.run([sys.executable, '-c', program.format(call), tmp_path], cwd=ROOT, capture_output=True,
                              text=True)
        assert done.returncode == 130 and done.stderr.count('\n') == 2 and ': interrupted' in done.stderr, done
    assert not (ROOT/'o').exists()

def test_python_m_starts_the_commands(made, tmp_path):
    def start(*words): return subprocess.run([sys.executable, '-m', 'stpm_nb', *map(str, words)], cwd=ROOT,
                                             capture_output=True, text=True)
    assert [start().returncode, start('predikt').returncode] == [0, 2]
    assert re.findall(r'^python -m stpm_nb (\w+) +\w', start().stdout, re.M) == ['demo', 'train', 'predict']
    photos = sorted((made/'fabric'/'test'/'good').iterdir())
    done = start('predict', made/'run'/'model.pt', *photos, '--out', tmp_path/'p', '--device', 'cpu')
    assert done.returncode == 0 and f'{len(photos)} image(s)' in done.stdout, done

def test_benchmarks_measure_what_their_commands_are_asked(monkeypatch, tmp_path):
    asked = []
    def noting(name, result=None):
        def stand_in(*args):
            asked.append((name, *args))
            return result
        return stand_in
    monkeypatch.setattr(speed, 'bench_metrics', noting('metrics'))
    bench.stpm_bench_metrics()
    assert asked == [('metrics',)]
    asked.clear()
    given = {(report, 'detector_or_untrained'): 'detector', (synthetic, 'make_synthetic'): 'woven',
             (readers, 'load_category'): 'data', (speed, 'bench_training'): dict(category='screw', training={}),
             (speed, 'bench_scoring'): {}}
    for (module, name), result in given.items(): monkeypatch.setattr(module, name, noting(name, result))
    bench.stpm_bench_speed()
    assert [a[0] for a in asked] == ['detector_or_untrained', 'make_synthetic', 'load_category',
                                     'bench_training', 'bench_scoring']
    asked.clear()
    bench.stpm_bench_speed('screw', 100, seeds=3, device='cpu', out=tmp_path/'s.json')
    assert asked == [('detector_or_untrained', 'cpu'), ('load_category', 'screw'),
                     ('bench_training', 'detector', 'data', 100, 3), ('bench_scoring', 'detector', 'data')]
    assert json.loads((tmp_path/'s.json').read_text()) == dict(category='screw', training={}, scoring={})

def test_training_is_timed_beside_its_machine(monkeypatch):
    "The figures name the machine and the versions; ours is fitted once a seed, the official loop once."
    fits, category = [], Category('screw', torch.zeros(10, 3, 32, 32, dtype=torch.uint8), *[None]*4)
    detector = SimpleNamespace(device=torch.device('cpu'), settings=dict(teacher='none'), teacher=None)
    for name, stand_in in dict(_fit=lambda *args: fits.append(args), _plain=lambda *args: None,
                               _judge=lambda name, curve, *rest: dict(name=name, curve=[(1, .5)]),
                               _train_official=lambda *args: fits.append(args[3]) or (None, [])).items():
        monkeypatch.setattr(speed, name, stand_in)
    found = speed.bench_training(detector, category, 100, seeds=3, own_epochs=7)
    made_on = {'machine', 'device', 'precision', 'threads', 'stpm_nb', 'torch', 'torchvision'}
    assert set(found) == made_on | {'category', 'training'} and found['category'] == 'screw'
    assert fits == [(detector, category, 7, seed) for seed in range(3)] + [100]
    assert [r['name'] for k in ('ours', 'official') for r in found['training'][k]] == ['ours'] * 3 + ['official']

HEAVY = {'torch', 'matplotlib', 'sklearn', 'nbconvert'}

@pytest.mark.parametrize('module', sorted({v.split(':')[0] for v in COMMANDS.values()} - {'stpm_nb.tool.commands'}))
def test_help_does_not_wait_for_pytorch(module):
    "A module of commands imports what its commands need when they need it."
    program = f'import sys, {module}\nprint({HEAVY} & {{*sys.modules}})'
    assert subprocess.check_output([sys.executable, '-c', program], text=True) == 'set()\n'

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "A small synthetic category and a model trained on it by the command."
    d = tmp_path_factory.mktemp('made')
    make_synthetic(d, n_train=12, n_test=2, size=64)
    train(d/'fabric', '--out', d/'run', '--epochs', 2, '--size', 64)
    return d

def test_train_writes_model_metrics_and_heatmaps(made):
    found = json.loads((made/'run'/'metrics.json').read_text())
    assert all(0 <= found[k] <= 1 for k in ('image_auroc', 'pixel_auroc', 'pro'))
    asked = dict(seed=0, epochs=2, size=[64, 64], teacher='untrained', category='fabric')
    assert found['settings'] | asked == found['settings']
    assert {'average_precision', 'best_f1', 'intervals', 'strata', 'baselines', 'patients'} <= set(found)
    assert found['seconds']['train'] > 0
    assert len(list((made/'run'/'heatmaps').rglob('*.jpg'))) == 12
    assert sorted(p.name for p in (made/'run').iterdir()) == ['heatmaps', 'metrics.json', 'model.pt']
    assert found['folder'] == str((made/'fabric').resolve())

def test_same_seed_same_numbers(made, tmp_path):
    train(made/'fabric', '--out', tmp_path, '--epochs', 2, '--size', 64)
    a, b = (json.loads((p/'metrics.json').read_text()) for p in (made/'run', tmp_path))
    for k in ('image_auroc', 'pixel_auroc', 'pro', 'threshold'): assert a[k] == b[k]

def test_interrupted_training_continues_with_the_same_numbers(made, tmp_path):
    args = [made/'fabric', '--epochs', 5, '--size', 64]
    train(*args, '--out', tmp_path/'whole')
    p = Command('stpm_train', *args, '--out', tmp_path/'broken', '--untrained', '--device', 'cpu')
    deadline = time.time() + 120
    while not (tmp_path/'broken'/'checkpoint.pt').exists() and time.time() < deadline: time.sleep(.005)
    p.send(signal.SIGINT)
    code, _, err = p.wait()
    assert code == 130 and 'continues where it stopped' in err
    assert 1 <= len(torch.load(tmp_path/'broken'/'checkpoint.pt', weights_only=True)['history']) <= 5
    assert not (tmp_path/'broken'/'model.pt').exists()
    train(*args, '--out', tmp_path/'broken')
    a, b = (json.loads((tmp_path/n/'metrics.json').read_text()) for n in ('whole', 'broken'))
    for k in ('image_auroc', 'pixel_auroc', 'pro', 'threshold'): assert a[k] == b[k]

def test_predict_reads_photos_of_any_mode(made, tmp_path):
    photos = tmp_path/'photos'
    (photos/'more').mkdir(parents=True)
    grey = np.random.default_rng(0).integers(0, 255, (50, 90), dtype=np.uint8)
    Image.fromarray(grey).save(photos/'grey.png')
    Image.fromarray(grey).convert('RGBA').save(photos/'rgba.png')
    Image.fromarray(grey.astype(np.uint16) * 257).save(photos/'sixteen.png')
    Image.fromarray(grey).convert('RGB').save(photos/'more'/'colour.JPG')
    exif = Image.Exif()
    exif[0x0112] = 6     # "turn me by 90 degrees"
    Image.fromarray(grey.T[::-1].copy()).save(photos/'turned.png', exif=exif)
    predict(made/'run'/'model.pt', photos, '--out', tmp_path/'out')
    rows = csv.DictReader((tmp_path/'out'/'scores.csv').read_text().splitlines())
    scores = {r['image']: float(r['score']) for r in rows}
    assert len(scores) == 5 and 'more/colour.JPG' in scores
    assert scores['grey.png'] == scores['rgba.png'] == scores['sixteen.png'] == scores['turned.png']
    assert len(list((tmp_path/'out'/'heatmaps').rglob('*.jpg'))) == 5
    assert '1 image(s)' in predict(made/'run'/'model.pt', photos/'grey.png', '--out', tmp_path/'one')

def test_predict_sets_the_threshold_anew(made, tmp_path):
    model, image = made/'run'/'model.pt', made/'fabric'/'test'/'good'/'000.png'
    good_scores = torch.load(model, weights_only=True)['good_scores']
    spelled = next(w for w in re.findall(r'--false.alarms', good('stpm_predict', '--help')))   # as fastcore spells it
    for share, expected in ((.01, good_scores[-1]), (.99, good_scores[0])):
        predict(model, image, '--out', tmp_path/'out', spelled, share)
        [row] = csv.DictReader((tmp_path/'out'/'scores.csv').read_text().splitlines())
        assert row['threshold'] == f'{expected:.6g}'

def test_a_large_category_is_seen_ten_times(monkeypatch):
    asked = []
    monkeypatch.setattr('stpm_nb.train._epochs', lambda *args: asked.append(args[4]['epochs']))
    teacher = make_teacher(None)
    for n in (48, 256, 700): train_student(teacher, torch.zeros(n, 3, 32, 32, dtype=torch.uint8), None)
    assert asked == [50, 10, 10]

def offline(tmp_path): return dict(TORCH_HOME=str(tmp_path/'empty'), https_proxy='http://127.0.0.1:9')

def test_demo_announces_the_untrained_teacher_within_ten_seconds(tmp_path):
    out = good('stpm_demo', '--out', tmp_path/'out', '--epochs', 1, '--device', 'cpu', env=offline(tmp_path))
    assert 'UNTRAINED teacher' in out and 'image AUROC' in out and 'mean brightness' in out
    assert (tmp_path/'out'/'heatmaps.png').stat().st_size > 10_000

def test_missing_weights_end_training_with_one_sentence(made, tmp_path):
    start = time.time()
    code, _, err = run('stpm_train', made/'fabric', '--out', tmp_path/'out', env=offline(tmp_path))
    assert code == 1 and time.time() - start < 30 and 'Traceback' not in err
    assert 'resnet18-f37072fd.pth' in err and str(tmp_path/'empty') in err

def test_export_leaves_no_difference(tmp_path):
    for name in ('nbs', 'stpm_nb', 'settings.ini', 'README.md', 'setup.py'):
        (shutil.copytree if (ROOT/name).is_dir() else shutil.copy)(ROOT/name, tmp_path/name)
    shell(BIN/'nbdev_export', cwd=tmp_path)
    for p in sorted((ROOT/'stpm_nb').rglob('*.py')):
        assert (tmp_path/p.relative_to(ROOT)).read_text() == p.read_text(), f'{p.name}: run nbdev_export'

def test_readme_is_the_one_that_index_makes(tmp_path):
    shell('bash', ROOT/'.ci'/'readme', tmp_path, PATH=f'{BIN}:{os.environ["PATH"]}')
    assert (tmp_path/'README.md').read_text() == (ROOT/'README.md').read_text(), 'run bash .ci/readme'
    for p in (tmp_path/'nbs'/'images').iterdir(): assert (ROOT/'nbs'/'images'/p.name).read_bytes() == p.read_bytes()

def test_notebooks_are_executed_and_clean():
    for nb in sorted((ROOT/'nbs').rglob('*.ipynb')):
        cells = [c for c in json.loads(nb.read_text())['cells'] if c['cell_type'] == 'code']
        counts = [c['execution_count'] for c in cells]
        assert counts in (list(range(1, len(cells) + 1)), [None] * len(cells)), nb.name
        assert any(c['outputs'] for c in cells), f'{nb.name} is not executed'
        outputs = [o for c in cells for o in c['outputs']]
        assert not [o for o in outputs if o['output_type'] == 'error' or o.get('name') == 'stderr'], nb.name

def test_wheel_works_in_an_empty_folder(tmp_path):
    shell(BIN/'python', '-m', 'build', '--wheel', '--no-isolation', '--outdir', tmp_path, ROOT)
    venv.create(tmp_path/'env')
    python = tmp_path/'env'/'bin'/'python'
    site = next((tmp_path/'env'/'lib').glob('python*/site-packages'))
    wheel = next(tmp_path.glob('*.whl'))
    shell(BIN/'python', '-m', 'pip', '--python', python, 'install', '--no-deps', '--quiet', wheel)
    ours = [p for p in sys.path if p.endswith('site-packages')]          # torch and friends, but not this checkout
    (site/'dependencies.pth').write_text('\n'.join(ours))
    (tmp_path/'empty').mkdir()
    program = 'import stpm_nb, stpm_nb.tool.commands\nprint(stpm_nb.__file__, stpm_nb.__version__)'
    out = shell(python, '-c', program, cwd=tmp_path/'empty')
    assert str(site) in out and CFG['version'] in out
    shell(tmp_path/'env'/'bin'/'stpm_demo', '--help', cwd=tmp_path/'empty')
