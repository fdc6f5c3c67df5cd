// Activations, with their derivatives by what a layer keeps of a row: its output, or where that does not say enough, the
// activation's input.
#pragma once
#include <cstdint>

#include "simd.h"

namespace esper {

struct Identity {
  static constexpr bool KEEPS_INPUT = false;
  static vec of(vec x) { return x; }
  static vec gradient(vec by_output, vec) { return by_output; }
};

struct Tanh {
  static constexpr bool KEEPS_INPUT = false;
  // The square of a tanh from 7.8 on. It never becomes 1 here, so its derivative is taken to be 0, as it is in torch
  // from 9.1 on: a huge observation would multiply what is left of it.
  static constexpr float SATURATED = 0.9999993f;

  static vec of(vec x) { return tanh(x); }
  static vec gradient(vec by_output, vec y) {
    const vec squared = y * y;
    return squared > SATURATED ? vec{} : by_output - by_output * y * y;
  }
};

struct Relu {
  static constexpr bool KEEPS_INPUT = false;
  static vec of(vec x) { return x < 0.0f ? vec{} : x; }
  static vec gradient(vec by_output, vec y) { return y > 0.0f ? by_output : vec{}; }
};

struct Elu {
  static constexpr bool KEEPS_INPUT = false;
  static vec of(vec x) { return x > 0.0f ? x : expm1(x); }
  static vec gradient(vec by_output, vec y) { return y > 0.0f ? by_output : by_output * y + by_output; }
};

struct Gelu {
  static constexpr bool KEEPS_INPUT = true;
  static constexpr float SQRT_HALF = 0.707106781186547524f, INVERSE_SQRT_TWO_PI = 0.398942280401432678f;

  static vec normal_cdf(vec x) { return erf(x * SQRT_HALF) * 0.5f + 0.5f; }
  static vec of(vec x) { return x * normal_cdf(x); }
  static vec gradient(vec by_output, vec x) {
    return by_output * (normal_cdf(x) + x * exp(x * x * -0.5f) * INVERSE_SQRT_TWO_PI);
  }
};

struct Silu {
  static constexpr bool KEEPS_INPUT = true;
  static vec of(vec x) { return x * sigmoid(x); }
  static vec gradient(vec by_output, vec x) {
    const vec s = sigmoid(x);
    return by_output * s * (x * (1.0f - s) + 1.0f);
  }
};

enum Activation : int32_t { IDENTITY, TANH, RELU, ELU, GELU, SILU };
constexpr const char* ACTIVATION_NAMES[] = {"identity", "tanh", "relu", "elu", "gelu", "silu"};

// What `use` returns for the activation of this number.
template <class Use>
inline auto with_activation(int32_t activation, Use use) {
  switch (activation) {
    case TANH: return use(Tanh{});
    case RELU: return use(Relu{});
    case ELU: return use(Elu{});
    case GELU: return use(Gelu{});
    case SILU: return use(Silu{});
    default: return use(Identity{});
  }
}

}  // namespace esper
