// Where a row is not 0: most of a picture of few kinds of objects is background.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#include "simd.h"

namespace esper {

// A bit for each lane that is not 0; NaN is not.
inline uint32_t nonzero_lanes(vec v) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
#elif defined(__AVX__)
  return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_NEQ_UQ)));
#else
  uint32_t found = 0;
  for (int lane = 0; lane < LANES; ++lane) found |= uint32_t(v[lane] != 0) << lane;
  return found;
#endif
}

class Nonzeros {
 public:
  // Of more, a product of all is faster.
  static constexpr int MOST = 128;

  // Finds them in `row`, whose `size` is a multiple of LANES; false if there are more than a quarter, or than MOST.
  bool find(const float* row, int size) {
    count_ = 0;
    const int most = std::min(MOST, size / 4);
    for (int i = 0; i < size; i += LANES) {
      const uint32_t lanes = nonzero_lanes(load(row + i));
      if (count_ + std::popcount(lanes) > most) return false;
      for (uint32_t left = lanes; left; left &= left - 1) places_[count_++] = i + std::countr_zero(left);
    }
    return true;
  }

  const int* begin() const { return places_; }
  const int* end() const { return places_ + count_; }

 private:
  int count_ = 0, places_[MOST];
};

}  // namespace esper
