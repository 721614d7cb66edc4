from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiir.data.positives import Positives
from tiir.errors import RanksError

matrices = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**36 - 1)).map(
    lambda t: np.array([t[2] >> i & 1 for i in range(t[0] * t[1])], bool).reshape(t[0], t[1])
)


def dense(positives: Positives) -> np.ndarray:
    matrix = np.zeros(positives.shape, bool)
    matrix[positives.image, positives.caption] = True
    return matrix


@given(matrices)
def test_a_matrix_comes_back(matrix: np.ndarray) -> None:
    positives = Positives.of(matrix, n_images=len(matrix))
    np.testing.assert_array_equal(dense(positives), matrix)
    np.testing.assert_array_equal(dense(positives.T), matrix.T)
    np.testing.assert_array_equal(positives.per_image, matrix.sum(1))
    np.testing.assert_array_equal(positives.per_caption, matrix.sum(0))
    assert len(positives) == matrix.sum()


@given(matrices, st.randoms(use_true_random=False))
def test_select_is_indexing(matrix: np.ndarray, random: object) -> None:
    rows = np.array(random.sample(range(matrix.shape[0]), random.randint(0, matrix.shape[0])), np.int64)
    columns = np.array(random.sample(range(matrix.shape[1]), random.randint(0, matrix.shape[1])), np.int64)
    chosen = Positives.of(matrix, n_images=len(matrix)).select(rows, columns)
    np.testing.assert_array_equal(dense(chosen), matrix[np.ix_(rows, columns)])


def test_tensors_agree_with_numpy() -> None:
    torch = pytest.importorskip("torch")
    matrix = np.array([[1, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(dense(Positives.of(torch.tensor(matrix), n_images=2)), matrix)


def test_sparse_matrices_agree_with_numpy() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    matrix = np.array([[1, 1, 0], [0, 0, 1]])
    for other in (sparse.csr_matrix(matrix), sparse.coo_array(matrix)):
        np.testing.assert_array_equal(dense(Positives.of(other, n_images=2)), matrix)


def test_repeats_are_merged_and_sorted() -> None:
    positives = Positives.pairs([1, 0, 1], [0, 2, 0], (2, 3))
    assert positives.image.tolist() == [0, 1]
    assert positives.caption.tolist() == [2, 0]


@pytest.mark.parametrize(("image", "caption"), [([2], [0]), ([0], [3]), ([-1], [0]), ([0], [-1])])
def test_pairs_outside_the_matrix(image: list[int], caption: list[int]) -> None:
    with pytest.raises(RanksError, match="outside"):
        Positives.pairs(image, caption, (2, 3))


@pytest.mark.parametrize(
    ("relevant", "why"),
    [
        (np.array([0, 5]), "caption 1 names image 5, but there are 2 images"),
        (np.array([0, -1]), "names image -1"),
        (np.array([0.0, 1.0]), "must be integers"),
        (np.ones((3, 2)), "transpose"),
        ([0, 1], "must be an int array"),
    ],
)
def test_refused(relevant: object, why: str) -> None:
    with pytest.raises(RanksError) as caught:
        Positives.of(relevant, n_images=2)
    assert why in str(caught.value)
