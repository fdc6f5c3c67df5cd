// A linear layer: weight [out, in], then bias [out].
#pragma once
#include <algorithm>
#include <cstring>

#include "layer.h"

namespace esper {

class Linear : public Layer {
 public:
  Linear(const LayerConfig& config, Rooms& rooms)
      : Layer(config, ptrdiff_t(config.outputs) * (config.inputs + 1), rooms),
        weight_(rooms.packed.take(out * in_stride)), transposed_(rooms.packed.take(in * out_stride)),
        bias_(rooms.packed.take(out_stride)), weight_gradient_(rooms.gradients.take(out * in_stride)),
        bias_gradient_(rooms.gradients.take(out_stride)) {}

  void pack(const float* weight, float* packed) const override {
    for (int o = 0; o < out; ++o) {
      float* row = packed + weight_ + o * in_stride;
      arrange(weight + o * in, row);
      for (int i = 0; i < in; ++i) packed[transposed_ + i * out_stride + o] = row[i];
    }
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
    const int stride = in_stride;
    float* db = gradients + bias_gradient_;
    // In pieces that stay in the cache.
    for (int row = 0; row < rows; row += BLOCK) {
      const int piece = std::min(BLOCK, rows - row);
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
    for (int o = 0; o < out; ++o) add_arranged(gradients + weight_gradient_ + o * in_stride, sum + o * in);
    for (int o = 0; o < out; ++o) sum[out * in + o] += gradients[bias_gradient_ + o];
  }

 private:
  const ptrdiff_t weight_, transposed_, bias_;      // [out, in_stride], [in, out_stride], [out_stride]
  const ptrdiff_t weight_gradient_, bias_gradient_;  // [out, in_stride], [out_stride]
};

}  // namespace esper
