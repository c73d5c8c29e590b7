"""What each metric says about pictures whose likeness is known."""

import numpy as np
import pytest

from personalize.evaluation import metrics

from .world import unit


def test_similarity_averages_over_the_photographs_and_gives_one_number_per_picture():
    photographs = np.eye(3)[:2]
    pictures = np.array([[[1.0, 0, 0], [0, 0, 1.0]]])
    np.testing.assert_allclose(metrics.similarity(pictures, photographs), [[0.5, 0.0]])


def test_ceiling_leaves_each_photograph_itself_out():
    different = np.eye(4)
    np.testing.assert_allclose(metrics.ceiling(different), 0)  # with itself it would be 1/4

    alike = np.tile(np.eye(4)[:1], (3, 1))
    np.testing.assert_allclose(metrics.ceiling(alike), 1)


def test_one_photograph_has_no_ceiling_and_no_closest_pair():
    assert np.isnan(metrics.ceiling(np.eye(3)[:1])).all()
    assert np.isnan(metrics.closest_pair(np.eye(3)[:1]))


def test_closest_pair_is_of_two_different_photographs():
    photographs = unit(np.array([[1.0, 0], [0, 1], [1, 1]]))
    assert metrics.closest_pair(photographs) == pytest.approx(np.sqrt(0.5))


def test_the_way_is_nought_at_the_base_and_one_at_the_photographs():
    base = np.array([0.2, 0.4])
    for tuned, expected in (([0.3, 0.3], 0), ([0.6, 0.8], 1), ([0.4, 0.6], 0.5)):
        above, below = metrics.way(np.array(tuned), base, 0.7)
        assert above.mean() / below.mean() == pytest.approx(expected)


def test_prompt_following_compares_each_picture_with_its_own_text_unscaled():
    texts = np.eye(3)[:2]
    np.testing.assert_allclose(metrics.prompt_following(texts, texts), 1)
    np.testing.assert_allclose(metrics.prompt_following(texts[::-1], texts), 0)


def test_r_precision_asks_whose_prompt_a_picture_fits_best_and_not_how_well():
    texts = np.eye(4)[:2]
    pictures = unit(np.array([[[1.0, 0, 0, 0], [0.2, 0.1, 0, 5]], [[1.0, 0.9, 0, 0], [0, 0.1, 5, 0]]]))
    assert metrics.r_precision(pictures, texts).tolist() == [[True, True], [False, True]]


def test_a_prompt_in_other_words_is_no_other_prompt():
    texts = unit(np.array([[1.0, 0, 0], [1.0, 0.1, 0], [0, 0, 1.0]]))
    pictures = texts[[1, 0, 0]][:, None]
    assert metrics.r_precision(pictures, texts).tolist() == [[True], [True], [False]]


def test_two_prints_of_one_photograph_are_found_by_how_far_the_others_are_apart():
    photographs = unit(np.array([[1.0, 0.2, 0], [1.0, 0.21, 0], [1.0, 0, 0.4], [1.0, 0.5, 0.2]]))
    assert np.argwhere(metrics.prints(photographs)).tolist() == [[0, 1], [1, 0]]
    assert not metrics.prints(photographs[:2]).any()


def test_a_photograph_of_something_else_is_found_by_the_rule_for_pictures():
    a, b = unit(np.eye(3)[[0, 0, 0, 1]] + 0.01), unit(np.eye(3)[[1, 1]])
    found = metrics.strangers([a, b], [])
    assert found[0].tolist() == [False, False, False, True]
    assert not found[1].any()
    of_class = metrics.strangers([a], [np.eye(3)[[1, 1]]])
    assert of_class[0].tolist() == [False, False, False, True]


def test_nearest_names_the_photograph_of_those_that_count_or_of_all():
    pictures = np.array([[0.8, 0.6, 0.0], [0.8, 0.6, 0.0], [1.0, 0.0, 0.0]])
    among = np.array([[False, True, True], [False, False, False], [True, True, True]])
    index, cosine = metrics.nearest(pictures, np.eye(3), among)
    assert list(index) == [1, 0, 0]
    assert list(cosine) == [0.6, 0.8, 1.0]


def test_confusion_has_a_row_for_what_was_asked_and_a_column_for_what_came():
    photographs = [np.eye(3)[:1], np.eye(3)[1:2]]
    pictures = np.eye(3)[[0, 0, 0, 1]].reshape(2, 2, 3)  # the second subject once comes out as the first
    recognised = metrics.nearest_gallery(pictures, photographs)
    shares = metrics.confusion(np.array([[0, 0], [1, 1]]), recognised, (2, 2))
    np.testing.assert_allclose(shares, [[1, 0], [0.5, 0.5]])


def test_variety_is_nought_when_every_seed_draws_the_same():
    same, different = np.eye(4)[[0, 0]], np.eye(4)[[0, 1]]
    np.testing.assert_allclose(metrics.variety(np.stack([same, different])), [0, 1])
    assert np.isnan(metrics.variety(np.eye(4)[None, :1])).all()


def test_retention_never_compares_a_seed_with_itself():
    base = np.eye(4)[None, :2]
    np.testing.assert_allclose(metrics.retention(base, base), 0)  # with itself it would be 1/2
    np.testing.assert_allclose(metrics.retention(base[:, ::-1], base), 1)


def test_a_subject_unlike_its_class_keeps_its_contrast_and_a_prompt_unheard_has_none():
    rng = np.random.default_rng(0)
    chair, places = unit(rng.normal(size=16)), unit(rng.normal(size=(5, 16)))
    texts = unit(chair + places)
    plain = unit(texts[:, None] + rng.normal(0, 0.05, (5, 2, 16)))
    odd = unit(places[:, None] + 0.2 * chair + rng.normal(0, 0.05, (5, 2, 16)))  # hardly a chair, in the right place
    lost = metrics.prompt_following(odd, texts[:, None]) - metrics.prompt_following(plain, texts[:, None])
    kept = metrics.prompt_contrast(odd, texts) / metrics.prompt_contrast(plain, texts)
    assert lost.mean() < -0.1
    assert kept.mean() > 1
    unheard = metrics.prompt_contrast(np.broadcast_to(plain[:1], plain.shape), texts)
    assert abs(unheard.mean()) < 0.2 * metrics.prompt_contrast(plain, texts).mean()


def test_what_says_the_same_in_other_words_is_no_other_prompt():
    texts = np.eye(3)[[0, 0, 1]]
    pictures = np.eye(3)[[0, 0, 1]][:, None]
    assert metrics.prompt_contrast(pictures, texts)[:, 0].tolist() == [1, 1, 1]
    assert np.isnan(metrics.prompt_contrast(pictures[:2], texts[:2])).all()
