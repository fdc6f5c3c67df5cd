// A linear layer: weight [out, in], then bias [out].
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "layer.h"

namespace esper {

// A `wide` one reads dots. Sums of gradients lie by inputs where rows of them are added to, for dots or places.
class Linear : public Layer {
 public:
  Linear(const LayerConfig& config, Rooms& rooms, bool wide)
      : Layer(config, ptrdiff_t(config.outputs) * (config.inputs + 1), rooms), wide_(wide),
        by_inputs_(wide || reads_busy()), weight_(rooms.packed.take(out * in_stride)),
        transposed_(rooms.packed.take(in * out_stride)), bias_(rooms.packed.take(out_stride)),
        weight_gradient_(rooms.gradients.take(by_inputs_ ? in * out_stride : out * in_stride)),
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
      if (by_inputs_)
        add_products(in, piece, x, in_stride, y, out_stride, padded(out), dw, out_stride);
      else
        add_products(out, piece, y, out_stride, x, in_stride, padded(in), dw, in_stride);
    }
    add_bias_gradients(dy, rows, gradients);
    if (target)
      target->with(in_stride, [&](auto end) {
        const auto zero = [](int, int) { return vec{}; };
        product(rows, padded(in), out, dy, out_stride, 1, packed + weight_, in_stride, zero, end);
      });
  }

  // Of more, a product of all is faster.
  int most_dots() const override { return wide_ ? std::min(128, padded(in) / 4) : 0; }

  void forward_dots(const float* packed, const Dots& dots, const Busy*, int rows, float* outputs) const override {
    finish(outputs, [&](auto end) {
      for (int r = 0; r < rows; ++r)
        each_width<4>(padded(out), [&](auto width, int n) {
          forward_columns<width>(packed, dots[r], n, [=](int j, vec v) { end(r, j, v); });
        });
    });
  }

  void backward_dots(const Dots& dots, const Busy*, int rows, const float* outputs, float* gradients) const override {
    const float* dy = output(outputs);
    for (int r = 0; r < rows; ++r)
      each_width<4>(padded(out), [&](auto width, int n) {
        backward_columns<width>(dots[r], dy + r * out_stride, n, gradients + weight_gradient_);
      });
    add_bias_gradients(dy, rows, gradients);
  }

  bool reads_busy() const override { return channels > 1 && channels % LANES == 0; }

  // The empty picture is one more row at each place, for all that are far from dots there.
  void forward_busy(const float* packed, const Busy& busy, const float* input, int rows, float* outputs) const override {
    float* y = output(outputs);
    const float* empty = input + rows * in_stride;
    AlignedFloats some((rows + 1) * channels);
    for (int r = 0; r < rows; ++r) std::copy_n(packed + bias_, padded(out), y + r * out_stride);
    const auto sum = [=, stride = out_stride](int r, int n) { return load(y + r * stride + n); };
    const auto keep = [=, stride = out_stride](int r, int n, vec v) { store(y + r * stride + n, v); };
    for (int place = 0, all; place < busy.places(); place += std::max(1, all)) {
      const float *x = input + place * channels, *weight = packed + transposed_ + ptrdiff_t(place) * channels * out_stride;
      if ((all = busy.all_near(place))) {
        product(rows, padded(out), all * channels, x, in_stride, 1, weight, out_stride, sum, keep);
        continue;
      }
      const Busy::Rows near = busy.near(place), far = busy.far(place);
      std::copy_n(empty, channels, gather(x, in_stride, near, channels, some.data()));
      product(near.count + 1, padded(out), channels, some.data(), channels, 1, weight, out_stride,
              [=](int i, int n) { return i < near.count ? sum(near.rows[i], n) : vec{}; },
              [=](int i, int n, vec v) {
                if (i < near.count) return keep(near.rows[i], n, v);
                for (int f = 0; f < far.count; ++f) keep(far.rows[f], n, sum(far.rows[f], n) + v);
              });
    }
    finish(outputs, [&](auto end) {
      for (int r = 0; r < rows; ++r)
        for (int n = 0; n < padded(out); n += LANES) end(r, n, sum(r, n));
    });
  }

  void backward_busy(const float* packed, const Busy& busy, const float* input, int rows, const float* outputs,
                     float* gradients, const Target& target) const override {
    const float *dy = output(outputs), *empty = input + rows * in_stride;
    const int width = padded(out);
    AlignedFloats some_x((rows + 1) * channels), some_dy((rows + 1) * width), by_empty(channels, 0.0f);
    target.with(in_stride, [&](auto end) {
      for (int place = 0, all; place < busy.places(); place += std::max(1, all)) {
        const int first = place * channels;
        const float *x = input + first, *weight = packed + weight_ + first;
        float* dw = gradients + weight_gradient_ + ptrdiff_t(first) * out_stride;
        const auto none = [](int, int) { return vec{}; };
        if ((all = busy.all_near(place))) {
          add_products(all * channels, rows, x, in_stride, dy, out_stride, width, dw, out_stride);
          product(rows, all * channels, out, dy, out_stride, 1, weight, in_stride, none,
                  [=](int r, int n, vec v) { end(r, first + n, v); });
          continue;
        }
        const Busy::Rows near = busy.near(place), far = busy.far(place);
        std::copy_n(empty, channels, gather(x, in_stride, near, channels, some_x.data()));
        add_rows(dy, far, gather(dy, out_stride, near, width, some_dy.data()));
        add_products(channels, near.count + 1, some_x.data(), channels, some_dy.data(), width, width, dw, out_stride);
        product(near.count + 1, channels, out, some_dy.data(), width, 1, weight, in_stride, none,
                [&](int i, int n, vec v) {
                  if (i < near.count) return end(near.rows[i], first + n, v);
                  store(&by_empty[n], load(&by_empty[n]) + v);
                });
      }
      for (int n = 0; n < channels; n += LANES) end(rows, n, load(&by_empty[n]));
    });
    add_bias_gradients(dy, rows, gradients);
  }

  void add_up(const float* gradients, float* sum) const override {
    const float* dw = gradients + weight_gradient_;
    if (by_inputs_)
      transpose(dw, in, out, out_stride, [=, this](int o, int i, const float* values, int count) {
        for (int j = 0; j < count; ++j) sum[o * in + arranged(i + j)] += values[j];
      });
    else
      for (int o = 0; o < out; ++o) add_arranged(dw + o * in_stride, sum + o * in);
    for (int o = 0; o < out; ++o) sum[out * in + o] += gradients[bias_gradient_ + o];
  }

 private:
  // Adds to C [M, ldc] the sum of the products of `rows` of A, as its columns, and of B.
  static void add_products(int M, int rows, const float* a, int lda, const float* b, int ldb, int N, float* c, int ldc) {
    product(M, N, rows, a, 1, lda, b, ldb, [=](int m, int n) { return load(c + m * ldc + n); },
            [=](int m, int n, vec v) { store(c + m * ldc + n, v); });
  }

  void add_bias_gradients(const float* dy, int rows, float* gradients) const {
    float* db = gradients + bias_gradient_;
    for (int n = 0; n < padded(out); n += LANES) {
      vec sum = load(db + n);
      for (int r = 0; r < rows; ++r) sum += load(dy + r * out_stride + n);
      store(db + n, sum);
    }
  }

  // Puts the first `count` floats of some rows side by side; returns where the next would be.
  static float* gather(const float* from, ptrdiff_t stride, Busy::Rows some, int count, float* to) {
    for (int i = 0; i < some.count; ++i, to += count) std::copy_n(from + some.rows[i] * stride, count, to);
    return to;
  }

  // The sum of some rows of `dy`.
  void add_rows(const float* dy, Busy::Rows some, float* to) const {
    each_width<4>(padded(out), [&](auto width, int n) {
      vec sum[width] = {};
      for (int i = 0; i < some.count; ++i)
        for (int j = 0; j < width; ++j) sum[j] += load(dy + some.rows[i] * out_stride + n + j * LANES);
      for (int j = 0; j < width; ++j) store(to + n + j * LANES, sum[j]);
    });
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

  const bool wide_, by_inputs_;
  const ptrdiff_t weight_, transposed_, bias_;      // [out, in_stride], [in, out_stride], [out_stride]
  const ptrdiff_t weight_gradient_, bias_gradient_;  // [out, in_stride], or [in, out_stride] by inputs; [out_stride]
};

}  // namespace esper
