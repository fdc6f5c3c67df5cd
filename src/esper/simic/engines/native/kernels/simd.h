// Short vectors, and matrix products built of them: C = A * B over small row-major blocks that stay in the cache.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <vector>

namespace esper {

// Floats in a vector register.
#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float unaligned_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef uint32_t bits __attribute__((vector_size(4 * LANES)));

inline vec load(const float* p) { return *reinterpret_cast<const unaligned_vec*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<unaligned_vec*>(p) = v; }
inline int padded(int n) { return (n + LANES - 1) / LANES * LANES; }

// Puts vectors at the beginning of a cache line, so that none is in two.
template <class T>
struct CacheAligned {
  using value_type = T;
  static constexpr std::align_val_t LINE{64};

  CacheAligned() = default;
  template <class U>
  CacheAligned(const CacheAligned<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), LINE)); }
  void deallocate(T* p, size_t) { ::operator delete(p, LINE); }
  bool operator==(const CacheAligned&) const { return true; }
};

using AlignedFloats = std::vector<float, CacheAligned<float>>;

// Floats from one row of `n` to the next. At a multiple of 512 bytes the rows of a column would share a few cache sets.
inline int row_stride(int n) { return padded(n) % 128 ? padded(n) : padded(n) + 16; }

// tanh as a rational function of odd and even degree (the approximation of Eigen and XLA), to about 1e-7; NaN stays NaN.
inline vec tanh(vec x) {
  constexpr float limit = 7.90531110763549805f;
  x = x > limit ? vec{} + limit : x;
  x = x < -limit ? vec{} - limit : x;
  const vec s = x * x;
  vec p = s * -2.76076847742355e-16f + 2.00018790482477e-13f;
  p = s * p + -8.60467152213735e-11f;
  p = s * p + 5.12229709037114e-08f;
  p = s * p + 1.48572235717979e-05f;
  p = s * p + 6.37261928875436e-04f;
  p = s * p + 4.89352455891786e-03f;
  vec q = s * 1.19825839466702e-06f + 1.18534705686654e-04f;
  q = s * q + 2.26843463243900e-03f;
  q = s * q + 4.89352518554385e-03f;
  return x * p / q;
}

// e^x as scale * (1 + rest): a power of 2, and what is between two of them (the polynomial of Cephes), to about 1e-7. For
// x from -87 to 88; NaN stays NaN.
struct Exponential {
  vec scale, rest;

  explicit Exponential(vec x) {
    // Adding it rounds to a whole number, which is in the last bits then.
    constexpr float shift = 12582912.0f;
    const vec shifted = x * 1.44269504088896341f + shift, n = shifted - shift;
    const vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = r * p + 8.3334519073e-3f;
    p = r * p + 4.1665795894e-2f;
    p = r * p + 1.6666665459e-1f;
    p = r * p + 5.0000001201e-1f;
    rest = r * r * p + r;
    scale = (vec)(((bits)shifted + 127) << 23);
  }
};

inline vec exp(vec x) {
  const Exponential e(x < -87.0f ? vec{} - 87.0f : x > 88.0f ? vec{} + 88.0f : x);
  return x < -87.0f ? vec{} : x > 88.0f ? vec{} + INFINITY : e.scale * e.rest + e.scale;
}

// e^x - 1 for x up to 88.
inline vec expm1(vec x) {
  const Exponential e(x < -87.0f ? vec{} - 87.0f : x);
  return e.scale * e.rest + (e.scale - 1.0f);
}

inline vec sigmoid(vec x) { return 1.0f / (exp(-x) + 1.0f); }

// The error function (Abramowitz and Stegun 1964, 7.1.26; as torch has it), to 1.5e-7; exactly 1 or -1 far from 0.
inline vec erf(vec x) {
  const vec size = x < 0.0f ? -x : x, t = 1.0f / (size * 0.3275911f + 1.0f);
  vec p = t * 1.061405429f + -1.453152027f;
  p = t * p + 1.421413741f;
  p = t * p + -0.284496736f;
  p = t * p + 0.254829592f;
  const vec y = 1.0f - p * t * exp(-x * x);
  return x < 0.0f ? -y : y;
}

// The first `count` lanes, and 0 in the others.
inline vec first_lanes(vec v, int count) {
  vec kept = {};
  for (int lane = 0; lane < LANES; ++lane) kept[lane] = lane < count ? v[lane] : 0.0f;
  return kept;
}

inline float sum_of_lanes(vec v) {
  for (int half = LANES / 2; half; half /= 2)
    for (int lane = 0; lane < half; ++lane) v[lane] += v[lane + half];
  return v[0];
}

inline double sum_of_squares(const float* x, ptrdiff_t count) {
  vec sums = {};
  ptrdiff_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    const vec v = load(x + i);
    sums += v * v;
  }
  double sum = 0;
  for (int lane = 0; lane < LANES; ++lane) sum += sums[lane];
  for (; i < count; ++i) sum += double(x[i]) * x[i];
  return sum;
}

// Calls `use(row, column, values, count)` for pieces of `count` numbers of a row of the transposed of A [rows, lda], of
// which it has `columns`: in squares that stay in the registers, or near them.
template <class Use>
inline void transpose(const float* a, int rows, int columns, int lda, Use use) {
  constexpr int SIDE = 16;
  float square[SIDE][SIDE];
  for (int m = 0; m < rows; m += SIDE)
    for (int n = 0; n < columns; n += SIDE) {
      const int height = std::min(SIDE, rows - m), width = std::min(SIDE, columns - n);
      for (int i = 0; i < height; ++i)
        for (int j = 0; j < width; ++j) square[j][i] = a[(m + i) * lda + n + j];
      for (int j = 0; j < width; ++j) use(n + j, m, square[j], height);
    }
}

// What a product sums up: `groups` of `count` terms, of which each group begins `jump` floats of A after the one before.
struct Terms {
  int count, groups = 1;
  ptrdiff_t jump = 0;

  Terms(int count) : count(count) {}
  Terms(int count, int groups, ptrdiff_t jump) : count(count), groups(groups), jump(jump) {}
};

// A block of ROWS x WIDTH vectors of C. A(m, k) = a[m * row + k * col]; B is row-major with `ldb` floats in a row.
// `begin(m, n)` gives what the sum starts with, `end(m, n, v)` takes it; n counts floats.
// Alone in a function, or there would be no registers left for its addresses.
template <int ROWS, int WIDTH, class Begin, class End>
[[gnu::noinline]] void tile(int m, int n, Terms K, const float* a, ptrdiff_t row, ptrdiff_t col, const float* b,
                            ptrdiff_t ldb, Begin begin, End end) {
  vec sum[ROWS][WIDTH];
  for (int i = 0; i < ROWS; ++i)
    for (int j = 0; j < WIDTH; ++j) sum[i][j] = begin(m + i, n + j * LANES);
  const float* bk = b + n;
  for (int group = 0; group < K.groups; ++group) {
    const float* ak = a + m * row + group * K.jump;
    for (int k = 0; k < K.count; ++k, ak += col, bk += ldb) {
      vec right[WIDTH];
      for (int j = 0; j < WIDTH; ++j) right[j] = load(bk + j * LANES);
      for (int i = 0; i < ROWS; ++i) {
        const float left = ak[i * row];
        for (int j = 0; j < WIDTH; ++j) sum[i][j] += right[j] * left;
      }
    }
  }
  for (int i = 0; i < ROWS; ++i)
    for (int j = 0; j < WIDTH; ++j) end(m + i, n + j * LANES, sum[i][j]);
}

// Rows of a block: as many sums as the registers hold beside a row of B.
constexpr int ROWS = 6;

template <int N>
using Constant = std::integral_constant<int, N>;

// Calls `use(rows, m)` for blocks of so many `rows` of M.
template <class Use>
inline void each_block(int M, Use use) {
  int m = 0;
  for (; m + ROWS <= M; m += ROWS) use(Constant<ROWS>(), m);
  switch (M - m) {
    case 5: return use(Constant<5>(), m);
    case 4: return use(Constant<4>(), m);
    case 3: return use(Constant<3>(), m);
    case 2: return use(Constant<2>(), m);
    case 1: return use(Constant<1>(), m);
  }
}

// Calls `use(width, n)` for blocks of `width` vectors of N floats, a multiple of LANES; at most MOST vectors.
template <int MOST, class Use>
inline void each_width(int N, Use use) {
  int n = 0;
  for (; n + MOST * LANES <= N; n += MOST * LANES) use(Constant<MOST>(), n);
  for (; n < N; n += LANES) use(Constant<1>(), n);
}

// C[M, N] for N a multiple of LANES.
template <class Begin, class End>
inline void product(int M, int N, Terms K, const float* a, ptrdiff_t row, ptrdiff_t col, const float* b, ptrdiff_t ldb,
                    Begin begin, End end) {
  each_width<2>(N, [&](auto width, int n) {
    each_block(M, [&](auto rows, int m) { tile<rows, width>(m, n, K, a, row, col, b, ldb, begin, end); });
  });
}

}  // namespace esper
