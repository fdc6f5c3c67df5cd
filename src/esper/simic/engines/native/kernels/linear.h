// A linear layer: weight [out, in], then bias [out].
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "layer.h"

namespace esper {

// A `wide` one reads dots.
class Linear : public Layer {
 public:
  Linear(const LayerConfig& config, Rooms& rooms, bool wide)
      : Layer(config, ptrdiff_t(config.outputs) * (config.inputs + 1), rooms), wide_(wide),
        weight_(rooms.packed.take(out * in_stride)), transposed_(rooms.packed.take(in * out_stride)),
        bias_(rooms.packed.take(out_stride)), weight_gradient_(rooms.gradients.take(wide ? in * out_stride : out * in_stride)),
        bias_gradient_(rooms.gradients.take(out_stride)) {}

  void pack(const float* weight, float* packed) const override {
    for (int o = 0; o < out; ++o) arrange(weight + o * in, packed + weight_ + o * in_stride);
    transpose(packed + weight_, out, in, in_stride, [=, this](int i, int o, const float* values, int count) {
      std::copy_n(values, count, packed + transposed_ + i * out_stride + o);
    });
    std::memcpy(packed + bias_, weight + out * in, out * sizeof(float));
  }

  void forward(const float* packed, const float* input, int rows, float* outputs) const override {
    const auto begin = [bias = packed + bias_](int, int n) { return load(bias + n); };
    finish(outputs, [&](auto end) {
      product(rows, padded(out), in, input, in_stride, 1, packed + transposed_, out_stride, begin, end);
    });
  }

  void backward(const float* packed, const float* input, int rows, const float* outputs, float* gradients,
                const Target* target) const override {
    const float* dy = output(outputs);
    float* dw = gradients + weight_gradient_;
    // In pieces that stay in the cache.
    for (int row = 0; row < rows; row += BLOCK) {
      const int piece = std::min(BLOCK, rows - row);
      const float *x = input + row * in_stride, *y = dy + row * out_stride;
      if (wide_)
        add_products(in, piece, x, in_stride, y, out_stride, padded(out), dw);
      else
        add_products(out, piece, y, out_stride, x, in_stride, padded(in), dw);
      add_bias_gradient(y, piece, gradients);
    }
    if (target)
      target->with(in_stride, [&](auto end) {
        const auto zero = [](int, int) { return vec{}; };
        product(rows, padded(in), out, dy, out_stride, 1, packed + weight_, in_stride, zero, end);
      });
  }

  // Of more, a product of all is faster.
  int most_dots() const override { return wide_ ? std::min(128, padded(in) / 4) : 0; }

  void forward_dots(const float* packed, const Dots& dots, int rows, float* outputs) const override {
    finish(outputs, [&](auto end) {
      for (int r = 0; r < rows; ++r)
        each_column([&](auto width, int n) { forward_columns<width>(packed, dots[r], n, [=](int j, vec v) { end(r, j, v); }); });
    });
  }

  void backward_dots(const Dots& dots, int rows, const float* outputs, float* gradients) const override {
    const float* dy = output(outputs);
    for (int r = 0; r < rows; ++r)
      each_column([&](auto width, int n) { backward_columns<width>(dots[r], dy + r * out_stride, n, gradients + weight_gradient_); });
    for (int row = 0; row < rows; row += BLOCK) add_bias_gradient(dy + row * out_stride, std::min(BLOCK, rows - row), gradients);
  }

  void add_up(const float* gradients, float* sum) const override {
    const float* dw = gradients + weight_gradient_;
    if (wide_)
      transpose(dw, in, out, out_stride, [=, this](int o, int i, const float* values, int count) {
        for (int j = 0; j < count; ++j) sum[o * in + i + j] += values[j];
      });
    else
      for (int o = 0; o < out; ++o) add_arranged(dw + o * in_stride, sum + o * in);
    for (int o = 0; o < out; ++o) sum[out * in + o] += gradients[bias_gradient_ + o];
  }

 private:
  // Adds to C [M, ldb] the sum of the products of `rows` of A, as its columns, and of B.
  static void add_products(int M, int rows, const float* a, int lda, const float* b, int ldb, int N, float* c) {
    product(M, N, rows, a, 1, lda, b, ldb, [=](int m, int n) { return load(c + m * ldb + n); },
            [=](int m, int n, vec v) { store(c + m * ldb + n, v); });
  }

  void add_bias_gradient(const float* dy, int rows, float* gradients) const {
    float* db = gradients + bias_gradient_;
    for (int n = 0; n < padded(out); n += LANES) {
      vec sum = load(db + n);
      for (int r = 0; r < rows; ++r) sum += load(dy + r * out_stride + n);
      store(db + n, sum);
    }
  }

  // Calls `use(width, n)` for pieces of `width` vectors of an output, from `n` on.
  template <class Use>
  void each_column(Use use) const {
    int n = 0;
    for (; n + 4 * LANES <= padded(out); n += 4 * LANES) use(std::integral_constant<int, 4>(), n);
    for (; n < padded(out); n += LANES) use(std::integral_constant<int, 1>(), n);
  }

  template <int WIDTH, class End>
  void forward_columns(const float* packed, Dots::Row dots, int n, End end) const {
    const float* weight = packed + transposed_ + n;
    vec sum[WIDTH];
    for (int j = 0; j < WIDTH; ++j) sum[j] = load(packed + bias_ + n + j * LANES);
    for (int dot = 0; dot < dots.count; ++dot)
      for (int j = 0; j < WIDTH; ++j)
        sum[j] += load(weight + ptrdiff_t(dots.places[dot]) * out_stride + j * LANES) * dots.values[dot];
    for (int j = 0; j < WIDTH; ++j) end(n + j * LANES, sum[j]);
  }

  template <int WIDTH>
  void backward_columns(Dots::Row dots, const float* dy, int n, float* dw) const {
    vec y[WIDTH];
    for (int j = 0; j < WIDTH; ++j) y[j] = load(dy + n + j * LANES);
    for (int dot = 0; dot < dots.count; ++dot) {
      float* to = dw + ptrdiff_t(dots.places[dot]) * out_stride + n;
      for (int j = 0; j < WIDTH; ++j) store(to + j * LANES, load(to + j * LANES) + y[j] * dots.values[dot]);
    }
  }

  const bool wide_;
  const ptrdiff_t weight_, transposed_, bias_;      // [out, in_stride], [in, out_stride], [out_stride]
  const ptrdiff_t weight_gradient_, bias_gradient_;  // [out, in_stride], or [in, out_stride] if it is wide; [out_stride]
};

}  // namespace esper
