"""Kills, full disks, vanishing files, repeated runs: after each, the next run resumes or says what is wrong.

The final numbers are those of an undisturbed run. The environment variable STPM_KILLS is the number of kills of each
command, 1 if it is not set."""
import errno, json, os, random, resource, shutil, signal, subprocess, threading, time
from pathlib import Path

import pytest
import torch

from commands import BIN, Command
from stpm_nb.lab.categories import run_category
from stpm_nb.detector import Detector
from stpm_nb.tool import files
from stpm_nb.tool.files import own_folder
from stpm_nb.tool.readers import load_category
from stpm_nb.tool.synthetic import make_synthetic

KILLS = int(os.environ.get('STPM_KILLS', 1))
NUMBERS = ('image_auroc', 'pixel_auroc', 'pro', 'average_precision', 'best_f1', 'threshold', 'false_alarm_rate',
           'detection_rate')

@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "Two small synthetic categories."
    d = tmp_path_factory.mktemp('root')
    for seed, name in enumerate(('denim', 'linen')):
        make_synthetic(d, n_train=8, n_test=1, size=64, seed=seed, name=name)
    return d

def words(command, root, out):
    small = ['--out', out, '--size', '64', '--untrained', '--device', 'cpu']
    if command == 'stpm_train': return [command, root/'denim', '--epochs', '4', *small]
    return [command, root, '--seeds', '1', '--epochs', '2', *small]

def start(command, root, out, **kw): return Command(*words(command, root, out), env=dict(OMP_NUM_THREADS='1'), **kw)

def finish(command, root, out):
    done = start(command, root, out).wait()
    assert done.code == 0, done
    return numbers(out)

def numbers(out):
    "{file: the numbers that must not change} of all results in a folder."
    found = {p.relative_to(out).as_posix(): json.loads(p.read_text()) for p in sorted(Path(out).rglob('*.json'))}
    return {name: {k: v for k, v in row.items() if k in NUMBERS} for name, row in found.items()}

@pytest.fixture(scope='module')
def undisturbed(root, tmp_path_factory):
    "{command: (its numbers, its seconds)}."
    found = {}
    for command in ('stpm_train', 'stpm_bench_categories'):
        begun = time.time()
        found[command] = finish(command, root, tmp_path_factory.mktemp('whole')/command), time.time() - begun
    return found

def whole(out):
    "Every file that has its final name can be read, and what is no result is a checkpoint or temporary."
    for p in Path(out).rglob('*'):
        if p.suffix == '.json' and not p.name.startswith('.'): json.loads(p.read_text())
        if p.suffix in ('.pt', '.checkpoint'): torch.load(p, weights_only=True)

@pytest.mark.parametrize('command', ['stpm_train', 'stpm_bench_categories'])
@pytest.mark.parametrize('k', range(KILLS))
def test_kill_at_a_random_moment(command, k, root, undisturbed, tmp_path):
    expected, seconds = undisturbed[command]
    p = start(command, root, tmp_path/'out')
    time.sleep(random.Random(f'{command}{k}').uniform(.1, .8) * seconds)
    p.send(signal.SIGKILL)
    p.wait()
    whole(tmp_path/'out')
    assert finish(command, root, tmp_path/'out') == expected
    left = [q for q in (tmp_path/'out').rglob('*') if q.name.startswith('.') or 'checkpoint' in q.name]
    assert not left, left                      # what the killed run left half-done is cleared away by the next

def small_files():
    "A disk with room for files of 20 MB; a checkpoint needs more."
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

@pytest.mark.parametrize('command', ['stpm_train', 'stpm_bench_categories'])
def test_disk_full(command, root, undisturbed, tmp_path):
    code, out, err = start(command, root, tmp_path/'out', before=small_files).wait()
    assert code == 1 and 'Traceback' not in err and 'too large' in out + err, out + err
    assert not [q for q in (tmp_path/'out').rglob('*') if q.is_file() and q.suffix != '.md' and q.suffix != '.csv']
    assert not [q for q in (tmp_path/'out').rglob('*') if q.is_file() and q.suffix != '.md' and q.suffix != '.csv']
    assert finish(command, root, tmp_path/'out') == undisturbed[command][0]

def test_files_vanish_while_they_are_read(root, undisturbed, tmp_path):
    shutil.copytree(root, tmp_path/'root')
    victim = sorted((tmp_path/'root'/'linen'/'test'/'stain').iterdir())[-1]
    from stpm_nb import data
    original = data.read_image
    def losing(path, *args):
        if Path(path).parent.name == 'good': victim.unlink(missing_ok=True)
        return original(path, *args)
    data.read_image = losing
    try:
        with pytest.raises(ValueError, match=f'{victim.name} cannot be read as an image'):
            run_category(tmp_path/'root'/'linen', tmp_path/'out', epochs=3, size=64, untrained=True, device='cpu')
    finally: data.read_image = original
    assert not list((tmp_path/'out').rglob('*.json'))

CLOSED = os.getuid() or subprocess.run(['unshare', '-m', 'true'], capture_output=True).returncode == 0

@pytest.mark.skipif(not CLOSED, reason='root may write anywhere, and no mount namespace can be had')
def test_read_only_output_folder(root, tmp_path):
    (tmp_path/'out').mkdir()
    (tmp_path/'out').chmod(0o555)
    command, *rest = words('stpm_train', root, tmp_path/'out')
    line = ' '.join(str(word) for word in (BIN/command, *rest))
    lock = f'mount -t tmpfs -o ro none {tmp_path/"out"} && ' if os.getuid() == 0 else ''
    shell = ['unshare', '-m', 'sh', '-c', lock + line] if lock else ['sh', '-c', line]
    p = subprocess.run(shell, capture_output=True, text=True)
    assert p.returncode == 1 and 'cannot be written to' in p.stderr and p.stderr.count('\n') == 1, p.stderr
    assert not list((tmp_path/'out').iterdir())
@pytest.mark.parametrize('command', ['stpm_train', 'stpm_bench_categories'])
def test_two_runs_into_one_folder(command, root, undisturbed, tmp_path):
    "While one is writing, here played by this test, another says so and touches nothing; then it runs."
    with own_folder(tmp_path/'out'):
        code, out, err = start(command, root, tmp_path/'out').wait()
        assert code == 1 and err.splitlines()[-1].startswith(f'{command}: Another run is writing to'), out + err
        assert [q.name for q in (tmp_path/'out').iterdir()] == ['.lock']
    assert finish(command, root, tmp_path/'out') == undisturbed[command][0]

def test_a_drive_that_knows_no_locks(tmp_path, monkeypatch):
    def acquire(lock):
        Path(lock.lock_file).touch()
        raise OSError(errno.ENOLCK, 'No locks available')
    monkeypatch.setattr(files.FileLock, 'acquire', acquire)
    with own_folder(tmp_path/'out') as out: (out/'a').touch()
    assert [p.name for p in out.iterdir()] == ['a']

@pytest.mark.parametrize('threads', [1, 2])
def test_same_seed_gives_the_same_bits(threads, root, tmp_path):
    cores = torch.get_num_threads()
    torch.set_num_threads(threads)
    try: a, b = (run_category(root/'denim', tmp_path/n, epochs=2, size=64, untrained=True, device='cpu') for n in 'ab')
    finally: torch.set_num_threads(cores)
    assert {k: v for k, v in a.items() if k != 'seconds'} == {k: v for k, v in b.items() if k != 'seconds'}
    keys = 'seed torch torchvision stpm_nb device precision teacher backbone size epochs'.split()
    assert a['settings']['threads'] == threads and {*keys} <= set(a['settings'])

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_same_seed_on_cuda_gives_close_numbers(root, tmp_path):
    a, b = (run_category(root/'denim', tmp_path/n, epochs=3, size=64, untrained=True, device='cuda') for n in 'ab')
    assert abs(a['threshold'] / b['threshold'] - 1) < .05        # convolutions on GPUs add up in no fixed order

def test_nothing_is_left_open(root):
    "Fit and predict again and again: no thread, no open file, no process is left behind."
    def held():
        children = subprocess.run(['ps', '--ppid', str(os.getpid()), '-o', 'pid='], capture_output=True, text=True)
        return threading.active_count(), len(os.listdir('/proc/self/fd')), children.stdout.count('\n')
    data, counts = load_category(root/'denim', 32), []
    for _ in range(4):
        detector = Detector(None, 'cpu').fit(data, 1, progress=False)
        detector.predict(data.test)
        detector.predict([s.path for s in data.samples])
        counts.append(held())
    assert counts[1:] == counts[1:2] * 3, counts
