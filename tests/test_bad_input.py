"""The table of bad inputs: what is wrong, how it comes in, and the words that the answer must hold.

Each answer is one sentence that names the file or the value and says what to do. A function raises the documented
exception (ValueError if a row names no other), a command ends with the sentence and exit code 1; no file is left that
was not there before, and none is changed.
A row is (what is wrong, a function of the world `w`, words ...); an exception class among the words is expected."""
import copy, csv, hashlib, io, json, shutil, socket, struct, tarfile, threading, zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from commands import run
from stpm_nb.lab.brats import slice_brats
from stpm_nb.lab.bench import stpm_bench_categories, stpm_bench_speed
from stpm_nb.lab.categories import bench_categories, run_category
from stpm_nb.tool.commands import stpm_demo, stpm_predict, stpm_train
from stpm_nb.data import find_mvtec, read_category, read_image, seeded, split_train_val
from stpm_nb.detector import FORMAT, VERSION, Detector
from stpm_nb.tool.export import export
from stpm_nb.tool.download import MVTEC_CATEGORIES, MVTEC_PAGE, download_mvtec
from stpm_nb.lab.exercises import check_answer, check_facts, check_function
from stpm_nb.features import make_teacher
from stpm_nb.loss import cosine_distance
from stpm_nb.tool.gate import (check_backbone, check_device, check_file, check_mask, check_model, check_options,
                               check_samples, check_weights)
from stpm_nb.metrics import image_auroc, pixel_auroc, pro
from stpm_nb.tool import readers, synthetic
from stpm_nb.tool.readers import find_categories, find_samples, layout_of, load_category, photos
from stpm_nb.tool.synthetic import make_synthetic, weave
from stpm_nb.train import resume, save_state, train_student

# --- the world: one small category, one trained model, and an empty folder for each case

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    d = tmp_path_factory.mktemp('made')
    make_synthetic(d, n_train=6, n_test=1, size=64)
    category = load_category(d/'fabric', 32)
    model = Detector(None, 'cpu').fit(category, epochs=1, progress=False)
    model.save(d/'model.pt')
    parts = category.train[1:], category.train[:1]
    train_student(model.teacher, *parts, 1, seed=7, checkpoint=d/'checkpoint.pt', progress=False)
    return SimpleNamespace(root=d, fabric=d/'fabric', model=d/'model.pt', checkpoint=d/'checkpoint.pt',
                           category=category, detector=model, state=torch.load(d/'model.pt', weights_only=True))

@pytest.fixture
def w(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    def copy(): return shutil.copytree(made.fabric, tmp_path/'bad')
    return SimpleNamespace(**vars(made), here=tmp_path, patch=monkeypatch, copy=copy)

def files(*folders):
    "Every file with its state, and every hidden folder."
    paths = [p for d in folders for p in d.rglob('*') if not p.is_dir() or p.name.startswith('.')]
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in paths}

def one_sentence(text, words):
    assert text.endswith('.') and '\n' not in text and len(text) < 600, text
    assert 'Traceback' not in text and 'Errno' not in text, text
    for word in words: assert str(word) in text, f'{word!r} is not in: {text}'

COMMANDS = 'stpm_demo', 'stpm_train', 'stpm_predict', 'stpm_bench_speed', 'stpm_bench_categories'

def refused(w, given, words, new=()):
    """Call it and check the error, or the end of a command, and that nothing is left but the files `new`.

    `given` has made its files when it returns the call."""
    kind = next((k for k in words if isinstance(k, type)), ValueError)
    call = given(w)
    before = files(w.here, w.root)
    try: got = call()
    except SystemExit as e:
        assert isinstance(e.code, str)                                     # Python prints it on stderr and exits with 1
        command, _, text = e.code.partition(': ')
        assert command in COMMANDS and isinstance(e.__cause__, (ValueError, OSError, ImportError))
        assert kind in (ValueError, SystemExit)
    except Exception as e:
        assert type(e) is kind, f'{type(e).__name__}: {e}'
        text = str(e)
    else: pytest.fail(f'accepted: {got!r}'[:300])
    one_sentence(text, [x.format(here=w.here, root=w.root) for x in words if isinstance(x, str)])
    after = files(w.here, w.root)
    assert {p.relative_to(w.here).as_posix() for p in after.keys() - before.keys()} == set(new)
    assert before.items() <= after.items()

def table(rows):
    "Rows (what is wrong, a function of the world, words ...) as the parameters of a test."
    cases = [pytest.param(given, words, id=what) for what, given, *words in rows]
    return pytest.mark.parametrize('given,words', cases)

def png(path, size=(40, 40), mode='RGB', fill=None):
    "Write an image; returns its path."
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, fill or 0).save(path)
    return path

def text(path, words='hello'):
    "Write a text file; returns its path."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(words)
    return path

def two_pages(path):
    page = Image.new('RGB', (64, 64))
    page.save(path, save_all=True, append_images=[page])

# --- categories of the MVTec AD layout with one thing wrong: in the library, and in the command

def change(act, d):
    "Let a row do its work in the folder of a category."
    act(d, d/'train'/'good', d/'test'/'stain'/'000.png', d/'ground_truth'/'stain'/'000_mask.png')

CATEGORIES = [
    ('an empty folder', lambda d, good, image, mask: (shutil.rmtree(d), d.mkdir()), '{here}/bad', 'is not a category',
     'train/good'),
    ('a folder with only text files', lambda d, good, image, mask: (shutil.rmtree(d), text(d/'notes.txt')),
     '{here}/bad', 'is not a category'),
    ('a folder of images without order', lambda d, good, image, mask: (shutil.rmtree(d), png(d/'a.png')), '{here}/bad',
     'is not a category', 'good/'),
    ('no training images', lambda d, good, image, mask: (shutil.rmtree(good), good.mkdir()),
     'holds 0 good training image(s)', 'at least 2'),
    ('only text in train/good', lambda d, good, image, mask: (shutil.rmtree(good), text(good/'a.txt')),
     'holds 0 good training image(s)', 'at least 2'),
    ('one training image', lambda d, good, image, mask: [p.unlink() for p in sorted(good.iterdir())[1:]],
     'holds 1 good training image(s)', 'at least 2'),
    ('good test images only',
     lambda d, good, image, mask: [shutil.rmtree(p) for p in (d/'test').iterdir() if p.name != 'good'], 'all good',
     'some of both kinds'),
    ('defective test images only', lambda d, good, image, mask: shutil.rmtree(d/'test'/'good'), 'all anomalous',
     'some of both kinds'),
    ('a defect type without masks', lambda d, good, image, mask: shutil.rmtree(mask.parent),
     FileNotFoundError, 'stain/000.png has no mask', 'ground_truth/stain'),
    ('one mask missing', lambda d, good, image, mask: mask.unlink(), FileNotFoundError, 'stain/000.png has no mask',
     '000_mask.png'),
    ('a mask of another size', lambda d, good, image, mask: png(mask, (32, 64), 'L'), '000_mask.png is 32 x 64',
     'the size of its image'),
    ('a mask that is text', lambda d, good, image, mask: text(mask), '000_mask.png cannot be read as an image',
     'replace or remove'),
    ('a truncated image', lambda d, good, image, mask: image.write_bytes(image.read_bytes()[:200]),
     'stain/000.png cannot be read as an image', 'replace or remove'),
    ('an image of zero bytes', lambda d, good, image, mask: image.write_bytes(b''),
     'stain/000.png cannot be read as an image'),
    ('an image that is text', lambda d, good, image, mask: text(image), 'stain/000.png cannot be read as an image'),
    ('an image of 1 x 1', lambda d, good, image, mask: png(image, (1, 1)), '1 x 1 pixels', 'at least 8', 'remove it'),
    ('an image of floating-point numbers', lambda d, good, image, mask: png(good/'x.tif', mode='F', fill=.5), 'x.tif',
     'floating-point', '8 or 16 bit'),
    ('masks that mark nothing',
     lambda d, good, image, mask: [png(p, (64, 64), 'L') for p in (d/'ground_truth').rglob('*.png')],
     'bad: masks mark nothing', 'white on black'),
    ('masks that mark all',
     lambda d, good, image, mask: [png(p, (64, 64), 'L', 255) for p in (d/'ground_truth').rglob('*.png')],
     'bad: masks mark nearly everything', 'white on black', 'transparency'),
    ('a scan of several pages', lambda d, good, image, mask: two_pages(good/'x.tif'), 'x.tif holds 2 pictures',
     'a file of its own'),
    ('an animation', lambda d, good, image, mask: text(good/'a.gif'), 'a.gif', 'JPEG or PNG'),
    ('a photo of an iPhone', lambda d, good, image, mask: text(good/'IMG_1.HEIC'), 'IMG_1.HEIC', 'JPEG or PNG'),
]

@pytest.mark.parametrize('by', ['load_category', 'stpm_train'])
@pytest.mark.parametrize('act,words', [pytest.param(act, words, id=what) for what, act, *words in CATEGORIES])
def test_bad_category(w, act, words, by):
    change(act, w.copy())
    if by == 'load_category': refused(w, lambda w: lambda: load_category(w.here/'bad', 32), words)
    else: refused(w, train(category='{here}/bad'), [SystemExit, *words])

# --- other layouts

def checked(folder):
    "What `load_category` does before it reads a pixel."
    samples = find_samples(folder)
    check_samples(samples, folder)
    return samples

def visa(w, table='object,split,label,image,mask\n', images=3):
    d = w.here/'visa'
    for i in range(images): png(d/'pcb'/'Data'/'Images'/f'{i}.png')
    if table is not None: text(d/'split_csv'/'1cls.csv', table)
    return lambda: checked(d/'pcb')

def images_away(w):
    visa(w, 'object,split,label,image,mask\n' + 'pcb,train,normal,no.png,\n' * 2)
    return lambda: load_category(w.here/'visa/pcb', 32)

def after(given, act, call=None):
    "A case, with something done to it before the call."
    def both(w):
        plain = given(w)
        act(w)
        return (lambda: call(w)) if call else plain
    return both

def layout(*paths):
    "A case: a folder with these images in it."
    def given(w):
        for p in paths: png(w.here/'d'/p) if Path(p).suffix else (w.here/'d'/p).mkdir(parents=True)
        return lambda: checked(w.here/'d')
    return given

BMAD = 'train/good/0.png', 'train/good/1.png', 'test/good/img/0.png', 'test/Ungood/img/7.png'
AD3 = 'train/good/rgb/0.png', 'train/good/rgb/1.png', 'test/good/rgb/0.png', 'test/hole/rgb/7.png'
AD2 = 'train/good/0.png', 'train/good/1.png', 'test_public/good/0.png', 'test_public/bad/7.png'

LAYOUTS = [
    ('a folder that is not there', lambda w: lambda: checked(w.here/'no'), FileNotFoundError, '{here}/no',
     'check the path'),
    ('a category with a slip of the pen', lambda w: lambda: checked(w.root/'fabrik'), FileNotFoundError, 'fabrik',
     'Beside it: fabric'),
    ('a file for a category', lambda w: lambda: checked(w.model), FileNotFoundError, 'There is no category folder',
     'model.pt'),
    ('categories in a folder that is not there', lambda w: lambda: find_categories(w.here/'no'), '{here}/no',
     'holds no category', 'visa'),
    ('categories in a folder with others', lambda w: (text(w.here/'d/x/a.txt'), lambda: find_categories(w.here/'d'))[1],
     'holds no category'),
    ('photos: one good image', layout('good/a.png'), 'holds 1 good training image(s)', 'at least 2'),
    ('photos: no image', layout('good'), 'holds 0 good training image(s)'),
    ('photos: two good images and defects', layout('good/a.png', 'good/b.png', 'bad/c.png'),
     'holds 1 good training image(s)', 'at least 2'),
    ('photos: a mask missing', layout('good/a.png', 'good/b.png', 'good/c.png', 'bad/d.png', 'masks/e.png'),
     FileNotFoundError, 'd.png has no mask', 'masks/d.png'),
    ('photos: a heic among the defects',
     after(layout('good/a.png', 'good/b.png', 'good/c.png'), lambda w: text(w.here/'d/bad/e.heic')),
     'e.heic', 'save it as JPEG'),
    ('VisA: no table', lambda w: visa(w, None), '1cls.csv', 'copy it there'),
    ('VisA: the table of something else', lambda w: visa(w, 'a,b\n1,2\n'), '1cls.csv',
     'object, split, label, image, mask'),
    ('VisA: a table that is no text',
     after(visa, lambda w: (w.here/'visa/split_csv/1cls.csv').write_bytes(b'\xff\xfe\x00object\x80')), '1cls.csv',
     'not the table of VisA'),
    ('VisA: a table cut off in a row', lambda w: visa(w, 'object,split,label,image,mask\npcb,train\n'), '1cls.csv',
     'not the table of VisA'),
    ('VisA: a table without the category',
     lambda w: visa(w, 'object,split,label,image,mask\ncandle,train,normal,a.png,\n'), 'holds 0 good training image(s)',
     'pcb'),
    ('VisA: a table with images that are not there', images_away, FileNotFoundError, 'no.png', 'check the path'),
    ('BMAD: a mask missing', layout(*BMAD, 'test/Ungood/label/8.png'), FileNotFoundError, '7.png has no mask',
     'label/7.png'),
    ('BMAD: no healthy slice', layout(*BMAD[2:]), 'holds 0 good training image(s)'),
    ('3D-AD: masks missing', layout(*AD3), FileNotFoundError, 'has no mask', 'hole/gt'),
    ('3D-AD: a mask missing', layout(*AD3, 'test/hole/gt/8.png'), FileNotFoundError, '7.png has no mask', 'gt/7.png'),
    ('AD 2: masks missing', layout(*AD2), FileNotFoundError, 'has no mask', 'ground_truth/bad'),
    ('AD 2: a mask missing', layout(*AD2, 'test_public/ground_truth/bad/7.png'), FileNotFoundError, '7.png has no mask',
     '7_mask.png'),
    ('volumes that are not cut yet', lambda w: (text(w.here/'d/p/p_flair.nii.gz'), lambda: checked(w.here/'d'))[1],
     'is not a category', 'slice_brats'),
]

@table(LAYOUTS)
def test_bad_layout(w, given, words): refused(w, given, words)

# --- NIfTI volumes

def volumes(n=2, flair=None, seg=None, names=('flair', 'seg')):
    "A case: n patients with volumes; `flair` and `seg` are arrays, or bytes of a file that is no volume."
    def given(w):
        nibabel = pytest.importorskip('nibabel')
        whole = np.zeros((32, 32, 4), np.int16)
        whole[4:28, 4:28] = 100
        for i in range(n):
            for name, x in zip(names, (flair, seg)):
                path = w.here/'in'/f'p{i}'/f'p{i}_{name}.nii'
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(x, bytes): path.write_bytes(x)
                else: nibabel.save(nibabel.Nifti1Image(whole * (name != 'seg') if x is None else x, np.eye(4)), path)
        return lambda: slice_brats(w.here/'in', w.here/'out')
    return given

VOLUMES = [
    ('a folder without volumes', lambda w: lambda: slice_brats(w.here, w.here/'out'), 'holds 0 FLAIR volume(s)',
     '_flair.nii.gz', 'at least 2'),
    ('a folder that is not there', lambda w: lambda: slice_brats(w.here/'no', w.here/'out'), '{here}/no',
     'holds 0 FLAIR volume(s)'),
    ('one patient', volumes(1), 'holds 1 FLAIR volume(s)', 'at least 2'),
    ('no segmentations', volumes(names=('flair',)), 'has no segmentation', 'p0_seg.nii'),
    ('text for volumes', volumes(flair=b'hello'), 'p0_flair.nii', 'cannot be read as a volume', 'replace or remove'),
    ('a truncated volume',
     after(volumes(), lambda w: [p.write_bytes(p.read_bytes()[:2000]) for p in (w.here/'in').rglob('*_seg.nii')]),
     'p0_seg.nii', 'cannot be read as a volume'),
    ('a segmentation of another shape', volumes(seg=np.zeros((16, 32, 4), np.int16)), 'p0_seg.nii', 'shape'),
    ('images of two axes', volumes(flair=np.ones((32, 32), np.int16), seg=np.ones((32, 32), np.int16)), 'p0_flair.nii',
     'shape'),
    ('a black volume', volumes(flair=np.zeros((32, 32, 4), np.int16)), 'p0_flair.nii', 'black'),
    ('only ill slices to train on', volumes(seg=np.ones((32, 32, 4), np.int16)), 'in', 'train'),
    ('a folder of results that is there', after(volumes(), lambda w: (w.here/'out').mkdir()), FileExistsError,
     '{here}/out exists already', 'choose another'),
]

@table(VOLUMES)
def test_bad_volumes(w, given, words): refused(w, given, words)

# --- images and masks, one by one

def chunk(kind, body):
    "A part of a PNG file, with its length and its checksum."
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))

def bomb(path):
    "A PNG of 70 bytes that declares 65,000 x 65,000 pixels."
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', 65000, 65000, 1, 0, 0, 0, 0))
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b''))
    return path

def has(w, make, name):
    "Make a file in the folder of the case; returns its path."
    make(w.here/name)
    return w.here/name

def half_a_jpeg(path):
    png(path, (400, 400))
    path.write_bytes(path.read_bytes()[:700])

def image(make, name='a.png', check=check_file):
    "A case: a file is made, and looked at."
    def given(w):
        path = has(w, make, name)
        return lambda: check(path)
    return given

def pair(mask, photo):
    "A case: a mask and its image, each made by its own function or not at all."
    def given(w):
        for make, name in ((mask, 'm.png'), (photo, 'a.png')):
            if make: make(w.here/name)
        return lambda: check_mask(w.here/'m.png', w.here/'a.png')
    return given

def oblong(path): return png(path, (40, 41))

def went_away(w):
    samples = find_mvtec(w.copy())
    shutil.rmtree(w.here/'bad'/'test')
    return lambda: read_category('bad', samples, 32)

IMAGES = [
    ('no such image', lambda w: lambda: check_file(w.here/'a.png'), FileNotFoundError, '{here}/a.png',
     'check the path'),
    ('a folder for an image', lambda w: lambda: check_file(w.here), FileNotFoundError, '{here}', 'check the path'),
    ('an image without a name', lambda w: lambda: check_file(''), FileNotFoundError, 'There is no file',
     'check the path'),
    ('text', image(text), 'a.png cannot be read as an image'),
    ('text that is read all the same', image(text, check=read_image), 'a.png cannot be read as an image',
     'replace or remove'),
    ('no image that is read all the same', lambda w: lambda: read_image(w.here/'a.png'),
     'a.png cannot be read as an image'),
    ('half a JPEG', image(half_a_jpeg, 'a.jpg', read_image), 'a.jpg cannot be read as an image', 'replace'),
    ('a PDF', image(lambda p: text(p, '%PDF-1.4')), 'a.png cannot be read as an image'),
    ('a photo of an iPhone', image(text, 'a.HEIC'), 'a.HEIC is in a format that cannot be read', 'JPEG or PNG'),
    ('seven pixels', image(lambda p: png(p, (100, 7))), '100 x 7 pixels', 'at least 8'),
    ('floating-point pixels', image(lambda p: png(p, mode='F'), 'a.tif'), 'a.tif', 'floating-point', 'save it as'),
    ('a bomb', image(bomb), 'a.png has more than', 'make it smaller'),
    ('a bomb as a mask', pair(bomb, png), 'm.png has more than'),
    ('no such mask', pair(None, png), FileNotFoundError, 'm.png', 'a.png has no mask'),
    ('a mask of another size', pair(png, oblong), 'm.png is 40 x 40', '40 x 41'),
    ('a mask of no image', pair(png, None), FileNotFoundError, 'a.png', 'check the path'),
    ('images that went away', went_away, 'cannot be read as an image', 'FileNotFoundError', '/test/'),
]

@table(IMAGES)
def test_bad_image(w, given, words): refused(w, given, words)

# --- model files and checkpoints

def model_of(make):
    "A case: a model file that is made by a function of its path."
    def given(w):
        make(w.here/'m.pt')
        return lambda: check_model(w.here/'m.pt')
    return given

def model(change=None, name='m.pt', **other):
    "A case: a model file with something wrong in its state."
    def given(w):
        state = w.state | other
        if change: state = change({**state, 'student': dict(state['student']), 'settings': dict(state['settings'])})
        torch.save(state, w.here/name)
        return lambda: check_model(w.here/name)
    return given

def dropped(key): return lambda s: {k: v for k, v in s.items() if k != key}
def student(change): return lambda s: {**s, 'student': {k: change(v) for k, v in s['student'].items()}}

MODELS = [
    ('missing', lambda w: lambda: check_model(w.here/'m.pt'), FileNotFoundError, '{here}/m.pt', 'check the path'),
    ('a folder', lambda w: lambda: check_model(w.here), FileNotFoundError, '{here}', 'check the path'),
    ('empty', model_of(lambda p: text(p, '')), '{here}/m.pt is damaged', 'stpm_train'),
    ('text', model_of(text), '{here}/m.pt is damaged, or no model file', 'stpm_train'),
    ('half a model', lambda w: model_of(lambda p: p.write_bytes(w.model.read_bytes()[:10**6]))(w), 'm.pt is damaged'),
    ('other weights', model_of(lambda p: torch.save({'conv1.weight': torch.zeros(2)}, p)), 'm.pt is damaged'),
    ('a tensor', model_of(lambda p: torch.save(torch.zeros(2), p)), 'm.pt is damaged'),
    ('a whole network', model_of(lambda p: torch.save(torch.nn.Linear(2, 2), p)), 'm.pt is damaged'),
    ('a checkpoint', lambda w: lambda: check_model(w.checkpoint), 'checkpoint.pt is damaged', 'stpm_train'),
    ('from the future', model(version=99), f'version {VERSION}'),
    ('of another program', model(format='PaDiM'), 'no model file'),
    ('hollow', model_of(lambda p: torch.save(dict(format=FORMAT, version=VERSION), p)), 'm.pt is damaged',
     'train the model again'),
    ('no student', model(dropped('student')), 'm.pt is damaged', 'train the model again'),
    ('no threshold', model(dropped('threshold')), 'm.pt is damaged'),
    ('a threshold of nan', model(threshold=float('nan')), 'm.pt is damaged'),
    ('a student of other shapes', model(student(lambda v: v[:1] if v.ndim else v)), 'm.pt is damaged'),
    ('a student of nan', model(student(lambda v: v * float('nan') if v.is_floating_point() else v)), 'm.pt is damaged'),
    ('a size of a million', model(lambda s: {**s, 'settings': {**s['settings'], 'size': 10**6}}), 'm.pt is damaged'),
    ('an unknown backbone', model(lambda s: {**s, 'settings': {**s['settings'], 'backbone': 'resnet17'}}),
     'm.pt is damaged'),
    ('a device that is not there', lambda w: lambda: check_device('banana'), "'banana'", 'leave it out'),
]

@table(MODELS)
def test_bad_model_file(w, given, words): refused(w, given, words)

def resumed(change, seed=7):
    "A case: a checkpoint of seed 7, changed, that a run with a seed wants to continue."
    def given(w):
        change(w, w.here/'c.pt')
        settings = torch.load(w.checkpoint, weights_only=True)['settings'] | dict(seed=seed)
        return lambda: resume(w.here/'c.pt', settings, {})
    return given

CHECKPOINTS = [
    ('of another run', resumed(lambda w, p: shutil.copy(w.checkpoint, p), 0), 'c.pt is of another run',
     'delete it'),
    ('text', resumed(lambda w, p: text(p)), 'c.pt is damaged'),
    ('a folder', resumed(lambda w, p: p.mkdir()), 'c.pt is damaged'),
    ('a model file', resumed(lambda w, p: shutil.copy(w.model, p)), 'c.pt is ', 'delete it'),
]

@table(CHECKPOINTS)
def test_bad_checkpoint(w, given, words): refused(w, given, words)

# --- the detector and its networks

blank = lambda n=2, side=32, kind=torch.uint8: torch.zeros(n, 3, side, side, dtype=kind)
fresh = lambda: Detector(None, 'cpu')
def missing_weights(w):
    w.patch.setenv('TORCH_HOME', str(w.here))
    def forbidden(*args, **kw): raise OSError('HTTP Error 403: Forbidden')
    w.patch.setattr('urllib.request.urlopen', forbidden)

def broken_weights(w):
    missing_weights(w)
    text(w.here/'hub'/'checkpoints'/'resnet18-f37072fd.pth')
    return lambda: make_teacher()

def thresholded(w, value):
    other = copy.copy(w.detector)
    other.threshold = value
    other.save(w.here/'m.pt')

DETECTOR = [
    ('predict before fit', lambda w: lambda: fresh().predict(blank()), 'has not learned anything yet', 'call fit'),
    ('save before fit', lambda w: lambda: fresh().save(w.here/'m.pt'), 'The threshold is None', 'call fit'),
    ('save a threshold of nan', lambda w: lambda: thresholded(w, float('nan')), 'The threshold is nan'),
    ('save a threshold of 0', lambda w: lambda: thresholded(w, 0), 'The threshold is 0'),
    ('export before fit', lambda w: lambda: export(fresh(), w.here/'m.pt2'), 'has not learned anything yet'),
    ('predict images of another side', lambda w: lambda: w.detector.predict(blank(2, 64)), '[2, 3, 64, 64]',
     '[M, 3, 32, 32]'),
    ('predict with channels last', lambda w: lambda: w.detector.predict(blank().permute(0, 2, 3, 1)), '[2, 32, 32, 3]',
     '[M, 3, 32, 32]'),
    ('predict floats', lambda w: lambda: w.detector.predict(blank(kind=torch.float32)), 'torch.float32',
     'expected uint8'),
    ('predict files that are not there', lambda w: lambda: w.detector.predict([w.here/'a.png']),
     'a.png cannot be read', 'FileNotFoundError'),
    ('predict a text file', lambda w: (text(w.here/'a.png'), lambda: w.detector.predict([w.here/'a.png'] * 9))[1],
     'a.png cannot be read'),
    ('fit one image', lambda w: lambda: fresh().fit(w.category._replace(train=w.category.train[:1])),
     '1 training image(s)', 'at least 2'),
    ('fit floats', lambda w: lambda: fresh().fit(w.category._replace(train=w.category.train.float())),
     'torch.float32', 'expected uint8'),
    ('train on no image', lambda w: lambda: split_train_val(0), '0 training image(s)', 'at least 2'),
    ('split one image', lambda w: lambda: split_train_val(1), '1 training image(s)', 'at least 2'),
    ('export to HDF5', lambda w: lambda: export(w.detector, w.here/'m.h5'), "'.h5'", '.pt2 or .onnx'),
    ('export without an ending', lambda w: lambda: export(w.detector, w.here/'m'), '.pt2 or .onnx'),
    ('export into no folder', lambda w: lambda: export(w.detector, w.here/'no'/'m.pt2'), FileNotFoundError, '{here}/no',
     'make it first'),
    ('other weights', lambda w: lambda: Detector('coco'), "'coco'", "'imagenet' or None"),
    ('an unknown backbone', lambda w: lambda: check_backbone('resnet17'), "'resnet17'", 'resnet18'),
    ('an unknown stage', lambda w: lambda: check_backbone('resnet18:layer9'), 'layer9', 'layer1, layer2, layer3'),
    ('a stage that gives no map', lambda w: lambda: check_backbone('resnet18:layer1,fc'), 'resnet18:layer1,fc',
     'maps [B, C, H, W]'),
    ('a stage whose channels come last', lambda w: lambda: check_backbone('swin_t:features.1,features.3'),
     'swin_t:features.1', 'maps [B, C, H, W]'),
    ('a stage of tokens', lambda w: lambda: check_backbone('vit_b_16:encoder'), 'vit_b_16:encoder', 'B, C, H, W'),
    ('no backbone', lambda w: lambda: check_backbone(None), "'None'", 'resnet18'),
    ('a backbone without such stages', lambda w: lambda: check_backbone('squeezenet1_1'), 'layer1', 'vgg16:'),
    ('weights of no backbone', lambda w: lambda: check_weights('resnet17'), "'resnet17'", 'resnet18'),
    ('a backbone without ImageNet weights', lambda w: lambda: check_weights('fcn_resnet50'), "'fcn_resnet50'",
     'ImageNet'),
    ('no weights', lambda w: (missing_weights(w), lambda: check_weights())[1], FileNotFoundError,
     'resnet18-f37072fd.pth', '{here}/hub/checkpoints', '403: Forbidden'),
    ('broken weights', broken_weights, FileNotFoundError, 'cannot be read', 'Delete it'),
    ('features that differ', lambda w: lambda: cosine_distance(torch.ones(1, 8, 4, 4), torch.ones(1, 8, 2, 2)),
     '(1, 8, 4, 4)', 'equal shapes'),
    *[(f'device {d}', lambda w, d=d: lambda: check_device(d), f"'{d}'", 'leave it out')
      for d in ('banana', '', 'cuda:99', 'gpu', 'mps:7', 'CPU', 'cpu,cuda', 'xla', 'meta')],
    ('a device of an unknown kind', lambda w: lambda: check_device('tpu'), "'tpu'", 'leave it out'),
]

@table(DETECTOR)
def test_bad_use_of_the_detector(w, given, words): refused(w, given, words)

@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@table([('check_device', lambda w: lambda: check_device('cuda'), "'cuda'", 'leave it out'),
        ('stpm_predict', lambda w: lambda: stpm_predict(str(w.model), str(w.fabric), device='cuda'),
         SystemExit, "'cuda'", 'leave it out'),
        ('stpm_train', lambda w: lambda: stpm_train(str(w.fabric), size=32, untrained=True, device='cuda'),
         SystemExit, "'cuda'", 'leave it out')])
def test_no_gpu(w, given, words): refused(w, given, words)

# --- arrays in the metrics

S, L = np.array([.1, .4, .35, .8]), np.array([0, 0, 1, 1])
M, T = np.arange(64.).reshape(4, 4, 4), np.arange(64).reshape(4, 4, 4) % 5 == 0
bad = lambda x, value: np.where(np.arange(x.size).reshape(x.shape) == 1, value, x)
measure = lambda f, *args, **kw: lambda w: lambda: f(*args, **kw)

METRICS = [
    ('nan in the scores', measure(image_auroc, bad(S, np.nan), L), 'NaN or infinite'),
    ('infinity in the scores', measure(image_auroc, bad(S, np.inf), L), 'NaN or infinite'),
    ('nan in the maps', measure(pixel_auroc, bad(M, np.nan), T), 'NaN or infinite', 'finite numbers'),
    ('no anomalous image', measure(image_auroc, S, 0*L), 'no positive'),
    ('no good image', measure(image_auroc, S, 0*L + 1), 'no negative'),
    ('one image', measure(image_auroc, S[:1], L[:1]), 'no positive'),
    ('no defective pixel', measure(pixel_auroc, M, T & False), 'no positive'),
    ('no good pixel', measure(pixel_auroc, M, T | True), 'no negative'),
    ('more scores than labels', measure(image_auroc, S, L[:3]), '[4]', '[3]', 'equal shapes'),
    ('masks with a channel', measure(pixel_auroc, M, T[:, None]), '[4, 1, 4, 4]', 'equal shapes', 'squeeze(1)'),
    ('masks of another side', measure(pixel_auroc, M, T[:, :2, :2]), '[4, 2, 2]', 'equal shapes'),
    ('a limit of 0', measure(pro, M, T, max_fpr=0), 'max_fpr is 0', 'above 0 and at most 1'),
    ('a limit in per cent', measure(pro, M, T, max_fpr=30), 'max_fpr is 30', 'at most 1'),
    ('a limit of nan', measure(pro, M, T, max_fpr=float('nan')), 'max_fpr is nan'),
]

@table(METRICS)
def test_bad_arrays(w, given, words): refused(w, given, words)

# --- options, and a PyTorch that is too old

def old_torch(w):
    w.patch.setattr(torch, '__version__', torch.torch_version.TorchVersion('2.9.1'))
    return lambda: check_device('cpu')

OPTIONS = [
    ('no epochs', lambda w: lambda: check_options(epochs=0), '--epochs is 0', 'at least 1'),
    ('no seeds', lambda w: lambda: check_options(seeds=-1), '--seeds is -1', 'at least 1'),
    ('a size of 50', lambda w: lambda: check_options(size=50), '--size is 50', 'multiples of 16'),
    ('an old PyTorch', old_torch, 'PyTorch 2.9.1', 'update it'),
]

@table(OPTIONS)
def test_bad_option(w, given, words): refused(w, given, words)

# --- what else a function is given

ARCHIVE = 'mvtec_anomaly_detection.tar.xz'
PAGE = b'<html>Please log in.</html>'
BY_HAND = (MVTEC_PAGE, 'put it at {here}/' + ARCHIVE, 'url=')                 # what you can do if a download fails

def by_hand(content, sha256):
    "A case: this file lies where the archive belongs."
    def given(w):
        (w.here/ARCHIVE).write_bytes(content)
        return lambda: download_mvtec(w.here, 'screw', 'http://127.0.0.1:9/x', sha256)
    return given

def served(reply, sha256='0' * 64):
    "A case: a server that answers with these bytes and hangs up, or refuses to be called if they are None."
    def given(w):
        server = socket.create_server(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{server.getsockname()[1]}/x'
        def answer():
            with server, server.accept()[0] as peer:
                peer.recv(4096)
                peer.sendall(reply)
        if reply is None: server.close()
        else: threading.Thread(target=answer, daemon=True).start()
        return lambda: download_mvtec(w.here, 'screw', url, sha256)
    return given

def http(status, body=b'', headers=b''):
    return b'HTTP/1.1 ' + status + b'\r\nConnection: close\r\n' + headers + b'\r\n' + body

def earlier(result='hello', **asked):
    "A case: a result of an earlier run lies there, and `run_category` is asked for it."
    def given(w):
        text(w.here/'fabric'/'seed0.json', result)
        return lambda: run_category(w.fabric, w.here, **asked)
    return given

def no_slices(w):
    for name in ('a', 'b'): text(w.here/f'{name}_flair.nii')
    return lambda: slice_brats(w.here, w.here/'o', every=0)

MAPS = {'ones': [(torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 2))]}
OTHERS = [
    ('an unknown defect', lambda w: lambda: weave(0, 'hole'), "'hole'", 'pin_hole'),
    ('a fabric that is there', lambda w: lambda: make_synthetic(w.root), FileExistsError,
     '{root}/fabric exists already', 'choose another'),
    ('a download of an unknown category', lambda w: lambda: download_mvtec(w.here, 'cat'), "'cat'", *MVTEC_CATEGORIES),
    ('an archive by hand with another checksum', by_hand(b'hello', '0' * 64), '{here}/' + ARCHIVE,
     hashlib.sha256(b'hello').hexdigest(), '0' * 64, 'delete it'),
    ('an address that has moved', served(http(b'404 Not Found', PAGE)), OSError, 'http://127.0.0.1', '404', *BY_HAND),
    ('an address that is locked', served(http(b'403 Forbidden')), OSError, 'http://127.0.0.1', '403', *BY_HAND),
    ('a page in place of the archive', served(http(b'200 OK', PAGE)), 'http://127.0.0.1', 'is not the archive',
     hashlib.sha256(PAGE).hexdigest(), *BY_HAND),
    ('a download without a network', served(None), OSError, 'http://127.0.0.1', *BY_HAND),
    ('a download that breaks off',
     served(http(b'200 OK', b'5\r\nabcde\r\nff\r\nab', b'Transfer-Encoding: chunked\r\n')), OSError, 'http://127.0.0.1',
     *BY_HAND),
    ('a download that hangs up', served(b''), OSError, 'http://127.0.0.1', *BY_HAND),
    ('a server of mail', served(b'220 mail ready\r\n'), OSError, 'http://127.0.0.1', *BY_HAND),
    ('every slice but none', no_slices, 'every is 0', 'at least 1'),
    ('a result of other images', earlier('{"asked": {"seed": 0, "files": "0"}}'),
     'seed0.json was made from other images', 'delete it'),
    ('a result of other options', earlier('{"asked": {"seed": 0, "size": 64}}', size=32, untrained=True),
     'seed0.json was made with other options', 'delete it'),
    ('a result that is text', earlier(), 'seed0.json is not a result', 'delete it'),
    ('a result that is a list', earlier('[]'), 'seed0.json is not a result', 'delete it'),
    ('results of no category', lambda w: lambda: bench_categories(w.here/'no', w.here/'out'), '{here}/no',
     'holds no category'),
    ('results of an unknown category', lambda w: lambda: bench_categories(w.root, w.here/'out', only=['silk']),
     "no category 'silk'", 'it has fabric'),
    ('a wrong answer', lambda w: lambda: check_answer('02.1', 3, 'abcd'), AssertionError, '02.1'),
    ('an answer that is no number', lambda w: lambda: check_answer('02.1', None, 'abcd'), AssertionError, '02.1',
     'the answer is a number'),
    ('a fact that does not hold', lambda w: lambda: check_facts('02.2', 3, {'it is even': lambda a: a % 2 == 0}),
     AssertionError, '02.2', 'it is even'),
    ('a function that gives nothing',
     lambda w: lambda: check_function('02.3', lambda t, s: None, cosine_distance, MAPS), AssertionError, '02.3',
     'nothing comes back'),
    ('a function that stops', lambda w: lambda: check_function('02.3', lambda t, s: 1/0, cosine_distance, MAPS),
     AssertionError, '02.3', 'ZeroDivisionError'),
]

@table(OTHERS)
def test_bad_argument_of_another_function(w, given, words): refused(w, given, words)

# --- the commands

def command(call, change, options):
    "A case: some changes to the world, then a call with options, `{here}` and `{root}` in them filled in."
    def given(w):
        for act in change: act(w)
        places = dict(here=w.here, root=w.root)
        ready = {k: v.format(**places) if isinstance(v, str) else v for k, v in options.items()}
        return lambda: call(**ready)
    return given

def train(*change, **kw):
    quick = dict(category='{root}/fabric', size=32, epochs=1, untrained=True, device='cpu')
    return command(stpm_train, change, quick | kw)

def predict(*change, **kw):
    quick = dict(model='{root}/model.pt', images='{root}/fabric/test', device='cpu')
    return command(stpm_predict, change, quick | kw)

def speed(**kw): return command(stpm_bench_speed, [], dict(category='{root}/fabric', device='cpu') | kw)

def bench(*change, **kw):
    quick = dict(root='{root}', device='cpu', epochs=1, size=32, untrained=True, seeds=1)
    return command(stpm_bench_categories, change, quick | kw)

def demo(*change, **kw): return command(stpm_demo, change, kw)

def puts(make, *path): return lambda w: make(w.here.joinpath(*path))

def cup(path): return text(path, '{"folder": "/data/cup"}')

def put_checkpoint(w):
    (w.here/'o').mkdir()
    shutil.copy(w.checkpoint, w.here/'o')

TRAIN = [
    ('no such category', train(category='{root}/fabrik'), 'There is no category folder', 'Beside it: fabric'),
    ('a category without a name', train(category=''), 'is not a category'),
    ('a file for a category', train(category='{root}/model.pt'), 'There is no category folder', 'model.pt'),
    ('an image for a category', train(category='{root}/fabric/test/good/000.png'), 'There is no category folder'),
    ('the folder of categories', train(category='{root}'), '{root} is not a category'),
    ('no epochs', train(epochs=0), '--epochs is 0', 'at least 1'),
    ('fewer than no epochs', train(epochs=-3), '--epochs is -3'),
    ('a size of 50', train(size=50), '--size is 50', 'multiples of 16'),
    ('a size of 0', train(size=0), '--size is 0', 'multiples of 16', '32'),
    ('a size of 16', train(size=16), '--size is 16', '32'),
    ('a size of a mile', train(size=160_000), '--size is 160000', '4096'),
    ('an unknown backbone', train(backbone='resnet17'), "'resnet17'", 'resnet18'),
    ('a stage that gives no map', train(backbone='resnet18:layer1,fc'), 'resnet18:layer1,fc', 'maps [B, C, H, W]'),
    ('an unknown stage', train(backbone='resnet18:layer9'), 'layer9', 'layer1, layer2, layer3'),
    ('a backbone that is no classifier', train(backbone='fcn_resnet50', untrained=False), "'fcn_resnet50'", 'resnet18'),
    ('no ImageNet weights', train(missing_weights, untrained=False), 'resnet18-f37072fd.pth', '{here}/hub/checkpoints'),
    ('an unknown device', train(device='banana'), "'banana'", 'leave it out'),
    ('an output folder that is a file', train(out='{root}/model.pt'), '{root}/model.pt cannot be written to', '--out'),
    ('an output folder inside a file', train(out='{root}/model.pt/x'), '{root}/model.pt/x cannot be written to',
     '--out'),
    ('an output folder where none can be', train(out='/proc/none'), '/proc/none cannot be written to', '--out'),
    ('a checkpoint of another run', train(put_checkpoint, out='o'), 'checkpoint.pt is of another run',
     'delete it'),
    ('a checkpoint that is text', train(puts(text, 'o', 'checkpoint.pt'), out='o'), 'checkpoint.pt is damaged'),
    ('heatmaps that are a file', train(puts(text, 'o', 'heatmaps'), out='o'), 'heatmaps', 'folder'),
    ('results of another folder', train(puts(cup, 'o', 'metrics.json'), out='o'),
     'o holds results of /data/cup, not of {root}/fabric', '--out'),
]

PREDICT = [
    ('no model', predict(model='{here}/m.pt'), '{here}/m.pt', 'check the path'),
    ('a folder for a model', predict(model='{root}'), 'There is no model file', 'check the path'),
    ('text for a model', predict(puts(text, 'm.pt'), model='m.pt'), 'm.pt is damaged, or no model file', 'stpm_train'),
    ('the two arguments swapped', predict(model='{root}/fabric/test/good/000.png', images='{root}/model.pt'),
     '000.png is damaged, or no model file'),
    ('a model from the future', predict(model(version=99), model='m.pt'), f'version {VERSION}'),
    ('no images', predict(images='{here}/no'), '{here}/no', 'check the path'),
    ('an empty folder', predict(puts(Path.mkdir, 'p'), images='p'), 'p holds no images', 'PNG'),
    ('a folder with only text files', predict(puts(text, 'p', 'a.txt'), images='p'), 'p holds no images'),
    ('a folder with hidden images', predict(puts(png, 'p', '._a.png'), images='p'), 'p holds no images'),
    ('a text file for an image', predict(puts(text, 'a.txt'), images='a.txt'), 'a.txt cannot be read as an image'),
    ('a photo of an iPhone', predict(puts(text, 'p', 'a.heic'), images='p'), 'a.heic', 'JPEG or PNG'),
    ('no photo that can be read', predict(puts(text, 'p', 'a.png'), puts(half_a_jpeg, 'p', 'b.jpg'), images='p'),
     'p/a.png cannot be read', 'replace or remove'),
    ('one photo, broken behind a sound header', predict(puts(half_a_jpeg, 'b.jpg'), images='b.jpg'),
     'b.jpg cannot be read'),
    ('two paths that are not there', predict(images=['no.png', 'none']), 'no.png', 'check the path'),
    ('a threshold of 0', predict(threshold=0.), '--threshold is 0.0', 'positive'),
    ('a negative threshold', predict(threshold=-1.), '--threshold is -1.0'),
    ('an infinite threshold', predict(threshold=float('inf')), '--threshold is inf'),
    ('a threshold of nan', predict(threshold=float('nan')), '--threshold is nan'),
    ('two thresholds', predict(threshold=.3, false_alarms=.01), '--threshold is 0.3', 'no --false_alarms beside it'),
    ('a photo of 7 x 7', predict(puts(lambda p: png(p, (7, 7)), 'p', 'a.png'), images='p'), '7 x 7 pixels',
     'at least 8'),
    ('a bomb', predict(puts(bomb, 'a.png'), images='a.png'), 'a.png has more than', 'make it smaller'),
    ('an unknown device', predict(device='banana'), "'banana'", 'leave it out'),
    ('an output folder that is a file', predict(out='{root}/model.pt'), '{root}/model.pt cannot be written to',
     '--out'),
    ('an output folder inside a file', predict(out='{root}/model.pt/x'), 'model.pt/x cannot be written to'),
    ('heatmaps that are a file', predict(puts(text, 'o', 'heatmaps'), out='o'), 'heatmaps', 'folder'),
    ('scores that are a folder', predict(puts(lambda p: p.mkdir(parents=True), 'o', 'scores.csv'), out='o'),
     'scores.csv', 'folder'),
]

SPEED = [
    ('no such category', speed(category='{here}/no'), '{here}/no', 'check the path'),
    ('into no folder', speed(out='{root}/model.pt/x.json'), 'cannot be written to', 'make it first'),
    ('no epochs', speed(epochs=0), '--epochs is 0', 'at least 1'),
    ('no seeds', speed(seeds=0), '--seeds is 0', 'at least 1'),
]

BENCH = [
    ('a folder without a name', bench(root=''), 'has no name', 'ROOT --out DIR'),
    ('a folder that is not there', bench(root='{here}/no'), '{here}/no', 'holds no category'),
    ('a folder without categories', bench(root='{here}'), 'holds no category', 'mvtec'),
    ('an unknown category', bench(only='nonsense'), "no category 'nonsense'", 'it has fabric'),
    ('an unknown category among others', bench(only='fabric,silk'), "no category 'silk'"),
    ('a comma too many', bench(only='fabric,'), "no category ''", 'it has fabric'),
    ('no seeds', bench(seeds=0), '--seeds is 0', 'at least 1'),
    ('no epochs', bench(epochs=0), '--epochs is 0', 'at least 1'),
    ('a size of 50', bench(size=50), '--size is 50', 'multiples of 16'),
    ('an unknown backbone', bench(backbone='resnet17'), "'resnet17'", 'resnet18'),
    ('no ImageNet weights', bench(missing_weights, untrained=False), 'resnet18-f37072fd.pth'),
    ('an output folder inside a file', bench(out='{root}/model.pt/x'), 'cannot be written to', '--out'),
    ('an unknown device', bench(device='banana'), "'banana'", 'leave it out'),
]

DEMO = [
    ('no epochs', demo(epochs=0), '--epochs is 0', 'at least 1'),
    ('an unknown device', demo(device='banana'), "'banana'", 'leave it out'),
    ('an output folder that is a file', demo(out='{root}/model.pt'), 'cannot be written to', '--out'),
    ('a fabric that is something else', demo(puts(text, 'o', 'fabric', 'a.txt'), out='o', epochs=1),
     'fabric is not a category'),
]

@pytest.mark.parametrize('given,words', [pytest.param(given, words, id=f'{command}: {what}') for command, rows in
                                         (('train', TRAIN), ('predict', PREDICT), ('bench_speed', SPEED),
                                          ('bench_categories', BENCH), ('demo', DEMO)) for what, given, *words in rows])
def test_bad_use_of_a_command(w, given, words): refused(w, given, [SystemExit, *words])

# --- and in the shell: the sentence alone on stderr, exit code 1; argparse has its own way and exit code 2

SHELL = [
    ('train: no such category', 1, 'stpm_train {root}/fabrik --untrained',
     'stpm_train: There is no category folder', 'Beside it: fabric'),
    ('predict: an unknown device', 1, 'stpm_predict {root}/model.pt {root}/fabric --device banana',
     "stpm_predict: Device 'banana'", 'leave it out'),
    ('bench_categories: an unknown category', 1, 'stpm_bench_categories {root} --only nonsense --untrained',
     "stpm_bench_categories: {root} has no category 'nonsense'", 'it has fabric'),
    ('bench_speed: fewer than no seeds', 1, 'stpm_bench_speed --seeds -1',
     'stpm_bench_speed: --seeds is -1', 'at least 1'),
    ('demo: no epochs', 1, 'stpm_demo --epochs 0', 'stpm_demo: --epochs is 0', 'at least 1'),
    ('train: epochs in words', 2, 'stpm_train {root}/fabric --epochs many',
     'usage: stpm_train', "invalid int value: 'many'"),
    ('bench_metrics: a folder', 2, 'stpm_bench_metrics {root}',
     'usage: stpm_bench_metrics', 'unrecognized arguments: {root}'),
    ('bench_speed: a folder', 2, 'stpm_bench_speed {root}',
     'usage: stpm_bench_speed', '--category', 'arguments: {root}'),
    ('bench_categories: no folder', 2, 'stpm_bench_categories --untrained',
     'usage: stpm_bench_categories', 'required: root'),
]

@pytest.mark.parametrize('code,line,words', [pytest.param(code, line, words, id=what)
                                             for what, code, line, *words in SHELL])
def test_bad_use_in_the_shell(w, code, line, words):
    before = files(w.here, w.root)
    done = run(*line.format(root=w.root).split())
    assert done.code == code and done.out == '' and 'Traceback' not in done.err, done
    words = [x.format(root=w.root) for x in words]
    if code == 1: one_sentence(done.err.removesuffix('\n'), words)
    else: assert all(x in done.err for x in words), done.err
    assert files(w.here, w.root) == before
    assert files(w.here, w.root) == before

# --- and what looks like a bad input but is none

# mathematics, no letters of the font, two lines, an option, bytes of no alphabet, a long one
ODD = ('$10^{3$ a$^$b', '爱', 'a, "b"\nc', '-rf', 'bad\udcff', 'ä' * 100, '=cmd()', '+1', '@a', '\ta', 'b' * 248,
       'ä' * 124)

def test_odd_names_are_names(w, recwarn):
    photos, bad = w.here/'photos', w.copy()
    photos.mkdir()
    for folder in ('test', 'ground_truth'): shutil.copytree(bad/folder/'stain', bad/folder/'$s^$')
    for name in ODD: shutil.copy(w.fabric/'test'/'good'/'000.png', photos/f'{name}.png')
    stpm_predict(str(w.model), 'photos', out='p', device='cpu')
    rows = list(csv.reader((w.here/'p'/'scores.csv').read_text(errors='surrogateescape').splitlines(True)))
    safe = [f"'{name}" if name[0] in '-=+@\t' else name for name in ODD]          # a spreadsheet's formulas
    assert sorted(r[0] for r in rows[1:]) == sorted(f'{name}.png' for name in safe)
    assert len(list((w.here/'p'/'heatmaps').iterdir())) == len(ODD)
    stpm_train('bad', out='o', size=32, epochs=1, untrained=True, device='cpu')
    assert len(list((w.here/'o'/'heatmaps'/'$s^$').glob('000_*.jpg'))) == 1
    assert not [x for x in recwarn if 'Glyph' in str(x.message)]

def scores(folder):
    "{name: row} of a scores.csv."
    with open(folder/'scores.csv', newline='', encoding='utf-8') as f: return {r['image']: r for r in csv.DictReader(f)}

def test_a_broken_photo_is_a_row_and_the_others_are_scored(w):
    photos = w.here/'photos'
    shutil.copytree(w.fabric/'test', photos)
    for make, name in ((text, 'good/b.png'), (half_a_jpeg, 'good/c.jpg'), (bomb, 'd.png'), (text, 'stain/e.heic')):
        make(photos/name)
    (photos/'gone.png').symlink_to('nowhere')
    with pytest.raises(SystemExit) as e: stpm_predict(str(w.model), 'photos', out='p', device='cpu')
    whole = sorted(p.relative_to(w.fabric/'test').as_posix() for p in (w.fabric/'test').rglob('*.png'))
    assert str(e.value) == (f'stpm_predict: 5 of {len(whole) + 5} images could not be read; see the column problem in '
                            'p/scores.csv.')
    rows = scores(w.here/'p')
    assert list(rows) == sorted([*whole, 'good/b.png', 'good/c.jpg', 'd.png', 'stain/e.heic', 'gone.png'], key=Path)
    assert [name for name, row in rows.items() if not row['problem']] == sorted(whole, key=Path)
    for name, row in rows.items():
        assert (row['score'] == row['anomalous'] == '') == (name not in whole) and float(row['threshold']) > 0
        if name not in whole: one_sentence(row['problem'], [name])
    assert len(list((w.here/'p'/'heatmaps').rglob('*.jpg'))) == len(whole)

def test_several_paths_keep_their_names_apart(w):
    for name in ('a/x.png', 'b/x.png', 'b/in/y.png', 'c.png'):
        (w.here/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(w.fabric/'test'/'good'/'000.png', w.here/name)
    w.patch.chdir(w.here/'a')
    def named(*given):
        stpm_predict(str(w.model), list(given), out='../p', device='cpu')
        inside = {p.relative_to(w.here/'p'/'heatmaps').as_posix().split('_0')[0] for p in (w.here/'p').rglob('*.jpg')}
        assert len(inside) == len(scores(w.here/'p'))                       # a heat map for each, in its folder
        return list(scores(w.here/'p'))
    assert named('x.png', '../c.png', '../b/in') == ['x.png', 'c.png', 'y.png']
    assert named('x.png', '../b/x.png') == ['x.png', '../b/x.png']
    assert named(str(w.here/'a'/'x.png'), '../b') == [f'{w.here}/a/x.png', '../b/in/y.png', '../b/x.png']

def test_a_threshold_by_hand_and_no_heat_maps(w):
    for draw in (True, False):
        stpm_predict(str(w.model), str(w.fabric/'test'), out='p', device='cpu', threshold=1e-9, heatmaps=draw)
        assert (w.here/'p'/'heatmaps').exists() == draw                     # those of an earlier run are gone
    assert {(r['threshold'], r['anomalous']) for r in scores(w.here/'p').values()} == {('1e-09', '1')}

def test_another_number_format_is_said(w, capsys):
    for there, lines in ((None, 0), (w.state['settings']['precision'], 0), ('torch.float64', 1)):
        settings = {k: v for k, v in w.state['settings'].items() if k != 'precision'}
        torch.save(w.state | dict(settings=settings | ({'precision': there} if there else {})), w.here/'m.pt')
        stpm_predict('m.pt', str(w.fabric/'test'), out='p', device='cpu')
        assert capsys.readouterr().out.count('The threshold was set in torch.float64') == lines

def test_the_same_folder_may_be_trained_on_again_and_another_not(w):
    bad, small = w.copy(), dict(out='o', size=32, epochs=1, untrained=True, device='cpu')
    (w.here/'link').symlink_to('bad')
    for category in ('bad', str(bad), 'link'): stpm_train(category, **small)
    before = files(w.here/'o')
    with pytest.raises(SystemExit, match=f'o holds results of {bad}, not of {w.fabric}; choose'):
        stpm_train(str(w.fabric), **small)
    assert files(w.here/'o') == before
    (w.here/'o'/'metrics.json').write_text('{"settings": {}}')              # of the time before
    stpm_train(str(w.fabric), **small)

def test_a_heat_map_has_the_shape_of_its_photo(w):
    def check_wide(path): return (2.5 if Path(path).stem == 'wide' else 1., 0, False)
    w.patch.setattr('stpm_nb.tool.gate.check_file', check_wide)
    for name in ('wide', 'square'): shutil.copy(w.fabric/'test'/'good'/'000.png', w.here/f'{name}.png')
    stpm_predict(str(w.model), ['wide.png', 'square.png'], out='p', device='cpu')
    sizes = {p.name.split('_')[0]: Image.open(io.BytesIO(p.read_bytes())).size
             for p in (w.here/'p'/'heatmaps').iterdir()}
    assert sizes == dict(wide=(64, 13), square=(64, 32))

def test_what_is_no_photo_is_not_scored(w):
    photos = w.here/'photos'
    for folder in ('', '.ipynb_checkpoints', 'day1', '.heatmaps.tmp'):
        (photos/folder).mkdir(exist_ok=True)
        shutil.copy(w.fabric/'test'/'good'/'000.png', photos/folder/'a.png')
    (photos/'x.png').mkdir()
    (photos/'loop').symlink_to('.')
    png(photos/'b.jpg').rename(photos/'b.jfif')
    for out in ('run1', 'run2'):
        stpm_predict(str(w.model), 'photos', out=f'photos/{out}', device='cpu')
        rows = (photos/out/'scores.csv').read_text().splitlines()[1:]
        assert [row.partition(',')[0] for row in rows] == ['a.png', 'b.jfif', 'day1/a.png']

def test_numbers_of_numpy_and_torch_are_numbers(w):
    detector = fresh().fit(w.category._replace(name=Path('x')), np.int64(1), seed=torch.tensor(3), progress=False)
    detector.threshold = detector.predict(w.category.test)[0].quantile(.9)
    detector.save(w.here/'m.pt')
    loaded = Detector.load(w.here/'m.pt', 'cpu')
    assert type(loaded.threshold) is float and loaded.settings['seed'] == 3 and loaded.settings['category'] == 'x'
    parts = w.category.train[1:], w.category.train[:1]
    numbers = [np.int64(1), np.int64(2), np.float64(.02), np.int64(1)]
    def again(): return train_student(detector.teacher, *parts, *numbers, checkpoint=w.here/'c.pt', progress=False)[1]
    assert again() == again()
    whole = dict(seed=np.int64(1), epochs=np.int64(1), size=np.int64(32))
    def measured(): return run_category(w.fabric, w.here, **whole, untrained=True, device='cpu')
    assert measured() == measured()

def test_saving_into_no_folder_is_an_error_of_the_system(w):
    for save in (w.detector.save, lambda path: save_state({}, path)):
        with pytest.raises(FileNotFoundError, match=str(w.here/'no')): save(w.here/'no'/'m.pt')
    assert not list(w.here.iterdir())

def test_a_category_from_within_and_through_a_link(w):
    rows = ''.join(f'pcb,train,normal,pcb/Data/Images/{i}.png,\n' for i in range(3))
    visa(w, 'object,split,label,image,mask\n' + rows)
    (w.here/'link').symlink_to(w.here/'visa'/'pcb')
    names = [load_category(w.here/'link', 32).name]
    for place, folder in (('visa/pcb', '.'), ('visa/pcb/Data', '..')):
        w.patch.chdir(w.here/place)
        names.append(load_category(folder, 32).name)
    assert names == ['link', 'pcb', 'pcb']

def category(w, *paths):
    "A folder with these files: images, or bytes that are none."
    for p in paths: png(w.here/'d'/p) if p.endswith('.png') else text(w.here/'d'/p)
    return w.here/'d'

OWN = *(f'good/{i}.png' for i in range(6)), 'bad/x.png'
TEST = *(f'good/{i}.png' for i in range(3)), 'stain/0.png', 'stain/1.png', 'cut/0.png'
VISA = *(f'Data/Images/Normal/{i}.png' for i in range(3)), 'Data/Images/Anomaly/0.png', 'Data/Masks/Anomaly/0.png'
LOGICAL = 'test/logical_anomalies/0.png'
LOCO = 'train/good/0.png', 'train/good/1.png', 'validation/good/0.png', 'test/good/0.png', LOGICAL
UNREAD = [
    ('all is read', OWN, ''),
    ('bad is called defects', [*OWN[:6], 'defects/0.png', 'defects/1.png'], 'not read: 2 image(s) in defects\n'),
    ('a folder in good', [*OWN, 'good/more/a.png'], 'not read: 1 image(s) in good/more\n'),
    ('formats that are not read', [*OWN, 'good/a.pgm', 'bad/b.EXR', 'bad/c.txt', '.hidden/d.png'],
     'not read: 1 image(s) in bad, 1 image(s) in good\n'),
    ('masks is called ground_truth', [*OWN, 'ground_truth/x.png'], 'not read: 1 image(s) in ground_truth\n'),
    ('the folder test', TEST, 'not read: 1 image(s) in cut, 2 image(s) in stain\n'),
    ('3D-AD', [*AD3, 'test/hole/gt/7.png', 'test/good/gt/0.png', 'test/hole/xyz/7.tiff',
               'validation/good/rgb/0.png'], ''),
    ('AD 2', [*AD2, 'test_public/ground_truth/bad/7_mask.png', 'test_private/0.png', 'validation/good/0.png'], ''),
    ('BMAD', [*BMAD, 'test/Ungood/label/7.png', 'test/good/label/0.png', 'valid/Ungood/img/0.png'], ''),
    ('BMAD, ill slices to train on', [*BMAD, 'train/Ungood/img/9.png'], 'not read: 1 image(s) in train/Ungood/img\n'),
    ('VisA', [*VISA, 'Data/Images/Normal/9.png'], 'not read: 1 image(s) in Data/Images/Normal\n'),
    ('AD', ['train/good/0.png', 'test/good/0.png', 'test/cut/0.png', 'ground_truth/cut/0_mask.png',
            'ground_truth/good/0.png', 'old/0.png'], 'not read: 1 image(s) in old\n'),
    ('LOCO', [*LOCO, 'ground_truth/logical_anomalies/0/0.png', 'ground_truth/logical_anomalies/0/1.png'], 'MVTec LOCO'),
]

@pytest.mark.parametrize('paths,line', [pytest.param(paths, line, id=what) for what, paths, line in UNREAD])
def test_what_is_not_read_is_named(w, paths, line, capsys):
    folder = category(w, *paths)
    if paths[0] == VISA[0]:
        rows = [f'd,{s},{k},d/{p},{m}' for p, s, k, m in zip(VISA, ['train'] * 2 + ['test'] * 2, ['normal'] * 3 + ['x'],
                                                             ['', '', '', 'd/' + VISA[-1]])]
        text(w.here/'split_csv/1cls.csv', '\n'.join(['object,split,label,image,mask', *rows]))
    w.patch.setattr(readers, 'check_samples', lambda *a: dict(white=65535, ratio=1.))
    w.patch.setattr(readers, 'read_category', lambda *a: SimpleNamespace(_replace=lambda ratio: None))
    w.patch.setattr(readers, 'check_category', lambda *a: None)
    load_category(folder, 32)
    printed = capsys.readouterr().out
    assert printed.startswith(line) if line.startswith('MVTec') else printed == line
    read = {s.path.resolve() for s in find_samples(folder)}
    masks = {s.mask for s in find_samples(folder) if s.mask}
    assert read <= {p.resolve() for p in photos(folder)} and not masks & {*photos(folder)}

def test_masks_that_are_named_are_photos(w):
    folder = category(w, *AD3, 'test/hole/gt/7.png', 'test/hole/xyz/7.png')
    assert [p.name for p in photos(folder/'test/hole')] == ['7.png'] and photos(folder/'test/hole/gt')

def test_several_masks_of_an_image_are_a_folder(w):
    folder = category(w, *LOCO, 'test/structural_anomalies/0.png', 'ground_truth/structural_anomalies/0.png',
                      *(f'ground_truth/logical_anomalies/0/{i}.png' for i in range(2)))
    assert layout_of(folder) == 'loco'
    samples = [s for s in find_samples(folder) if s.label]
    assert [s.mask.relative_to(folder/'ground_truth').as_posix() for s in samples] == ['logical_anomalies/0',
                                                                                       'structural_anomalies/0.png']
    assert {s.split for s in find_samples(folder) if not s.label} == {'train', 'validation', 'test'}

@pytest.mark.parametrize('mask', ['7.PNG', '7.bmp', '7.tif', '7.JPG'])
def test_masks_in_other_letters_and_formats(w, mask):
    for paths, masks in (([*OWN[:6], 'bad/7.png'], 'masks'), (AD3, 'test/hole/gt')):
        folder = category(w, *paths)
        for path in (folder/masks/mask, folder/masks/'other.png'): png(path.with_suffix('.png')).rename(path)
        assert [s.mask for s in find_samples(folder) if s.label] == [folder/masks/mask]
        shutil.rmtree(folder)

def test_an_exported_file_knows_its_threshold_and_no_path(w):
    onnxruntime = pytest.importorskip('onnxruntime')
    for name in ('m.pt2', 'm.onnx'): export(w.detector, w.here/name)
    said = {'stpm_nb.json': ''}
    torch.export.load(w.here/'m.pt2', extra_files=said)
    for found in (said, onnxruntime.InferenceSession(w.here/'m.onnx').get_modelmeta().custom_metadata_map):
        about = json.loads(found['stpm_nb.json'])
        assert (about['threshold'], about['size'], about['category']) == (w.detector.threshold, [32, 32], 'fabric')
        assert about['images'] == 'RGB, uint8, 0 to 255'
    for data in ((w.here/name).read_bytes() for name in ('m.pt2', 'm.onnx')):
        for path in (Path(readers.__file__).parents[1], Path(torch.__file__).parent, Path.home()/'x', w.here, w.root):
            assert str(path).removesuffix('x').encode() not in data

def test_the_fabric_has_the_same_bytes_everywhere():
    "Drawn as `torch.randn` draws; an error of float64's size in every coordinate changes nothing."
    with seeded(5): ours = synthetic._noise(64)
    with seeded(5): assert torch.allclose(ours.float(), torch.randn(3, 64, 64), atol=1e-5)
    plain, turn = weave(3, 'stain', 64), synthetic._turn
    with pytest.MonkeyPatch.context() as m:
        m.setattr(synthetic, '_turn', lambda *args: tuple(t * (1 + 1e-13) for t in turn(*args)))
        assert all(map(torch.equal, weave(3, 'stain', 64), plain))

def test_a_download_that_is_shorter_than_promised(w):
    "Some Pythons notice it, for others the checksum does."
    call = served(http(b'200 OK', b'abc', b'Content-Length: 5\r\n'))(w)
    with pytest.raises((OSError, ValueError)) as e: call()
    one_sentence(str(e.value), ['http://127.0.0.1', MVTEC_PAGE, ARCHIVE, 'url='])
    assert not list(w.here.iterdir())

@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # PyTorch forgets to close its file here
def test_an_address_without_https(w):
    refused(w, lambda w: lambda: download_mvtec(w.here, 'screw', 'www.mydrive.ch/x'), ['www.mydrive.ch/x', *BY_HAND])

def packed(folder, *names):
    "Write an archive of small files; returns its address and its checksum."
    folder.mkdir()
    with tarfile.open(folder/'a.tar.xz', 'w:xz') as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b'png'))
    return (folder/'a.tar.xz').as_uri(), hashlib.sha256((folder/'a.tar.xz').read_bytes()).hexdigest()

def test_one_download_for_all_categories(w):
    url, sha256 = packed(w.here/'server', 'license.txt', 'screw/1.png', './cable/test/screw/2.png')
    assert download_mvtec(w.here/'root', 'screw', url, sha256) == w.here/'root'/'screw'
    assert {p.name for p in (w.here/'root').rglob('*')} == {ARCHIVE, 'screw', '1.png'}
    shutil.rmtree(w.here/'server')
    assert (download_mvtec(w.here/'root', 'cable', url, sha256)/'test'/'screw'/'2.png').read_bytes() == b'png'
    (w.here/'root'/ARCHIVE).write_bytes(b'changed since')
    assert download_mvtec(w.here/'root', 'cable', url, sha256).is_dir()  # it is there: nobody looks at the archive
    with pytest.raises(ValueError, match='SHA-256'): download_mvtec(w.here/'root', 'bottle', url, sha256)
    assert sorted(p.name for p in (w.here/'root').iterdir()) == ['cable', ARCHIVE, 'screw']

def test_an_archive_that_leads_out_leaves_nothing(w):
    url, sha256 = packed(w.here/'server', 'screw/1.png', 'screw/../../../evil.png')
    with pytest.raises(tarfile.FilterError): download_mvtec(w.here/'root', 'screw', url, sha256)
    assert {p.name for p in w.here.rglob('*')} == {'server', 'a.tar.xz', 'root', ARCHIVE}

def test_photos_that_differ_only_in_their_ending_have_their_own_heat_maps(w):
    photos = w.here/'photos'
    for folder, split in (('good', 'train/good'), ('bad', 'test/good')):
        (photos/folder).mkdir(parents=True)
        for i, path in enumerate(sorted((w.fabric/split).iterdir())): shutil.copy(path, photos/folder/f'{i}.png')
    Image.open(photos/'bad'/'0.png').convert('RGB').save(photos/'bad'/'0.jpg')
    stpm_train(str(photos), out='out', size=32, epochs=1, untrained=True, device='cpu')
    found = sorted(p.name.split('_')[0] for p in (w.here/'out'/'heatmaps'/'bad').iterdir())
    assert found == ['0', '0.jpg', '1']

def test_its_own_heat_maps_are_no_photos(w):
    shutil.copytree(w.fabric/'test', w.here/'photos')
    lines = []
    for _ in range(2):
        stpm_predict(str(w.model), 'photos', out='photos', device='cpu')
        lines.append((w.here/'photos'/'scores.csv').read_text())
    assert lines[0] == lines[1]
    assert lines[0].count('\n') == 1 + sum(p.suffix == '.png' for p in (w.fabric/'test').rglob('*'))

def test_another_default_precision_changes_nothing(w):
    expected = w.detector.predict(w.category.test)[1]
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(Detector.load(w.model, 'cpu').predict(w.category.test)[1], expected)
        fresh().fit(w.category, 1, progress=False).save(w.here/'m.pt')
    finally: torch.set_default_dtype(torch.float32)
    Detector.load(w.here/'m.pt', 'cpu').predict(w.category.test)

@pytest.mark.parametrize('option', [dict(epochs=0), dict(device='banana'), dict(backbone='resnet19')])
def test_a_refused_benchmark_of_categories_makes_no_folder(w, option, tmp_path):
    with pytest.raises(SystemExit):
        stpm_bench_categories(str(w.fabric), out=str(tmp_path/'out'), untrained=True, **option)
    assert not (tmp_path/'out').exists()

def test_a_long_path_keeps_its_end(tmp_path):
    path = tmp_path/('d' * 120)/'a.png'
    path.parent.mkdir()
    path.write_text('no image')
    with pytest.raises(ValueError, match='/a.png cannot be read'): read_image(path)
