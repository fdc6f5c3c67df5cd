// A linear layer: weight [out, in], then bias [out].
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "layer.h"
#include "nonzeros.h"

namespace esper {

// A `wide` one may have rows of input that are mostly 0, as observations are: it passes over these numbers, whose products
// are 0.
class Linear : public Layer {
 public:
  Linear(const LayerConfig& config, Rooms& rooms, bool wide)
      : Layer(config, ptrdiff_t(config.outputs) * (config.inputs + 1), rooms), wide_(wide),
        weight_(rooms.packed.take(out * in_stride)), transposed_(rooms.packed.take(in * out_stride)),
        bias_(rooms.packed.take(out_stride)), weight_gradient_(rooms.gradients.take(wide ? in * out_stride : out * in_stride)),
        bias_gradient_(rooms.gradients.take(out_stride)) {}

  void pack(const float* weight, float* packed) const override {
    for (int o = 0; o < out; ++o) arrange(weight + o * in, packed + weight_ + o * in_stride);
    // A cache line of the transposed weight at a time.
    for (int from = 0; from < out; from += 16)
      for (int i = 0; i < in; ++i)
        for (int o = from; o < std::min(from + 16, out); ++o)
          packed[transposed_ + i * out_stride + o] = packed[weight_ + o * in_stride + i];
    std::memcpy(packed + bias_, weight + out * in, out * sizeof(float));
  }

  void forward(const float* packed, const float* input, int rows, float* outputs) const override {
    const auto begin = [bias = packed + bias_](int, int n) { return load(bias + n); };
    const float* weight = packed + transposed_;
    finish(outputs, [&](auto end) {
      Nonzeros nonzeros;
      if (!wide_ || !nonzeros.find(input, padded(in)))
        return product(rows, padded(out), in, input, in_stride, 1, weight, out_stride, begin, end);
      for (int m = 0; m < rows; ++m) {
        const float* row = input + m * in_stride;
        const auto end_row = [&](int, int n, vec v) { end(m, n, v); };
        if (nonzeros.find(row, padded(in)))
          sparse_product(nonzeros, padded(out), row, weight, out_stride, begin, end_row);
        else
          product(1, padded(out), in, row, in_stride, 1, weight, out_stride, begin, end_row);
      }
    });
  }

  void backward(const float* packed, const float* input, int rows, const float* outputs, float* gradients,
                const Target* target) const override {
    const float* dy = output(outputs);
    float* dw = gradients + weight_gradient_;
    const int stride = in_stride;
    float* db = gradients + bias_gradient_;
    // In pieces that stay in the cache.
    for (int row = 0; row < rows; row += BLOCK) {
      const int piece = std::min(BLOCK, rows - row);
      if (wide_)
        by_transposed_weight(input + row * stride, piece, dy + row * out_stride, dw);
      else
        product(out, padded(in), piece, dy + row * out_stride, 1, out_stride, input + row * stride, stride,
                [=](int m, int n) { return load(dw + m * stride + n); },
                [=](int m, int n, vec v) { store(dw + m * stride + n, v); });
      for (int n = 0; n < padded(out); n += LANES) {
        vec sum = load(db + n);
        for (int r = row; r < row + piece; ++r) sum += load(dy + r * out_stride + n);
        store(db + n, sum);
      }
    }
    if (target)
      target->with(stride, [&](auto end) {
        const auto zero = [](int, int) { return vec{}; };
        product(rows, padded(in), out, dy, out_stride, 1, packed + weight_, stride, zero, end);
      });
  }

  void add_up(const float* gradients, float* sum) const override {
    const float* dw = gradients + weight_gradient_;
    if (wide_) {
      std::vector<float> row(in);
      for (int o = 0; o < out; ++o) {
        for (int i = 0; i < in; ++i) row[i] = dw[i * out_stride + o];
        add_arranged(row.data(), sum + o * in);
      }
    } else {
      for (int o = 0; o < out; ++o) add_arranged(dw + o * in_stride, sum + o * in);
    }
    for (int o = 0; o < out; ++o) sum[out * in + o] += gradients[bias_gradient_ + o];
  }

 private:
  // A row of C = A * B, from what is not 0 in the row of A; as `product`.
  template <class Begin, class End>
  static void sparse_product(const Nonzeros& nonzeros, int N, const float* a, const float* b, ptrdiff_t ldb,
                             Begin begin, End end) {
    int n = 0;
    for (; n + 4 * LANES <= N; n += 4 * LANES) sparse_columns<4>(nonzeros, n, a, b, ldb, begin, end);
    for (; n < N; n += LANES) sparse_columns<1>(nonzeros, n, a, b, ldb, begin, end);
  }

  template <int WIDTH, class Begin, class End>
  static void sparse_columns(const Nonzeros& nonzeros, int n, const float* a, const float* b, ptrdiff_t ldb,
                             Begin begin, End end) {
    vec sum[WIDTH];
    for (int j = 0; j < WIDTH; ++j) sum[j] = begin(0, n + j * LANES);
    for (const int k : nonzeros)
      for (int j = 0; j < WIDTH; ++j) sum[j] += load(b + k * ldb + n + j * LANES) * a[k];
    for (int j = 0; j < WIDTH; ++j) end(0, n + j * LANES, sum[j]);
  }

  // Adds to `dw` [in, out_stride] the gradients of some rows.
  void by_transposed_weight(const float* input, int rows, const float* dy, float* dw) const {
    const auto begin = [=, stride = out_stride](int m, int n) { return load(dw + m * stride + n); };
    const auto end = [=, stride = out_stride](int m, int n, vec v) { store(dw + m * stride + n, v); };
    Nonzeros nonzeros;
    if (!nonzeros.find(input, padded(in)))
      return product(in, padded(out), rows, input, 1, in_stride, dy, out_stride, begin, end);
    for (int r = 0; r < rows; ++r) {
      const float *x = input + r * in_stride, *y = dy + r * out_stride;
      if (!nonzeros.find(x, padded(in))) {
        product(in, padded(out), 1, x, 1, in_stride, y, out_stride, begin, end);
        continue;
      }
      for (const int k : nonzeros)
        for (int n = 0; n < padded(out); n += LANES) end(k, n, begin(k, n) + load(y + n) * x[k]);
    }
  }

  const bool wide_;
  const ptrdiff_t weight_, transposed_, bias_;      // [out, in_stride], [in, out_stride], [out_stride]
  const ptrdiff_t weight_gradient_, bias_gradient_;  // [out, in_stride], or [in, out_stride] if it is wide; [out_stride]
};

}  // namespace esper
