// Layer normalization (Ba et al. 2016, arXiv 1607.06450), as torch.nn.LayerNorm: weight [out], then bias [out].
#pragma once
#include <cmath>
#include <cstring>

#include "layer.h"

namespace esper {

class LayerNorm : public Layer {
 public:
  static constexpr float EPSILON = 1e-5f;  // torch's default

  LayerNorm(const LayerConfig& config, Rooms& rooms)
      : Layer(config, 2 * config.outputs, rooms), weight_(rooms.packed.take(out)), bias_(rooms.packed.take(out)),
        weight_gradient_(rooms.gradients.take(out)), bias_gradient_(rooms.gradients.take(out)),
        means_(rooms.outputs.take(BLOCK)), inverses_(rooms.outputs.take(BLOCK)) {}

  void pack(const float* weight, float* packed) const override {
    std::memcpy(packed + weight_, weight, out * sizeof(float));
    std::memcpy(packed + bias_, weight + out, out * sizeof(float));
  }

  void forward(const float* packed, const float* input, int rows, float* outputs) const override {
    const float *weight = packed + weight_, *bias = packed + bias_;
    finish(outputs, [&](auto end) {
      for (int r = 0; r < rows; ++r) {
        const float* x = input + r * in_stride;
        // Each term is divided, as the sum of huge ones would be infinite.
        const float share = 1.0f / out, mean = sum([=](int n) { return load(x + n) * share; });
        const float variance = sum([=](int n) {
          const vec distance = load(x + n) - mean;
          return distance * distance * share;
        });
        // Torch has NaN, or 0 at some widths. A row that float32 cannot normalize is a fault, not zeros.
        const float inverse = std::isfinite(variance) ? 1.0f / std::sqrt(variance + EPSILON) : NAN;
        outputs[means_ + r] = mean, outputs[inverses_ + r] = inverse;
        for (int n = 0; n < padded(out); n += LANES)
          end(r, n, (load(x + n) - mean) * inverse * load(weight + n) + load(bias + n));
      }
    });
  }

  void backward(const float* packed, const float* input, int rows, const float* outputs, float* gradients,
                const Target* target) const override {
    const float* by_output = output(outputs);
    float *by_weight = gradients + weight_gradient_, *by_bias = gradients + bias_gradient_;
    for (int r = 0; r < rows; ++r) {
      const float *x = input + r * in_stride, *dy = by_output + r * out_stride;
      const float mean = outputs[means_ + r], inverse = outputs[inverses_ + r];
      for (int n = 0; n < padded(out); n += LANES) {
        store(by_weight + n, load(by_weight + n) + load(dy + n) * ((load(x + n) - mean) * inverse));
        store(by_bias + n, load(by_bias + n) + load(dy + n));
      }
    }
    if (target)
      target->with(in_stride, [&](auto end) {
        const float* weight = packed + weight_;
        for (int r = 0; r < rows; ++r) {
          const float *x = input + r * in_stride, *dy = by_output + r * out_stride;
          const float mean = outputs[means_ + r], inverse = outputs[inverses_ + r];
          const auto by_normal = [=](int n) { return load(dy + n) * load(weight + n); };
          const auto normal = [=](int n) { return (load(x + n) - mean) * inverse; };
          const float all = sum(by_normal) / out, along = sum([=](int n) { return by_normal(n) * normal(n); }) / out;
          for (int n = 0; n < padded(in); n += LANES)
            end(r, n, (by_normal(n) - all - normal(n) * along) * inverse);
        }
      });
  }

  void add_up(const float* gradients, float* sum) const override {
    for (int n = 0; n < out; ++n) sum[n] += gradients[weight_gradient_ + n];
    for (int n = 0; n < out; ++n) sum[out + n] += gradients[bias_gradient_ + n];
  }

 private:
  // Over the columns, of what `term(n)` gives for the columns from n.
  template <class Term>
  float sum(Term term) const {
    vec sums = {};
    int n = 0;
    for (; n + LANES <= out; n += LANES) sums += term(n);
    if (n < out) sums += first_lanes(term(n), out - n);
    return sum_of_lanes(sums);
  }

  const ptrdiff_t weight_, bias_, weight_gradient_, bias_gradient_;  // [out], each padded
  const ptrdiff_t means_, inverses_;                                 // [BLOCK], of the rows
};

}  // namespace esper
