"""Character n-grams of a question, hashed into buckets: the same sums here in NumPy and in the ONNX graph."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from tokenizers import Regex, Tokenizer, models, normalizers

GRAM_SIZES = (2, 3, 4, 5)
BUCKETS = 32_749  # a prime
MODULUS = 2_147_483_647
STEP, OFFSET, SPREAD, SIZE_SALT = 1_000_003, 7, 31, 7_919
SPACE, UNKNOWN = 0, 1


def character_tokenizer(texts: list[str]) -> Tokenizer:
    """A tokenizer whose tokens are the characters that occur in `texts`, in lower case; BPE that has nothing to merge."""
    normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    characters = sorted({character for text in texts for character in normalizer.normalize_str(text)} - {" "})
    vocabulary = {" ": SPACE, "<unk>": UNKNOWN, **{character: i + 2 for i, character in enumerate(characters)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.normalizer = normalizer
    return tokenizer


def buckets_of(ids: list[int]) -> np.ndarray:
    """The buckets of all n-grams of one text, which a space goes before and after."""
    padded = np.array([SPACE, *ids, SPACE], np.int64)
    rolling, found = padded, []
    for size in range(2, max(GRAM_SIZES) + 1):
        if len(padded) < size:
            break
        rolling = (rolling[: len(padded) - size + 1] * STEP + padded[size - 1 :] + OFFSET) % MODULUS
        if size in GRAM_SIZES:
            found.append((rolling * SPREAD + size * SIZE_SALT) % MODULUS % BUCKETS)
    return np.concatenate(found)


@dataclass(frozen=True)
class Vectorizer:
    """Texts as rows of bucket weights: inverse document frequencies, each row by its length."""

    tokenizer: Tokenizer
    idf: np.ndarray  # float32 [BUCKETS]

    def transform(self, texts: list[str]) -> csr_matrix:
        """One row for each text, float64."""
        grams = [buckets_of(encoding.ids) for encoding in self.tokenizer.encode_batch(texts)]
        starts = np.cumsum([0, *map(len, grams)])
        weights = self.idf.astype(np.float64)[np.concatenate(grams)]
        lengths = np.sqrt(np.add.reduceat(weights**2, starts[:-1]))
        values = weights / np.repeat(lengths, np.diff(starts))
        matrix = csr_matrix((values, np.concatenate(grams), starts), shape=(len(texts), BUCKETS))
        matrix.sum_duplicates()
        return matrix


def fit_vectorizer(tokenizer: Tokenizer, texts: list[str]) -> Vectorizer:
    """Counts in how many texts each bucket occurs."""
    occurs = np.zeros(BUCKETS)
    for encoding in tokenizer.encode_batch(texts):
        occurs[np.unique(buckets_of(encoding.ids))] += 1
    idf = np.log((1 + len(texts)) / (1 + occurs)) + 1
    return Vectorizer(tokenizer, idf.astype(np.float32))
