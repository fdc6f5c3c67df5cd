// What is not 0 in rows that are mostly 0, as pictures of a few objects are.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>
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

// Of a block of rows.
class Dots {
 public:
  // Where in a row they are, and what they are.
  struct Row {
    int count;
    const int* places;
    const float* values;
  };

  // Of rows with up to `most` of them.
  Dots(int rows, int most) : most_(most), ends_(rows + 1), places_(rows * most), values_(rows * most) {}

  void clear() { rows_ = 0; }

  Row operator[](int row) const {
    const int first = ends_[row];
    return {ends_[row + 1] - first, &places_[first], &values_[first]};
  }

  // Adds those of a row, whose `size` is a multiple of LANES; false if there are more than expected.
  bool add(const float* row, int size) {
    int count = begin();
    const int limit = count + most_;
    for (int i = 0; i < size; i += LANES) {
      uint32_t found = nonzero_lanes(load(row + i));
      if (count + std::popcount(found) > limit) return false;
      for (; found; found &= found - 1) {
        const int place = i + std::countr_zero(found);
        places_[count] = place, values_[count++] = row[place];
      }
    }
    return end(count);
  }

  // The same of bytes, each of which counts as what `values` [256] have for it, the first of them 0.
  bool add(const uint8_t* row, int size, const float* values) {
    static_assert(std::endian::native == std::endian::little);
    int count = begin();
    const int limit = count + most_;
    for (int i = 0; i < size; i += 8) {
      uint64_t bytes = 0;
      if (i + 8 <= size)
        std::memcpy(&bytes, row + i, 8);
      else
        std::memcpy(&bytes, row + i, size - i);
      // The highest bit of each byte that is not 0.
      constexpr uint64_t low = 0x7f7f7f7f7f7f7f7f;
      uint64_t found = (((bytes & low) + low) | bytes) & ~low;
      if (count + std::popcount(found) > limit) return false;
      for (; found; found &= found - 1) {
        const int place = i + std::countr_zero(found) / 8;
        places_[count] = place, values_[count++] = values[row[place]];
      }
    }
    return end(count);
  }

 private:
  int begin() const { return ends_[rows_]; }

  bool end(int count) {
    ends_[++rows_] = count;
    return true;
  }

  int most_, rows_ = 0;
  std::vector<int> ends_, places_;
  std::vector<float> values_;
};

}  // namespace esper
