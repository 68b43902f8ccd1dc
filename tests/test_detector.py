"The detector with either scorer: what it gives is the caller's, and what it saves is read back."
import copy
import threading

import numpy as np
import pytest
import torch

from stpm_nb.data import find_mvtec, read_category, split_train_val
from stpm_nb.detector import FORMAT, VERSION, Detector, make_scorer, show_samples
from stpm_nb.tool import fast
from stpm_nb.tool.synthetic import make_synthetic

@pytest.fixture(scope='module')
def fabric(tmp_path_factory):
    folder = make_synthetic(tmp_path_factory.mktemp('made'), n_train=6, n_test=2, size=64)
    return read_category('fabric', find_mvtec(folder), 32)

@pytest.fixture(scope='module', params=[make_scorer, fast.make_scorer], ids=['plain', 'fast'])
def detector(request, fabric): return Detector(None, 'cpu', scorer=request.param).fit(fabric, 1, progress=False)

@pytest.fixture
def cores():
    "Two cores for PyTorch, whatever the machine has."
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)

def test_what_predict_gives_is_yours(detector, fabric):
    for images in (fabric.test[:1], fabric.test):
        maps = detector.predict(images)[1]
        maps -= maps.min()
        (maps.requires_grad_().sum() * 2).backward()

def test_batches_change_nothing_but_the_last_digits(detector, fabric):
    expected = detector.predict(fabric.test)[1]
    for batch in (1, 3, 99):
        torch.testing.assert_close(detector.predict(fabric.test, batch)[1], expected, rtol=.1, atol=1e-2*expected.max())

def test_both_scorers_give_the_same_numbers(fabric):
    plain = Detector(None, 'cpu').fit(fabric, 1, progress=False)
    quick = fast.make_scorer(plain.teacher, plain.student, 32)(fabric.test)
    expected = plain.predict(fabric.test)[1]
    torch.testing.assert_close(quick, expected, rtol=.1, atol=1e-2*expected.max())

def test_the_threshold_comes_from_the_scorer_that_predicts(detector, fabric):
    val = fabric.train[split_train_val(len(fabric.train), 0)[1]]
    assert detector.threshold == detector.predict(val)[0].max().item()

@pytest.mark.parametrize('share, place', [(.01, 1), (.05, 2), (.1, 4), (.29, 11), (1/41, 1), (2/41, 2), (.999, 40)])
def test_a_threshold_for_a_share_of_false_alarms(detector, share, place):
    "The j-th largest of n scores promises j/(n + 1): n = 40 here."
    one = copy.copy(detector)
    one.good_scores = [float(k) for k in range(1, 41)]
    assert one.threshold_for(share) == 41 - place and place / 41 <= max(share, 1/41) + 1e-12

@pytest.mark.parametrize('n', [1, 18, 19])
def test_few_images_give_the_largest_score(detector, n):
    one = copy.copy(detector)
    one.good_scores = [float(k) for k in range(n)]
    assert one.threshold_for() == n - 1

def test_the_scores_of_good_images_are_kept(detector, fabric, tmp_path):
    val = fabric.train[split_train_val(len(fabric.train), 0)[1]]
    assert detector.good_scores == sorted(detector.predict(val)[0].tolist())
    detector.save(tmp_path/'m.pt')
    again = Detector.load(tmp_path/'m.pt', 'cpu', detector.scorer)
    assert again.good_scores == detector.good_scores and again.threshold_for(.5) == detector.threshold_for(.5)

def test_predict_from_many_threads(detector, fabric, cores):
    "The maps of one call after another, and as many cores afterwards as before, also for a thread that starts later."
    images, found, after = fabric.test.repeat(2, 1, 1, 1), [], []
    expected = detector.predict(images)[1]
    calls = [threading.Thread(target=lambda: found.append(detector.predict(images)[1])) for _ in range(6)]
    for call in calls: call.start()
    for call in calls: call.join()
    last = threading.Thread(target=lambda: after.append(torch.get_num_threads()))
    last.start()
    last.join()
    assert len(found) == 6 and after == [cores] and torch.get_num_threads() == cores
    for maps in found: torch.testing.assert_close(maps, expected, rtol=.1, atol=1e-2*expected.max())

def test_an_error_in_one_batch_leaves_the_cores_as_they_were(cores):
    with pytest.raises(ZeroDivisionError): fast.on_each_core(lambda n: 1 // n, [1, 0, 2])
    assert torch.get_num_threads() == cores

def test_any_layout_of_memory_will_do(fabric):
    x = fabric.train
    padded = torch.nn.functional.pad(x, (4, 4, 4, 4))[..., 4:-4, 4:-4]
    def learned(images):
        fitted = Detector(None, 'cpu').fit(fabric._replace(train=images), 1, progress=False)
        return fitted.history[0]['val'], fitted.threshold
    views = x.repeat_interleave(2, 0)[::2], x.to(memory_format=torch.channels_last), padded
    assert {learned(view) for view in views} == {learned(x)}

@pytest.mark.parametrize('change', [dict(version=99), dict(format='PaDiM'), dict(version=VERSION + 1), dict(version=1)])
def test_a_file_of_another_kind_is_refused(detector, tmp_path, change):
    detector.save(tmp_path/'m.pt')
    torch.save(torch.load(tmp_path/'m.pt', weights_only=True) | change, tmp_path/'other.pt')
    words = f'other.pt is of another kind or version; expected {FORMAT!r} of version {VERSION}.'
    with pytest.raises(ValueError, match=words): Detector.load(tmp_path/'other.pt', 'cpu')

def test_a_fit_that_failed_is_not_saved(fabric, tmp_path, monkeypatch):
    detector = Detector(None, 'cpu').fit(fabric, 1, progress=False)
    monkeypatch.setattr(Detector, 'predict', lambda *args: 1/0)                 # between training and the threshold
    with pytest.raises(ZeroDivisionError): detector.fit(fabric, 1, progress=False)
    with pytest.raises(ValueError, match='call fit first'): detector.save(tmp_path/'m.pt')

@pytest.mark.filterwarnings('ignore:Glyph')
def test_odd_names_are_drawn(detector, fabric, tmp_path):
    "Mathematics, no letters of the font, two lines, a long one."
    names = ['$10^{3$ a$^$b', '爱', 'a, "b"\nc', 'ä' * 100]
    maps = detector.predict(fabric.test[:4])[1]
    show_samples(fabric.test[:4], None, names, '$', heat=maps / detector.threshold).savefig(tmp_path/'a.png', dpi=40)
    assert (tmp_path/'a.png').stat().st_size > 1000

@pytest.mark.parametrize('block', [torch.no_grad, torch.inference_mode])
def test_it_learns_wherever_it_is_called(fabric, block):
    inside = Detector(None, 'cpu')
    with block(): inside.fit(fabric, 1, progress=False)
    outside = Detector(None, 'cpu').fit(fabric, 1, progress=False)
    assert inside.good_scores == outside.good_scores

def test_numbers_of_numpy_in_the_settings_are_saved(detector, tmp_path):
    other = copy.copy(detector)
    other.settings, other.threshold = detector.settings | dict(note=np.float32(.5)), np.float64(.25)
    other.save(tmp_path/'m.pt')
    again = Detector.load(tmp_path/'m.pt', 'cpu')
    assert (again.settings['note'], again.threshold) == (.5, .25)
