"""Strange arrays, images, masks and model files: properties (hypothesis) and fuzzing.

The environment variable STPM_FUZZ is the number of mutated images, 200 if it is not set; a twentieth as many model
files. Mutated files are read in a process of its own, with limits: `SECONDS` of CPU time for a file,
`MEMORY` above what the imports take. Number k of a kind is the same file in every run:
`python tests/test_robustness.py KIND k 1`."""
import gc, io, json, os, pickle, random, resource, shutil, signal, struct, subprocess, sys, tempfile, warnings
import zipfile, zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw

from commands import Command, run
from stpm_nb import metrics, train
from stpm_nb.data import read_image, read_mask
from stpm_nb.detector import FORMAT, VERSION, Detector
from stpm_nb.features import make_student, make_teacher
from stpm_nb.tool import trust
from stpm_nb.tool.readers import load_category
from stpm_nb.tool.gate import MAX_PIXELS, MIN_SIDE, check_file, check_mask, check_model

FUZZ = int(os.environ.get('STPM_FUZZ', 200))
SECONDS, MEMORY = 10, dict(image=2**31, model=2**30)         # bytes
def examples(n):
    "So many examples of a property, more with STPM_FUZZ, the same ones in every run."
    return settings(max_examples=max(n, n * FUZZ // 200), deadline=None, derandomize=True, database=None,
                    suppress_health_check=list(HealthCheck))

def sentence(error, *names, kinds=(ValueError,)):
    "The error is one sentence of ours that holds the names."
    text = str(error)
    assert type(error) in kinds, f'{type(error).__name__}: {text}'
    assert '\n' not in text and text.endswith('.') and len(text) < 600, text
    for name in names: assert str(name) in text, text
    return text

def quiet(f, *args, **kw):
    "The result of a call that gives no warning, or the error it raises."
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.filterwarnings('ignore', module=r'PIL\.')                   # as the library does
        try: return f(*args, **kw)
        except Exception as e: return e

def seen(path, size=256):
    "A photo, looked at and then read, as the commands do it."
    check_file(path)
    return read_image(path, size)

def marked(path, size=256, like=None):
    "A mask, looked at beside its image, or itself, and then read."
    check_mask(path, like or path)
    return read_mask(path, size)

# --- arrays in the metrics

FUNCTIONS = dict(image_auroc='01', average_precision='01', best_f1='01', pixel_auroc='23', pro='23', pro_curve='23',
                 evaluate='0213', stratified='02134', per_patient='02134', bootstrap='0213')
# they are given what the gate has let in
DTYPES = ['?', 'i1', 'u1', 'i2', 'i8', 'u8', 'f2', 'f4', 'f8', 'g', 'c8', 'O', 'U3', 'S2', 'M8[s]', 'm8[s]', '>f4',
          [('a', 'i4')]]
NO_ARRAYS = [None, 'scores', 1, 2.5, [], [[1], [2, 3]], {}, {1: 2}, object(), [None], ['a', 'b'], b'', float('nan')]

def tensors(x):
    "A tensor in all the ways in which one can be given."
    plain = [x, x.to('meta'), x.to_sparse() if x.ndim else x]
    return [*plain, x.to(torch.bfloat16), x.requires_grad_()] if x.is_floating_point() else plain

@st.composite
def anything(draw, shape=None):
    "An array of any kind and shape, or something that is none."
    kind = draw(st.integers(0, 19))
    if kind == 0: return draw(st.sampled_from(NO_ARRAYS))
    if kind >= 17 or shape is None: shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    x = draw(hnp.arrays(np.dtype(draw(st.sampled_from(DTYPES))), shape))
    known = x.dtype.kind in 'biufc' and x.dtype.itemsize <= 8 and x.dtype.byteorder != '>' and x.dtype != np.uint64
    if kind in (1, 2) and known: return draw(st.sampled_from(tensors(torch.from_numpy(x))))
    return x.tolist() if kind == 3 else x

@st.composite
def sound(draw, shape, dtypes=('f2', 'f4', 'f8', 'i8', 'u1')):
    "Finite scores of a shape, with ties."
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    few = draw(st.booleans())
    finite = dict(allow_nan=False, allow_infinity=False) if dtype.kind == 'f' else {}
    own = st.integers(0, 1) if few else hnp.from_dtype(dtype, **finite)
    x = draw(hnp.arrays(dtype, shape, elements=own))
    return torch.from_numpy(x) if draw(st.booleans()) else x

@st.composite
def results_of_a_detector(draw, all_sound=False):
    "[scores, labels, maps, masks, names], all of them sound, or one or two of them anything."
    m, h, w = draw(st.integers(1, 6)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    def marks(shape, *kinds):
        return draw(hnp.arrays(np.dtype(draw(st.sampled_from(kinds))), shape, elements=st.integers(0, 1)))
    types = st.lists(st.sampled_from(['good', 'cut', 'hole']), min_size=m, max_size=m)
    args = [draw(sound(m)), marks(m, '?', 'i8', 'f4', 'u1'), draw(sound((m, h, w))), marks((m, h, w), '?', 'u1', 'f8'),
            draw(types)]
    if all_sound: return args
    for k in draw(st.sets(st.integers(0, 3), max_size=2)): args[k] = draw(anything((m, h, w) if k > 1 else m))
    if draw(st.integers(0, 9)) == 0: args[4] = draw(st.lists(st.sampled_from(['good', 'cut', '']), max_size=7))
    if draw(st.integers(0, 9)) == 0: args[2:4] = draw(sound((m + 1, h, w))), marks((m + 1, h, w), '?')
    return args

def asked(name, args):
    "What a metric gives, or the error it raises."
    function = getattr(metrics, name, None) or getattr(trust, name)
    return quiet(function, *(args[int(k)] for k in FUNCTIONS[name]), **(dict(n=20) if name == 'bootstrap' else {}))

def is_share(v): return isinstance(v, float) and 0 <= v <= 1

def shares(values): return all(v is None or is_share(v) for v in values)

def is_curve(x): return x.ndim == 1 and ((0 <= x) & (x <= 1 + 1e-9)).all() and (np.diff(x) >= -1e-12).all()

def is_interval(v): return v is None or len(v) == 2 and -1e-9 <= v[0] <= v[1] <= 1 + 1e-9

def check_metric(name, got):
    if isinstance(got, Exception): return sentence(got)
    if name == 'pro_curve': assert isinstance(got, tuple) and all(map(is_curve, got))
    elif name in ('evaluate', 'per_patient'):
        assert {'image_auroc', 'pixel_auroc', 'pro'} <= set(got)
        assert shares(v for k, v in got.items() if k != 'patients')
    elif name == 'bootstrap': assert all(map(is_interval, got.values()))
    elif name == 'stratified':
        for row in got: assert shares(v for k, v in row.items() if k not in ('group', 'regions'))
    else: assert is_share(got), (name, got)

@pytest.mark.parametrize('name', FUNCTIONS)
@examples(60)
@given(args=results_of_a_detector(all_sound=True))
def test_sound_arrays_give_a_share_or_a_sentence(name, args): check_metric(name, asked(name, args))

@examples(40)
@given(m=st.integers(1, 400), good=st.integers(1, 400))
def test_a_perfect_order_is_one_and_not_more(m, good):
    labels = np.r_[np.zeros(good), np.ones(m)]
    for f in (metrics.image_auroc, trust.average_precision, trust.best_f1):
        assert is_share(f(labels, labels)) and f(labels, labels) > 1 - 1e-12

@pytest.mark.parametrize('limit', [0, -.1, 1.1, float('nan'), float('inf'), np.float64(.3), 1, 1e-300, 5e-324, True])
def test_any_limit_of_pro(limit):
    maps, masks = np.arange(8.).reshape(2, 2, 2), np.arange(8).reshape(2, 2, 2) % 3 == 0
    check_metric('pro', quiet(metrics.pro, maps, masks, limit))

# --- images and masks of any size, mode and dtype

HOLDS = dict(png=['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'], jpg=['L', 'RGB', 'CMYK', 'YCbCr'],
             bmp=['1', 'L', 'P', 'RGB'], webp=['RGB', 'RGBA'],
             tif=['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'LAB', 'I;16', 'I;16B', 'I', 'F'])
PAIRS = [(suffix, mode) for suffix, modes in HOLDS.items() for mode in modes]

def picture(mode, w, h, seed):
    "Random pixels of a mode."
    rng = np.random.default_rng(seed)
    if mode == 'F': return Image.fromarray(rng.choice(np.float32([np.nan, np.inf, -1e38, 0, 1e-40, 1, 300]), (h, w)))
    if mode == 'I': return Image.fromarray(rng.integers(-2**31, 2**31, (h, w), dtype=np.int32))
    if mode.startswith('I;16'): return Image.frombytes(mode, (w, h), rng.bytes(2 * w * h))
    if mode == 'P':
        im = Image.frombytes('P', (w, h), rng.bytes(w * h))
        im.putpalette(rng.bytes(768))
        return im
    if mode == '1': return Image.fromarray(rng.random((h, w)) > .5)
    return Image.frombytes(mode, (w, h), rng.bytes(w * h * len(Image.new(mode, (1, 1)).getbands())))

@st.composite
def sides(draw):
    "Width and height, from 1 x 1 to 4000 x 10."
    few, many = st.integers(1, 40), st.integers(1, 4000)
    known = st.sampled_from([(1, 1), (4000, 10), (10, 4000), (8, 8), (7, 8), (4000, 1)])
    w, h = draw(st.one_of(st.tuples(few, few), st.tuples(many, st.integers(1, 10)), known))
    return (h, w) if draw(st.booleans()) else (w, h)

def check_reading(x, path, kind, size):
    "What a reader gives is a tensor of its kind, or one sentence that names the file."
    if isinstance(x, Exception): return sentence(x, path)
    want = (torch.uint8, (3, size, size)) if kind is seen else (torch.int32, (size, size))
    assert (x.dtype, tuple(x.shape)) == want

@examples(100)
@given(pair=st.sampled_from(PAIRS), wh=sides(), turn=st.integers(0, 9), seed=st.integers(0, 9),
       size=st.sampled_from([1, 32, 100]), alpha=st.booleans())
def test_any_size_and_mode_is_read_or_refused(pair, wh, turn, seed, size, alpha):
    (suffix, mode), (w, h), exif = pair, wh, Image.Exif()
    exif[0x0112] = turn  # 1 to 8 are turns and reflections, others mean nothing
    with tempfile.TemporaryDirectory() as d:
        path = Path(d)/f'x.{suffix}'
        more = {} if suffix == 'bmp' else dict(exif=exif)
        clear = dict(P=bytes(range(256)), L=3, RGB=(1, 2, 3))
        if alpha and suffix == 'png' and mode in clear: more['transparency'] = clear[mode]
        picture(mode, w, h, seed).save(path, **more)
        image, mask = quiet(seen, path, size), quiet(marked, path, size)
        for x, kind in ((image, seen), (mask, marked)): check_reading(x, path, kind, size)
        if min(w, h) < MIN_SIDE: assert f'at least {MIN_SIDE}' in str(image)
        elif mode not in ('F', 'LAB'): assert torch.is_tensor(image) and torch.is_tensor(mask), (image, mask)

@pytest.mark.parametrize('suffix,mode,value', [
    ('png', 'L', 1), ('png', '1', 1), ('png', 'I;16', 1), ('tif', 'I;16', 1), ('tif', 'I;16B', 1), ('tif', 'I', 1),
    ('tif', 'F', .001), ('png', 'RGB', (0, 0, 1)), ('png', 'RGBA', (0, 0, 1, 255)), ('png', 'LA', (1, 255)),
    ('png', 'P', 1), ('webp', 'RGB', (0, 0, 255))])
def test_the_faintest_mark_of_a_mask_counts(tmp_path, suffix, mode, value):
    im = Image.new(mode, (16, 16))
    if mode == 'P': im.putpalette([0, 0, 0, 0, 0, 1])
    im.paste(value, (4, 0, 8, 16))
    im.save(tmp_path/f'm.{suffix}', **(dict(lossless=True) if suffix == 'webp' else {}))
    found = read_mask(tmp_path/f'm.{suffix}', 16)
    assert (found[:, 4:8] == 1).all() and found.sum() == 64

@pytest.mark.parametrize('quality', [95, 75, 50])
def test_a_mask_saved_as_jpeg_keeps_its_regions(tmp_path, quality):
    drawn = Image.new('L', (1024, 1024))
    pen = ImageDraw.Draw(drawn)
    pen.ellipse((100, 100, 400, 300), fill=255)
    pen.line((500, 900, 900, 500), fill=255, width=5)
    drawn.save(tmp_path/'m.png')
    Image.open(tmp_path/'m.png').save(tmp_path/'m.jpg', quality=quality)
    plain, soft = read_mask(tmp_path/'m.png'), read_mask(tmp_path/'m.jpg')
    assert plain.max() == soft.max() == 2
    assert ((plain > 0) != (soft > 0)).sum() < .03 * (plain > 0).sum()

def test_several_masks_of_an_image_are_one(tmp_path):
    for k in range(2):
        im = Image.new('L', (64, 64))
        im.paste(253 + k, (20 * k, 0, 20 * k + 10, 64))
        (tmp_path/'000').mkdir(exist_ok=True)
        im.save(tmp_path/'000'/f'{k}.png')
    found = read_mask(tmp_path/'000', 64)
    assert found.max() == 2 and (found > 0).sum() == 2 * 10 * 64

def test_thin_and_small_defects_are_neither_lost_nor_broken(tmp_path):
    marks = np.zeros((1500, 2000), np.uint8)
    for k in range(10): marks[100*k + 50:100*k + 53, 200:800] = 255          # lines, 3 pixels high
    for k in range(10): marks[100*k + 50, 1000 + 37*k] = 255                 # single pixels
    Image.fromarray(marks).save(tmp_path/'m.png')
    found = read_mask(tmp_path/'m.png', 256)
    assert len(found.unique()) == 21

@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif', 'webp'])
def test_a_mask_has_the_size_of_the_upright_image(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6                                  # "turn me by 90 degrees"
    for mode in ('RGB', 'L') if suffix != 'webp' else ('RGB',):
        Image.new(mode, (40, 20)).save(tmp_path/f'turned.{suffix}', exif=exif)
        assert read_image(tmp_path/f'turned.{suffix}').shape == (3, 256, 256)
    Image.new('L', (20, 40), 255).save(tmp_path/'upright.png')
    Image.new('L', (40, 20)).save(tmp_path/'lying.png')
    assert marked(tmp_path/'upright.png', 32, like=tmp_path/f'turned.{suffix}').all()
    refused = quiet(check_mask, tmp_path/'lying.png', tmp_path/f'turned.{suffix}')
    sentence(refused, 'lying.png', f'turned.{suffix}', '20 x 40')
    (tmp_path/'text.png').write_text('x')
    sentence(quiet(check_mask, tmp_path/'upright.png', tmp_path/'text.png'), 'text.png')
    sentence(quiet(check_mask, tmp_path/'upright.png', tmp_path/'none.png'), 'none.png', kinds=(FileNotFoundError,))

def test_a_grey_tiff_that_lies_is_turned_pixel_by_pixel(tmp_path):
    "Pillow garbles it if it is given the name of the file."
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(800, dtype=np.uint8).reshape(20, 40)
    for suffix in ('tif', 'png'): Image.fromarray(pixels).save(tmp_path/f'a.{suffix}', exif=exif)
    assert torch.equal(read_image(tmp_path/'a.tif', 40), read_image(tmp_path/'a.png', 40))

def png_file(chunks):
    "A PNG of these chunks, with checksums that fit."
    def part(name, body): return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))
    return b'\x89PNG\r\n\x1a\n' + b''.join(part(*chunk) for chunk in chunks)

def png(w, h, kind=0, raw=b''):
    "A PNG that declares a size and holds these bytes: grey of one bit, or of another kind of (depth, colour)."
    depth, colour = ((1, 0), (8, 2), (16, 6), (8, 0))[kind]
    header = struct.pack('>IIBBBBB', w, h, depth, colour, 0, 0, 0)
    return png_file([(b'IHDR', header), (b'IDAT', zlib.compress(raw)), (b'IEND', b'')])

BOMBS = [(8193, 8192), (9500, 9500), (13000, 13000), (20000, 20000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 8),
         (70_000_000, 10)]

def test_a_bomb_is_one_sentence_with_the_limit(tmp_path):
    "Here, and as a user meets it in a process of its own."
    for w, h in BOMBS:
        (tmp_path/f'{w}.png').write_bytes(png(w, h))
        for reader in (seen, marked): sentence(quiet(reader, tmp_path/f'{w}.png'), f'{w}.png', f'{MAX_PIXELS:,}')
    lines = ['import sys, stpm_nb.tool.gate as g', 'for p in sys.argv[1:]:', '  try: g.check_file(p)',
             '  except ValueError as e: print(e)']
    (tmp_path/'script.py').write_text('\n'.join(lines))
    _, out, err = run(tmp_path/'script.py', *tmp_path.glob('*.png'))
    assert err == '' and out.count('pixels; make it smaller') == out.count('\n') == len({w for w, _ in BOMBS})

def test_the_film_behind_a_photo_does_no_harm(tmp_path):
    "Phones append a short film to a JPEG, and its bytes may look like anything."
    Image.new('RGB', (40, 40), (9, 90, 200)).save(tmp_path/'plain.jpg')
    film = random.Random(0).randbytes(2**16) * 32 + b'\xff\xda' * 9999
    (tmp_path/'motion.jpg').write_bytes((tmp_path/'plain.jpg').read_bytes() + film)
    assert torch.equal(seen(tmp_path/'plain.jpg', 32), seen(tmp_path/'motion.jpg', 32))

def test_the_white_of_a_camera_is_that_of_its_training_images(tmp_path):
    "Twelve bits in sixteen, and a later photo that is dark; twelve bits of colour are refused."
    ramp, good = np.linspace(0, 4095, 32 * 32).reshape(32, 32), tmp_path/'good'
    good.mkdir()
    for k in range(3): Image.fromarray(ramp.astype(np.uint16)).save(good/f'{k}.png')
    data = load_category(tmp_path, 32)
    assert data.white == 4095 and data.train.max() > 250
    detector = Detector(None, 'cpu').fit(data, 1, progress=False)
    Image.fromarray((ramp / 8).astype(np.uint16)).save(tmp_path/'dark.png')
    assert detector.predict(tmp_path/'dark.png')[0] == detector.predict(read_image(tmp_path/'dark.png', 32, 4095))[0]
    for k in range(3): (good/f'{k}.png').write_bytes(deep_colours(2000))
    sentence(quiet(load_category, tmp_path, 32), '16-bit colours', '65535')

def deep_colours(value, side=32):
    "A PNG of three colours of 16 bits each, which PIL cannot write."
    rows = (b'\0' + struct.pack('>H', value) * 3 * side) * side
    def part(name, body): return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))
    head = part(b'IHDR', struct.pack('>IIBBBBB', side, side, 16, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + head + part(b'IDAT', zlib.compress(rows)) + part(b'IEND', b'')

def test_images_at_the_limit_are_legal(tmp_path):
    "In a process of its own, which gives half a gigabyte back."
    Image.new('1', (8192, 8192), 1).save(tmp_path/'large.png')
    Image.new('L', (4000, 10), 100).save(tmp_path/'long.png')
    lines = ['import sys', 'from stpm_nb.data import read_image', 'from stpm_nb.tool.gate import check_file',
             'for p in sys.argv[1:]: print(check_file(p), read_image(p, 32).unique().tolist())']
    (tmp_path/'script.py').write_text('\n'.join(lines))
    done = run(tmp_path/'script.py', tmp_path/'large.png', tmp_path/'long.png')
    assert done == (0, '(1.0, 0, False) [255]\n(400.0, 0, False) [100]\n', ''), done

def test_no_other_kind_of_file_hides_behind_a_suffix(tmp_path):
    "A PostScript file is a program that PIL would hand to Ghostscript."
    (tmp_path/'a.png').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n')
    Image.new('RGB', (20, 20)).save(tmp_path/'b.gif')
    (tmp_path/'b.gif').rename(tmp_path/'b.png')
    for name in ('a.png', 'b.png'): sentence(quiet(seen, tmp_path/name), name, 'UnidentifiedImageError')
    frames = [Image.new('RGB', (20, 20), c) for c in ('red', 'blue')]
    frames[0].save(tmp_path/'c.mpo', save_all=True, append_images=frames[1:])
    (tmp_path/'c.mpo').rename(tmp_path/'c.jpg')      # what some phones call JPEG
    assert seen(tmp_path/'c.jpg', 32)[0].min() > 200

# --- interrupted training

class Stop(KeyboardInterrupt): pass

def training(path, stop=None, where='pyramid_loss'):
    "Train a little; an interruption strikes in the call number `stop` of a function of the training module."
    calls, real = [0], getattr(train, where)
    images = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    def struck(*args, **kw):
        calls[0] += 1
        if calls[0] == stop: raise Stop
        return real(*args, **kw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, where, struck)
        student, history = train.train_student(make_teacher(None), images[1:], images[:1], epochs=3, seed=3,
                                               checkpoint=path, progress=False)
    return student.state_dict(), [{k: v for k, v in h.items() if k != 'seconds'} for h in history], calls[0]

@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield training(None)
    torch.set_num_threads(threads)

PLACES = ['pyramid_loss', 'validation_error', 'save_state', 'normalise', 'train_epoch']

@settings(parent=examples(4), max_examples=max(4, min(60, FUZZ // 100)))
@given(steps=st.lists(st.integers(1, 12), max_size=3), where=st.sampled_from(PLACES))
def test_interrupted_anywhere_training_gives_the_same_numbers(undisturbed, steps, where):
    with tempfile.TemporaryDirectory() as d:
        for stop in steps:
            try: training(Path(d)/'c.pt', stop, where)
            except Stop: pass
            assert {p.name for p in Path(d).iterdir()} <= {'c.pt'}
        student, history, _ = training(Path(d)/'c.pt')
    assert history == undisturbed[1] and student.keys() == undisturbed[0].keys()
    assert all(torch.equal(v, student[k]) for k, v in undisturbed[0].items())

# --- mutated files, read in a process of their own

def flip(b, rng):
    "A few bits, bytes or a stretch are changed, or some are lost, doubled or added."
    b, n = bytearray(b), max(1, len(b))
    for _ in range(rng.choice((1, 1, 2, 5, 40))):
        i, k = rng.randrange(n), rng.randrange(1, 1 + min(n, rng.choice((1, 4, 64, 4096))))
        how = rng.randrange(7)
        if how == 0 and i < len(b): b[i] ^= 1 << rng.randrange(8)
        if how == 1: b[i:i+k] = rng.randbytes(k)
        if how == 2: b[i:i+4] = struct.pack('>I', rng.choice((0, 2**32 - 1, 2**31 - 1, 2**31, 1)))
        if how == 3: del b[i:i+k]
        if how == 4: b[i:i] = b[i:i+k]
        if how == 5: del b[i:]
        if how == 6: b += rng.randbytes(k)
    return bytes(b)

def png_chunks(b):
    i, out = 8, []
    while i + 8 <= len(b):
        n = struct.unpack('>I', b[i:i+4])[0]
        out.append((b[i+4:i+8], b[i+8:i+8+n]))
        i += 12 + n
    return out

def inflated(b):
    try: return zlib.decompress(b)
    except zlib.error: return b

SIDES = 0, 1, 7, 9, 300, 4000, 8192, 8193, 9999, 65535, 2**31 - 1, 2**32 - 1
NAMES = [name.encode() for name in 'zTXt iCCP iTXt eXIf acTL fcTL tRNS PLTE gAMA pHYs cHRM'.split()]

def odd_body(rng):
    "Bytes, a text that grows to 16 MiB, a broken EXIF, an endless animation."
    return rng.choice((rng.randbytes(40), b'a\0\0' + zlib.compress(bytes(2**24)),
                       b'Exif\0\0II*\0\x08\0\0\0' + rng.randbytes(30), struct.pack('>II', 2**31 - 1, 0)))

def mutate_png(b, rng, others):
    "Chunks are doubled, lost, exchanged, spliced, filled with anything, with checksums that fit."
    chunks = png_chunks(b)
    for _ in range(rng.choice((1, 1, 2, 4))):
        i, how = rng.randrange(len(chunks)), rng.randrange(9)
        name, body = chunks[i]
        if how == 0: chunks.insert(rng.randrange(len(chunks) + 1), chunks[i])
        if how == 1 and len(chunks) > 1: del chunks[i]
        if how == 2: chunks[i] = name, flip(body, rng)
        if how == 3: chunks[0] = b'IHDR', struct.pack('>II', *rng.choices(SIDES, k=2)) + chunks[0][1][8:]
        if how == 4: chunks[0] = b'IHDR', chunks[0][1][:8] + bytes(rng.choices((0, 1, 2, 3, 4, 6, 8, 16, 255), k=5))
        if how == 5: chunks[1:1] = png_chunks(rng.choice(others))[rng.randrange(3):]
        if how == 6 and name == b'IDAT': chunks[i] = name, zlib.compress(flip(inflated(body), rng))
        if how == 7: chunks.insert(1, (rng.choice(NAMES), odd_body(rng)))
        if how == 8: chunks.insert(1, (b'tEXt', b'Raw profile type exif\0' + rng.randbytes(20).hex().encode()))
    return png_file(chunks)

def resized(part, rng):
    "The header of a JPEG declares another size."
    sides = rng.choices((0, 1, 7, 9, 300, 4000, 8192, 8193, 30000, 65535), k=2)
    return part[:5] + struct.pack('>HH', *sides) + part[9:]

def mutate_jpeg(b, rng, others):
    "Segments are doubled, lost, exchanged, spliced, filled with anything, or declare another size."
    i, parts = 2, []
    while b[i:i+1] == b'\xff' and b[i+1] != 0xda:
        n = struct.unpack('>H', b[i+2:i+4])[0]
        parts.append(b[i:i+2+n])
        i += 2 + n
    rest = b[i:]
    for _ in range(rng.choice((1, 1, 2, 4))):
        k, how = rng.randrange(len(parts)), rng.randrange(8)
        if how == 0: parts.insert(rng.randrange(len(parts) + 1), parts[k])
        if how == 1 and len(parts) > 1: del parts[k]
        if how == 2: parts[k] = parts[k][:4] + flip(parts[k][4:], rng)
        if how == 3: parts = [resized(p, rng) if p[1] in (0xc0, 0xc2) else p for p in parts]
        if how == 4: rest = rng.choice(others)[rng.randrange(20, 700):]
        if how == 5:
            start = rng.choice((b'II*\0\x08\0\0\0', b'MM\0*\0\0\0\x08'))
            parts.insert(k, b'\xff\xe1\x00\x36Exif\0\0' + start + rng.randbytes(38))
        if how == 6: rest = flip(rest, rng)
        if how == 7: rest = rest[:-2] * rng.choice((2, 50)) + rest[-2:]              # scans again and again
    return b[:2] + b''.join(parts) + rest

def photos():
    "Small files of every kind that is read: {suffix: [bytes]}."
    out, exif = {suffix: [] for suffix in HOLDS}, Image.Exif()
    exif[0x0112] = 6
    def add(suffix, im, form=None, **more):
        f = io.BytesIO()
        im.save(f, form or {'jpg': 'jpeg', 'tif': 'tiff'}.get(suffix, suffix), **more)
        out[suffix].append(f.getvalue())
    for suffix, mode in PAIRS:
        add(suffix, picture(mode, 33, 21, 0))
        if suffix == 'jpg': add(suffix, picture(mode, 33, 21, 1), progressive=True, exif=exif)
        if suffix == 'png': add(suffix, picture(mode, 33, 21, 1), exif=exif)
    add('png', picture('P', 33, 21, 3), transparency=bytes(range(256)))
    film = dict(save_all=True, append_images=[picture('RGB', 33, 21, 4)])
    add('png', picture('RGB', 33, 21, 3), **film)
    add('jpg', picture('RGB', 33, 21, 3), 'mpo', **film)
    return out

def strike_image(rng, folder, base):
    suffix = rng.choice(('png', 'jpg') * 9 + ('tif', 'bmp', 'webp'))                 # nine in ten are PNG or JPEG
    b, path = rng.choice(base[suffix]), folder/f'x.{suffix}'
    deep = dict(png=mutate_png, jpg=mutate_jpeg).get(suffix)
    path.write_bytes(deep(b, rng, base[suffix]) if deep and rng.random() < .6 else flip(b, rng))
    def read():
        for reader in (seen, marked): yield reader, reader(path, 32)
    def check(found): check_reading(found[1], path, found[0], 32)
    return path, lambda: list(read()), lambda found: [check(f) for f in found]

# model files

ODD = [None, 'x', '', -1, 0, -5, 10**9, 2.5, float('nan'), float('inf'), True, [], {}, [1], b'', 1e-300, '0.5', 2**70,
       torch.zeros(()), torch.zeros(1).expand(10**12), torch.zeros(3, 3), torch.full((64,), float('nan')),
       torch.zeros(64, dtype=torch.int64), torch.empty(10**6, device='meta'), torch.zeros(2, 2).to_sparse()]

class Call:
    "A pickle of it calls a function when it is read."
    def __init__(self, f, *args): self.call = f, args
    def __reduce__(self): return self.call

def packed(state):
    f = io.BytesIO()
    torch.save(state, f)
    return f.getvalue()

def repacked(b, change, kind=zipfile.ZIP_STORED):
    "The archive once more, its records changed by a function of name and bytes."
    f = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(b)) as z, zipfile.ZipFile(f, 'w', kind, compresslevel=1) as out:
        for i in z.infolist():
            got = change(i.filename, z.read(i.filename))
            if got is not None: out.writestr(i.filename, got)
    return f.getvalue()

def swapped(tree, rng):
    "A copy of a nested dict in which one value is odd, lost or new, at any depth."
    tree = dict(tree) if isinstance(tree, dict) else list(tree)
    key = rng.choice(list(tree) if isinstance(tree, dict) else range(len(tree))) if tree else None
    inner = tree[key] if key is not None else None
    if key is None: return tree
    if isinstance(inner, (dict, list)) and inner and rng.random() < .8: tree[key] = swapped(inner, rng)
    elif torch.is_tensor(inner) and inner.numel() and rng.random() < .6:
        x = inner.clone().contiguous()
        i = rng.randrange(x.numel())
        how = rng.randrange(6)
        odd = rng.choice((float('nan'), float('inf'), -float('inf')))
        if how == 0 and x.is_floating_point(): x.reshape(-1)[i] = odd
        tree[key] = (x, x.half(), x.flatten()[:-1], x[None], x.double(), x.int())[how]
    elif rng.random() < .2: del tree[key]
    elif isinstance(tree, dict) and rng.random() < .2: tree['new'] = rng.choice(ODD)
    else: tree[key] = rng.choice(ODD)
    return tree

def claims(b, rng):
    "Numbers in the zip's directory claim other sizes, offsets or methods."
    b, at = bytearray(b), []
    i = b.find(b'PK\x01\x02', b.rfind(b'data.pkl', 0, len(b) // 2))
    while 0 <= i:
        at.append(i)
        i = b.find(b'PK\x01\x02', i + 4)
    for _ in range(rng.choice((1, 1, 3))):
        where, field = rng.choice(at), rng.choice((8, 10, 16, 20, 24, 28, 30, 42))
        number = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, rng.randrange(2**32), len(b)))
        b[where+field:where+field+4] = struct.pack('<I', number)
    return bytes(b)

def payloads(folder):
    "Pickles that do harm when they are read without care."
    hacked = str(folder/'hacked')
    return [Call(os.mkdir, hacked), Call(os.system, f'touch {hacked}'), Call(exec, f'open({hacked!r}, "w")'),
            Call(open, hacked, 'w'), Call(subprocess.call, ['touch', hacked]), Call(torch.save, {}, hacked),
            Call(torch.Tensor, 2**31), Call(torch.zeros, 2**31), Call(pickle.loads, b'.')]

def model_state():
    teacher, student = make_teacher(None), make_student()
    known = dict(teacher='untrained', backbone='resnet18', size=[32, 32], white=65535, epochs=1, seed=0, category='x')
    return dict(format=FORMAT, version=VERSION, settings=known, threshold=.5, good_scores=[.4, .5],
                history=[dict(epoch=1, loss=1., val=1., seconds=1.)],
                teacher=teacher.state_dict(), student=student.state_dict())

def models():
    state = model_state()
    return state, packed(state)

def mutate_model(b, state, rng, folder):
    """(mutated bytes, True if what they hold may have been changed without a trace).

    Without a trace: the checksums are those of the new content."""
    how = rng.randrange(9)
    if how < 2: return flip(b, rng), False
    if how == 2: return claims(b, rng), False
    if how == 3:
        harm = rng.choice(payloads(folder))
        return packed(harm if rng.random() < .4 else {**state, rng.choice(list(state)): harm}), True
    if how == 4: return repacked(b, lambda n, x: flip(x, rng) if n.endswith('.pkl') else x), True
    if how == 5:
        def now_and_then(n, x): return rng.choice((None, x * 2, x[:-4], b'', flip(x, rng))) if rng.random() < .03 else x
        return repacked(b, now_and_then), True
    if how == 6 and rng.random() < .3: return repacked(b, lambda n, x: x, zipfile.ZIP_DEFLATED), True
    return packed(swapped(state, rng)), True

def same(a, b):
    if torch.is_tensor(a): return torch.is_tensor(b) and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    return a == b

def strike_model(rng, folder, base):
    state, b = base
    path = folder/'x.pt'
    mutated, traceless = mutate_model(b, state, rng, folder)
    path.write_bytes(mutated)
    def read():
        check_model(path)
        detector = Detector.load(path, 'cpu')
        assert 0 < detector.threshold < float('inf')
        scores = detector.predict(torch.zeros(1, 3, *detector.settings['size'], dtype=torch.uint8))[0]
        assert scores.isfinite().all() or traceless
        return dict(detector.teacher.state_dict())
    def check(found):
        assert traceless or same(state['teacher'], found), 'other weights without a word'
    return path, read, check

# --- what each reader must refuse, by name

@pytest.fixture(scope='module')
def small_state():
    "A model file's content, with one stage of the network: a twentieth of the bytes."
    nets = dict(backbone='resnet18:layer1')
    known = dict(size=[32, 32], white=65535, **nets)
    return model_state() | dict(settings=known, teacher=make_teacher(None, **nets).state_dict(),
                                student=make_student(**nets).state_dict())

def tensor_changed(net, change, key='layer1.0.bn1.weight'):
    return lambda s: s | {net: {k: change(v.clone()) if k == key else v for k, v in s[net].items()}}

def at_first(value):
    def change(x):
        x[0] = value
        return x
    return change

def without(key): return lambda s: {k: v for k, v in s.items() if k != key}
def other(**new): return lambda s: s | new
def setting(**new): return lambda s: s | dict(settings=s['settings'] | new)
def student(change): return lambda s: s | dict(student=change(s['student']))

NAN, INF = float('nan'), float('inf')
BACKBONES = 'resnet18', 'none', '', 3, 'resnet18:layer9'
WRONG = {f'no {k}': without(k) for k in 'format version settings threshold history teacher student'.split()}
WRONG |= {f'size {v!r}': setting(size=v) for v in (0, -5, 10**9, 'x', None, [32.5, 32], [32], [32, 10**9])}
WRONG |= {f'threshold {v!r}': other(threshold=v) for v in (0, -1., NAN, INF, 'x', None, [1.])}
WRONG |= {f'backbone {v!r}': setting(backbone=v) for v in BACKBONES}
WRONG |= {f'{v} in {net}': tensor_changed(net, at_first(v)) for net in ('teacher', 'student') for v in (NAN, INF)}
WRONG |= {
    'negative variance': tensor_changed('student', lambda x: x - 2, 'bn1.running_var'),
    'shape': tensor_changed('teacher', lambda x: x[:-1]),
    'huge': tensor_changed('teacher', lambda x: torch.zeros(1).expand(10**12)),
    'meta': tensor_changed('teacher', lambda x: x.to('meta')),
    'sparse': tensor_changed('teacher', lambda x: x.to_sparse()),
    'missing weight': student(without('conv1.weight')), 'extra weight': student(other(x=torch.zeros(1))),
    'other format': other(format='stpm_nb checkpoint'), 'later version': other(version=VERSION + 1),
    'odd version': other(version=torch.zeros(2, 2)), 'settings': other(settings=[32]),
    'a list': list, 'a tensor': lambda s: torch.zeros(3)}

@pytest.mark.parametrize('name', WRONG)
def test_a_wrong_model_file_is_one_sentence(small_state, tmp_path, name):
    path = tmp_path/'m.pt'
    path.write_bytes(packed(WRONG[name](small_state)))
    sentence(quiet(check_model, path), path)

def test_a_changed_model_file_is_one_sentence(small_state, tmp_path):
    b, path = packed(small_state), tmp_path/'m.pt'
    path.write_bytes(b)
    check_model(path)
    assert Detector.load(path, 'cpu').threshold == .5
    bit = bytearray(b)
    bit[b.find(small_state['teacher']['conv1.weight'].numpy().tobytes()) + 1000] ^= 1
    claim = b.replace(struct.pack('<II', 64 * 9 * 64 * 4, 64 * 9 * 64 * 4), struct.pack('<II', 2**31, 2**31))
    def zeros(n, x): return bytes(2**28) if n.endswith('/data/0') else x
    shrunk = repacked(b, zeros, zipfile.ZIP_DEFLATED)       # 256 MiB of zeros in 1 MB
    assert claim != b
    legacy = pickle.dumps(bytearray(99)) + b  # an archive to zipfile, an old pickle to PyTorch
    cut = b[:-1], b[:len(b)//2], b[99:], b''
    for changed in (bit, claim, shrunk, legacy, *cut, b'PK', b'x' * 99, pickle.dumps(1), packed({})):
        path.write_bytes(changed)
        sentence(quiet(check_model, path), path)

def test_no_pickle_runs(small_state, tmp_path):
    for payload in payloads(tmp_path):
        for state in (payload, small_state | dict(settings=payload), small_state | dict(teacher=payload)):
            (tmp_path/'m.pt').write_bytes(packed(state))
            sentence(quiet(check_model, tmp_path/'m.pt'), 'm.pt')
            assert not (tmp_path/'hacked').exists()
    (tmp_path/'m.pt').write_bytes(packed(payloads(tmp_path)[0]))
    torch.load(tmp_path/'m.pt', weights_only=False)
    assert (tmp_path/'hacked').exists(), 'read the careless way, the payload does its work'

# --- a worker and its limits

STRIKES = dict(image=(photos, strike_image), model=(models, strike_model))

def worker(kind, first, count, folder):
    "Mutate and read `count` files of a kind from number `first` on; prints each number before, and the counts after."
    torch.set_num_threads(1)
    warnings.filterwarnings('ignore', module=r'PIL\.')            # its remarks on odd headers are the user's to see
    base, strike = STRIKES[kind][0](), STRIKES[kind][1]
    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY[kind],) * 2)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)      # a file that takes too long ends the process, in C as well
    counts = Counter()
    for k in range(first, first + count):
        print(k, flush=True)
        here = Path(folder)/str(k)
        here.mkdir()
        path, read, check = strike(random.Random(f'{kind} {k}'), here, base)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try: found = read()
        except ValueError as e: found, says = None, sentence(e, path)
        else: says = ''
        signal.setitimer(signal.ITIMER_PROF, 0)
        if not says: check(found)
        assert not (here/'hacked').exists(), 'a model file ran code'
        counts['refused' if says else 'read'] += 1
        shutil.rmtree(here)
        del path, read, check, found
        if kind == 'model': gc.collect()               # torch.fx leaves a network in circles, which else pile up
    print(json.dumps(dict(counts, peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)))

def fuzz(kind, count, folder):
    "Let a worker read that many files: no crash, no hang, no warning, nothing but tensors and sentences."
    command = Command(__file__, kind, 0, count, folder, env=dict(TQDM_DISABLE='1'))
    code, out, err = command.wait(60 + 3 * count)
    last = out.splitlines()[-1] if out else 'none'
    assert code == 0 and err == '', f'{kind} file {last} ended with {code}:\n{err}'
    return json.loads(last)

@pytest.mark.parametrize('kind,share', [('image', 1), ('model', 20)])
def test_mutated_files_are_read_or_refused(kind, share, tmp_path):
    counts = fuzz(kind, max(1, FUZZ // share), tmp_path)
    print(kind, counts)
    assert counts['refused'] > 0 and counts['read'] + counts['refused'] == FUZZ // share

if __name__ == '__main__':
    kind, first, count, *folder = sys.argv[1:]
    with tempfile.TemporaryDirectory() as d: worker(kind, int(first), int(count), folder[0] if folder else d)
