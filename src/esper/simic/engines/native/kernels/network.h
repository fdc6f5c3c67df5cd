// A multilayer perceptron over blocks of rows: forward, and backward into gradient sums.
#pragma once
#include <cstring>
#include <vector>

#include "simd.h"

namespace esper {

// Rows that pass through a network together: their activations stay in the cache.
constexpr int BLOCK = 64;

enum Activation { TANH = 0, RELU = 1 };

// A linear layer: where its weight [out, in] and bias [out] are in the group's vector of parameters, and where its
// padded copies are in the buffers of a `Network`.
struct Layer {
  int in, out, in_stride, out_stride;
  ptrdiff_t weight, bias;
  ptrdiff_t packed = 0, packed_transposed = 0, packed_bias = 0;  // [out, in_stride], [in, out_stride], [out_stride]
  ptrdiff_t gradient = 0, gradient_bias = 0;                     // [out, in_stride], [out_stride]
  ptrdiff_t output = 0;                                          // [BLOCK, out_stride]
};

// The square of a tanh from 7.8 on. It never becomes 1 here, so its derivative is taken to be 0, as it is in torch from
// 9.1 on: a huge observation would multiply what is left of it.
constexpr float SATURATED = 0.9999993f;

class Network {
 public:
  std::vector<Layer> layers;
  Activation activation;
  size_t packed_size = 0, gradient_size = 0, output_size = 0;

  Network(const int* sizes, int count, const ptrdiff_t* weights, const ptrdiff_t* biases, Activation activation)
      : activation(activation) {
    for (int i = 0; i + 1 < count; ++i) {
      Layer l{sizes[i], sizes[i + 1], row_stride(sizes[i]), row_stride(sizes[i + 1]), weights[i], biases[i]};
      l.packed = take(packed_size, l.out * l.in_stride);
      l.packed_transposed = take(packed_size, l.in * l.out_stride);
      l.packed_bias = take(packed_size, l.out_stride);
      l.gradient = take(gradient_size, l.out * l.in_stride);
      l.gradient_bias = take(gradient_size, l.out_stride);
      l.output = take(output_size, BLOCK * l.out_stride);
      layers.push_back(l);
    }
  }

  int input_stride() const { return layers.front().in_stride; }
  int output_stride() const { return layers.back().out_stride; }

  // Copies a layer of `parameters` into `packed`, whose padding must be 0 already.
  void pack(const Layer& l, const float* parameters, float* packed) const {
    const float* weight = parameters + l.weight;
    for (int o = 0; o < l.out; ++o) {
      std::memcpy(packed + l.packed + o * l.in_stride, weight + o * l.in, l.in * sizeof(float));
      for (int i = 0; i < l.in; ++i) packed[l.packed_transposed + i * l.out_stride + o] = weight[o * l.in + i];
    }
    std::memcpy(packed + l.packed_bias, parameters + l.bias, l.out * sizeof(float));
  }

  void pack(const float* parameters, float* packed) const {
    for (const Layer& l : layers) pack(l, parameters, packed);
  }

  // Rows `x` [rows, in_stride] through all layers into `outputs`; returns the last one's [rows, output_stride].
  float* forward(const float* packed, const float* x, int rows, float* outputs) const {
    const float* input = x;
    int stride = input_stride();
    for (const Layer& l : layers) {
      float* output = outputs + l.output;
      const float* bias = packed + l.packed_bias;
      const auto begin = [=](int, int n) { return load(bias + n); };
      const auto multiply = [&](auto end) {
        product(rows, padded(l.out), l.in, input, stride, 1, packed + l.packed_transposed, l.out_stride, begin, end);
      };
      const int next = l.out_stride;
      if (&l == &layers.back())
        multiply([=](int m, int n, vec v) { store(output + m * next + n, v); });
      else if (activation == TANH)
        multiply([=](int m, int n, vec v) { store(output + m * next + n, tanh(v)); });
      else
        multiply([=](int m, int n, vec v) { store(output + m * next + n, v < 0.0f ? vec{} : v); });
      input = output;
      stride = next;
    }
    return outputs + layers.back().output;
  }

  // Adds to `gradients` those of the rows that went `forward`; the last output holds the gradients by it. Overwrites
  // the outputs.
  void backward(const float* packed, const float* x, int rows, float* outputs, float* gradients) const {
    for (size_t i = layers.size(); i-- > 0;) {
      const Layer& l = layers[i];
      const float* dy = outputs + l.output;
      float* input = i ? outputs + layers[i - 1].output : const_cast<float*>(x);
      float* dw = gradients + l.gradient;
      const int stride = l.in_stride;
      product(l.out, padded(l.in), rows, dy, 1, l.out_stride, input, stride,
              [=](int m, int n) { return load(dw + m * stride + n); },
              [=](int m, int n, vec v) { store(dw + m * stride + n, v); });
      float* db = gradients + l.gradient_bias;
      for (int n = 0; n < padded(l.out); n += LANES) {
        vec sum = load(db + n);
        for (int r = 0; r < rows; ++r) sum += load(dy + r * l.out_stride + n);
        store(db + n, sum);
      }
      if (i == 0) return;
      const auto begin = [](int, int) { return vec{}; };
      const auto multiply = [&](auto end) {
        product(rows, padded(l.in), l.out, dy, l.out_stride, 1, packed + l.packed, stride, begin, end);
      };
      // Each element is read for the derivative just before it is replaced by the gradient.
      if (activation == TANH)
        multiply([=](int m, int n, vec v) {
          const vec y = load(input + m * stride + n), squared = y * y;
          store(input + m * stride + n, squared > SATURATED ? vec{} : v - v * y * y);
        });
      else
        multiply([=](int m, int n, vec v) {
          const vec y = load(input + m * stride + n);
          store(input + m * stride + n, y > 0.0f ? v : vec{});
        });
    }
  }

 private:
  static ptrdiff_t take(size_t& size, size_t count) {
    const ptrdiff_t offset = size;
    size += (count + LANES - 1) / LANES * LANES;
    return offset;
  }
};

}  // namespace esper
