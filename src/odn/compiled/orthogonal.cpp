// Orthogonalise small matrices, as odn.training.muon does: the polynomials of Newton-Schulz on the square of each, and one product at the
// end. R rows and S columns of a matrix, or of its transpose where that has fewer rows; n is R, or S, rounded up to whole vectors.

#include <stddef.h>
#include <stdlib.h>

namespace {

constexpr int WIDTH = 8;  // numbers of a vector
typedef float Lanes __attribute__((vector_size(4 * WIDTH)));
constexpr int BLOCK = 4;  // vectors that are summed at once
constexpr int ITERATIONS = 5;
constexpr float LINEAR = 3.4445f, CUBIC = -4.7750f, QUINTIC = 2.0315f, LEAST_NORM = 1e-7f;

inline int vectors(int count) { return (count + WIDTH - 1) / WIDTH; }

// A matrix whose rows are whole vectors, filled up with zeros.
struct Matrix {
  int rows, width;
  Lanes* at;
  Lanes* row(int i) { return at + size_t(i) * width; }
  float& number(int i, int j) { return reinterpret_cast<float*>(row(i))[j]; }
};

// c = a b, of which a has as many columns that count as b has rows
void multiply(Matrix a, Matrix b, Matrix c) {
  for (int i = 0; i < a.rows; i++)
    for (int j = 0; j < b.width; j += BLOCK) {
      const int some = b.width - j < BLOCK ? b.width - j : BLOCK;
      Lanes sums[BLOCK] = {};
      for (int k = 0; k < b.rows; k++) {
        const float factor = a.number(i, k);
        if (some == BLOCK)
          for (int l = 0; l < BLOCK; l++) sums[l] += factor * b.row(k)[j + l];
        else
          for (int l = 0; l < some; l++) sums[l] += factor * b.row(k)[j + l];
      }
      for (int l = 0; l < some; l++) c.row(i)[j + l] = sums[l];
    }
}

// square = x xT
void multiply_by_itself(Matrix x, Matrix square) {
  for (int i = 0; i < x.rows; i++)
    for (int j = i; j < x.rows; j++) {
      Lanes sum = {};
      for (int k = 0; k < x.width; k++) sum += x.row(i)[k] * x.row(j)[k];
      float total = 0;
      for (int k = 0; k < WIDTH; k++) total += sum[k];
      square.number(i, j) = square.number(j, i) = total;
    }
}

// Takes the singular values of x to about 1 (0.7 to 1.2); `room` has four squares.
void orthogonalise(Matrix x, Matrix result, Matrix* room) {
  Matrix gram = room[0], polynomial = room[1], factor = room[2], next = room[3];
  multiply_by_itself(x, gram);
  float trace = 0;
  for (int i = 0; i < x.rows; i++) trace += gram.number(i, i);
  const float norm = __builtin_sqrtf(trace) + LEAST_NORM;
  for (int i = 0; i < gram.rows * gram.width; i++) gram.at[i] /= norm * norm;
  for (int iteration = 0; iteration < ITERATIONS; iteration++) {
    multiply(gram, gram, polynomial);
    for (int i = 0; i < gram.rows * gram.width; i++) polynomial.at[i] = CUBIC * gram.at[i] + QUINTIC * polynomial.at[i];
    for (int i = 0; i < gram.rows; i++) polynomial.number(i, i) += LINEAR;
    if (iteration == 0) {
      for (int i = 0; i < gram.rows * gram.width; i++) factor.at[i] = polynomial.at[i] / norm;
    } else {
      multiply(polynomial, factor, next);
      const Matrix before = factor;
      factor = next, next = before;
    }
    if (iteration == ITERATIONS - 1) break;
    multiply(polynomial, gram, next);
    multiply(next, polynomial, gram);
  }
  multiply(factor, x, result);
}

}  // namespace

// given, taken: each of n_matrices with its rows and columns, row after row. Returns 0, or 1 where memory lacks.
extern "C" int odn_orthogonalise(const float* const* given, float* const* taken, const int* rows, const int* columns, int n_matrices) {
  size_t most_square = 0, most_size = 0;
  for (int m = 0; m < n_matrices; m++) {
    const int few = rows[m] < columns[m] ? rows[m] : columns[m], many = rows[m] < columns[m] ? columns[m] : rows[m];
    const size_t square = size_t(few) * vectors(few), size = size_t(few) * vectors(many);
    most_square = square > most_square ? square : most_square;
    most_size = size > most_size ? size : most_size;
  }
  const size_t room = 4 * most_square + 2 * most_size;
  Lanes* all = static_cast<Lanes*>(aligned_alloc(64, (room * sizeof(Lanes) + 63) / 64 * 64));
  if (!all) return 1;
  for (int m = 0; m < n_matrices; m++) {
    const bool tall = rows[m] > columns[m];
    const int few = tall ? columns[m] : rows[m], many = tall ? rows[m] : columns[m];
    for (size_t i = 0; i < room; i++) all[i] = Lanes{};
    Matrix squares[4];
    for (int k = 0; k < 4; k++) squares[k] = {few, vectors(few), all + k * most_square};
    Matrix x = {few, vectors(many), all + 4 * most_square}, result = {few, vectors(many), x.at + most_size};
    for (int i = 0; i < rows[m]; i++)
      for (int j = 0; j < columns[m]; j++) (tall ? x.number(j, i) : x.number(i, j)) = given[m][size_t(i) * columns[m] + j];
    orthogonalise(x, result, squares);
    const float stretch = tall ? __builtin_sqrtf(float(rows[m]) / float(columns[m])) : 1.f;
    for (int i = 0; i < rows[m]; i++) {
      float* row = taken[m] + size_t(i) * columns[m];
      for (int j = 0; j < columns[m]; j++) row[j] = stretch * (tall ? result.number(j, i) : result.number(i, j));
    }
  }
  free(all);
  return 0;
}
